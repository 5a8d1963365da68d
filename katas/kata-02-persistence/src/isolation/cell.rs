//! What a run says about an anomaly at a level.

use super::{
    engine::{Run, Seen, play},
    script::{Anomaly, Evidence, Script},
    server::{LabError, Level, Server},
    session::Answer,
};

/// Whether it happened, and what kept it from happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did.
    Happens,
    /// A transaction was refused with this code.
    Refused(String),
    /// A statement had to wait, and then all was well.
    Waits,
    /// Nobody waited and nobody was refused: the reads showed an older state.
    Hidden,
}

/// One anomaly at one level.
#[derive(Debug, Clone)]
pub struct Cell {
    /// Each script with its run and verdict.
    pub runs: Vec<(&'static Script, Run, Verdict)>,
}

impl Cell {
    /// Plays all scripts of an anomaly.
    ///
    /// # Errors
    /// As [`play`].
    pub async fn measure(
        server: &Server,
        anomaly: &Anomaly,
        level: Level,
    ) -> Result<Self, LabError> {
        let mut runs = Vec::new();
        for script in anomaly.scripts {
            let run = play(server, script, level).await?;
            let verdict = judge(script, &run);
            runs.push((script, run, verdict));
        }
        Ok(Self { runs })
    }

    /// The cell in a word; `by a write` if only such a script makes it happen.
    pub fn word(&self) -> String {
        let happens = |(_, _, verdict): &(_, _, Verdict)| *verdict == Verdict::Happens;
        match self.runs.iter().find(|run| happens(run)) {
            Some((script, ..)) if !self.runs.iter().all(happens) => script.way.to_owned(),
            Some(_) => "happens".to_owned(),
            // What it took at most.
            None => {
                let verdicts = self.runs.iter().map(|(_, _, verdict)| verdict);
                let hardest = verdicts.max_by_key(|verdict| match verdict {
                    Verdict::Refused(_) => 2,
                    Verdict::Waits => 1,
                    Verdict::Hidden | Verdict::Happens => 0,
                });
                hardest.map(Verdict::word).unwrap_or_default()
            }
        }
    }
}

impl Verdict {
    /// In a word; the code of a refusal.
    pub fn word(&self) -> String {
        match self {
            Self::Happens => "happens".to_owned(),
            Self::Refused(code) => code.clone(),
            Self::Waits => "waits".to_owned(),
            Self::Hidden => "hidden".to_owned(),
        }
    }
}

/// Judges a run by what its script calls evidence.
pub fn judge(script: &Script, run: &Run) -> Verdict {
    let holds = |evidence: &Evidence| match evidence {
        Evidence::Saw(step, text) => run.answer(*step).is_some_and(|seen| seen.text() == *text),
        Evidence::Ends(rows) => run.ends == *rows,
        Evidence::Committed(session) => committed(script, run, *session),
    };
    if script.happened.iter().any(|all| all.iter().all(holds)) {
        return Verdict::Happens;
    }
    let refused = run.events.iter().find_map(|event| match &event.seen {
        Seen::Answered(Answer::Refused { code, .. })
        | Seen::GoesOn(Answer::Refused { code, .. }) => Some(code.clone()),
        _ => None,
    });
    match refused {
        Some(code) => Verdict::Refused(code),
        None if run.events.iter().any(|event| event.seen == Seen::Waits) => Verdict::Waits,
        None => Verdict::Hidden,
    }
}

fn committed(script: &Script, run: &Run, session: usize) -> bool {
    let mut steps = script.steps.iter().enumerate();
    let commit = steps.find(|(_, step)| step.by == session && step.sql == "commit");
    commit.is_some_and(|(index, _)| matches!(run.answer(index), Some(Answer::Done(_))))
}
