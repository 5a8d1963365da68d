//! What a second process of this program does: it owns services, and is killed for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::time::Duration;

use axum::routing::get;
use shared::http::{Manners, serve, shutdown_signal};
use shared::services::guard::{Guarded, OnOrphaned, Output, Program, Signal, User};
use shared::services::{MariaDb, Options, Postgres, Redis, RedisOptions, ServiceError, Standby};

pub(crate) const VARIABLE: &str = "SHARED_TEST_ROLE";

/// Plays a role: prints one line when it is ready, then waits for its standard input to end.
pub(crate) fn play(role: &str) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Kept until the end, or until we are killed.
    let kept: Box<dyn std::any::Any> = match role {
        "postgres" | "postgres-paused" | "postgres-forgotten" => {
            match runtime.block_on(Postgres::find_or_start(&Options::from_env())) {
                Ok(postgres) => {
                    let schema = runtime.block_on(postgres.fresh_schema()).unwrap();
                    let data = runtime.block_on(postgres.programs_and_data());
                    if role == "postgres-paused" {
                        runtime.block_on(postgres.pause()).unwrap();
                    }
                    let data = data.map(|(_, data)| data).unwrap_or_default();
                    println!(
                        "{} | {} | {}",
                        postgres.describe(),
                        data.display(),
                        schema.role()
                    );
                    if role == "postgres-forgotten" {
                        // As a `static` would: no destructor runs.
                        std::mem::forget((postgres, schema));
                        return ExitCode::SUCCESS;
                    }
                    Box::new((postgres, schema))
                }
                Err(error) => {
                    println!("error | {}", error.to_string().replace('\n', " / "));
                    return ExitCode::FAILURE;
                }
            }
        }
        crate::standby::ROLE => {
            let options = Options::from_env().replicated();
            let started = runtime.block_on(async {
                let primary = Postgres::find_or_start(&options).await?;
                let standby = Standby::start(&primary).await?;
                let (_, data) = standby.server().programs_and_data().await?;
                Ok::<_, ServiceError>((primary, standby, data))
            });
            match started {
                Ok((primary, standby, data)) => {
                    println!("{} | {}", primary.describe(), data.display());
                    Box::new((primary, standby))
                }
                Err(error) => {
                    println!("error | {}", error.to_string().replace('\n', " / "));
                    return ExitCode::FAILURE;
                }
            }
        }
        "redis" => match runtime.block_on(Redis::find_or_start(&RedisOptions::from_env())) {
            Ok(redis) => {
                let keyspace = runtime.block_on(redis.fresh_keyspace()).unwrap();
                println!(
                    "{} | {} | {}",
                    redis.describe(),
                    keyspace.url(),
                    keyspace.prefix()
                );
                Box::new((redis, keyspace))
            }
            Err(error) => {
                println!("error | {}", error.to_string().replace('\n', " / "));
                return ExitCode::FAILURE;
            }
        },
        "mariadb" => match runtime.block_on(MariaDb::start()) {
            Ok(mariadb) => {
                println!("{}", mariadb.describe());
                Box::new(mariadb)
            }
            Err(error) => {
                println!("error | {}", error.to_string().replace('\n', " / "));
                return ExitCode::FAILURE;
            }
        },
        "guard" | "guard-stopped" => {
            let program =
                Program::shell("sleep 1000 & sleep 1000 & echo $$ $!; wait").stdout(Output::Piped);
            let mut guarded = Guarded::spawn(program, OnOrphaned::KillGroup).unwrap();
            let mut line = String::new();
            let mut stdout = BufReader::new(guarded.take_stdout().unwrap());
            stdout.read_line(&mut line).unwrap();
            if role == "guard-stopped" {
                guarded.signal_group(Signal::STOP).unwrap();
            }
            println!("{}", line.trim());
            Box::new((guarded, stdout))
        }
        "log" => {
            let first = shared::telemetry::init("a \"test\"");
            let second = shared::telemetry::init("another");
            tracing::info_span!("request", request_id = "r-1").in_scope(|| {
                tracing::info!(amount_cents = 1250, "paid");
                tracing::debug!("in detail");
            });
            println!("{} {}", first.is_installed(), second.is_installed());
            return ExitCode::SUCCESS;
        }
        "log-request" => {
            let _log = shared::telemetry::init("shop");
            runtime.block_on(async {
                let router = axum::Router::new().route("/orders/{id}", get(async || "ok"));
                let router = Manners::default().apply(router);
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let address = format!("http://{}/orders/7", listener.local_addr().unwrap());
                let asked = async move {
                    let request = reqwest::Client::new().get(address);
                    request.header("x-request-id", "r-7").send().await.unwrap();
                };
                serve(listener, router, asked, Duration::from_secs(5))
                    .await
                    .unwrap()
            });
            return ExitCode::SUCCESS;
        }
        crate::kills::worker::WORKER | crate::kills::worker::RELAY => {
            return crate::kills::worker::play(role);
        }
        crate::outbox::staging::ROLE => {
            runtime.block_on(crate::outbox::staging::play());
            return ExitCode::SUCCESS;
        }
        "serve" => {
            let served = runtime.block_on(async {
                let router = axum::Router::new().route("/health", get(async || "ok"));
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                let shutdown = shutdown_signal().unwrap();
                println!(
                    "{} | {}",
                    listener.local_addr().unwrap(),
                    std::process::id()
                );
                serve(listener, router, shutdown, Duration::from_secs(5))
                    .await
                    .unwrap()
            });
            println!("{served:?}");
            return ExitCode::SUCCESS;
        }
        crate::telemetry_shop::ROLE => return crate::telemetry_shop::play(),
        other => panic!("no role {other}"),
    };
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read(&mut [0]);
    drop(kept);
    ExitCode::SUCCESS
}

/// A process that plays a role, killed at the end of the test if not before.
pub(crate) struct Role {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Role {
    pub(crate) fn start(role: &str, env: &[(&str, &str)], user: Option<&User>) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .env(VARIABLE, role)
            .env_remove("DATABASE_URL")
            .env_remove("REDIS_URL")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (name, value) in env {
            command.env(name, value);
        }
        if let Some(user) = user {
            command.uid(user.uid).gid(user.gid).current_dir("/");
        }
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout }
    }

    /// The parts of the line that it prints when it is ready.
    pub(crate) fn ready(&mut self) -> Vec<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.split('|').map(|part| part.trim().to_owned()).collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Lets it come to its end, destructors included.
    pub(crate) fn finish(&mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
