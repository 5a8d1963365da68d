//! The verbs of this kata: the isolation laboratory on PostgreSQL, or on any server.

use kata_lab::{Argument, BoxError, BoxFuture, Call, Command, serializability};

use crate::isolation::{
    anomalies::{ANOMALIES, IDS},
    cell::Cell,
    histories,
    server::{Address, Level, Server},
    table::{self, Matrix},
};

const LEVELS: &[&str] = &[
    "read-uncommitted",
    "read-committed",
    "repeatable-read",
    "serializable",
];

const URL: Argument = Argument {
    name: "url",
    help: "The server: postgres://… or mysql://… (MariaDB too), where a schema or a database of its own is made and removed [default: the PostgreSQL that the kata uses]",
    value: "URL",
    positional: false,
    known: &[],
};

const LEVEL: Argument = Argument {
    name: "level",
    help: "Only this isolation level [default: all that the server has]",
    value: "LEVEL",
    positional: false,
    known: LEVELS,
};

/// What can be typed besides `check`, `hint` and so on.
pub(crate) const COMMANDS: &[Command] = &[
    Command {
        name: "isolation",
        about: "Measure which anomaly happens at which isolation level of a server",
        arguments: &[URL],
        run: isolation,
    },
    Command {
        name: "anomaly",
        about: "Show one anomaly step by step: who did what, and what each session saw",
        arguments: &[
            Argument {
                name: "anomaly",
                help: "Which one",
                value: "ANOMALY",
                positional: true,
                known: IDS,
            },
            LEVEL,
            URL,
        ],
        run: anomaly,
    },
    Command {
        name: "histories",
        about: "Let random transactions run at once, and judge what they saw",
        arguments: &[LEVEL, URL],
        run: random,
    },
];

fn isolation(call: Call) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(async move {
        let server = server(&call).await?;
        call.headline("isolation", "");
        call.print(&format!("{}\n\n", server.product()));
        let progress = call.progress(ANOMALIES.len() * server.levels().len(), "cells");
        let matrix = Matrix::measure(&server, || progress.step()).await?;
        drop(progress);
        server.close().await?;
        call.print(&matrix.render(call.columns()));
        Ok(())
    })
}

fn anomaly(call: Call) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(async move {
        let id = call.value("anomaly").unwrap_or_default();
        let known = ANOMALIES.iter().find(|anomaly| anomaly.id == id);
        let anomaly = known.ok_or_else(|| format!("There is no anomaly {id:?}"))?;
        let server = server(&call).await?;
        call.headline(id, "");
        call.print(&format!("{}\n\n", server.product()));
        call.say(anomaly.about);
        for level in levels(&call, &server)? {
            let cell = Cell::measure(&server, anomaly, level).await?;
            call.print(&table::cell(anomaly, level, &cell, call.columns()));
        }
        server.close().await?;
        Ok(())
    })
}

fn random(call: Call) -> BoxFuture<Result<(), BoxError>> {
    Box::pin(async move {
        let server = server(&call).await?;
        call.headline("histories", "");
        call.print(&format!("{} · seed {}\n\n", server.product(), call.seed()));
        for level in levels(&call, &server)? {
            let history = histories::record(&server, level, call.seed()).await?;
            let ended = |end| history.iter().filter(|one| one.end == end).count();
            let committed = ended(serializability::End::Committed);
            let findings = serializability::findings(&history);
            call.say(format!(
                "{}: {} transactions at once, {committed} committed. {}",
                level.name(),
                history.len(),
                match findings.len() {
                    0 =>
                        "All of it is what some order, one after the other, would show.".to_owned(),
                    1 => "One thing that no order explains:".to_owned(),
                    many => format!("{many} things that no order explains, the gravest first:"),
                }
            ));
            if let Some(finding) = findings.first() {
                call.print(&format!("{finding}\n\n"));
            }
        }
        server.close().await?;
        Ok(())
    })
}

/// The server that was named, else the kata's own.
async fn server(call: &Call) -> Result<Server, BoxError> {
    let address = match call.value("url") {
        Some(url) => Address::parse(url)?,
        None => Address::Postgres(call.postgres().await?.admin_options()),
    };
    Ok(Server::open(address).await?)
}

/// The level that was asked for, if the server has it; else all.
fn levels(call: &Call, server: &Server) -> Result<Vec<Level>, BoxError> {
    let all = server.levels();
    let Some(name) = call.value("level") else {
        return Ok(all.to_vec());
    };
    let level = Level::typed(name).ok_or_else(|| format!("There is no level {name:?}"))?;
    match (all.contains(&level), level) {
        // PostgreSQL takes the word and gives the next level.
        (false, Level::ReadUncommitted) => Ok(vec![Level::ReadCommitted]),
        _ => Ok(vec![level]),
    }
}
