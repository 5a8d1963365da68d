//! The verb `check`: a verdict for every check, printed as they come, then the evidence.

use std::{collections::BTreeMap, time::Instant};

use futures::StreamExt;

use super::{
    args::CheckArgs,
    context::{Context, Ran},
    judging::{Target, subject},
    memory::Memory,
    source,
};
use crate::{
    kata::{Check, Kata},
    report::{
        CheckList, Evidence, Record, Report, Standing, Subject, Summary, Table, dim, finding,
        reasons, summary, text,
    },
    verdict::VerdictKind,
};

pub(super) async fn run(context: &Context, args: &CheckArgs) -> Ran {
    let subject = subject(context, args)?;
    if !args.json {
        let about = match &subject {
            Subject::Id(id) => id,
            Subject::Command(line) => line,
            Subject::Url(url) => url,
        };
        let seed = format!("seed {}", context.seed);
        let headline = context.headline(&text::cut(&text::harmless(about), 40), &seed);
        context.screen.line(headline);
    }
    let target = Target::open(context, args, &subject).await?;
    let run = Run {
        context,
        args,
        subject: &subject,
    };
    match args.repeat {
        1 => run.once(&target).await,
        _ => run.often(&target).await,
    }
}

struct Run<'a> {
    context: &'a Context,
    args: &'a CheckArgs,
    subject: &'a Subject,
}

impl Run<'_> {
    async fn once(&self, target: &Target) -> Ran {
        let Self {
            context,
            args,
            subject,
        } = self;
        let screen = &context.screen;
        let checks = chosen(&context.kata, args.step);
        let mut list = CheckList::new(
            context.kata.steps.iter().map(|step| step.title),
            checks.iter().map(|(_, check)| check.name),
            screen.columns(),
        );
        let began = Instant::now();
        let progress = screen.progress(checks.len(), "checks");
        let mut verdicts = target.judge(checks, context.seed..context.seed + 1, &progress);
        let mut records = Vec::new();
        if !args.json {
            screen.line("");
        }
        while let Some(judged) = verdicts.next().await {
            let (_, record) = judged?;
            if !args.json {
                screen.print(&list.line(&record));
            }
            records.push(record);
        }
        drop(verdicts);
        drop(progress);
        let counts = Summary::of(&records, began.elapsed());
        remember(&context.kata, subject, &records);
        if args.json {
            let report = Report {
                kata: context.kata.name.to_owned(),
                variant: Subject::clone(subject),
                seed: context.seed,
                checks: records,
                summary: counts.clone(),
            };
            screen.line(serde_json::to_string(&report)?);
            return Ok(counts.exit_code());
        }
        screen.print(&summary(&counts));
        let found: Vec<_> = records
            .iter()
            .map(|record| (context.seed, record))
            .collect();
        self.show_findings(&found);
        let why = reasons(&records, screen.columns());
        if !why.is_empty() {
            screen.print(&format!("\n{}", why.trim_end_matches('\n')));
            screen.line("");
        }
        self.show_next(&records);
        Ok(counts.exit_code())
    }

    async fn often(&self, target: &Target) -> Ran {
        let Self { context, args, .. } = self;
        let screen = &context.screen;
        let checks = chosen(&context.kata, args.step);
        let seeds = context.seed..context.seed.saturating_add(u64::from(args.repeat));
        let began = Instant::now();
        let progress = screen.progress(checks.len() * args.repeat as usize, "checks");
        let mut verdicts = target.judge(checks.clone(), seeds, &progress);
        let mut runs: BTreeMap<u64, Vec<Record>> = BTreeMap::new();
        while let Some(judged) = verdicts.next().await {
            let (seed, record) = judged?;
            runs.entry(seed).or_default().push(record);
        }
        drop(verdicts);
        drop(progress);
        let counts = Summary::of(runs.values().flatten(), began.elapsed());
        if args.json {
            let runs: Vec<_> = runs
                .iter()
                .map(|(seed, checks)| {
                    let took = checks.iter().map(|record| record.seconds).sum();
                    let took = std::time::Duration::try_from_secs_f64(took).unwrap_or_default();
                    serde_json::json!({ "seed": seed, "checks": checks, "summary": Summary::of(checks, took) })
                })
                .collect();
            screen.line(serde_json::json!({
                "kata": context.kata.name,
                "variant": self.subject,
                "seed": context.seed,
                "repeat": args.repeat,
                "runs": runs,
                "summary": counts,
            }));
            return Ok(counts.exit_code());
        }
        screen.print(&format!(
            "\n{}",
            frequencies(&checks, &runs).render(screen.columns())
        ));
        screen.print(&format!(
            "\n{} runs, seeds {} to {}: {}",
            runs.len(),
            context.seed,
            context.seed + u64::from(args.repeat) - 1,
            summary(&counts)
        ));
        // One piece of evidence for each check is enough; its seed shows it again.
        let mut found: Vec<(u64, &Record)> = Vec::new();
        for (seed, records) in &runs {
            for record in records.iter().filter(|record| record.finding.is_some()) {
                if !found.iter().any(|(_, other)| other.name == record.name) {
                    found.push((*seed, record));
                }
            }
        }
        self.show_findings(&found);
        Ok(counts.exit_code())
    }

    fn show_findings(&self, found: &[(u64, &Record)]) {
        let screen = &self.context.screen;
        for (seed, record) in found {
            let Some(evidence) = &record.finding else {
                continue;
            };
            let check = self
                .context
                .kata
                .checks()
                .find(|(_, check)| check.name == record.name);
            let evidence = Evidence {
                name: &record.name,
                finding: evidence,
                think: check.map(|(_, check)| check.think).unwrap_or_default(),
                again: &again(self.context.kata.name, self.subject, record.step, *seed),
            };
            screen.print(&format!("\n{}", finding(evidence, screen.columns())));
        }
    }

    /// Where to go from here, for whoever works on an implementation of their own.
    fn show_next(&self, records: &[Record]) {
        let Context { kata, screen, .. } = self.context;
        if !is_own(kata, self.subject) {
            return;
        }
        let standing = Standing::of(records, kata.steps.len());
        let judged = |step: &usize| records.iter().any(|record| record.step == *step);
        let open = (1..=kata.steps.len()).find(|step| {
            judged(step) && standing.steps[step - 1] != crate::report::StepState::Done
        });
        let Some(step) = open else {
            if self.args.step.is_none() {
                screen.line(format!(
                    "\nDone: every promise holds. Why this verdict can be trusted:  {}",
                    self.context.command("matrix")
                ));
            }
            return;
        };
        if records
            .iter()
            .all(|record| record.verdict == VerdictKind::NotStarted)
        {
            // Red, or nothing at all, reads as a broken set-up to somebody who is new here.
            screen.line(dim(
                "○ = the code says so itself, with a todo!() or a 501. Nothing is broken.",
            ));
        }
        screen.print(&format!(
            "\n{}",
            next_lines(self.context, self.subject, step)
        ));
    }
}

/// The lines that lead to the next step.
pub(super) fn next_lines(context: &Context, subject: &Subject, step: usize) -> String {
    let kata = &context.kata;
    let title = kata
        .steps
        .get(step - 1)
        .map(|step| step.title)
        .unwrap_or_default();
    let place = match subject {
        Subject::Id(_) => format!(": {}", source::place_of_step(kata, step)),
        _ => String::new(),
    };
    let mut out = text::hang(
        "Next",
        &format!("step {step}, “{title}”{place}"),
        7,
        context.screen.columns(),
    );
    out.push_str(&format!(
        "       {}\n",
        context.command(&format!("hint {step}"))
    ));
    out
}

/// The checks of a step, or all.
pub(super) fn chosen(kata: &Kata, step: Option<usize>) -> Vec<(usize, Check)> {
    let wanted = |of: &usize| step.is_none_or(|step| step == *of);
    kata.checks()
        .filter(|(step, _)| wanted(step))
        .map(|(step, check)| (step, check.clone()))
        .collect()
}

/// The command that judges one step again.
pub(crate) fn again(kata: &str, subject: &Subject, step: usize, seed: u64) -> String {
    let what = match subject {
        Subject::Id(id) if id == "exercise" => String::new(),
        Subject::Id(id) => format!(" --variant {}", text::shell_word(id)),
        Subject::Command(line) => format!(" --cmd {}", text::shell_word(line)),
        Subject::Url(url) => format!(" --url {}", text::shell_word(url)),
    };
    super::command(kata, &format!("check{what} --step {step} --seed {seed}"))
}

/// Whether this is the learner's own work, in whatever language.
fn is_own(kata: &Kata, subject: &Subject) -> bool {
    !matches!(subject, Subject::Id(id) if id != kata.exercise().id)
}

/// Keeps what was seen for `hint`; a run of one step leaves the others as they were.
fn remember(kata: &Kata, subject: &Subject, records: &[Record]) {
    if !is_own(kata, subject) {
        return;
    }
    let memory = Memory::of(kata.name);
    let seen = Standing::of(records, kata.steps.len());
    let mut standing = memory
        .recall::<Standing>(super::hint::STANDING)
        .unwrap_or_default();
    standing
        .steps
        .resize(kata.steps.len(), crate::report::StepState::NotStarted);
    for record in records {
        if let Some(step) = record
            .step
            .checked_sub(1)
            .filter(|step| *step < standing.steps.len())
        {
            standing.steps[step] = seen.steps[step];
        }
    }
    // Only a convenience: the verdict stands without it.
    let _ = memory.remember(super::hint::STANDING, &standing);
}

/// How often each check had which verdict; kinds that never came have no column.
fn frequencies(checks: &[(usize, Check)], runs: &BTreeMap<u64, Vec<Record>>) -> Table {
    let kinds = [
        VerdictKind::Passed,
        VerdictKind::Failed,
        VerdictKind::NotStarted,
        VerdictKind::Inconclusive,
        VerdictKind::NotRun,
    ];
    let of = |name: Option<&str>, kind: VerdictKind| {
        let all = runs.values().flatten();
        all.filter(|r| r.verdict == kind && name.is_none_or(|name| r.name == name))
            .count()
    };
    let shown: Vec<_> = kinds
        .into_iter()
        .filter(|kind| *kind == VerdictKind::Passed || of(None, *kind) > 0)
        .collect();
    let mut table = Table::new(
        std::iter::once("check".to_owned()).chain(shown.iter().map(ToString::to_string)),
    );
    for (_, check) in checks {
        let counts = shown
            .iter()
            .map(|kind| of(Some(check.name), *kind).to_string());
        table.row(std::iter::once(check.name.to_owned()).chain(counts));
    }
    table
}
