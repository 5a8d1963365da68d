//! Step 6: write skew. Each of two transactions is right, and both together are not.

use http::StatusCode;
use kata_lab::{Instance, Interleaving, Judged, Lab, Promise, Request, at_every_hold_point, told};
use serde_json::json;
use sqlx::AssertSqlSafe;

use super::{bank::unreadable, points::behind_a_lock};

async fn put(at: &Instance, doctor: &str, on_call: bool) -> Judged {
    let reply = at
        .put(format!("/shifts/{doctor}"))
        .json(&json!({ "on_call": on_call }))
        .send()
        .await?;
    Promise::new(
        format!("PUT /shifts/{{doctor}} with on_call {on_call}"),
        "200, 201 or 204: the rule does not hold it back",
    )
    .holds(reply.status.is_success(), reply.to_string())
}

fn leave(at: &Instance, doctor: &str) -> Request {
    at.post(format!("/shifts/{doctor}/leave"))
}

/// Who is on call, as the program shows it.
async fn on_call(at: &Instance) -> Judged<Vec<String>> {
    let reply = at.get("/shifts").send().await?;
    let body = reply.json().unwrap_or_default();
    let names = body["on_call"].as_array().map(|names| {
        names
            .iter()
            .filter_map(|name| name.as_str().map(str::to_owned))
            .collect()
    });
    match names {
        Some(names) if reply.status == StatusCode::OK => Ok(names),
        _ => Promise::new("GET /shifts", "200 with on_call, a list of texts")
            .broken(reply.to_string()),
    }
}

/// The rota is what was put there; the last one on call stays.
pub async fn keeps_the_rota(lab: Lab) -> Judged {
    let program = lab.start().await?;
    // Sorted by code point: capitals come first, and `_` between them and the small letters.
    for doctor in ["eve", "Bob", "_x", "ada"] {
        put(&program, doctor, true).await?;
    }
    let shown = on_call(&program).await?;
    Promise::new(
        "PUT /shifts of eve, Bob, _x and ada; GET /shifts",
        "on_call by code point: Bob, _x, ada, eve",
    )
    .holds(shown == ["Bob", "_x", "ada", "eve"], shown.join(", "))?;
    put(&program, "_x", false).await?;
    put(&program, "eve", false).await?;
    for (doctor, status, what) in [
        ("ada", None, "while another one is on call"),
        ("ada", None, "who is off already"),
        ("Bob", Some(StatusCode::CONFLICT), "who is the last one"),
        ("nobody", Some(StatusCode::NOT_FOUND), "who is not there"),
    ] {
        let reply = leave(&program, doctor).send().await?;
        let expected = status.map_or("200 or 204".to_owned(), |status| {
            status.as_u16().to_string()
        });
        let is_right = match status {
            Some(status) => reply.status == status,
            None => matches!(reply.status, StatusCode::OK | StatusCode::NO_CONTENT),
        };
        Promise::new(
            format!("POST /shifts/{{doctor}}/leave of a doctor {what}"),
            expected,
        )
        .holds(is_right, reply.to_string())?;
    }
    let left = on_call(&program).await?;
    Promise::new("all but Bob have left", "Bob is on call").holds(left == ["Bob"], left.join(", "))
}

async fn warm(stage: Lab, program: Instance) -> Judged {
    for doctor in ["ada", "bob"] {
        put(&program, doctor, true).await?;
    }
    let reply = leave(&program, "ada").send().await?;
    on_call(&program).await?;
    Promise::new(
        "POST /shifts/{doctor}/leave, alone, while another one is on call",
        "200 or 204",
    )
    .holds(reply.status.is_success(), reply.to_string())?;
    stage.note("ada is off; bob is on call");
    Ok(())
}

const STAYS: &str = "one doctor is still on call";

/// Both doctors leave at once: one stays.
pub async fn keeps_one_doctor_on_call(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        for doctor in ["ada", "bob"] {
            put(&both.second, doctor, true).await?;
        }
        let played = both
            .play(
                leave(&both.first, "ada").actor("ada, at A"),
                leave(&both.second, "bob").actor("bob, at B"),
            )
            .await?;
        let left = in_table(&stage).await?;
        Promise::new(
            "ada and bob are on call; POST /shifts/{doctor}/leave of both at once, through two instances; the first held at every point of its way",
            STAYS,
        )
        .holds(
            left > 0,
            format!(
                "{} and {}; nobody is on call",
                told(&played.first),
                told(&played.second)
            ),
        )?;
        Ok(played.reached)
    };
    let note = at_every_hold_point(&lab, warm, scene).await?;
    both_leave_behind_a_lock(&lab).await?;
    Ok(note)
}

async fn in_table(lab: &Lab) -> Judged<i64> {
    let sql = format!(
        "select count(*) from {}.doctors where on_call",
        lab.schema()
    );
    let counted = sqlx::query_scalar(AssertSqlSafe(sql))
        .fetch_one(lab.admin())
        .await;
    counted.or_else(unreadable)
}

/// The same for a leave of a single statement.
async fn both_leave_behind_a_lock(lab: &Lab) -> Judged {
    let a = lab.start_as("instance C").await?;
    let b = lab.start_as("instance D").await?;
    for doctor in ["ada", "bob"] {
        put(&a, doctor, true).await?;
    }
    let leaves = [
        (&a, leave(&a, "ada").actor("ada, at C")),
        (&b, leave(&b, "bob").actor("bob, at D")),
    ];
    let [first, second] = behind_a_lock(lab, "doctors", leaves).await?;
    let left = in_table(lab).await?;
    Promise::new(
        "ada and bob are on call; POST /shifts/{doctor}/leave of both at once, through two instances, while another session held both rows and then let go",
        STAYS,
    )
    .holds(
        left > 0,
        format!("{} and {}; nobody is on call", told(&first), told(&second)),
    )
}

/// Two of three leave at once: neither is refused, because the third stays.
pub async fn hides_serialization_failures(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        for doctor in ["ada", "bob", "eve"] {
            put(&both.second, doctor, true).await?;
        }
        let played = both
            .play(
                leave(&both.first, "ada").actor("ada, at A"),
                leave(&both.second, "bob").actor("bob, at B"),
            )
            .await?;
        let left = in_table(&stage).await?;
        let is_done = |answer: &Result<kata_lab::Reply, kata_lab::NoAnswer>| {
            answer.as_ref().is_ok_and(|reply| reply.status.is_success())
        };
        Promise::new(
            "ada, bob and eve are on call; POST /shifts/{doctor}/leave of ada and bob at once, through two instances; the first held at every point of its way",
            "both are answered 2xx: eve stays, and nobody is refused because another one is writing",
        )
        .holds(
            is_done(&played.first) && is_done(&played.second) && left == 1,
            format!(
                "{} and {}; {left} on call",
                told(&played.first),
                told(&played.second)
            ),
        )?;
        Ok(played.reached)
    };
    at_every_hold_point(&lab, warm, scene).await
}
