//! The verb `matrix`: all variants by all checks, as measured now.

use std::time::{Duration, Instant};

use super::{
    args::MatrixArgs,
    check::{again, chosen},
    context::{Context, Ran},
};
use crate::{
    kata::{Kind, Variant},
    matrix::Matrix,
    report::{self, Subject, dim, text},
};

/// In-process variants are up at once; this is for a machine that is very busy.
const START_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(context: &Context, args: &MatrixArgs) -> Ran {
    let Context { kata, screen, .. } = context;
    if let Some(step) = args.step {
        context.step_exists(step)?;
    }
    let variants: Vec<&Variant> = match args.variant.is_empty() {
        true => kata
            .variants
            .iter()
            .filter(|variant| variant.kind != Kind::Exercise)
            .collect(),
        false => args
            .variant
            .iter()
            .map(|id| context.variant(id))
            .collect::<Ran<_>>()?,
    };
    if !args.json {
        screen.line(context.headline("the matrix", &format!("seed {}", context.seed)));
    }
    let session = context.session(START_TIMEOUT).await?;
    let repeats = args.repeat as usize;
    let checks = chosen(kata, args.step);
    let cells = variants.len() * checks.len() * repeats;
    let began = Instant::now();
    let progress = screen.progress(cells, "verdicts");
    let matrix = Matrix::measure(&session, &variants, checks, repeats, || progress.step()).await;
    drop(progress);

    let surprises = matrix.surprises();
    if args.json {
        screen.line(as_json(context, &matrix, began.elapsed()));
    } else {
        let again = |row: &crate::matrix::Row, step: usize, seed: u64| {
            again(kata.name, &Subject::Id(row.id.to_owned()), step, seed)
        };
        screen.print(&format!(
            "\n{}",
            report::matrix(&matrix, again, screen.columns())
        ));
        screen.line(dim(&text::seconds(began.elapsed().as_secs_f64())));
    }
    Ok(if surprises == 0 { 0 } else { 1 })
}

fn as_json(context: &Context, matrix: &Matrix, took: Duration) -> serde_json::Value {
    let checks: Vec<_> = matrix
        .checks
        .iter()
        .map(|(step, name)| serde_json::json!({ "step": step, "name": name }))
        .collect();
    let variants: Vec<_> = matrix
        .rows
        .iter()
        .map(|row| {
            let cells: Vec<_> = row
                .cells
                .iter()
                .zip(&matrix.checks)
                .map(|(cell, (_, name))| {
                    let surprise = cell.surprise.as_ref().map(
                        |(seed, record)| serde_json::json!({ "seed": seed, "outcome": record }),
                    );
                    serde_json::json!({
                        "check": name,
                        "must_fail": cell.must_fail,
                        "verdicts": cell.verdicts,
                        "surprises": cell.surprises(),
                        "first_surprise": surprise,
                    })
                })
                .collect();
            serde_json::json!({ "id": row.id, "label": row.label, "cells": cells })
        })
        .collect();
    serde_json::json!({
        "kata": context.kata.name,
        "seed": context.seed,
        "repeat": matrix.repeats,
        "checks": checks,
        "variants": variants,
        "surprises": matrix.surprises(),
        "seconds": took.as_secs_f64(),
    })
}
