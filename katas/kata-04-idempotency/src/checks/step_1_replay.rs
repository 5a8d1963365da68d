//! Step 1: a key is required, and the first answer is replayed.

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, Promise, Reply};
use serde_json::{Value, json};

use super::till::{Payment, long_lease};

/// Without a key, or with one that is none, nobody is charged.
pub async fn requires_a_key(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let too_long = "k".repeat(256);
    let wrong: [(&str, Option<&str>); 5] = [
        ("no Idempotency-Key", None),
        ("an empty Idempotency-Key", Some("")),
        ("Idempotency-Key: \"\"", Some("\"\"")),
        (
            "an Idempotency-Key whose quote is not closed",
            Some("\"4f1c"),
        ),
        ("an Idempotency-Key of 256 characters", Some(&too_long)),
    ];
    for (what, key) in wrong {
        let promise = Promise::new(format!("POST /pay with {what}"), "400, and no charge");
        let request = match key {
            Some(key) => payment.request_with_key(&program, key),
            None => program
                .post("/pay")
                .bearer(&payment.account)
                .json(&payment.body()),
        };
        let reply = request.send().await?;
        promise.holds(reply.status == StatusCode::BAD_REQUEST, reply.to_string())?;
        promise.holds(
            payment.calls(&lab) == 0,
            format!("{reply}, and a call to the provider"),
        )?;
    }
    let promise = Promise::new(
        "POST /pay with an Idempotency-Key of 255 characters",
        "the payment is made",
    );
    let reply = payment
        .request_with_key(&program, &"k".repeat(255))
        .send()
        .await?;
    match payment.not_paid_by(&lab, &reply) {
        None => Ok(()),
        Some(saw) => promise.broken(saw),
    }
}

/// Wrong input is refused, causes no call, and is not remembered under the key.
pub async fn rejects_wrong_input(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let refused = [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY];

    for (what, body) in wrong_bodies(&payment) {
        let promise = Promise::new(
            format!("POST /pay with {what}"),
            "400 or 422 as application/problem+json, and no call to the provider",
        );
        let request = program
            .post("/pay")
            .bearer(&payment.account)
            .header("idempotency-key", &payment.key)
            .bytes("application/json", body.into_bytes())
            .shown(what.clone());
        let reply = request.send().await?;
        promise.holds(refused.contains(&reply.status), reply.to_string())?;
        if let Some(why) = reply.not_a_problem() {
            return promise.broken(format!("{reply}, with {why}"));
        }
        promise.holds(
            lab.provider().calls().is_empty(),
            format!("{reply}, and a call"),
        )?;
    }

    let promise = Promise::new(
        "POST /pay with Content-Type: text/plain",
        "400, 415 or 422, and no call to the provider",
    );
    let request = program
        .post("/pay")
        .bearer(&payment.account)
        .header("idempotency-key", &payment.key)
        .bytes("text/plain", payment.body().to_string().into_bytes());
    let reply = request.send().await?;
    let also = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    promise.holds(
        refused.contains(&reply.status) || reply.status == also,
        reply.to_string(),
    )?;

    for (what, authorization) in [
        ("no Authorization", None),
        ("Authorization: Basic YTpi", Some("Basic YTpi")),
    ] {
        let promise = Promise::new(
            format!("POST /pay with {what}"),
            "401, and no call to the provider",
        );
        let mut request = program
            .post("/pay")
            .header("idempotency-key", &payment.key)
            .json(&payment.body());
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let reply = request.send().await?;
        promise.holds(reply.status == StatusCode::UNAUTHORIZED, reply.to_string())?;
        promise.holds(
            lab.provider().calls().is_empty(),
            format!("{reply}, and a call"),
        )?;
    }

    let promise = Promise::new("GET /nowhere", "404");
    let reply = program.get("/nowhere").send().await?;
    promise.holds(reply.status == StatusCode::NOT_FOUND, reply.to_string())?;

    let promise = Promise::new(
        "POST /pay with a right body, under the key of the wrong ones",
        "the payment is made: wrong input is not remembered",
    );
    let reply = payment.request(&program).send().await?;
    match payment.not_paid_by(&lab, &reply) {
        None => Ok(()),
        Some(saw) => promise.broken(saw),
    }
}

/// Each wrong body with what is wrong about it.
fn wrong_bodies(payment: &Payment) -> Vec<(String, String)> {
    // Some libraries take it for the members in their order.
    let without_names = json!([
        payment.payment_id,
        payment.amount_cents,
        payment.currency,
        payment.card
    ]);
    let mut bodies = vec![
        (
            "a body that is not JSON".to_owned(),
            "{\"payment_id\":".to_owned(),
        ),
        ("a list as its body".to_owned(), without_names.to_string()),
        ("an empty body".to_owned(), String::new()),
    ];
    for member in ["payment_id", "amount_cents", "currency", "card"] {
        let mut body = payment.body();
        body.as_object_mut().map(|object| object.remove(member));
        bodies.push((format!("no {member}"), body.to_string()));
    }
    let long = "x".repeat(65);
    let values: [(&str, Value); 14] = [
        ("payment_id", json!("")),
        ("payment_id", json!(long)),
        ("payment_id", json!(7)),
        ("amount_cents", json!(0)),
        ("amount_cents", json!(-100)),
        ("amount_cents", json!(10.5)),
        ("amount_cents", json!("100")),
        ("amount_cents", json!(true)),
        ("amount_cents", json!(9_007_199_254_740_992_u64)),
        ("currency", json!("eur")),
        ("currency", json!("EURO")),
        ("currency", json!("E1R")),
        ("card", json!("")),
        ("card", json!(long)),
    ];
    for (member, value) in values {
        let mut body = payment.body();
        let text = value.to_string();
        let shown = if text.len() > 30 {
            "65 characters".to_owned()
        } else {
            text
        };
        body[member] = value;
        bodies.push((format!("{member}: {shown}"), body.to_string()));
    }
    bodies
}

/// The same request again gets the same answer, marked as a replay, and no second call.
pub async fn replays_the_first_answer(lab: Lab) -> Judged<Option<String>> {
    long_lease(&lab);
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let promise = Promise::new(
        "POST /pay for the first time",
        "201 {payment_id, charge_id, status: \"captured\"}, not marked as a replay",
    );
    let first = payment.request(&program).send().await?;
    if let Some(saw) = payment.not_paid_by(&lab, &first) {
        return promise.broken(saw);
    }
    let complete =
        first.status == StatusCode::CREATED && first.text("status").as_deref() == Some("captured");
    promise.holds(complete, first.to_string())?;
    promise.holds(!is_marked(&first), "Idempotency-Replayed: true")?;

    let quoted = format!("\"{}\"", payment.key);
    for (form, key) in [("the same", payment.key.as_str()), ("the quoted", &quoted)] {
        let did = format!("POST /pay again, with {form} form of the key");
        replays(&lab, &payment, &first, &program, key, &did).await?;
    }
    if !lab.can_start_instances() {
        return Ok(Some(
            "not tried here: another instance, a restart".to_owned(),
        ));
    }
    let other = lab.start_as("second instance").await?;
    let did = "POST /pay again, through another instance";
    replays(&lab, &payment, &first, &other, &payment.key, did).await?;
    program.stop().await?;
    program.restart().await?;
    let did = "POST /pay again, after a restart";
    replays(&lab, &payment, &first, &program, &payment.key, did).await?;
    Ok(None)
}

async fn replays(
    lab: &Lab,
    payment: &Payment,
    first: &Reply,
    at: &Instance,
    key: &str,
    did: &str,
) -> Judged {
    let promise = Promise::new(
        did,
        "the first answer (status, media type, JSON) with Idempotency-Replayed: true, and no call to the provider",
    );
    let again = payment.request_with_key(at, key).send().await?;
    let same = again.status == first.status
        && again.media_type() == first.media_type()
        && again.json() == first.json();
    promise.holds(same, again.to_string())?;
    promise.holds(
        is_marked(&again),
        format!("{again}, not marked as a replay"),
    )?;
    let calls = payment.calls(lab);
    promise.holds(calls == 1, format!("{calls} calls to the provider"))
}

/// Whether an answer says that it is a replay.
pub(super) fn is_marked(reply: &Reply) -> bool {
    reply
        .header("idempotency-replayed")
        .is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// A payment is there to be read at once after its 201, by its own account only.
pub async fn shows_the_payment(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let payment = Payment::new(&lab);
    let first = payment.request(&program).send().await?;
    let made = Promise::new("POST /pay", "the payment is made");
    if let Some(saw) = payment.not_paid_by(&lab, &first) {
        return made.broken(saw);
    }
    let promise = Promise::new(
        "GET /payments/{id} right after the payment",
        "200 {payment_id, amount_cents, currency, charge_id, status: \"captured\"}",
    );
    let shown = payment.look_up(&program, &payment.account).send().await?;
    let body = shown.json().unwrap_or_default();
    let right = shown.status == StatusCode::OK
        && body["payment_id"] == json!(payment.payment_id)
        && body["amount_cents"] == json!(payment.amount_cents)
        && body["currency"] == json!(payment.currency)
        && body["charge_id"] == json!(first.text("charge_id"))
        && body["status"] == json!("captured");
    promise.holds(right, shown.to_string())?;

    let promise = Promise::new("GET /payments/{id} as another account", "404");
    let reply = payment.look_up(&program, &lab.id("acct")).send().await?;
    promise.holds(reply.status == StatusCode::NOT_FOUND, reply.to_string())?;

    let promise = Promise::new("GET /payments/{id} of a payment that nobody made", "404");
    let unknown = Payment::new(&lab);
    let reply = unknown.look_up(&program, &payment.account).send().await?;
    promise.holds(reply.status == StatusCode::NOT_FOUND, reply.to_string())
}
