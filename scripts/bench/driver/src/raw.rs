//! What PostgreSQL does of the bare statements, by `pgbench`: the ceiling for any queue on it.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::Error;
use crate::plan::{RAW_SETUP, Raw, Store};
use crate::servers::{Place, Servers};

/// Runs one script once.
pub(crate) async fn run(
    servers: &mut Servers,
    scripts: &Path,
    raw: &Raw,
    jobs: usize,
    limit: Duration,
) -> Result<Value, Error> {
    let place = servers.fresh(Store::Postgres).await?;
    let outcome = measure(servers, scripts, &place, raw, jobs / raw.share, limit).await;
    let dead = servers.dead_tuples(&place).await?;
    servers.remove(place).await?;
    let mut outcome = match outcome {
        Ok(outcome) => outcome,
        Err(error) => json!({ "status": "failed", "reason": error.to_string() }),
    };
    outcome["dead_tuples"] = json!(dead);
    outcome["contestant"] = json!(raw.name);
    outcome["load"] = json!("burn-down");
    Ok(outcome)
}

async fn measure(
    servers: &mut Servers,
    scripts: &Path,
    place: &Place,
    raw: &Raw,
    jobs: usize,
    limit: Duration,
) -> Result<Value, Error> {
    let runs = jobs.div_ceil(raw.batch * raw.clients).max(1);
    // More rows than are asked for: the last claims must not find less than a full batch, and
    // pgbench gives up on a claim that finds none.
    let rows = (runs + 1) * raw.batch * raw.clients;
    let pool = place.pool().await?;
    sqlx::raw_sql(RAW_SETUP).execute(&pool).await?;
    let before = servers.read(place).await?;
    // The body is as long as every contestant's.
    let fill = "insert into job (payload) select format('{\"sequence\": %s, \"body\": \"%s\"}', n, \
                repeat('x', 97)) from generate_series(1, $1) n";
    sqlx::query(fill)
        .bind(i64::try_from(rows)?)
        .execute(&pool)
        .await?;
    let filled = servers.read(place).await?;

    let bundled = servers.programs().await?.join("pgbench");
    let program = if bundled.is_file() {
        bundled
    } else {
        "pgbench".into()
    };
    let command = Command::new(&program)
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=1"])
        .arg(format!("--client={}", raw.clients))
        .arg(format!("--transactions={runs}"))
        .arg("--file")
        .arg(scripts.join(raw.sql))
        .arg(&place.url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(limit, command)
        .await
        .map_err(|_| format!("pgbench took longer than {limit:?}"))?
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let after = servers.read(place).await?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    // What was done is counted in the table, not believed.
    let left: i64 = sqlx::query_scalar("select count(*) from job where state <> 2")
        .fetch_one(&pool)
        .await?;
    pool.close().await;
    let done = rows as f64 - left as f64;
    let transactions = (runs * raw.clients) as f64;
    let per_second = per_second(&text).ok_or("pgbench printed no rate")?;
    let seconds = transactions / per_second;
    Ok(json!({
        "status": "finished",
        "jobs": done,
        "done": done,
        "seconds": seconds,
        // Filling made more rows than were done.
        "log_bytes": (filled.log_bytes - before.log_bytes) * done / rows as f64
            + after.log_bytes - filled.log_bytes,
        "server_cpu_seconds": after.cpu_seconds.zip(before.cpu_seconds).map(|(a, b)| a - b),
    }))
}

/// Scripts run a second, without the time to connect.
fn per_second(output: &str) -> Option<f64> {
    let line = output
        .lines()
        .find_map(|line| line.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_from_what_pgbench_prints() {
        let output = "latency average = 5.2 ms\n\
                      tps = 191.25 (without initial connection time)\n";
        assert_eq!(per_second(output), Some(191.25));
        assert_eq!(per_second("nothing"), None);
    }
}
