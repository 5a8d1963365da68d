//! Step 2: a transfer is done whole, or not at all.

use http::StatusCode;
use kata_lab::{CrashPoint, Instance, Judged, Lab, Promise, Reply, at_every_crash_point};

use super::{
    bank::{Transfer, balances, open, refuses_reuse, until_final},
    points::crash,
};

/// Money moves; what the rules forbid does not happen.
pub async fn moves_money(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let from = open(&lab, &program, 1_000).await?;
    let to = open(&lab, &program, 50).await?;
    let transfer = Transfer::new(&lab, &from, &to, 400);
    let reply = transfer.request(&program).send().await?;
    let left = balances(&lab, &[&from, &to]).await?;
    Promise::new(
        "POST /transfers of 400 from an account with 1000 to one with 50",
        "201 with the same members, and balances of 600 and 450",
    )
    .holds(
        reply.status == StatusCode::CREATED
            && transfer.not_done_by(&Ok(reply.clone())).is_none()
            && left == [600, 450],
        format!("{reply}; balances {left:?}"),
    )?;
    let too_much = Transfer::new(&lab, &from, &to, 601);
    refused(
        &lab,
        &program,
        &too_much,
        StatusCode::CONFLICT,
        "more than there is",
    )
    .await?;
    let nobody = lab.id("nobody");
    let into_the_void = Transfer::new(&lab, &from, &nobody, 100);
    let from_the_void = Transfer::new(&lab, &nobody, &to, 100);
    for (transfer, what) in [
        (into_the_void, "to an account that is not there"),
        (from_the_void, "from an account that is not there"),
    ] {
        refused(&lab, &program, &transfer, StatusCode::NOT_FOUND, what).await?;
    }
    let all = Transfer::new(&lab, &from, &to, 600);
    let reply = all.request(&program).send().await?;
    let left = balances(&lab, &[&from, &to]).await?;
    Promise::new(
        "POST /transfers of all that is there",
        "a 2xx, and a balance of 0",
    )
    .holds(
        reply.status.is_success() && left == [0, 1_050],
        format!("{reply}; balances {left:?}"),
    )
}

async fn refused(
    lab: &Lab,
    program: &Instance,
    transfer: &Transfer,
    status: StatusCode,
    what: &str,
) -> Judged {
    let accounts = [transfer.from.as_str(), transfer.to.as_str()];
    let before = balances(lab, &accounts).await?;
    let reply = transfer.request(program).send().await?;
    let after = balances(lab, &accounts).await?;
    Promise::new(
        format!("POST /transfers {what}"),
        format!("{}, and no balance changes", status.as_u16()),
    )
    .holds(
        reply.status == status && before == after,
        format!("{reply}; balances {before:?}, then {after:?}"),
    )
}

/// The same transfer again, later and through another instance, is answered and not made again.
pub async fn moves_it_once(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let from = open(&lab, &program, 1_000).await?;
    let to = open(&lab, &program, 0).await?;
    let other = open(&lab, &program, 0).await?;
    let transfer = Transfer::new(&lab, &from, &to, 400);
    let first = transfer.request(&program).send().await?;
    let again = transfer.request(&program).actor("again").send().await?;
    let left = balances(&lab, &[&from, &to]).await?;
    Promise::new(
        "POST /transfers of 400, and the same again",
        "200 or 201 with the same JSON value, and 400 moved once",
    )
    .holds(
        same_answer(&first, &again) && left == [600, 400],
        format!("{first}, then {again}; balances {left:?}"),
    )?;
    let changed = |change: fn(&mut Transfer, &str)| {
        let mut changed = transfer.clone();
        change(&mut changed, &other);
        changed
    };
    for (what, transfer) in [
        ("amount_cents", changed(|t, _| t.amount_cents += 1)),
        ("to", changed(|t, other| t.to = other.to_owned())),
        ("from", changed(|t, other| t.from = other.to_owned())),
    ] {
        let reply = transfer.request(&program).send().await?;
        let left = balances(&lab, &[&from, &to, &other]).await?;
        Promise::new(
            format!("POST /transfers with a used transfer_id and another {what}"),
            "409 or 422, and no balance changes",
        )
        .holds(
            refuses_reuse(&reply) && left == [600, 400, 0],
            format!("{reply}; balances {left:?}"),
        )?;
    }
    if !lab.can_start_instances() {
        return Ok(());
    }
    let second = lab.start_as("another instance").await?;
    let elsewhere = transfer.request(&second).send().await?;
    let left = balances(&lab, &[&from, &to]).await?;
    Promise::new(
        "POST /transfers of 400, and the same again through another instance",
        "200 or 201 with the same JSON value, and 400 moved once",
    )
    .holds(
        same_answer(&first, &elsewhere) && left == [600, 400],
        format!("{first}, then {elsewhere}; balances {left:?}"),
    )
}

/// A refusal is not remembered: when the money has come, the same transfer goes through.
pub async fn forgets_a_refusal(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let poor = open(&lab, &program, 100).await?;
    let rich = open(&lab, &program, 5_000).await?;
    let transfer = Transfer::new(&lab, &poor, &rich, 400);
    let refused = transfer.request(&program).actor("too early").send().await?;
    let gift = Transfer::new(&lab, &rich, &poor, 1_000);
    let given = gift
        .request(&program)
        .actor("the money comes")
        .send()
        .await?;
    let reply = transfer.request(&program).actor("again").send().await?;
    let left = balances(&lab, &[&poor, &rich]).await?;
    Promise::new(
        "POST /transfers of 400 from an account with 100; 1000 came in; the same transfer again",
        "409, then 2xx, and balances of 700 and 4400",
    )
    .holds(
        refused.status == StatusCode::CONFLICT
            && given.status.is_success()
            && transfer.not_done_by(&Ok(reply.clone())).is_none()
            && left == [700, 4_400],
        format!("{refused}, then {reply}; balances {left:?}"),
    )
}

fn same_answer(first: &Reply, again: &Reply) -> bool {
    matches!(again.status, StatusCode::OK | StatusCode::CREATED)
        && first.json().is_some()
        && again.json() == first.json()
}

const SURVIVED: &str = "the total never changes; the same transfer again is answered 2xx and is made once, also after one more restart";

/// A crash at every round trip: the total is never another one.
pub async fn keeps_the_total_in_every_crash(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, program: Instance, point: CrashPoint| async move {
        let from = open(&stage, &program, 1_000).await?;
        let to = open(&stage, &program, 500).await?;
        let transfer = Transfer::new(&stage, &from, &to, 400);
        let promise = Promise::new(
            format!("POST /transfers of 400; crashed {point}; started again; the same again"),
            SURVIVED,
        );
        let story = async { transfer.request(&program).attempt().await.map(drop) };
        if !crash(&stage, &program, point, story).await? {
            return Ok(None);
        }
        let left = balances(&stage, &[&from, &to]).await?;
        promise.holds(
            left == [1_000, 500] || left == [600, 900],
            format!("after the crash the balances are {left:?}"),
        )?;
        let reply = until_final(&stage, &promise, || transfer.request(&program)).await?;
        moved(&stage, &transfer, &reply, &promise).await?;
        Ok(Some((point, transfer, reply)))
    };
    let still = |stage: Lab, program: Instance, (point, transfer, first): (_, Transfer, Reply)| async move {
        let promise = Promise::new(
            format!(
                "POST /transfers of 400; crashed {point}; started again; the same again; one more restart, and once more"
            ),
            SURVIVED,
        );
        let again = until_final(&stage, &promise, || transfer.request(&program)).await?;
        promise.holds(
            same_answer(&first, &again),
            format!("{first}, and after a restart {again}"),
        )?;
        moved(&stage, &transfer, &again, &promise).await
    };
    at_every_crash_point(&lab, scene, still).await
}

async fn moved(stage: &Lab, transfer: &Transfer, reply: &Reply, promise: &Promise) -> Judged {
    let left = balances(stage, &[&transfer.from, &transfer.to]).await?;
    let is_said = transfer.not_done_by(&Ok(reply.clone())).is_none();
    promise.holds(
        is_said && left == [600, 900],
        format!("{reply}; the balances are {left:?}"),
    )
}
