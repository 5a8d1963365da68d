//! Step 2: a lock. What is judged here is judged of the worker, too, and lives here once.

use std::collections::BTreeSet;

use http::StatusCode;
use kata_lab::{Judged, Lab, Promise, Reply};

use super::shop::{Article, Style, answers, arrived, crowd, early_answers, remaining};

/// How many ask at once.
const CROWD: usize = 100;

/// How many units there are.
const STOCK: u64 = 10;

/// A hundred at once on a stock of ten: ten are sold.
pub async fn lock_never_oversells(lab: Lab) -> Judged {
    never_oversells(&lab, Style::Lock).await
}

/// All hundred ask for their approval before the first has one.
pub async fn lock_is_free_while_asking(lab: Lab) -> Judged {
    is_free_while_asking(&lab, Style::Lock).await
}

/// Without an approval nothing is sold, and nobody asks twice.
pub async fn lock_sells_nothing_unapproved(lab: Lab) -> Judged {
    sells_nothing_unapproved(&lab, Style::Lock).await
}

pub(super) async fn never_oversells(lab: &Lab, style: Style) -> Judged {
    let program = lab.start().await?;
    let article = Article::new(lab, style);
    article.put(&program, STOCK).await?;
    let promise = Promise::new(
        format!(
            "{CROWD} × POST /{}/stock/…/reserve {{quantity: 1}} at once on a stock of {STOCK}; the approvals were held until all that could had asked",
            style.path()
        ),
        format!(
            "{STOCK} × 200 with `remaining` {} to 0, each once; 409 for all others; then 0 in stock",
            STOCK - 1
        ),
    );
    let trap = lab.approvals().trap_sku(&article.sku);
    let mut crowd = crowd(&article, &program, CROWD);
    // How many ask at once is another promise. Here they are only given the chance to.
    arrived(lab, &program, CROWD, || trap.waiting()).await?;
    drop(trap);
    let replies = answers(&mut crowd, &promise).await?;
    let strange = replies.iter().find(|reply| {
        let sold = reply.status == StatusCode::OK;
        !sold && reply.status != StatusCode::CONFLICT
    });
    if let Some(reply) = strange {
        return promise.broken(reply.to_string());
    }
    let sold: Vec<&Reply> = replies
        .iter()
        .filter(|reply| reply.status == StatusCode::OK)
        .collect();
    promise.holds(
        sold.len() as u64 == STOCK,
        format!("{} × 200 from a stock of {STOCK}", sold.len()),
    )?;
    let left: BTreeSet<_> = sold.iter().filter_map(|reply| remaining(reply)).collect();
    promise.holds(
        left == (0..STOCK).collect(),
        format!("`remaining` {left:?}"),
    )?;
    let there = article.quantity(&program, &promise).await?;
    promise.holds(there == 0, format!("{there} in stock afterwards"))
}

pub(super) async fn is_free_while_asking(lab: &Lab, style: Style) -> Judged {
    let program = lab.start().await?;
    let article = Article::new(lab, style);
    article.put(&program, STOCK).await?;
    let promise = Promise::new(
        format!(
            "{CROWD} × POST /{}/stock/…/reserve {{quantity: 1}} at once; the approvals were held",
            style.path()
        ),
        format!("all {CROWD} ask for their approval before the first is answered"),
    );
    let trap = lab.approvals().trap_sku(&article.sku);
    let mut crowd = crowd(&article, &program, CROWD);
    let asked = arrived(lab, &program, CROWD, || trap.waiting()).await?;
    let early = early_answers(&mut crowd).await?;
    promise.holds(
        asked == CROWD,
        format!("{asked} asked, and no more came{early}"),
    )
}

pub(super) async fn sells_nothing_unapproved(lab: &Lab, style: Style) -> Judged {
    let program = lab.start().await?;
    for outcome in ["503", "403", "a broken connection"] {
        let article = Article::new(lab, style);
        article.put(&program, STOCK).await?;
        let promise = Promise::new(
            format!(
                "POST /{}/stock/…/reserve {{quantity: 1}}; the approvals answered with {outcome}",
                style.path()
            ),
            "one call to the approvals, then 502 or 503, and the stock as it was",
        );
        let trap = lab.approvals().trap_sku(&article.sku);
        let mut order = article.reserve(&program, 1).spawn();
        let caught = tokio::select! {
            biased;
            caught = trap.caught() => caught,
            answer = order.attempted() => return promise.broken(match answer? {
                Ok(reply) => format!("{reply}, and nobody asked"),
                Err(silence) => format!("{silence}, and nobody asked"),
            }),
        };
        // A second call is let through, and counted.
        drop(trap);
        match outcome {
            "503" => caught.refuse(StatusCode::SERVICE_UNAVAILABLE),
            "403" => caught.refuse(StatusCode::FORBIDDEN),
            _ => caught.break_connection(),
        }
        let mut order = [order];
        let reply = answers(&mut order, &promise).await?.remove(0);
        let said_no = matches!(
            reply.status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE
        );
        promise.holds(said_no, reply.to_string())?;
        let there = article.quantity(&program, &promise).await?;
        promise.holds(there == STOCK, format!("{there} in stock"))?;
        let asked = article.asked(lab);
        promise.holds(asked == 1, format!("{asked} calls to the approvals"))?;
    }
    Ok(())
}
