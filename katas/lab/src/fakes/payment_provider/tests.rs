//! The provider's contract, one promise a test.

use http::StatusCode;
use serde_json::{Value, json};

use super::{DECLINED_CARD, PaymentProvider};
use crate::fakes::tests::{hear, open, order, send, within};

async fn charge(provider: &PaymentProvider, key: &str, body: Value) -> (StatusCode, Value) {
    hear(send(provider, key, body)).await
}

fn last_was_a_replay(provider: &PaymentProvider) -> bool {
    let last = provider.calls().pop().unwrap();
    last.acted.unwrap().is_replay()
}

#[tokio::test]
async fn a_charge_is_captured_and_says_what_was_asked() {
    let provider = open();
    let (status, body) = charge(&provider, "k-1", order("pay-1")).await;
    let charges = provider.charges_for("pay-1");
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(
        body,
        json!({
            "charge_id": charges[0].charge_id,
            "status": "captured",
            "amount_cents": 1250,
            "currency": "EUR",
            "reference": "pay-1",
        })
    );
    assert_eq!((charges.len(), charges[0].call), (1, 1));
    assert_eq!(charges[0].key.as_deref(), Some("k-1"));
}

#[tokio::test]
async fn the_same_key_and_body_get_the_first_outcome_again() {
    let provider = open();
    let declined = json!({
        "amount_cents": 1, "currency": "EUR", "card": DECLINED_CARD, "reference": "pay-2",
    });
    for (key, body) in [("k-1", order("pay-1")), ("k-2", declined)] {
        let first = charge(&provider, key, body.clone()).await;
        assert!(!last_was_a_replay(&provider));
        let response = within(send(&provider, key, body)).await.unwrap().unwrap();
        assert_eq!(response.headers()["idempotent-replayed"], "true");
        let again = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(first, again);
    }
    assert_eq!(provider.charges().len(), 1);
}

#[tokio::test]
async fn a_body_written_another_way_is_the_same_body() {
    let provider = open();
    let first = charge(&provider, "k-1", order("pay-1")).await;
    let text = r#"{"reference":"pay-1", "card":"4242-4242","currency":"EUR","amount_cents":1250}"#;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(format!("{}/charges", provider.url()))
        .header("idempotency-key", "k-1")
        .body(text);
    assert_eq!(hear(tokio::spawn(request.send())).await, first);
}

#[tokio::test]
async fn the_same_key_with_any_member_changed_is_refused() {
    let provider = open();
    charge(&provider, "k-1", order("pay-1")).await;
    for (member, other) in [
        ("amount_cents", json!(1251)),
        ("currency", json!("USD")),
        ("card", json!("4242-4243")),
        ("reference", json!("pay-2")),
    ] {
        let mut body = order("pay-1");
        body[member] = other;
        let (status, body) = charge(&provider, "k-1", body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{member}");
        assert_eq!(body["error"], "idempotency_key_reused");
    }
    assert_eq!(provider.charges().len(), 1);
}

#[tokio::test]
async fn a_declined_card_is_not_charged() {
    let provider = open();
    for card in [DECLINED_CARD.to_owned(), format!("{DECLINED_CARD}-17")] {
        let mut body = order("pay-1");
        body["card"] = json!(card);
        let (status, body) = charge(&provider, &card, body).await;
        assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
        assert_eq!(body, json!({ "error": "card_declined" }));
    }
    assert_eq!(provider.charges(), []);
}

#[tokio::test]
async fn without_a_key_every_call_is_a_new_charge() {
    let provider = open();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for _ in 0..2 {
        let url = format!("{}/charges", provider.url());
        let request = client.post(url).json(&order("pay-1"));
        assert_eq!(
            hear(tokio::spawn(request.send())).await.0,
            StatusCode::CREATED
        );
    }
    let charges = provider.charges_for("pay-1");
    assert_eq!(charges.len(), 2);
    assert_ne!(charges[0].charge_id, charges[1].charge_id);
}

#[tokio::test]
async fn a_key_is_taken_literally() {
    let provider = open();
    for key in ["k", "\"k\"", "K"] {
        charge(&provider, key, order("pay-1")).await;
    }
    assert_eq!(provider.charges().len(), 3);
}

#[tokio::test]
async fn bad_input_is_400_and_not_remembered() {
    let provider = open();
    let with = |member: &str, value: Value| {
        let mut body = order("pay-1");
        body[member] = value;
        body
    };
    let mut bad: Vec<(String, Value)> = [
        json!(null),
        json!([]),
        json!("text"),
        json!({}),
        with("amount_cents", json!(0)),
        with("amount_cents", json!(-1)),
        with("amount_cents", json!(12.5)),
        with("amount_cents", json!("1250")),
        with("amount_cents", json!(1_u64 << 53)),
        with("currency", json!("eur")),
        with("currency", json!("EURO")),
        with("card", json!("")),
        with("reference", json!("x".repeat(65))),
        with("reference", json!(7)),
    ]
    .into_iter()
    .map(|body| ("k-1".to_owned(), body))
    .collect();
    for key in ["", "a b", &"x".repeat(256)] {
        bad.push((key.to_owned(), order("pay-1")));
    }
    for (key, body) in bad {
        let (status, answer) = charge(&provider, &key, body.clone()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{key:?} {body}");
        assert_eq!(answer["error"], "invalid_request");
    }
    assert_eq!(provider.charges(), []);
    for key in ["k-1".to_owned(), "x".repeat(255)] {
        let (status, _) = charge(&provider, &key, order("pay-1")).await;
        assert_eq!(status, StatusCode::CREATED);
    }
}

#[tokio::test]
async fn other_routes_are_404_and_other_methods_405() {
    let provider = open();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (path, expected) in [("/", 404), ("/charges/1", 404), ("/charges", 405)] {
        let url = format!("{}{path}", provider.url());
        let response = within(client.get(url).send()).await.unwrap();
        assert_eq!(response.status(), expected, "{path}");
    }
    assert_eq!(provider.calls().len(), 3);
}

#[tokio::test]
async fn a_second_call_neither_waits_for_the_first_nor_is_refused() {
    let provider = open();
    let trap = provider.trap_next();
    let first = send(&provider, "k-1", order("pay-1"));
    let held = within(trap.caught()).await;
    let second = charge(&provider, "k-1", order("pay-1")).await;
    assert_eq!(second.0, StatusCode::CREATED);
    assert!(!last_was_a_replay(&provider) && held.is_open());
    assert!(held.answer().is_replay());
    assert_eq!(hear(first).await, second);
    assert_eq!(provider.charges()[0].call, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_at_once_with_one_key_are_one_capture_and_one_answer() {
    let provider = open();
    let trap = provider.trap_payment("pay-1");
    let sending: Vec<_> = (0..50)
        .map(|_| send(&provider, "k-1", order("pay-1")))
        .collect();
    within(provider.calls_when(|calls| calls.len() == 50)).await;
    assert_eq!((trap.waiting(), provider.open_calls()), (50, 50));
    drop(trap);
    let mut answers = Vec::new();
    for sending in sending {
        answers.push(hear(sending).await);
    }
    answers.dedup();
    assert_eq!((answers.len(), provider.charges().len()), (1, 1));
    let calls = provider.calls_for("pay-1");
    let did_it = calls
        .iter()
        .filter(|call| !call.acted.as_ref().unwrap().is_replay());
    assert_eq!(did_it.count(), 1);
}
