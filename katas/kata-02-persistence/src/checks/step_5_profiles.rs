//! Step 5: two ways not to write over what others wrote: compare when you write, or lock first.

use std::{future::ready, time::Duration};

use http::StatusCode;
use kata_lab::{
    Instance, Interleaving, Judged, Lab, Promise, Reply, Request, Stop, at_every_hold_point,
    is_blocked, proxy::Point, told,
};
use serde_json::{Value, json};

use super::points::Walk;

/// `PUT /profiles/{id}` under the condition that nothing has changed.
fn put(at: &Instance, id: &str, data: &Value, if_match: &str) -> Request {
    at.put(format!("/profiles/{id}"))
        .header("if-match", if_match)
        .json(data)
        .shown(format!("{data} if {if_match}"))
}

/// A new profile with its tag.
async fn create(lab: &Lab, at: &Instance, data: &Value) -> Judged<(String, String)> {
    let id = lab.id("profile");
    let reply = at
        .put(format!("/profiles/{id}"))
        .header("if-none-match", "*")
        .json(data)
        .send()
        .await?;
    let etag = reply.header("etag").map(str::to_owned);
    match etag {
        Some(etag) if reply.status.is_success() => Ok((id, etag)),
        _ => Promise::new(
            "PUT /profiles/{id} with If-None-Match: * and a new id",
            "201 with an ETag",
        )
        .broken(reply.to_string()),
    }
}

async fn show(at: &Instance, id: &str) -> Judged<Reply> {
    at.get(format!("/profiles/{id}")).send().await
}

fn increment(at: &Instance, id: &str, field: &str) -> Request {
    at.post(format!("/profiles/{id}/increment"))
        .json(&json!({ "field": field }))
}

fn etag(reply: &Reply) -> &str {
    reply.header("etag").unwrap_or_default()
}

/// Only who has seen what is there writes over it.
pub async fn guards_profiles_with_etags(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let (first, second) = (json!({ "name": "Ada" }), json!({ "name": "Ada Lovelace" }));
    let (id, old) = create(&lab, &program, &first).await?;
    let shown = show(&program, &id).await?;
    Promise::new(
        "PUT /profiles/{id} with If-None-Match: *, then GET",
        "200, the content and the same strong ETag",
    )
    .holds(
        shown.status == StatusCode::OK
            && shown.json().as_ref() == Some(&first)
            && etag(&shown) == old
            && old.starts_with('"'),
        format!("{shown} with ETag {} after {old}", etag(&shown)),
    )?;
    let twice = program
        .put(format!("/profiles/{id}"))
        .header("if-none-match", "*")
        .json(&json!({ "name": "Eve" }))
        .send()
        .await?;
    is_refused(
        &program,
        &id,
        &twice,
        "If-None-Match: * on a profile that is there",
        &first,
    )
    .await?;
    let written = put(&program, &id, &second, &old).send().await?;
    let now = show(&program, &id).await?;
    Promise::new(
        "PUT /profiles/{id} with If-Match of the content that is there",
        "200 or 204 with a new ETag, and GET shows the new content under it",
    )
    .holds(
        matches!(written.status, StatusCode::OK | StatusCode::NO_CONTENT)
            && etag(&written) != old
            && etag(&written) == etag(&now)
            && now.json().as_ref() == Some(&second),
        format!(
            "{written} with ETag {}, then {now} with {}",
            etag(&written),
            etag(&now)
        ),
    )?;
    let third = json!({ "name": "Eve" });
    let weak = format!("W/{}", etag(&now));
    for (tag, what) in [
        (old.as_str(), "a stale If-Match"),
        (&weak, "a weak If-Match"),
    ] {
        let reply = put(&program, &id, &third, tag).send().await?;
        is_refused(&program, &id, &reply, what, &second).await?;
    }
    let blind = program
        .put(format!("/profiles/{id}"))
        .json(&third)
        .send()
        .await?;
    Promise::new("PUT /profiles/{id} without a precondition", "428").holds(
        blind.status == StatusCode::PRECONDITION_REQUIRED,
        blind.to_string(),
    )?;
    let missing = put(&program, &lab.id("nobody"), &third, &old)
        .send()
        .await?;
    Promise::new(
        "PUT /profiles/{id} with If-Match on no profile",
        "412 or 404",
    )
    .holds(
        matches!(
            missing.status,
            StatusCode::PRECONDITION_FAILED | StatusCode::NOT_FOUND
        ),
        missing.to_string(),
    )?;
    let missing = show(&program, &lab.id("nobody")).await?;
    Promise::new("GET /profiles/{id} of no profile", "404")
        .holds(missing.status == StatusCode::NOT_FOUND, missing.to_string())
}

async fn is_refused(at: &Instance, id: &str, reply: &Reply, what: &str, stays: &Value) -> Judged {
    let now = show(at, id).await?;
    Promise::new(
        format!("PUT /profiles/{{id}} with {what}"),
        "412, and the content stays",
    )
    .holds(
        reply.status == StatusCode::PRECONDITION_FAILED && now.json().as_ref() == Some(stays),
        format!("{reply}; the content is {now}"),
    )
}

/// A first write on each instance, so that connecting does not count as a hold point.
async fn warm(stage: Lab, program: Instance) -> Judged {
    let (id, tag) = create(&stage, &program, &json!({ "n": 0 })).await?;
    put(&program, &id, &json!({ "n": 1 }), &tag).send().await?;
    increment(&program, &id, "n").send().await?;
    show(&program, &id).await.map(drop)
}

/// Two who have seen the same content write at once: one is told.
pub async fn refuses_one_of_two_writers(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        let (id, tag) = create(&stage, &both.second, &json!({ "by": "nobody" })).await?;
        let [one, other] = ["one", "other"].map(|who| json!({ "by": who }));
        let played = both
            .play(
                put(&both.first, &id, &one, &tag).actor("first, at A"),
                put(&both.second, &id, &other, &tag).actor("second, at B"),
            )
            .await?;
        let now = show(&both.second, &id).await?;
        let won = |answer: &_, loser: &_, content: &Value| {
            status(answer).is_some_and(|status| status.is_success())
                && status(loser) == Some(StatusCode::PRECONDITION_FAILED)
                && now.json().as_ref() == Some(content)
        };
        Promise::new(
            "PUT /profiles/{id} twice at once with the same If-Match, through two instances; the first held at every point of its way",
            "one is written and stays, the other is answered 412",
        )
        .holds(
            won(&played.first, &played.second, &one) || won(&played.second, &played.first, &other),
            format!(
                "{} and {}; the content is {now}",
                told(&played.first),
                told(&played.second)
            ),
        )?;
        Ok(played.reached)
    };
    at_every_hold_point(&lab, warm, scene).await
}

fn status(answer: &Result<Reply, kata_lab::NoAnswer>) -> Option<StatusCode> {
    answer.as_ref().ok().map(|reply| reply.status)
}

/// Counting changes the content, and so its tag; what is no number is not counted.
pub async fn increments_change_the_etag(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let (id, old) = create(&lab, &program, &json!({ "name": "Ada" })).await?;
    let promise = Promise::new(
        "POST /profiles/{id}/increment twice with a field that is not there",
        "200 with 1, then with 2, each with the other members and a new ETag",
    );
    let mut before = old.clone();
    for count in [1, 2] {
        let reply = increment(&program, &id, "visits").send().await?;
        let expected = json!({ "name": "Ada", "visits": count });
        promise.holds(
            reply.status == StatusCode::OK
                && reply.json() == Some(expected)
                && !etag(&reply).is_empty()
                && etag(&reply) != before,
            format!("{reply} with ETag {} after {before}", etag(&reply)),
        )?;
        etag(&reply).clone_into(&mut before);
    }
    let stale = put(&program, &id, &json!({ "name": "Eve" }), &old)
        .send()
        .await?;
    Promise::new(
        "PUT /profiles/{id} with the If-Match from before an increment",
        "412: it would write over the count",
    )
    .holds(
        stale.status == StatusCode::PRECONDITION_FAILED,
        stale.to_string(),
    )?;
    let text = increment(&program, &id, "name").send().await?;
    Promise::new(
        "POST /profiles/{id}/increment with a field that is a text",
        "409 or 422",
    )
    .holds(
        matches!(
            text.status,
            StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY
        ),
        text.to_string(),
    )?;
    let missing = increment(&program, &lab.id("nobody"), "visits")
        .send()
        .await?;
    Promise::new("POST /profiles/{id}/increment of no profile", "404")
        .holds(missing.status == StatusCode::NOT_FOUND, missing.to_string())
}

/// Two increments at once, at every interleaving: both count.
pub async fn increments_count_every_time(lab: Lab) -> Judged<String> {
    let scene = |stage: Lab, both: Interleaving| async move {
        let (id, _) = create(&stage, &both.second, &json!({ "n": 0 })).await?;
        let played = both
            .play(
                increment(&both.first, &id, "n").actor("first, at A"),
                increment(&both.second, &id, "n").actor("second, at B"),
            )
            .await?;
        let now = show(&both.second, &id).await?;
        // Who was refused may not count; whether anybody may be refused is another promise.
        let counted = [&played.first, &played.second]
            .into_iter()
            .filter(|answer| status(answer).is_some_and(|status| status.is_success()))
            .count();
        Promise::new(
            "POST /profiles/{id}/increment twice at once, through two instances; the first held at every point of its way",
            "each that is answered 2xx counts",
        )
        .holds(
            counted > 0 && now.json() == Some(json!({ "n": counted })),
            format!(
                "{} and {}; the content is {now}",
                told(&played.first),
                told(&played.second)
            ),
        )?;
        Ok(played.reached)
    };
    at_every_hold_point(&lab, warm, scene).await
}

/// How many of the first increment's round trips another increment comes before.
const OVERTAKEN: usize = 24;

/// An increment that is overtaken again and again still gets through: nobody is refused because
/// others are writing.
pub async fn increments_refuse_nobody(lab: Lab) -> Judged<String> {
    let a = lab.start_as("instance A").await?;
    let b = lab.start_as("instance B").await?;
    warm(lab.clone(), a.clone()).await?;
    warm(lab.clone(), b.clone()).await?;
    let (id, _) = create(&lab, &a, &json!({ "n": 0 })).await?;
    let promise = Promise::new(
        format!(
            "POST /profiles/{{id}}/increment at A; before each of its first {OVERTAKEN} round trips another one at B"
        ),
        "all are answered 200: nobody is refused because others are writing",
    );
    let request = increment(&a, &id, "n").actor("first, at A");
    let mut walk = Walk::begin(&a, &[Point::Early], request).await;
    let mut others = Vec::new();
    while others.len() < OVERTAKEN && walk.next().await?.is_some() {
        let mut other = increment(&b, &id, "n")
            .actor(format!("{} more, at B", others.len() + 1))
            .spawn();
        // Answered, or waiting for the lock that the first has: then it goes on.
        let overtakes = async {
            while !other.is_answered() && !is_blocked(&lab, &b, &a).await? {
                lab.until(Duration::from_millis(5), || ready(other.is_answered()))
                    .await;
            }
            Ok::<_, Box<Stop>>(())
        };
        if let Ok(seen) = tokio::time::timeout(Duration::from_secs(1), overtakes).await {
            seen?;
        }
        if other.is_answered() {
            other.attempted().await?.ok();
        }
        others.push(other);
    }
    let mut answers = vec![walk.end().await?];
    if others.is_empty() {
        return Stop::inconclusive("the increment made no round trip that could be held");
    }
    for other in &mut others {
        answers.push(other.attempted().await?);
    }
    for answer in &answers {
        promise.holds(status(answer) == Some(StatusCode::OK), told(answer))?;
    }
    Ok(format!("overtaken {} times", others.len()))
}
