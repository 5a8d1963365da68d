//! The kata's command line.
use futures::StreamExt;
use kata_lab::*;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

#[tokio::main]
async fn main() {
    let t = Instant::now();
    let kata = Arc::new(kata_04_idempotency::kata());
    let grounds = Grounds::open().await.unwrap();
    println!("{} after {:?}", grounds.describe(), t.elapsed());
    let session = Session::new(
        kata.clone(),
        grounds.clone(),
        rand::random(),
        Duration::from_secs(60),
    );
    let args: Vec<String> = std::env::args().skip(1).collect();
    let implementation = match args.first().map(String::as_str) {
        Some("--cmd") => Implementation::Command {
            line: args[1].clone(),
            directory: std::env::current_dir().unwrap(),
        },
        Some(id) => Implementation::in_process(kata.variant(id).unwrap()),
        None => Implementation::in_process(kata.variant("reference").unwrap()),
    };
    let filter = std::env::var("ONLY").unwrap_or_default();
    let checks: Vec<_> = kata
        .checks()
        .filter(|c| c.1.name.contains(&filter))
        .map(|(s, c)| (s, c.clone()))
        .collect();
    let mut outcomes = std::pin::pin!(session.judge(&implementation, checks));
    while let Some(o) = outcomes.next().await {
        println!(
            "{} {} {:.2}s",
            o.verdict.kind().mark(),
            o.check.name,
            o.took.as_secs_f64()
        );
        match &o.verdict {
            Verdict::Failed(f) => {
                println!(
                    "  did {}\n  expected {}\n  saw {}",
                    f.did, f.expected, f.saw
                );
                for e in &f.history {
                    println!(
                        "    {:8.1} {:12} {}",
                        e.at.as_secs_f64() * 1000.0,
                        e.actor,
                        e.what
                    )
                }
                for l in &f.output {
                    println!("    | {l}")
                }
            }
            other => println!("  {other:?}"),
        }
    }
    println!("total {:?}", t.elapsed());
    grounds.close().await.unwrap();
}
