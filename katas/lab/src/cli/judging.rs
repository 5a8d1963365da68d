//! Judging one implementation, wherever that happens: here, or in the process of `env`.

use std::{ops::Range, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream, stream::BoxStream};

use super::{
    args::CheckArgs,
    context::{Context, Ran, Refusal},
    desk,
};
use crate::{
    implementation::{Implementation, StartError},
    kata::Check,
    report::{Progress, Record, Subject, text},
    runner::{Preflight, Session},
};

/// What is judged, ready to be.
pub(super) enum Target {
    /// The lab starts and ends it.
    Ours(Arc<Session>, Implementation),
    /// It runs already, in the place that an open `env` holds.
    There(desk::Client),
}

/// An outcome and the seed of the run that it belongs to.
pub(super) type Judged = Ran<(u64, Record)>;

/// What a command line names, checked for existence only.
pub(super) fn subject(context: &Context, args: &CheckArgs) -> Ran<Subject> {
    if let Some(step) = args.step {
        context.step_exists(step)?;
    }
    Ok(match (&args.cmd, &args.url) {
        (Some(line), _) if line.trim().is_empty() => {
            return Err(Refusal::new(
                "--cmd is empty: name the command that starts your program, for example --cmd \"node server.js\".",
            ));
        }
        (Some(line), _) => Subject::Command(line.clone()),
        (_, Some(url)) => Subject::Url(url.clone()),
        _ => Subject::Id(context.variant(&args.variant)?.id.to_owned()),
    })
}

impl Target {
    /// Opens what is needed, and starts the implementation once, so that what cannot start is said
    /// once and not by every check.
    pub(super) async fn open(context: &Context, args: &CheckArgs, subject: &Subject) -> Ran<Self> {
        let implementation = match subject {
            Subject::Url(url) => {
                let client = desk::Client::connect(context, url, args.start_timeout).await?;
                return Ok(Target::There(client));
            }
            Subject::Command(line) => {
                let directory = std::env::current_dir().map_err(|error| {
                    Refusal::new(format!("The current folder is gone: {error}"))
                })?;
                Implementation::Command {
                    line: line.clone(),
                    directory,
                }
            }
            Subject::Id(id) => Implementation::in_process(context.variant(id)?),
        };
        let session = context.session(args.start_timeout()).await?;
        let starting = context.screen.waiting("it is starting");
        let up = session.preflight(&implementation).await;
        drop(starting);
        match up {
            // Every check says the same then, and that is the verdict.
            Ok(())
            | Err(Preflight {
                why: StartError::NotStarted(_),
                ..
            }) => {}
            Err(preflight) => {
                return Err(not_up(
                    &implementation,
                    preflight,
                    args.start_timeout(),
                    context,
                ));
            }
        }
        Ok(Target::Ours(session, implementation))
    }

    /// Judges it by these checks once for each seed; the outcomes come in this order.
    pub(super) fn judge<'a>(
        &'a self,
        checks: Vec<(usize, Check)>,
        seeds: Range<u64>,
        progress: &'a Progress,
    ) -> BoxStream<'a, Judged> {
        match self {
            Target::Ours(session, implementation) => {
                outcomes(session, implementation, checks, seeds, progress)
                    .map(Ok)
                    .boxed()
            }
            Target::There(client) => client.judge(checks, seeds, progress).boxed(),
        }
    }
}

/// Judges in this process, as many at once as the session lets.
pub(super) fn outcomes<'a>(
    session: &'a Session,
    implementation: &'a Implementation,
    checks: Vec<(usize, Check)>,
    seeds: Range<u64>,
    progress: &'a Progress,
) -> impl Stream<Item = (u64, Record)> + Send + 'a {
    // Enough that a slow check does not keep the others from starting.
    let ahead = checks.len().max(64);
    let jobs: Vec<_> = seeds
        .flat_map(|seed| checks.clone().into_iter().map(move |check| (seed, check)))
        .collect();
    stream::iter(jobs)
        .map(move |(seed, (step, check))| async move {
            let session = session.with_seed(seed);
            let record = Record::from(session.check(implementation, step, check).await);
            progress.step();
            (seed, record)
        })
        .buffered(ahead)
}

/// One message for something that does not come up.
pub(super) fn not_up(
    implementation: &Implementation,
    preflight: Preflight,
    timeout: Duration,
    context: &Context,
) -> Refusal {
    let Preflight { why, output } = preflight;
    let advice = match implementation {
        Implementation::Command { directory, .. } => format!(
            "It is run by `sh -c` in {} with PORT and the other variables of the contract. \
             It must listen on 127.0.0.1:$PORT and answer GET /health with 200 within {} s (--start-timeout).\n\
             What it must offer:       {}\n\
             The same variables, to try it by hand:  {}",
            directory.display(),
            timeout.as_secs(),
            context.command("contract"),
            context.command("env"),
        )
        .replace("\nWhat it must offer:       ", "\nWhat it must offer:\n  ")
        .replace("by hand:  ", "by hand:\n  "),
        Implementation::Url { address } => format!(
            "Start your program with the variables that `env` printed; it must answer GET http://{address}/health with 200."
        ),
        Implementation::InProcess { label, .. } if label == context.kata.exercise().id => {
            format!("Nothing can be judged before it starts. Its code is in {}.", context.kata.exercise_file)
        }
        Implementation::InProcess { .. } => "Nothing can be judged before it starts.".to_owned(),
    };
    let what = match implementation {
        Implementation::InProcess { label, .. } => format!("{label} does not start: {why}"),
        Implementation::Command { .. } | Implementation::Url { .. } => why.to_string(),
    };
    Refusal {
        message: format!("{}\n{advice}", text::harmless(&what)),
        output,
    }
}
