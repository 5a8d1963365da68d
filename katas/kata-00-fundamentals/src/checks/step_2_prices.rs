//! Step 2: the price is a pure function.

use futures::{StreamExt, stream};
use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, Promise, Reply};
use serde_json::{Value, json};

use super::customer::{Order, line, settled};

/// Seven days in a row, with a leap day and the end of a month, and whether each is a weekend. No day
/// of the clock is right for all of them.
const WEEK: [(&str, bool); 7] = [
    ("2028-02-26", true),
    ("2028-02-27", true),
    ("2028-02-28", false),
    ("2028-02-29", false),
    ("2028-03-01", false),
    ("2028-03-02", false),
    ("2028-03-03", false),
];

/// The first and the last second of a day: in Auckland, one of them belongs to another day.
const ENDS_OF_A_DAY: [&str; 2] = ["T00:00:00Z", "T23:59:59Z"];

const WEDNESDAY: &str = "2026-03-04T10:15:00Z";
const SUNDAY: &str = "2026-03-08T10:15:00Z";

/// What a quote has to say: subtotal, discount, total, rules.
type Expected = (u64, u64, u64, &'static [&'static str]);

/// Prices that anybody can calculate by hand.
pub async fn prices_by_the_rules(lab: Lab) -> Judged {
    let program = lab.start().await?;
    // A tenth of 99 is 9.9 cents, so 9 for each of two lines; the 5 % are of what is left, 1179.
    let cart = || vec![line("tea", 11, 9), line("tea", 11, 9), line("pot", 1, 999)];
    let on_weekdays: Expected = (1_197, 18, 1_179, &["bulk"]);
    let on_weekends: Expected = (1_197, 76, 1_121, &["bulk", "weekend"]);
    let mut asked: Vec<(String, Vec<Value>, Expected)> = Vec::new();
    for (day, is_weekend) in WEEK {
        for end in ENDS_OF_A_DAY {
            let expected = if is_weekend { on_weekends } else { on_weekdays };
            asked.push((format!("{day}{end}"), cart(), expected));
        }
    }
    let more: [(&str, Vec<Value>, Expected); 7] = [
        (WEDNESDAY, vec![line("tea", 9, 100)], (900, 0, 900, &[])),
        (
            WEDNESDAY,
            vec![line("tea", 10, 100)],
            (1_000, 100, 900, &["bulk"]),
        ),
        (
            SUNDAY,
            vec![line("tea", 10, 100)],
            (1_000, 145, 855, &["bulk", "weekend"]),
        ),
        (
            SUNDAY,
            vec![line("tea", 1, 999)],
            (999, 49, 950, &["weekend"]),
        ),
        // Rules that apply and give nothing.
        (
            SUNDAY,
            vec![line("tea", 10, 0)],
            (0, 0, 0, &["bulk", "weekend"]),
        ),
        // Two lines of five are not a line of ten.
        (
            WEDNESDAY,
            vec![line("tea", 5, 100), line("tea", 5, 100)],
            (1_000, 0, 1_000, &[]),
        ),
        (
            SUNDAY,
            vec![line("ship", 1_000_000, 10_000_000); 100],
            (
                1_000_000_000_000_000,
                145_000_000_000_000,
                855_000_000_000_000,
                &["bulk", "weekend"],
            ),
        ),
    ];
    asked.extend(more.map(|(at, lines, expected)| (at.to_owned(), lines, expected)));
    for (at, lines, (subtotal, discount, total, rules)) in asked {
        let expected = json!({
            "subtotal_cents": subtotal, "discount_cents": discount,
            "total_cents": total, "rules": rules,
        });
        let promise = Promise::new(
            format!("POST /quotes of {} at {at}", in_words(&lines)),
            "200 with subtotal_cents, discount_cents, total_cents and rules as the rules give them",
        );
        let reply = ask(&program, &lines, &at).send().await?;
        let body = reply.json().unwrap_or_default();
        let members = expected.as_object().into_iter().flatten();
        let is_right = members.fold(reply.status == StatusCode::OK, |right, (name, value)| {
            right && body[name] == *value
        });
        promise.holds(is_right, format!("{reply}; by the rules: {expected}"))?;
    }
    Ok(())
}

fn in_words(lines: &[Value]) -> String {
    let word = |line: &Value| format!("{} × {}", line["quantity"], line["unit_price_cents"]);
    match lines {
        [first, rest @ ..] if rest.len() > 2 => format!("{} lines of {}", lines.len(), word(first)),
        lines => lines.iter().map(word).collect::<Vec<_>>().join(" + "),
    }
}

fn ask(at: &Instance, lines: &[Value], moment: &str) -> kata_lab::Request {
    at.post("/quotes")
        .json(&json!({ "lines": lines, "at": moment }))
}

/// The same bytes a thousand times, from two instances, and nothing happens outside.
pub async fn prices_without_effect_or_memory(lab: Lab) -> Judged {
    const TIMES: usize = 1_000;
    const AT_ONCE: usize = 20;
    let instances = [
        lab.start_as("instance A").await?,
        lab.start_as("instance B").await?,
    ];
    let lines: Vec<_> = (0..5)
        .map(|_| line(&lab.id("sku"), lab.pick(1..=30), lab.pick(0..=9_999)))
        .collect();
    let promise = Promise::new(
        "the same POST /quotes 1,000 times, to two instances in turn",
        "200 with the same bytes each time",
    );
    let first = ask(&instances[0], &lines, SUNDAY).send().await?;
    promise.holds(first.status == StatusCode::OK, first.to_string())?;
    let mut answers = stream::iter(1..TIMES)
        .map(|number| ask(&instances[number % 2], &lines, SUNDAY).quietly().send())
        .buffer_unordered(AT_ONCE);
    while let Some(reply) = answers.next().await {
        let reply: Reply = reply?;
        let is_same = reply.status == first.status && reply.body == first.body;
        promise.holds(is_same, format!("{first}, and {reply}"))?;
    }
    let promise = Promise::new("1,000 × POST /quotes", "no call to mail or warehouse");
    let before: Vec<_> = [lab.mail(), lab.warehouse()]
        .map(|fake| fake.calls().len())
        .into();
    promise.holds(
        before == [0, 0],
        format!("{before:?} calls to mail and warehouse"),
    )?;
    settled(&lab, &instances).await?;
    // The witness of each instance caused one call at each.
    let after: Vec<_> = [lab.mail(), lab.warehouse()]
        .map(|fake| fake.calls().len())
        .into();
    promise.holds(
        after.iter().all(|calls| *calls <= instances.len()),
        format!(
            "{after:?} calls to mail and warehouse, and orders for {}",
            instances.len()
        ),
    )
}

/// An order costs what a quote for its lines says at its own moment.
pub async fn charges_what_was_quoted(lab: Lab) -> Judged {
    let program = lab.start().await?;
    for placed_at in [WEDNESDAY, SUNDAY] {
        let order = Order {
            placed_at: placed_at.to_owned(),
            ..Order::new(&lab)
        };
        let quote = ask(&program, &order.lines, placed_at).send().await?;
        let quoted = quote.json().unwrap_or_default()["total_cents"].clone();
        order.is_placed(&program).await?;
        let promise = Promise::new(
            format!(
                "POST /quotes for the lines of an order at {placed_at}; POST /orders; GET /orders/{{id}}"
            ),
            "the same total_cents in the quote and in the order",
        );
        let shown = order.look_up(&program).send().await?;
        let charged = shown.json().unwrap_or_default()["total_cents"].clone();
        promise.holds(
            quoted.is_u64() && charged == quoted,
            format!("quoted {quoted}, charged {charged}"),
        )?;
    }
    Ok(())
}
