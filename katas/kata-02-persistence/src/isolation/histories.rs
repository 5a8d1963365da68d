//! Random transactions on real sessions, as a history that can be judged.
//!
//! Each works on lists: it reads some, and appends to some. So that what a level lets through is
//! certain to be there, one pair is arranged: both read two lists, and only when both have read does
//! each append to another one of them. The rest is left to chance.

use std::sync::Arc;

use futures::future::join_all;
use kata_lab::serializability::{End, Operation, Transaction};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::Barrier;

use super::{
    server::{LabError, Level, Server},
    session::{Answer, Session},
};

/// Lists that random transactions work on; the arranged pair has two more.
const LISTS: u64 = 4;
const PAIR: [u64; 2] = [LISTS + 1, LISTS + 2];

/// Sessions at once, and random transactions of each.
const SESSIONS: u64 = 6;
const EACH: u64 = 12;

/// What a transaction is to do.
#[derive(Debug, Clone, Copy)]
enum Wish {
    Read(u64),
    Append(u64, u64),
    /// Goes on when the other one of the pair is here too.
    Meet,
}

/// Lets transactions run at a level: the history, with a last transaction that reads every list.
///
/// # Errors
/// [`LabError`] if a connection is lost.
pub async fn record(
    server: &Server,
    level: Level,
    seed: u64,
) -> Result<Vec<Transaction>, LabError> {
    let rows: Vec<String> = (1..=PAIR[1])
        .map(|id| format!("insert into list values ({id}, '')"))
        .collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    server.reset(&rows).await?;

    let meeting = Arc::new(Barrier::new(2));
    let pair = PAIR.iter().enumerate().map(|(index, own)| {
        let wishes = vec![
            Wish::Read(PAIR[0]),
            Wish::Read(PAIR[1]),
            Wish::Meet,
            Wish::Append(*own, 1 + index as u64),
        ];
        (format!("pair {}", index + 1), wishes)
    });
    let mut work: Vec<Vec<(String, Vec<Wish>)>> = pair.map(|one| vec![one]).collect();
    work.extend((0..SESSIONS).map(|session| wishes(session, seed)));
    let runs = work.into_iter().map(|mine| async {
        let session = server.session().await?;
        let mut history = Vec::new();
        for (name, wishes) in mine {
            history.push(transact(server, &session, level, name, &wishes, &meeting).await?);
        }
        session.close().await;
        Ok::<_, LabError>(history)
    });
    let mut history = Vec::new();
    for run in join_all(runs).await {
        history.extend(run?);
    }
    let session = server.session().await?;
    let all: Vec<_> = (1..=PAIR[1]).map(Wish::Read).collect();
    let end = "the last look".to_owned();
    history.push(transact(server, &session, level, end, &all, &meeting).await?);
    session.close().await;
    Ok(history)
}

fn wishes(session: u64, seed: u64) -> Vec<(String, Vec<Wish>)> {
    let mut rng = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(session));
    let mut value = 100 + session * 1_000;
    let mut one = |number: u64| {
        let wishes = (0..rng.random_range(2..=4)).map(|_| {
            let list = rng.random_range(1..=LISTS);
            if rng.random_bool(0.5) {
                return Wish::Read(list);
            }
            value += 1;
            Wish::Append(list, value)
        });
        (format!("t{session}.{number}"), wishes.collect())
    };
    (1..=EACH).map(&mut one).collect()
}

async fn transact(
    server: &Server,
    session: &Session,
    level: Level,
    name: String,
    wishes: &[Wish],
    meeting: &Barrier,
) -> Result<Transaction, LabError> {
    server.begin(session, level).await?;
    let mut operations = Vec::new();
    let mut refused = false;
    for wish in wishes {
        // A server that refuses one of the pair must not leave the other one waiting for it.
        if matches!(wish, Wish::Meet) {
            meeting.wait().await;
            continue;
        }
        if refused {
            continue;
        }
        let answer = session.ask(&sql(*wish, server.is_mysql())).await?;
        match (wish, answer) {
            (_, Answer::Refused { .. }) => refused = true,
            (Wish::Read(list), Answer::Rows(elements)) => {
                let elements = elements.split(',').filter_map(|value| value.parse().ok());
                operations.push(Operation::read(key(*list), elements.collect::<Vec<_>>()));
            }
            (Wish::Append(list, value), _) => {
                operations.push(Operation::append(key(*list), *value))
            }
            (Wish::Read(_) | Wish::Meet, _) => {}
        }
    }
    let end = match refused {
        true => "rollback",
        false => "commit",
    };
    let committed = matches!(session.ask(end).await?, Answer::Done(_)) && !refused;
    Ok(Transaction {
        name,
        operations,
        end: if committed {
            End::Committed
        } else {
            End::Aborted
        },
    })
}

fn key(list: u64) -> String {
    format!("list {list}")
}

fn sql(wish: Wish, mysql: bool) -> String {
    match wish {
        Wish::Read(list) => format!("select elements from list where id = {list}"),
        Wish::Append(list, value) if mysql => {
            format!("update list set elements = concat(elements, '{value},') where id = {list}")
        }
        Wish::Append(list, value) => {
            format!("update list set elements = elements || '{value},' where id = {list}")
        }
        Wish::Meet => String::new(),
    }
}
