//! What the ledger must show, and what makes a run worthless.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io::Write;
use std::time::Duration;

use uuid::Uuid;

use crate::support::{Outcome, tests};

/// One effect; they come in the order in which they happened.
#[derive(Debug, Clone)]
pub(super) struct Effect {
    pub(super) message: Uuid,
    pub(super) key: String,
    pub(super) seq: i32,
}

/// One delivery into the hands of a handler.
#[derive(Debug, Clone)]
pub(super) struct Start {
    pub(super) message: Uuid,
    /// `done`, `known`, `failed`; `None` if its worker did not live to say.
    pub(super) came_to: Option<String>,
}

/// What a run was, and what came of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) broker: &'static str,
    pub(super) fault: &'static str,
    pub(super) seed: u64,
    pub(super) wanted: usize,
    pub(super) faults: usize,
    /// Faults that came while a handler was at work: when the killed worker, or any, had begun a
    /// delivery and not ended it.
    pub(super) hits: usize,
    /// Messages that the broker has said it has.
    pub(super) accepted: Vec<Uuid>,
    /// Those that fail whenever they are tried.
    pub(super) bad: HashSet<Uuid>,
    pub(super) effects: Vec<Effect>,
    pub(super) starts: Vec<Start>,
    pub(super) dead: Vec<Uuid>,
    /// What the broker still had when it was given up waiting for it to run empty.
    pub(super) left_over: Option<String>,
    pub(super) took: Duration,
}

/// A run, judged.
#[derive(Debug)]
pub(super) struct Report {
    run: Run,
    done: usize,
    dead: usize,
    lost: Vec<Uuid>,
    /// Good ones among the dead letters that never had their effect.
    given_up: Vec<Uuid>,
    twice: Vec<Uuid>,
    disorder: Vec<String>,
    /// Deliveries of a message whose effect had happened.
    again: usize,
    /// Deliveries whose worker did not live to say what they came to.
    interrupted: usize,
}

impl Report {
    pub(super) fn of(run: Run) -> Self {
        let accepted: BTreeSet<Uuid> = run.accepted.iter().copied().collect();
        let dead: BTreeSet<Uuid> = run.dead.iter().copied().collect();
        let mut effects: HashMap<Uuid, usize> = HashMap::new();
        let mut last: HashMap<&str, i32> = HashMap::new();
        let mut disorder = Vec::new();
        for effect in &run.effects {
            let count = effects.entry(effect.message).or_default();
            *count += 1;
            // A second effect is a fault of its own, and may well come out of order.
            if *count > 1 {
                continue;
            }
            let last = last.entry(&effect.key).or_insert(i32::MIN);
            if effect.seq < *last {
                disorder.push(format!("{}: {} after {last}", effect.key, effect.seq));
            }
            *last = effect.seq.max(*last);
        }
        let twice = effects.iter().filter(|(_, count)| **count > 1);
        let mut finished: HashSet<Uuid> = HashSet::new();
        let mut again = 0;
        for start in &run.starts {
            again += usize::from(finished.contains(&start.message));
            if start.came_to.as_deref() == Some("done") {
                finished.insert(start.message);
            }
        }
        Self {
            done: accepted
                .iter()
                .filter(|id| effects.contains_key(id))
                .count(),
            // A message that died after its effect is done.
            dead: accepted
                .iter()
                .filter(|id| dead.contains(id) && !effects.contains_key(id))
                .count(),
            lost: accepted
                .iter()
                .filter(|id| !effects.contains_key(id) && !dead.contains(id))
                .copied()
                .collect(),
            given_up: dead
                .iter()
                .filter(|id| !run.bad.contains(id) && !effects.contains_key(id))
                .copied()
                .collect(),
            twice: twice.map(|(id, _)| *id).collect(),
            disorder,
            again,
            interrupted: run
                .starts
                .iter()
                .filter(|start| start.came_to.is_none())
                .count(),
            run,
        }
    }

    pub(super) fn twice(&self) -> usize {
        self.twice.len()
    }

    pub(super) fn is_right(&self) -> bool {
        self.lost.is_empty()
            && self.given_up.is_empty()
            && self.twice.is_empty()
            && self.disorder.is_empty()
            && self.run.left_over.is_none()
    }

    /// Why the run shows nothing, if it does not.
    pub(super) fn inconclusive(&self) -> Option<String> {
        let run = &self.run;
        if run.faults < run.wanted {
            return Some(format!(
                "only {} of {} faults happened",
                run.faults, run.wanted
            ));
        }
        if run.hits == 0 {
            return Some(format!(
                "none of {} faults came while a job was running",
                run.faults
            ));
        }
        if self.done == 0 || self.dead == 0 {
            return Some(format!(
                "{} done and {} dead: no load",
                self.done, self.dead
            ));
        }
        None
    }

    /// Appends one line of JSON to the file that `KILLS_REPORT` names, for `scripts/kills`.
    pub(super) fn publish(&self) {
        let Some(path) = std::env::var_os("KILLS_REPORT") else {
            return;
        };
        let run = &self.run;
        let line = serde_json::json!({
            "broker": run.broker,
            "fault": run.fault,
            "faults": run.faults,
            "hits": run.hits,
            "accepted": run.accepted.len(),
            "done": self.done,
            "dead": self.dead,
            "again": self.again,
            "interrupted": self.interrupted,
            "lost": self.lost.len(),
            "given_up": self.given_up.len(),
            "twice": self.twice.len(),
            "disorder": self.disorder.len(),
            "seconds": run.took.as_secs_f64(),
            "seed": run.seed,
            "verdict": match (self.inconclusive().is_some(), self.is_right()) {
                (true, _) => "inconclusive",
                (false, true) => "right",
                (false, false) => "wrong",
            },
        });
        let file = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path);
        // One write, so that lines of trials side by side do not mix.
        file.unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.run;
        writeln!(
            f,
            "{}, {}: {} faults, {} of them while a job was running; accepted {}, done {}, dead {}, \
             delivered again {}, interrupted {}; {:.1} s; KATA_SEED={}",
            run.broker,
            run.fault,
            run.faults,
            run.hits,
            run.accepted.len(),
            self.done,
            self.dead,
            self.again,
            self.interrupted,
            run.took.as_secs_f64(),
            run.seed,
        )?;
        let some = |ids: &[Uuid]| format!("{} ({:?} …)", ids.len(), ids.first());
        if !self.lost.is_empty() {
            writeln!(f, "lost: {}", some(&self.lost))?;
        }
        if !self.given_up.is_empty() {
            writeln!(f, "good and given up: {}", some(&self.given_up))?;
        }
        if !self.twice.is_empty() {
            writeln!(f, "effect twice: {}", some(&self.twice))?;
        }
        if !self.disorder.is_empty() {
            let first: Vec<&str> = self.disorder.iter().take(10).map(String::as_str).collect();
            writeln!(
                f,
                "out of order: {} ({} …)",
                self.disorder.len(),
                first.join(", ")
            )?;
        }
        if let Some(left) = &run.left_over {
            writeln!(f, "never ran empty: {left}")?;
        }
        Ok(())
    }
}

tests![
    what_is_right_is_found_right,
    a_lost_message_is_found,
    a_good_message_that_was_given_up_is_found,
    a_second_effect_is_found,
    an_overtaken_message_is_found,
    a_run_without_a_fault_that_hit_shows_nothing,
];

/// Two keys, three messages each, the last of `a` dead; one fault that hit.
fn right() -> Run {
    let ids: Vec<Uuid> = (0..6).map(Uuid::from_u128).collect();
    let effect = |n: usize| Effect {
        message: ids[n],
        key: if n < 3 { "a" } else { "b" }.to_owned(),
        seq: i32::try_from(n % 3).unwrap(),
    };
    Run {
        wanted: 1,
        faults: 1,
        hits: 1,
        effects: [0, 3, 4, 1, 5].map(effect).to_vec(),
        dead: vec![ids[2]],
        bad: HashSet::from([ids[2]]),
        accepted: ids,
        ..Run::default()
    }
}

async fn what_is_right_is_found_right() -> Outcome {
    let report = Report::of(right());
    assert!(
        report.is_right() && report.inconclusive().is_none(),
        "{report}"
    );
    assert_eq!((report.done, report.dead), (5, 1));
    Ok(())
}

async fn a_lost_message_is_found() -> Outcome {
    for gone in 0..6 {
        let mut run = right();
        let id = run.accepted[gone];
        run.effects.retain(|effect| effect.message != id);
        run.dead.retain(|dead| *dead != id);
        let report = Report::of(run);
        assert!(!report.is_right(), "{report}");
        assert_eq!(report.lost, [id]);
    }
    Ok(())
}

async fn a_good_message_that_was_given_up_is_found() -> Outcome {
    let mut run = right();
    let given_up = run.effects.pop().unwrap().message;
    run.dead.push(given_up);
    let report = Report::of(run);
    assert!(!report.is_right() && report.lost.is_empty(), "{report}");
    assert_eq!(report.given_up, [given_up]);
    Ok(())
}

async fn a_second_effect_is_found() -> Outcome {
    let mut run = right();
    run.effects.push(run.effects[0].clone());
    let report = Report::of(run);
    assert!(!report.is_right() && report.disorder.is_empty(), "{report}");
    assert_eq!(report.twice, [Uuid::from_u128(0)]);
    Ok(())
}

async fn an_overtaken_message_is_found() -> Outcome {
    let mut run = right();
    run.effects.swap(0, 3);
    let report = Report::of(run);
    assert!(!report.is_right(), "{report}");
    assert_eq!(report.disorder, ["a: 0 after 1"]);
    Ok(())
}

async fn a_run_without_a_fault_that_hit_shows_nothing() -> Outcome {
    let without = |change: fn(&mut Run)| {
        let mut run = right();
        change(&mut run);
        Report::of(run).inconclusive().unwrap()
    };
    assert_eq!(without(|run| run.faults = 0), "only 0 of 1 faults happened");
    assert!(without(|run| run.hits = 0).contains("while a job was running"));
    assert!(without(|run| run.dead.clear()).contains("no load"));
    Ok(())
}
