//! No verb: the failure as it happens, then where the exercise stands and what comes next.

use std::{sync::Arc, time::Duration};

use super::{
    check::next_lines,
    context::{Context, Ran, Refusal},
    hint,
    memory::Memory,
};
use crate::{
    experiment::Stage,
    report::{Standing, Subject, dim, text},
    runner::Session,
};

/// In-process variants are up at once; this is for a machine that is very busy.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &Context) -> Ran {
    let Context { kata, screen, .. } = context;
    // Before the services: a person must see at once that the right thing has begun.
    screen.line(context.headline("", kata.promise));
    let session: Arc<Session> = context.session(START_TIMEOUT).await?;
    screen.line(format!(
        "{} · seed {}\n",
        session.grounds().describe(),
        context.seed
    ));

    let stage = Stage::new(session, screen.clone());
    (kata.experiment)(stage.clone())
        .await
        .map_err(|error| Refusal::new(format!("The experiment could not go on: {error}")))?;

    let standing = stage.standing().await;
    let _ = Memory::of(kata.name).remember(hint::STANDING, standing);
    screen.print(&where_it_stands(context, standing));
    Ok(0)
}

fn where_it_stands(context: &Context, standing: &Standing) -> String {
    let Context { kata, screen, .. } = context;
    let mut out = format!(
        "Your exercise   {}   {} of {} done\n",
        standing.marks(),
        standing.done(),
        text::plural(standing.steps.len(), "step"),
    );
    if standing.untouched() {
        out.push_str(&dim(
            "○ = not started, which is how it ships: nothing is broken.\n",
        ));
    }
    out.push('\n');
    match standing.next() {
        Some(step) => {
            out.push_str(&next_lines(
                context,
                &Subject::Id(kata.exercise().id.to_owned()),
                step,
            ));
            out.push_str(&format!("       {}\n", context.command("check --watch")));
        }
        None => {
            let said = "every step is done. Why that can be trusted:";
            out.push_str(&text::hang("Done", said, 7, screen.columns()));
            out.push_str(&format!("       {}\n", context.command("matrix")));
        }
    }
    out.push_str(&format!(
        "       lesson: katas/{}/README.md, in Spanish README.es.md\n",
        kata.name
    ));
    out
}
