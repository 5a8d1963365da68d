//! The verb `serve`: a variant to be tried by hand, with its services and fakes.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    args::ServeArgs,
    context::{Context, Ran, Refusal},
};
use crate::{
    implementation::Implementation,
    report::{dim, text},
    verdict::Stop,
};

const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &Context, args: &ServeArgs) -> Ran {
    let Context { kata, screen, .. } = context;
    let variant = context.variant(&args.variant)?;
    if let Some(port) = args.port {
        port_is_free(port)?;
    }
    screen.line(context.headline(&variant.label(), "Ctrl-C ends it"));
    let session = context.session(START_TIMEOUT).await?;
    let implementation = Implementation::in_process(variant);
    let lab = match kata.given.replica {
        true => session.lab_with_replica(&implementation, "serve").await,
        false => session.lab(&implementation, "serve").await,
    };
    let lab = lab.map_err(|stop| stopped(*stop))?;
    if let Some(port) = args.port {
        lab.prefer("PORT", u64::from(port));
    }
    let instance = lab.start().await.map_err(|stop| stopped(*stop))?;
    let url = instance.url();

    screen.line(format!(
        "{} · seed {}\n",
        session.grounds().describe(),
        context.seed
    ));
    let mut lines = vec![(variant.id.to_owned(), url.clone())];
    let world = lab.place().env(instance.fronts());
    for (name, address) in world.iter().filter(|(name, _)| name.ends_with("_URL")) {
        lines.push((name.to_owned(), address.to_owned()));
    }
    lines.extend(lab.settings().iter().filter_map(|setting| {
        let (name, value) = setting.split_once('=')?;
        (name != "PORT").then(|| (name.to_owned(), value.to_owned()))
    }));
    let widest = lines
        .iter()
        .map(|(name, _)| text::width(name))
        .max()
        .unwrap_or_default();
    for (name, value) in &lines {
        screen.line(format!("  {}  {value}", text::pad(name, widest)));
    }
    if !kata.curl.is_empty() {
        screen.line(dim("\nTry it in another terminal:\n"));
        for line in kata.curl {
            // Flush left and as they are: they are there to be pasted.
            screen.line(line.replace("$URL", &url));
        }
    }
    std::future::pending().await
}

/// A port that somebody else has is said before anything is started.
pub(super) fn port_is_free(port: u16) -> Ran<()> {
    match std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(Refusal::new(format!(
            "Port {port} on 127.0.0.1 cannot be used: {error}.\nName another one with --port, or leave it out for a free one."
        ))),
    }
}

fn stopped(stop: Stop) -> Refusal {
    Refusal::new(match stop {
        Stop::NotStarted(what) => format!(
            "This variant is not started: {what}.\nServe the reference instead, with --variant reference."
        ),
        Stop::Failed { saw, .. } => format!("It does not start: {saw}"),
        Stop::Inconclusive(why) | Stop::NotRun(why) => why,
    })
}
