//! Step 1: make it break. The race has to be there before anybody can take it away.

use http::StatusCode;
use kata_lab::{Instance, Judged, Lab, Promise};
use serde_json::{Value, json};

use super::shop::{Article, Style, answers, arrived, crowd, early_answers};

/// How many ask at once.
const CROWD: usize = 100;

/// How many units there are.
const STOCK: u64 = 10;

/// How many have to read the stock before anybody writes it.
const READERS: usize = 20;

/// Quantities that are none, and bodies that are none: a 4xx, no approval, nothing changed.
pub async fn rejects_wrong_input(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let article = Article::new(&lab, Style::Naive);
    article.put(&program, STOCK).await?;
    let wrong: [(&str, Value); 6] = [
        ("quantity 0", json!({ "quantity": 0 })),
        ("quantity -1", json!({ "quantity": -1 })),
        ("quantity 1.5", json!({ "quantity": 1.5 })),
        ("quantity \"1\"", json!({ "quantity": "1" })),
        ("no quantity", json!({})),
        ("a list", json!([1])),
    ];
    for (what, body) in wrong {
        let promise = refused(&format!("POST …/reserve with {what}"));
        let reply = article.reserve_request(&program, &body).send().await?;
        promise.holds(is_wrong_input(reply.status), reply.to_string())?;
        unchanged(&lab, &program, &article, &promise).await?;
    }
    let promise = refused("POST …/reserve with a body that is no JSON");
    let request = article.reserve_request(&program, &Value::Null);
    let reply = request.bytes("application/json", b"{\"quant".to_vec());
    let reply = reply.send().await?;
    promise.holds(is_wrong_input(reply.status), reply.to_string())?;
    let promise = refused("PUT with quantity -1");
    let negative = json!({ "quantity": -1 });
    let reply = article.put_request(&program, &negative).send().await?;
    promise.holds(is_wrong_input(reply.status), reply.to_string())?;
    return unchanged(&lab, &program, &article, &promise).await;

    async fn unchanged(lab: &Lab, at: &Instance, article: &Article, promise: &Promise) -> Judged {
        let asked = article.asked(lab);
        promise.holds(asked == 0, format!("{asked} calls to the approvals"))?;
        let there = article.quantity(at, promise).await?;
        promise.holds(there == STOCK, format!("{there} in stock"))
    }
}

fn refused(did: &str) -> Promise {
    Promise::new(did, "400 or 422, no approval asked for, nothing changed")
}

fn is_wrong_input(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::UNSUPPORTED_MEDIA_TYPE
    )
}

/// What was put can be read, a second time replaces the first, and what was never put is a 404.
pub async fn reads_back_the_stock(lab: Lab) -> Judged {
    let program = lab.start().await?;
    let article = Article::new(&lab, Style::Naive);
    let promise = Promise::new(
        "GET, and POST …/reserve, of an article that was never put",
        "404, and no approval asked for",
    );
    for request in [article.look(&program), article.reserve(&program, 1)] {
        let reply = request.send().await?;
        promise.holds(reply.status == StatusCode::NOT_FOUND, reply.to_string())?;
    }
    let asked = article.asked(&lab);
    promise.holds(asked == 0, format!("{asked} calls to the approvals"))?;
    let promise = Promise::new(
        "PUT a quantity, and GET it, three times",
        "200, and each time what was put last",
    );
    for quantity in [STOCK, 0, lab.pick(1..=9_999)] {
        article.put(&program, quantity).await?;
        let there = article.quantity(&program, &promise).await?;
        promise.holds(
            there == quantity,
            format!("{quantity} put and {there} read"),
        )?;
    }
    Ok(())
}

/// A hundred at once on a stock of ten: at least twenty succeed, because the lab lets nobody write
/// before twenty have read.
pub async fn oversells_without_a_lock(lab: Lab) -> Judged<String> {
    let program = lab.start().await?;
    let article = Article::new(&lab, Style::Naive);
    article.put(&program, STOCK).await?;
    let promise = Promise::new(
        format!(
            "{CROWD} × POST /naive/stock/…/reserve {{quantity: 1}} at once on a stock of {STOCK}; the approvals were held until {READERS} had asked"
        ),
        format!(
            "{READERS} ask before anybody is answered, and at least {READERS} are told 200: each reads the stock, asks, and writes back what it read minus one"
        ),
    );
    let trap = lab.approvals().trap_sku(&article.sku);
    let mut crowd = crowd(&article, &program, CROWD);
    let asking = arrived(&lab, &program, READERS, || trap.waiting()).await?;
    if asking < READERS {
        let early = early_answers(&mut crowd).await?;
        return promise.broken(format!(
            "{asking} asked while the approvals were held, and no more came{early}: has somebody locked it?"
        ));
    }
    drop(trap);
    let replies = answers(&mut crowd, &promise).await?;
    let sold = replies
        .iter()
        .filter(|r| r.status == StatusCode::OK)
        .count();
    promise.holds(
        sold >= READERS,
        format!("{sold} × 200 from a stock of {STOCK}"),
    )?;
    Ok(format!("{sold} sold of {STOCK}"))
}
