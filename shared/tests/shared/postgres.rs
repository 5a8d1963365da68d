//! `services::Postgres`, private: started, broken, restarted, and never left behind.

use shared::services::{Options, Postgres};

use crate::support::{Outcome, tests};

tests![a_private_server_is_ready_in_well_under_a_second,];

fn options(folder: &tempfile::TempDir) -> Options {
    Options::from_env()
        .url(None)
        .folder(folder.path().join("services"))
}

async fn a_private_server_is_ready_in_well_under_a_second() -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..4 {
        let started = std::time::Instant::now();
        let postgres = Postgres::find_or_start(&options(&folder)).await?;
        eprintln!("{} {:?}", postgres.describe(), started.elapsed());
        for _ in 0..3 {
            let started = std::time::Instant::now();
            let schema = postgres.fresh_schema().await?;
            eprintln!("schema {:?}", started.elapsed());
            schema.drop().await?;
            eprintln!("dropped {:?}", started.elapsed());
        }
        let started = std::time::Instant::now();
        drop(postgres);
        eprintln!("stop {:?}", started.elapsed());
    }
    Ok(())
}
