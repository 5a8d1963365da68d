//! Lease and fencing against a model: random histories of three actors on one key, on the real
//! tables. The model says what each step has to answer. Stores that are broken in one way each show
//! that it notices.
//!
//! Each step is one statement and so cannot be torn apart; what several actors can do to each other
//! is the order of their steps, and that is what is drawn. Time passes by moving the rows into the
//! past.

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use shared::idempotency::{Claim, Keys, Terms, Token, clean_up};
use tokio::runtime::Handle;

use super::keys::answer;
use super::{Database, key, request, scope};
use crate::support::{End, Outcome, tests};

tests![
    random_histories_go_as_the_model_says,
    an_answer_without_fencing_is_noticed,
    a_renewal_without_fencing_is_noticed,
    a_release_without_fencing_is_noticed,
    a_claim_that_ignores_the_lease_is_noticed,
    a_claim_that_ignores_the_fingerprint_is_noticed,
    a_claim_that_forgets_answers_is_noticed,
    tokens_that_begin_again_are_noticed,
    a_clean_up_that_ignores_leases_is_noticed,
];

const LEASE: u64 = 1_000;
const TTL: u64 = 5_000;

/// In seconds, and far apart: what really passes during a history changes no answer.
#[derive(Debug, Clone, Copy)]
enum Step {
    Claim { actor: usize, request: bool },
    Renew { actor: usize },
    Complete { actor: usize },
    Release { actor: usize },
    Pass { seconds: u64 },
    CleanUp,
}

fn step() -> impl Strategy<Value = Step> {
    let actor = || 0..3_usize;
    prop_oneof![
        4 => (actor(), any::<bool>()).prop_map(|(actor, request)| Step::Claim { actor, request }),
        2 => actor().prop_map(|actor| Step::Renew { actor }),
        2 => actor().prop_map(|actor| Step::Complete { actor }),
        2 => actor().prop_map(|actor| Step::Release { actor }),
        3 => prop_oneof![3 => Just(1_300), 1 => Just(400),
                         1 => Just(5_300)]
            .prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::CleanUp),
    ]
}

/// What a step answers. Claims are numbered in the order in which they succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Fresh,
    Replay(usize),
    InFlight,
    Mismatch,
    /// Of renew, complete and release.
    WasOurs(bool),
    Removed(u64),
    Nothing,
}

/// The key as it should be.
#[derive(Debug, Default)]
struct Model {
    now: u64,
    row: Option<Row>,
    claims: usize,
    /// The latest claim of each actor.
    held: HashMap<usize, usize>,
}

#[derive(Debug)]
struct Row {
    request: bool,
    claim: usize,
    locked_until: u64,
    expires_at: u64,
    is_answered: bool,
}

impl Model {
    fn take(&mut self, step: Step) -> Seen {
        let now = self.now;
        match step {
            Step::Claim { actor, request } => {
                if let Some(row) = &self.row {
                    let is_over = row.expires_at <= now;
                    let is_left = !row.is_answered && row.locked_until <= now;
                    if !is_over && row.request != request {
                        return Seen::Mismatch;
                    }
                    if !is_over && row.is_answered {
                        return Seen::Replay(row.claim);
                    }
                    if !is_over && !is_left {
                        return Seen::InFlight;
                    }
                }
                self.claims += 1;
                self.held.insert(actor, self.claims);
                self.row = Some(Row {
                    request,
                    claim: self.claims,
                    locked_until: now + LEASE,
                    expires_at: now + TTL,
                    is_answered: false,
                });
                Seen::Fresh
            }
            Step::Renew { actor } => self.if_ours(actor, |row| {
                row.locked_until = now + LEASE;
                row.expires_at = row.expires_at.max(row.locked_until);
            }),
            Step::Complete { actor } => self.if_ours(actor, |row| {
                row.is_answered = true;
                row.locked_until = now;
                row.expires_at = now + TTL;
            }),
            Step::Release { actor } => {
                let seen = self.if_ours(actor, |_| {});
                if seen == Seen::WasOurs(true) {
                    self.row = None;
                }
                seen
            }
            Step::Pass { seconds } => {
                self.now += seconds;
                Seen::Nothing
            }
            Step::CleanUp => {
                let removed = self.row.take_if(|row| row.expires_at <= now);
                Seen::Removed(removed.map_or(0, |_| 1))
            }
        }
    }

    fn if_ours(&mut self, actor: usize, change: impl FnOnce(&mut Row)) -> Seen {
        let Some(claim) = self.held.get(&actor) else {
            return Seen::Nothing;
        };
        let ours = self
            .row
            .as_mut()
            .filter(|row| row.claim == *claim && !row.is_answered);
        let was_ours = ours.is_some();
        if let Some(row) = ours {
            change(row);
        }
        Seen::WasOurs(was_ours)
    }
}

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broken {
    Not,
    /// Whoever answers, answers.
    Complete,
    Renew,
    Release,
    /// A claim does not wait for the lease.
    Lease,
    Fingerprint,
    /// A claim takes an answered key once its lease is over.
    Answers,
    Tokens,
    CleanUp,
}

/// The tables as the actors use them.
struct Real<'a> {
    database: &'a Database,
    keys: Keys,
    broken: Broken,
    held: HashMap<usize, (Token, usize)>,
    claims: usize,
}

impl Real<'_> {
    async fn take(&mut self, step: Step) -> Seen {
        match step {
            Step::Claim { actor, request } => self.claim(actor, request).await,
            Step::Renew { actor } => self.with_token(actor, step).await,
            Step::Complete { actor } => self.with_token(actor, step).await,
            Step::Release { actor } => self.with_token(actor, step).await,
            Step::Pass { seconds } => {
                self.database.pass(Duration::from_secs(seconds)).await;
                Seen::Nothing
            }
            Step::CleanUp => {
                if self.broken == Broken::CleanUp {
                    self.database
                        .run("update idempotency_keys set expires_at = locked_until")
                        .await;
                }
                Seen::Removed(clean_up(&self.database.pool, 10).await.unwrap())
            }
        }
    }

    async fn claim(&mut self, actor: usize, asked: bool) -> Seen {
        // A broken claim is the right one on a table that lies to it.
        match self.broken {
            Broken::Lease => self.database.end_leases().await,
            Broken::Answers => {
                self.database
                    .run("delete from idempotency_keys where status is not null")
                    .await;
            }
            Broken::Tokens => {
                self.database
                    .run(
                        "select setval('idempotency_tokens',
                                        coalesce((select token from idempotency_keys), 0) + 1,
                                        false)",
                    )
                    .await;
            }
            _ => {}
        }
        let asked = match self.broken {
            Broken::Fingerprint => "the same",
            _ if asked => "a",
            _ => "b",
        };
        let claim = self.keys.claim(&scope(), &key("k"), &request(asked)).await;
        match claim.unwrap() {
            Claim::Fresh(token) => {
                self.claims += 1;
                self.held.insert(actor, (token, self.claims));
                Seen::Fresh
            }
            Claim::Replay(answer) => {
                let body = answer.body.unwrap();
                Seen::Replay(String::from_utf8_lossy(&body).parse().unwrap())
            }
            Claim::InFlight => Seen::InFlight,
            Claim::Mismatch => Seen::Mismatch,
        }
    }

    async fn with_token(&mut self, actor: usize, step: Step) -> Seen {
        let Some((token, claim)) = self.held.get(&actor) else {
            return Seen::Nothing;
        };
        let is_fenced = !matches!(
            (step, self.broken),
            (Step::Complete { .. }, Broken::Complete)
                | (Step::Renew { .. }, Broken::Renew)
                | (Step::Release { .. }, Broken::Release)
        );
        if !is_fenced {
            sqlx::query("update idempotency_keys set token = $1")
                .bind(token.number())
                .execute(&self.database.pool)
                .await
                .unwrap();
        }
        let said = answer(Box::leak(claim.to_string().into_boxed_str()));
        let was_ours = match step {
            Step::Complete { .. } => self.keys.complete(token, &said).await,
            Step::Renew { .. } => self.keys.renew(token).await,
            _ => self.keys.release(token).await,
        };
        Seen::WasOurs(was_ours.unwrap())
    }
}

/// The shortest history found that goes otherwise than the model says.
async fn find(
    broken: Broken,
    cases: u32,
    rng: Option<TestRng>,
) -> Result<Option<(String, Vec<Step>)>, End> {
    let database = Database::start().await?;
    let runtime = Handle::current();
    let found = tokio::task::spawn_blocking(move || {
        let config = Config {
            cases,
            failure_persistence: None,
            max_shrink_iters: 300,
            ..Config::default()
        };
        let mut runner = match rng {
            Some(rng) => TestRunner::new_with_rng(config, rng),
            None => TestRunner::new(config),
        };
        let histories = proptest::collection::vec(step(), 1..25);
        let run = |history: Vec<Step>| {
            let played = runtime.block_on(play(&database, broken, &history));
            played.map_err(TestCaseError::fail)
        };
        match runner.run(&histories, run) {
            Ok(()) => None,
            Err(TestError::Fail(why, history)) => Some((why.to_string(), history)),
            Err(aborted) => panic!("{aborted}"),
        }
    });
    Ok(found.await.unwrap())
}

async fn play(database: &Database, broken: Broken, history: &[Step]) -> Result<(), String> {
    database.run("delete from idempotency_keys").await;
    let terms = Terms {
        lease: Duration::from_secs(LEASE),
        ttl: Duration::from_secs(TTL),
    };
    let mut model = Model::default();
    let mut real = Real {
        database,
        keys: Keys::new(database.pool.clone(), terms).unwrap(),
        broken,
        held: HashMap::new(),
        claims: 0,
    };
    for (n, step) in history.iter().enumerate() {
        let (expected, seen) = (model.take(*step), real.take(*step).await);
        if expected != seen {
            return Err(format!("step {n}: expected {expected:?}, saw {seen:?}"));
        }
    }
    Ok(())
}

async fn random_histories_go_as_the_model_says() -> Outcome {
    let wrong = find(Broken::Not, 150, None).await?;
    assert!(wrong.is_none(), "{wrong:?}");
    Ok(())
}

/// Always the same histories: whether a mistake is noticed must not depend on luck.
async fn noticed(broken: Broken) -> Outcome {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let found = find(broken, 300, Some(rng)).await?;
    let (why, history) = found.unwrap_or_else(|| panic!("{broken:?} was not noticed"));
    assert!(why.starts_with("step "), "{why}");
    // Shrunk to what the mistake needs: claims, and what stands between them.
    assert!(history.len() <= 8, "{why}: {history:?}");
    Ok(())
}

async fn an_answer_without_fencing_is_noticed() -> Outcome {
    noticed(Broken::Complete).await
}

async fn a_renewal_without_fencing_is_noticed() -> Outcome {
    noticed(Broken::Renew).await
}

async fn a_release_without_fencing_is_noticed() -> Outcome {
    noticed(Broken::Release).await
}

async fn a_claim_that_ignores_the_lease_is_noticed() -> Outcome {
    noticed(Broken::Lease).await
}

async fn a_claim_that_ignores_the_fingerprint_is_noticed() -> Outcome {
    noticed(Broken::Fingerprint).await
}

async fn a_claim_that_forgets_answers_is_noticed() -> Outcome {
    noticed(Broken::Answers).await
}

async fn tokens_that_begin_again_are_noticed() -> Outcome {
    noticed(Broken::Tokens).await
}

async fn a_clean_up_that_ignores_leases_is_noticed() -> Outcome {
    noticed(Broken::CleanUp).await
}
