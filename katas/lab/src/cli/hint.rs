//! The verb `hint`: one more stage each time it is asked.

use std::collections::BTreeMap;

use super::{
    args::HintArgs,
    context::{Context, Ran, Refusal},
    memory::Memory,
};
use crate::{
    kata::{Kata, Kind},
    report::{Standing, hint, text},
};

/// Where the last `check` is remembered.
pub(super) const STANDING: &str = "standing";

/// Where the stages are remembered: how many were shown, for each step.
const HINTS: &str = "hints";

/// Each step has three.
const STAGES: usize = 3;

pub(super) fn run(context: &Context, args: &HintArgs) -> Ran {
    let Context { kata, screen, .. } = context;
    let memory = Memory::of(kata.name);
    let step = match args.step {
        Some(step) => step,
        None => match memory.recall::<Standing>(STANDING) {
            Some(standing) => standing.next().unwrap_or(kata.steps.len()),
            None => 1,
        },
    };
    context.step_exists(step)?;
    let mut shown: BTreeMap<usize, usize> = memory.recall(HINTS).unwrap_or_default();
    let stage = match args.again {
        true => 0,
        false => shown.get(&step).copied().unwrap_or_default(),
    };
    screen.print(&said(kata, step, stage, screen.columns()));
    shown.insert(step, (stage + 1).min(STAGES));
    memory.remember(HINTS, &shown).map_err(|error| {
        Refusal::new(format!(
            "The next call will show this hint again: how far you are cannot be kept below {}: {error}.",
            shared::services::target_folder().display()
        ))
    })?;
    Ok(0)
}

/// The stage, or that there is none left.
fn said(kata: &Kata, step: usize, stage: usize, columns: usize) -> String {
    let of = &kata.steps[step - 1];
    if stage < STAGES {
        let again = super::command(kata.name, &format!("hint {step}"));
        return hint(of, step, stage, &again, columns);
    }
    let mut out = text::hang(&format!("step {step}  "), of.title, 8, columns);
    out.push_str("All three hints of this step are given.\n\n");
    out.push_str(&format!(
        "from the first   {}\n",
        super::command(kata.name, &format!("hint {step} --again"))
    ));
    out.push_str(&format!("a solution       {}\n", reference_file(kata)));
    out
}

/// The reference is a file or a folder beside the exercise.
fn reference_file(kata: &Kata) -> String {
    let id = kata
        .variants
        .iter()
        .find(|v| v.kind == Kind::Reference)
        .map_or("reference", |v| v.id);
    let id = id.replace('-', "_");
    let folder = kata
        .exercise_file
        .rsplit_once('/')
        .map_or("src", |(folder, _)| folder);
    let file = format!("{folder}/variants/{id}.rs");
    let exists = super::source::root(kata).is_some_and(|root| root.join(&file).is_file());
    if exists {
        file
    } else {
        format!("{folder}/variants/{id}/")
    }
}
