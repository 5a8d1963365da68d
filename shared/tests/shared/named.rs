//! `services::Postgres` with `DATABASE_URL`: somebody else's server, which we leave as it was.
//!
//! That somebody else is a private server of the test, so that these tests run anywhere.

use std::time::Duration;

use shared::services::{Options, Postgres, ServiceError};
use sqlx::{Connection, PgConnection};
use tempfile::TempDir;

use crate::postgres::{folder, options};
use crate::role::Role;
use crate::support::{End, Outcome, tests};

tests![
    nothing_is_left_behind_after_use,
    a_role_that_is_no_superuser_is_enough,
    a_role_that_may_not_make_roles_is_told_what_to_grant,
    a_named_server_is_never_stopped_or_paused,
    what_a_killed_run_left_is_swept_and_nothing_else,
    a_server_that_refuses_is_one_clear_error,
    a_wrong_password_is_not_shown,
    a_handle_outlives_the_runtime_that_made_it,
];

/// Somebody's server, and the address of a role in it made by `grants`.
async fn theirs(grants: &str) -> Result<(TempDir, Postgres, String), End> {
    let folder = folder();
    let server = Postgres::find_or_start(&options(&folder).tcp()).await?;
    let sql = format!("create role kim login password 'secret'; {grants}");
    admin(&server, &sql).await;
    let address = format!("postgres://kim:secret@{}/postgres", server.upstream());
    Ok((folder, server, address))
}

async fn admin(server: &Postgres, sql: &str) {
    let mut connection = PgConnection::connect_with(&server.admin_options())
        .await
        .unwrap();
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// All that could be left: roles, schemas, settings of roles, sessions.
async fn contents(server: &Postgres) -> Vec<String> {
    let mut connection = PgConnection::connect_with(&server.admin_options())
        .await
        .unwrap();
    let sql = "select 'role ' || rolname from pg_roles where rolname !~ '^pg_' \
               union all select 'schema ' || nspname from pg_namespace where nspname !~ '^pg_' \
               union all select 'setting ' || setconfig::text from pg_db_role_setting \
               union all select 'member ' || member::regrole || roleid::regrole \
               from pg_auth_members where member::regrole::text !~ '^pg_' order by 1";
    let found = sqlx::query_scalar(sql)
        .fetch_all(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
    found
}

async fn named(address: &str) -> Result<Postgres, ServiceError> {
    Postgres::find_or_start(&Options::from_env().url(Some(address.to_owned()))).await
}

async fn use_and_close(server: &Postgres, address: &str) {
    let before = contents(server).await;
    let postgres = named(address).await.unwrap();
    let (one, two) = (
        postgres.fresh_schema().await.unwrap(),
        postgres.fresh_schema().await.unwrap(),
    );
    let mut connection = PgConnection::connect_with(&one.options()).await.unwrap();
    sqlx::raw_sql("create table t (n int)")
        .execute(&mut connection)
        .await
        .unwrap();
    one.drop().await.unwrap();
    // The other one is dropped by `close`, although its handle is still there.
    let during = contents(server).await;
    assert!(
        during.contains(&format!("schema {}", two.role())),
        "{during:?}"
    );
    postgres.close().await.unwrap();
    assert_eq!(contents(server).await, before);
}

async fn nothing_is_left_behind_after_use() -> Outcome {
    let (_folder, server, address) = theirs("alter role kim superuser").await?;
    use_and_close(&server, &address).await;
    let line = named(&address).await?.describe();
    let expected = format!(" · DATABASE_URL, {}", server.upstream());
    assert!(
        line.starts_with("PostgreSQL 1") && line.ends_with(&expected),
        "{line}"
    );
    Ok(())
}

const ENOUGH: &str = "alter role kim createrole; grant create on database postgres to kim";

async fn a_role_that_is_no_superuser_is_enough() -> Outcome {
    let (_folder, server, address) = theirs(ENOUGH).await?;
    use_and_close(&server, &address).await;
    Ok(())
}

async fn a_role_that_may_not_make_roles_is_told_what_to_grant() -> Outcome {
    let (_folder, server, address) = theirs("").await?;
    let postgres = named(&address).await?;
    let before = contents(&server).await;
    let error = postgres.fresh_schema().await.unwrap_err();
    assert!(
        matches!(error, ServiceError::MayNotCreateRoles { .. }),
        "{error}"
    );
    let grants = "alter role \"kim\" createrole; grant create on database \"postgres\" to \"kim\";";
    assert!(error.to_string().contains(grants), "{error}");
    assert_eq!(contents(&server).await, before);
    // What the message says is what helps.
    admin(&server, grants).await;
    postgres.fresh_schema().await?.drop().await?;
    Ok(())
}

async fn a_named_server_is_never_stopped_or_paused() -> Outcome {
    let (_folder, _server, address) = theirs("").await?;
    let postgres = named(&address).await?;
    assert!(!postgres.is_private());
    for result in [
        postgres.pause().await,
        postgres.resume().await,
        postgres.kill().await,
        postgres.stop().await,
        postgres.restart().await,
    ] {
        let error = result.unwrap_err();
        assert!(matches!(error, ServiceError::NotPrivate { .. }), "{error}");
    }
    Ok(())
}

async fn what_a_killed_run_left_is_swept_and_nothing_else() -> Outcome {
    // A name like ours, but of nobody's run, and one that only looks like ours.
    let bystanders =
        "create role kata_mine; create schema kata_mine; create schema kata_00000000_1";
    let (_folder, server, address) = theirs(&format!("{ENOUGH}; {bystanders}")).await?;
    let before = contents(&server).await;
    let env = [("DATABASE_URL", address.as_str())];
    let mut killed = Role::start("postgres", &env, None);
    let role = killed.ready()[2].clone();
    let living = named(&address).await?;
    let schema = living.fresh_schema().await?;
    killed.kill();
    let left = contents(&server).await;
    assert!(left.contains(&format!("schema {role}")), "{left:?}");
    // The server needs a moment to notice that the session is gone.
    let mut swept = Vec::new();
    for _ in 0..500 {
        named(&address).await?.close().await?;
        swept = contents(&server).await;
        if !swept.contains(&format!("role {role}")) {
            break;
        }
    }
    assert!(
        swept.contains(&format!("schema {}", schema.role())),
        "{swept:?}"
    );
    living.close().await?;
    assert_eq!(contents(&server).await, before);
    Ok(())
}

async fn a_server_that_refuses_is_one_clear_error() -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let error = named(&format!("postgres://kim:secret@{address}/postgres"))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with(&format!(
            "DATABASE_URL points at {address}, which refuses: "
        )),
        "{text}"
    );
    assert!(
        text.ends_with("or unset DATABASE_URL to use a private one."),
        "{text}"
    );
    let error = named("mysql://x").await.unwrap_err();
    assert!(matches!(error, ServiceError::Refused { .. }), "{error}");
    Ok(())
}

async fn a_wrong_password_is_not_shown() -> Outcome {
    let (_folder, _server, address) = theirs("").await?;
    let error = named(&address.replace("secret", "s3cr3t"))
        .await
        .unwrap_err();
    assert!(matches!(error, ServiceError::Refused { .. }), "{error}");
    assert!(!format!("{error} {error:?}").contains("s3cr3t"), "{error}");
    Ok(())
}

async fn a_handle_outlives_the_runtime_that_made_it() -> Outcome {
    let (_folder, server, address) = theirs("alter role kim superuser").await?;
    let in_thread = move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(named(&address)).unwrap()
    };
    let postgres = std::thread::spawn(in_thread).join().unwrap();
    let schema = postgres.fresh_schema().await?;
    assert!(schema.wait_until_unused(Duration::from_secs(5)).await?);
    // The lease is still held: another start leaves this run's schema alone.
    let another = named(&format!(
        "postgres://kim:secret@{}/postgres",
        server.upstream()
    ))
    .await?;
    let role = format!("role {}", schema.role());
    another.close().await?;
    assert!(contents(&server).await.contains(&role));
    postgres.close().await?;
    assert!(!contents(&server).await.contains(&role));
    Ok(())
}
