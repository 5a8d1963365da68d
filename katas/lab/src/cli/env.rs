//! The verb `env`: a place for a program that somebody else starts, in a debugger perhaps.
//!
//! The fakes live in this process, so the judging of `check --url` happens here too: see
//! [`desk`](super::desk).

use std::{sync::Arc, time::Duration};

use super::{
    args::{EnvArgs, Format},
    context::{Context, Ran, Refusal},
    desk, serve,
};
use crate::{
    app::Env,
    grounds::Grounds,
    history::History,
    implementation::free_port,
    place::Place,
    replica::Lease,
    report::{Screen, text},
    runner::Session,
    verdict::Stop,
};

pub(super) async fn run(context: &Context, args: &EnvArgs) -> Ran {
    let Context {
        kata, screen, seed, ..
    } = context;
    // What is said goes to standard error, so that standard output is the variables and nothing
    // else: `env --format dotenv > .env` is how some will use it.
    let aside = Screen::stderr();
    let port = match args.port {
        Some(port) => serve::port_is_free(port).map(|()| port)?,
        None => free_port()?,
    };
    desk::refuse_second(context).await?;
    aside.line(context.headline("an environment for your program", "Ctrl-C ends it"));
    let grounds = context.grounds().await?.clone();
    let lease = match kata.given.replica {
        true => replica(&grounds, &aside).await,
        false => None,
    };
    let mut place = Place::open(&grounds, &kata.given, lease, &History::new())
        .await
        .map_err(|stop| match *stop {
            Stop::Inconclusive(why) | Stop::NotRun(why) | Stop::NotStarted(why) => {
                Refusal::new(why)
            }
            Stop::Failed { saw, .. } => Refusal::new(saw),
        })?;
    let fronts = place.open_fronts(false)?;
    let mut env = place.env(&fronts);
    env.set("PORT", port);
    for (name, value) in kata.given.variables {
        env.set(*name, value);
    }
    place.standing = Some(fronts);
    let place = Arc::new(place);
    let session = Session::new(
        kata.clone(),
        grounds.clone(),
        *seed,
        Duration::from_secs(60),
    );
    let _desk = desk::Desk::open(context, session.in_place(place.clone()), place).await?;

    aside.line(format!("{}\n", grounds.describe()));
    screen.print(&written(&env, args.format)?);
    aside.line(format!(
        "\nStart your program with these, then, in another terminal:\n\n  {}\n",
        context.command(&format!("check --url http://127.0.0.1:{port}"))
    ));
    std::future::pending().await
}

/// A replica for the program, or word that there is none: most checks need none.
async fn replica(grounds: &Grounds, aside: &Screen) -> Option<Arc<Lease>> {
    match grounds.pair().await {
        Ok(lease) => Some(lease),
        Err(stop) => {
            if let Stop::Inconclusive(why) | Stop::NotRun(why) = *stop {
                aside.line(format!("REPLICA_URL is not set: {why}\n"));
            }
            None
        }
    }
}

/// The variables in a form that something can read.
fn written(env: &Env, format: Format) -> Ran<String> {
    let lines = |line: &dyn Fn(&str, &str) -> String| env.iter().map(|(n, v)| line(n, v)).collect();
    Ok(match format {
        Format::Export => {
            lines(&|name, value| format!("export {name}={}\n", text::shell_word(value)))
        }
        Format::Dotenv => lines(&|name, value| format!("{name}={}\n", dotenv_value(value))),
        Format::Json => {
            let all: serde_json::Map<_, _> = env
                .iter()
                .map(|(name, value)| (name.to_owned(), value.into()))
                .collect();
            format!("{}\n", serde_json::to_string_pretty(&all)?)
        }
    })
}

/// Bare where every reader agrees, else in double quotes, which every reader knows.
fn dotenv_value(value: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,?&".contains(c);
    if value.chars().all(bare) {
        return value.to_owned();
    }
    let escaped = value
        .replace('\\', r"\\")
        .replace('"', "\\\"")
        .replace('\n', r"\n")
        .replace('$', r"\$");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_says_the_same() {
        let mut env = Env::new();
        env.set(
            "DATABASE_URL",
            "postgres://a:b@127.0.0.1:1/c?sslmode=disable",
        )
        .set("PORT", 20_000);
        assert_eq!(
            written(&env, Format::Export).unwrap(),
            "export DATABASE_URL='postgres://a:b@127.0.0.1:1/c?sslmode=disable'\nexport PORT=20000\n"
        );
        assert_eq!(
            written(&env, Format::Dotenv).unwrap(),
            "DATABASE_URL=postgres://a:b@127.0.0.1:1/c?sslmode=disable\nPORT=20000\n"
        );
        let json: serde_json::Value =
            serde_json::from_str(&written(&env, Format::Json).unwrap()).unwrap();
        assert_eq!(json["PORT"], "20000");
    }
}
