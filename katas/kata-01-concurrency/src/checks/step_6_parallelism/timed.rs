//! How long two digests take, for programs whose threads cannot be looked at.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use kata_lab::{Instance, Judged, Lab, Promise, Stop};

use super::{digests_of, request, rounds_for, time};

/// Two digests at once take clearly less time than one with twice the rounds: that is as much to
/// compute, and can have one core only.
///
/// Rounds won in a row are enough to pass. Else there are witnesses: what the lab's own threads cannot
/// have, the program cannot have either. So before and after each round, two of them do the same;
/// where they do not win, two cores were not to be had, and the round does not count. To fail takes
/// more: rounds lost in a row, and not one between them that did not count. On a busy machine two
/// cores come and go, and may well have been gone in the middle.
///
/// Short digests need two cores for moments only; longer ones, on a busy machine, meet whatever else
/// it does on average.
pub(super) async fn judged(lab: &Lab, program: &Instance) -> Judged<String> {
    const SHORT: Duration = Duration::from_millis(5);
    const WITHOUT_WITNESS: usize = 20;
    const LONGER: u64 = 2;
    const LONGER_ONES: usize = 30;
    const LONG: u64 = 8;
    const PATIENCE: Duration = Duration::from_secs(120);
    let mut contest = Contest {
        promise: Promise::new(
            "2 × POST /digests at once, and one with twice the rounds, again and again",
            "the two take clearly less time, since each has a core",
        ),
        lab,
        program,
        rounds: rounds_for(lab, program, SHORT).await?,
        witness: Witness::calibrated(SHORT),
        two_cores: false,
        ahead: 0,
        won_in_a_row: 0,
        lost_in_a_row: 0,
        ratios: Vec::new(),
    };
    for _ in 0..WITHOUT_WITNESS {
        let (two, twice) = contest.measured().await?;
        contest.count(two, twice);
        if contest.won_in_a_row >= Contest::ENOUGH {
            return Ok(contest.saw());
        }
    }
    contest.longer(LONGER);
    for _ in 0..LONGER_ONES {
        contest.round().await?;
        if let Some(verdict) = contest.verdict() {
            return verdict;
        }
    }
    contest.longer(LONG / LONGER);
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        contest.round().await?;
        if let Some(verdict) = contest.verdict() {
            return verdict;
        }
    }
    Stop::inconclusive(
        "the machine has something else to do: two threads of the lab's own were no faster than one",
    )
}

/// Two at once against one with twice the rounds.
struct Contest<'a> {
    promise: Promise,
    lab: &'a Lab,
    program: &'a Instance,
    rounds: u64,
    witness: Witness,
    /// What the witness saw last.
    two_cores: bool,
    /// How many more of the rounds that count the two have won than lost.
    ahead: i32,
    won_in_a_row: i32,
    lost_in_a_row: i32,
    ratios: Vec<f64>,
}

impl Contest<'_> {
    /// What is no chance any more.
    const ENOUGH: i32 = 8;

    async fn round(&mut self) -> Judged {
        let before = self.two_cores;
        let (two, twice) = self.measured().await?;
        self.two_cores = self.witness.has_two_cores().await;
        if before && self.two_cores {
            self.count(two, twice);
        } else {
            self.lost_in_a_row = 0;
        }
        Ok(())
    }

    async fn measured(&self) -> Judged<(Duration, Duration)> {
        let two = time_of_two(self.lab, self.program, self.rounds, &self.promise).await?;
        let twice = time(self.lab, self.program, 2 * self.rounds).await?;
        Ok((two, twice))
    }

    fn count(&mut self, two: Duration, twice: Duration) {
        self.ratios.push(two.as_secs_f64() / twice.as_secs_f64());
        if clearly_less(two, twice) {
            self.ahead += 1;
            self.won_in_a_row += 1;
            self.lost_in_a_row = 0;
        } else {
            self.ahead -= 1;
            self.won_in_a_row = 0;
            self.lost_in_a_row += 1;
        }
    }

    fn verdict(&self) -> Option<Judged<String>> {
        if self.ahead >= Self::ENOUGH {
            return Some(Ok(self.saw()));
        }
        (self.lost_in_a_row >= Self::ENOUGH).then(|| self.promise.broken(self.saw()))
    }

    fn saw(&self) -> String {
        let mut ratios = self.ratios.clone();
        ratios.sort_by(f64::total_cmp);
        let median = ratios.get(ratios.len() / 2).copied().unwrap_or(f64::NAN);
        format!("two at once took {median:.2} times as long as one with twice the rounds")
    }

    /// Begins again, with digests that are longer by a factor.
    fn longer(&mut self, factor: u64) {
        self.rounds *= factor;
        self.witness.turns *= factor;
        self.two_cores = false;
        self.ahead = 0;
        self.won_in_a_row = 0;
        self.lost_in_a_row = 0;
        self.ratios.clear();
    }
}

/// Two threads of one core that share its units are faster than one, though not by much.
fn clearly_less(two: Duration, twice: Duration) -> bool {
    two < twice.mul_f64(0.85)
}

/// Threads of the lab's own that have nothing to do but to compute.
#[derive(Debug)]
struct Witness {
    turns: u64,
}

impl Witness {
    /// As much work as keeps a thread busy for about so long.
    fn calibrated(spins: Duration) -> Self {
        let mut turns = 1 << 14;
        while spin(turns) < spins / 2 {
            turns *= 2;
        }
        Self { turns: 2 * turns }
    }

    /// Whether two threads at once take clearly less time than one that does the work of both.
    async fn has_two_cores(&self) -> bool {
        let turns = self.turns;
        let measured = tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(move || spin(turns));
                spin(turns);
            });
            (began.elapsed(), spin(2 * turns))
        });
        let measured = measured.await;
        measured.is_ok_and(|(two, twice)| clearly_less(two, twice))
    }
}

fn spin(turns: u64) -> Duration {
    let began = Instant::now();
    let mut state = 1_u64;
    for _ in 0..turns {
        state = black_box(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1),
        );
    }
    began.elapsed()
}

async fn time_of_two(lab: &Lab, at: &Instance, rounds: u64, promise: &Promise) -> Judged<Duration> {
    let began = Instant::now();
    let mut pair = [0, 1].map(|_| request(lab, at, rounds).spawn());
    digests_of(&mut pair, promise).await?;
    Ok(began.elapsed())
}
