//! What every fake promises, shown on the payment provider and heard through a real HTTP client.

use std::{
    io::ErrorKind,
    time::{Duration, Instant},
};

use http::StatusCode;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};

use super::{CallRecord, Fate, PaymentProvider, Weather, payment_provider::GOOD_CARD};
use crate::History;

const DEADLINE: Duration = Duration::from_secs(20);

pub(super) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, what)
        .await
        .expect("it did not happen within the deadline")
}

pub(super) fn open() -> PaymentProvider {
    PaymentProvider::open(History::new()).unwrap()
}

pub(super) fn order(payment_id: &str) -> Value {
    json!({ "amount_cents": 1250, "currency": "EUR", "card": GOOD_CARD, "reference": payment_id })
}

/// A call to any fake.
pub(super) fn post(
    fake: &super::Fake,
    path: &str,
    body: Value,
) -> impl Future<Output = reqwest::Response> + use<> {
    answered(client().post(format!("{}{path}", fake.url())).json(&body))
}

pub(super) fn get(
    fake: &super::Fake,
    path: &str,
) -> impl Future<Output = reqwest::Response> + use<> {
    answered(client().get(format!("{}{path}", fake.url())))
}

async fn answered(request: reqwest::RequestBuilder) -> reqwest::Response {
    request.send().await.expect("the fake answers")
}

fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().unwrap()
}

pub(super) type Sending = JoinHandle<reqwest::Result<reqwest::Response>>;

pub(super) fn send(provider: &PaymentProvider, key: &str, body: Value) -> Sending {
    let url = format!("{}/charges", provider.url());
    let request = client()
        .post(url)
        .header("idempotency-key", key)
        .json(&body);
    tokio::spawn(request.send())
}

pub(super) async fn hear(sending: Sending) -> (StatusCode, Value) {
    let response = within(sending).await.unwrap().unwrap();
    (response.status(), response.json().await.unwrap())
}

async fn hear_nothing(sending: Sending) {
    let error = within(sending).await.unwrap().unwrap_err();
    assert!(error.is_request() && !error.is_connect(), "{error:?}");
}

async fn fate_is(provider: &PaymentProvider, fate: Fate) -> CallRecord {
    let calls = provider.calls_when(|calls| calls.last().is_some_and(|call| call.fate == fate));
    within(calls).await.pop().unwrap()
}

fn lines(history: &History) -> Vec<String> {
    let events = history.events().into_iter();
    events
        .map(|event| format!("{}: {}", event.actor, event.what))
        .collect()
}

#[test]
fn a_fate_changes_only_along_the_listed_steps() {
    let ok = StatusCode::CREATED;
    let last = [
        Fate::Answered(ok),
        Fate::Refused(StatusCode::BAD_GATEWAY),
        Fate::Broken,
        Fate::HungUp,
    ];
    let all = [[Fate::Running, Fate::Held].as_slice(), &last].concat();
    for from in &all {
        for to in &all {
            let legal = match from {
                Fate::Running => *to != Fate::Running,
                Fate::Held => last.contains(to),
                _ => false,
            };
            assert_eq!(from.may_become(*to), legal, "{from:?} → {to:?}");
        }
    }
}

#[test]
fn without_a_runtime_opening_is_an_error() {
    assert!(PaymentProvider::open(History::new()).is_err());
}

#[tokio::test]
async fn a_held_call_is_answered_when_told_and_can_be_told_from_others() {
    let history = History::new();
    let provider = PaymentProvider::open(history.clone()).unwrap();
    let trap = provider.trap_payment("pay-7");
    let sending = send(&provider, "k-1", order("pay-7"));
    let caught = within(trap.caught()).await;
    assert_eq!((caught.number(), caught.key().as_deref()), (1, Some("k-1")));
    assert_eq!(caught.body()["reference"], "pay-7");
    assert!(caught.is_open() && !sending.is_finished());
    assert_eq!(provider.open_calls(), 1);
    assert_eq!(provider.charges(), []);

    let answer = caught.answer();
    let (status, body) = hear(sending).await;
    assert_eq!((status, &body), (StatusCode::CREATED, answer.body()));
    assert_eq!(provider.charges()[0].charge_id, body["charge_id"]);
    let record = fate_is(&provider, Fate::Answered(status)).await;
    assert_eq!(record.acted, Some(answer));
    let id = &provider.charges()[0].charge_id;
    assert_eq!(
        lines(&history),
        [
            "provider: call 1, charge 12.50 EUR for pay-7, key k-1: held".to_owned(),
            format!("provider: call 1 → 201 {id}"),
            "provider: call 1: answered".to_owned(),
        ]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_and_twenty_eight_calls_can_be_held_at_once() {
    let provider = open();
    let trap = provider.trap_payment("pay-1");
    let sending: Vec<_> = (0..128)
        .map(|number| send(&provider, &format!("k-{number}"), order("pay-1")))
        .collect();
    let mut held = Vec::new();
    for _ in 0..128 {
        held.push(within(trap.caught()).await);
    }
    assert_eq!(provider.open_calls(), 128);
    assert!(sending.iter().all(|sending| !sending.is_finished()));
    let mut numbers: Vec<_> = held.iter().map(|caught| caught.number()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=128).collect::<Vec<_>>());
    drop(held);
    for sending in sending {
        assert_eq!(hear(sending).await.0, StatusCode::CREATED);
    }
    assert_eq!(provider.charges_for("pay-1").len(), 128);
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_noticed_and_its_call_can_still_be_acted_on() {
    let history = History::new();
    let provider = PaymentProvider::open(history.clone()).unwrap();
    let trap = provider.trap_next();
    let sending = send(&provider, "k-1", order("pay-1"));
    let caught = within(trap.caught()).await;
    sending.abort();
    within(caught.closed()).await;
    assert!(!caught.is_open());
    assert_eq!(provider.open_calls(), 0);
    let record = fate_is(&provider, Fate::HungUp).await;
    assert_eq!((record.acted, provider.charges()), (None, vec![]));

    let answer = caught.act();
    assert_eq!(provider.charges_for("pay-1").len(), 1);
    drop(caught);
    assert_eq!(provider.charges_for("pay-1").len(), 1);
    let record = fate_is(&provider, Fate::HungUp).await;
    assert_eq!(record.acted, Some(answer));
    let last = lines(&history).pop().unwrap();
    assert!(
        last.ends_with("answer lost, the caller had hung up"),
        "{last}"
    );
}

#[tokio::test]
async fn a_call_whose_caller_hung_up_is_not_acted_on_if_it_is_then_broken_or_refused() {
    let provider = open();
    let trap = provider.trap_payment("pay-1");
    for number in [1, 2] {
        let sending = send(&provider, "k-1", order("pay-1"));
        let caught = within(trap.caught()).await;
        sending.abort();
        within(caught.closed()).await;
        match number {
            1 => caught.break_connection(),
            _ => caught.refuse(StatusCode::SERVICE_UNAVAILABLE),
        }
        assert_eq!(fate_is(&provider, Fate::HungUp).await.acted, None);
    }
    assert_eq!(provider.charges(), []);
}

#[tokio::test]
async fn acting_and_then_breaking_keeps_the_effect_and_loses_the_answer() {
    let provider = open();
    let trap = provider.trap_next();
    let sending = send(&provider, "k-1", order("pay-1"));
    let caught = within(trap.caught()).await;
    let answer = caught.act();
    assert!(caught.is_open());
    caught.break_connection();
    hear_nothing(sending).await;
    let record = fate_is(&provider, Fate::Broken).await;
    assert_eq!(record.acted.as_ref(), Some(&answer));

    let (status, body) = hear(send(&provider, "k-1", order("pay-1"))).await;
    assert_eq!((status, &body), (StatusCode::CREATED, answer.body()));
    assert_eq!(provider.charges().len(), 1);
    // The client did not repeat the broken call by itself, which would have hidden the break.
    assert_eq!(provider.calls_for("pay-1").len(), 2);
}

#[tokio::test]
async fn a_broken_connection_is_reset_without_a_byte_sent() {
    let provider = open();
    provider.set_weather(Weather::Break);
    let address = provider.url().replace("http://", "");
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = order("pay-1").to_string();
    let request = format!(
        "POST /charges HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let error = within(stream.read_to_end(&mut heard)).await.unwrap_err();
    assert_eq!((error.kind(), heard), (ErrorKind::ConnectionReset, vec![]));
    assert_eq!(fate_is(&provider, Fate::Broken).await.acted, None);
}

#[tokio::test]
async fn a_reused_connection_is_broken_and_missed_like_a_new_one() {
    let provider = open();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let ask = || {
        let request = client.post(format!("{}/charges", provider.url()));
        tokio::spawn(request.json(&order("pay-1")).send())
    };
    hear(ask()).await;
    provider.set_weather(Weather::Break);
    hear_nothing(ask()).await;
    assert_eq!(provider.calls().len(), 2);

    provider.set_weather(Weather::Fine);
    hear(ask()).await;
    let trap = provider.trap_next();
    let sending = ask();
    let caught = within(trap.caught()).await;
    sending.abort();
    within(caught.closed()).await;
}

#[tokio::test]
async fn garbage_and_half_a_request_are_no_calls_and_do_no_harm() {
    let provider = open();
    let address = provider.url().replace("http://", "");
    for sent in [
        "garbage\r\n\r\n",
        "POST /charges HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{\"amount",
    ] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        // Its end is the sign that the fake has dealt with it.
        let _ = within(stream.read_to_end(&mut Vec::new())).await;
    }
    let (status, _) = hear(send(&provider, "k-1", order("pay-1"))).await;
    assert_eq!((status, provider.calls().len()), (StatusCode::CREATED, 1));
}

#[tokio::test]
async fn a_refused_call_has_no_effect_and_says_when_to_come_back() {
    let provider = open();
    let trap = provider.trap_payment("pay-1");
    for (status, retry_after) in [(429, true), (500, false), (502, false), (503, true)] {
        let status = StatusCode::from_u16(status).unwrap();
        let sending = send(&provider, "k-1", order("pay-1"));
        within(trap.caught()).await.refuse(status);
        let response = within(sending).await.unwrap().unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.headers().contains_key("retry-after"), retry_after);
        let body: Value = response.json().await.unwrap();
        assert!(body["error"].is_string());
        assert_eq!(fate_is(&provider, Fate::Refused(status)).await.acted, None);
    }
    assert_eq!(provider.charges(), []);
}

#[tokio::test]
async fn the_weather_holds_until_it_changes() {
    let provider = open();
    let ask = |payment| send(&provider, payment, order(payment));
    provider.set_weather(Weather::Refuse(StatusCode::SERVICE_UNAVAILABLE));
    for _ in 0..2 {
        let (status, _) = hear(ask("pay-1")).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    provider.set_weather(Weather::Break);
    hear_nothing(ask("pay-1")).await;
    assert_eq!(provider.charges(), []);
    provider.set_weather(Weather::ActThenBreak);
    hear_nothing(ask("pay-1")).await;
    hear_nothing(ask("pay-2")).await;
    assert_eq!(provider.charges().len(), 2);
    provider.set_weather(Weather::Fine);
    assert_eq!(hear(ask("pay-1")).await.0, StatusCode::CREATED);
    assert_eq!(provider.charges().len(), 2);
}

#[tokio::test]
async fn delayed_calls_wait_as_long_as_said() {
    let provider = open();
    let at_least = Duration::from_millis(30);
    provider.set_weather(Weather::Delay {
        at_least,
        at_most: at_least * 2,
        seed: 1,
    });
    let began = Instant::now();
    let (status, _) = hear(send(&provider, "k-1", order("pay-1"))).await;
    assert_eq!(status, StatusCode::CREATED);
    assert!(began.elapsed() >= at_least, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_delayed_call_is_acted_on_although_its_caller_hung_up() {
    let provider = open();
    let hour = Duration::from_secs(3600);
    provider.set_weather(Weather::Delay {
        at_least: hour,
        at_most: hour,
        seed: 1,
    });
    let sending = send(&provider, "k-1", order("pay-1"));
    fate_is(&provider, Fate::Running).await;
    sending.abort();
    fate_is(&provider, Fate::HungUp).await;
    assert_eq!(provider.charges(), []);
    provider.reset();
    assert_eq!(provider.charges_for("pay-1").len(), 1);
}

#[tokio::test]
async fn the_first_trap_that_matches_gets_the_call_and_the_weather_the_rest() {
    let provider = open();
    provider.set_weather(Weather::Refuse(StatusCode::BAD_GATEWAY));
    let first = provider.trap_times(1, |request| request.key().as_deref() == Some("a"));
    let second = provider.trap_payment("pay-1");
    let one = send(&provider, "a", order("pay-1"));
    let held = within(first.caught()).await;
    let two = send(&provider, "a", order("pay-1"));
    let also_held = within(second.caught()).await;
    let three = send(&provider, "a", order("pay-2"));
    assert_eq!(hear(three).await.0, StatusCode::BAD_GATEWAY);
    assert!(first.try_caught().is_none() && second.try_caught().is_none());
    assert_eq!((held.number(), also_held.number()), (1, 2));
    let second_answer = also_held.answer();
    let first_answer = held.answer();
    assert!(first_answer.is_replay() && !second_answer.is_replay());
    assert_eq!(hear(one).await.1, hear(two).await.1);
}

#[tokio::test]
async fn dropping_a_trap_lets_go_what_it_holds_and_nothing_else() {
    let provider = open();
    let trap = provider.trap_payment("pay-1");
    let one = send(&provider, "k-1", order("pay-1"));
    let taken_out = within(trap.caught()).await;
    let two = send(&provider, "k-2", order("pay-1"));
    within(provider.calls_when(|calls| calls.len() == 2)).await;
    assert_eq!(trap.waiting(), 1);
    drop(trap);
    assert_eq!(hear(two).await.0, StatusCode::CREATED);
    assert!(taken_out.is_open() && !one.is_finished());
    drop(taken_out);
    assert_eq!(hear(one).await.0, StatusCode::CREATED);
    let three = send(&provider, "k-3", order("pay-1"));
    assert_eq!(hear(three).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_reset_lets_calls_go_and_forgets_everything_but_the_keys() {
    let provider = open();
    let trap = provider.trap_next();
    provider.set_weather(Weather::Break);
    let sending = send(&provider, "k-1", order("pay-1"));
    within(provider.calls_when(|calls| calls.len() == 1)).await;
    provider.reset();
    assert_eq!(hear(sending).await.0, StatusCode::CREATED);
    assert_eq!(provider.calls(), []);
    assert!(trap.try_caught().is_none());

    let (status, _) = hear(send(&provider, "k-1", order("pay-1"))).await;
    assert_eq!(status, StatusCode::CREATED);
    let calls = provider.calls();
    assert_eq!((calls.len(), calls[0].number), (1, 2));
    assert!(calls[0].acted.as_ref().unwrap().is_replay());
    assert_eq!(provider.charges().len(), 1);
}

#[tokio::test]
async fn what_happens_to_a_call_is_noted_in_the_history_it_arrived_in() {
    let first = History::new();
    let provider = PaymentProvider::open(first.clone()).unwrap();
    let trap = provider.trap_next();
    let sending = send(&provider, "k-1", order("pay-1"));
    let caught = within(trap.caught()).await;
    let second = History::new();
    provider.record_into(second.clone());
    caught.refuse(StatusCode::SERVICE_UNAVAILABLE);
    hear(sending).await;
    assert_eq!(second.events(), []);
    assert!(lines(&first)[1].ends_with(": refused 503"));
    hear(send(&provider, "k-1", order("pay-1"))).await;
    assert_eq!((first.events().len(), second.events().len()), (2, 1));
}

#[tokio::test]
async fn dropping_a_fake_closes_its_port_and_cuts_its_calls() {
    let provider = open();
    let server = provider.server.clone();
    let trap = provider.trap_next();
    let sending = send(&provider, "k-1", order("pay-1"));
    let caught = within(trap.caught()).await;
    drop(provider);
    hear_nothing(sending).await;
    within(caught.closed()).await;
    // The port is the server's, so it is closed. Connecting to it would not tell: by now it may be
    // another test's.
    assert!(server.is_finished());
}
