//! `services::Redis`: the same promises as PostgreSQL's.

use std::path::PathBuf;
use std::time::Duration;

use shared::services::{Redis, RedisOptions, ServiceError};
use tempfile::TempDir;

use crate::postgres::empty_folder;
use crate::role::Role;
use crate::support::{End, Outcome, instances, processes_in, tests, until};

tests![
    a_private_redis_gives_each_check_a_database_of_its_own,
    a_key_space_that_is_used_again_is_empty,
    a_paused_redis_is_silent_and_goes_on_where_it_was,
    a_killed_redis_comes_back_with_its_data_if_it_logged_it,
    a_killed_owner_leaves_no_redis_and_no_folder,
    a_named_redis_keeps_nothing_but_what_was_there,
    what_a_killed_run_left_in_a_named_redis_is_swept,
    a_redis_that_refuses_is_one_clear_error,
];

fn options(folder: &TempDir) -> RedisOptions {
    RedisOptions::from_env()
        .url(None)
        .folder(folder.path().join("services"))
}

async fn start(folder: &TempDir) -> Result<Redis, End> {
    Ok(Redis::find_or_start(&options(folder)).await?)
}

/// A server that says nothing for so long is paused.
const SILENCE: Duration = Duration::from_secs(2);

fn connect(url: &str) -> Result<redis::Connection, redis::RedisError> {
    let client = redis::Client::open(url)?;
    let connection = client.get_connection_with_timeout(SILENCE)?;
    connection.set_read_timeout(Some(SILENCE))?;
    Ok(connection)
}

fn set(url: &str, key: &str, value: &str) -> Result<(), redis::RedisError> {
    redis::cmd("SET")
        .arg(key)
        .arg(value)
        .exec(&mut connect(url)?)
}

fn get(url: &str, key: &str) -> Result<Option<String>, redis::RedisError> {
    redis::cmd("GET").arg(key).query(&mut connect(url)?)
}

async fn a_private_redis_gives_each_check_a_database_of_its_own() -> Outcome {
    let folder = empty_folder();
    let redis = start(&folder).await?;
    let line = redis.describe();
    assert!(line.contains(" · private instance, ready in "), "{line}");
    let (one, two) = (redis.fresh_keyspace().await?, redis.fresh_keyspace().await?);
    assert_eq!(one.prefix(), "");
    set(&one.url(), "k", "1").unwrap();
    assert_eq!(get(&one.url(), "k").unwrap().as_deref(), Some("1"));
    assert_eq!(get(&two.url(), "k").unwrap(), None);
    assert_eq!(one.url(), one.url_through(&redis.upstream()));
    // Nobody comes in by chance.
    assert!(get(&format!("redis://{}", redis.upstream()), "k").is_err());
    drop(redis);
    let url = one.url();
    one.drop().await?;
    assert_eq!(get(&url, "k").unwrap(), None);
    drop(two);
    until("no process", || processes_in(folder.path()).is_empty()).await;
    assert_eq!(
        instances(&folder.path().join("services")),
        Vec::<PathBuf>::new()
    );
    Ok(())
}

async fn a_key_space_that_is_used_again_is_empty() -> Outcome {
    let folder = empty_folder();
    let redis = start(&folder).await?;
    let first = redis.fresh_keyspace().await?;
    set(&first.url(), "k", "forgotten").unwrap();
    for _ in 0..1023 {
        drop(redis.fresh_keyspace().await?);
    }
    let again = redis.fresh_keyspace().await?;
    assert_eq!(again.url(), first.url());
    assert_eq!(get(&again.url(), "k").unwrap(), None);
    Ok(())
}

async fn a_paused_redis_is_silent_and_goes_on_where_it_was() -> Outcome {
    let folder = empty_folder();
    let redis = start(&folder).await?;
    set(redis.url(), "k", "1").unwrap();
    redis.pause().await?;
    assert!(get(redis.url(), "k").is_err());
    redis.resume().await?;
    assert_eq!(get(redis.url(), "k").unwrap().as_deref(), Some("1"));
    Ok(())
}

async fn a_killed_redis_comes_back_with_its_data_if_it_logged_it() -> Outcome {
    for logged in [true, false] {
        let folder = empty_folder();
        let options = options(&folder);
        let options = if logged {
            options.append_only()
        } else {
            options
        };
        let redis = Redis::find_or_start(&options).await?;
        set(redis.url(), "k", "1").unwrap();
        // Enough to be seen loading it. It takes as long as it takes, on a connection that waits.
        let fill = "for i = 1, 50000 do redis.call('rpush', 'list', i) end";
        let mut patient = redis::Client::open(redis.url())
            .unwrap()
            .get_connection()
            .unwrap();
        redis::cmd("EVAL")
            .arg(fill)
            .arg(0)
            .exec(&mut patient)
            .unwrap();
        redis.kill().await?;
        assert!(get(redis.url(), "k").is_err());
        redis.restart().await?;
        assert_eq!(get(redis.url(), "k").unwrap().is_some(), logged);
        redis.pause().await?;
        redis.stop().await?;
        assert!(matches!(
            redis.pause().await,
            Err(ServiceError::NotRunning("Redis"))
        ));
        redis.close().await?;
        assert_eq!(
            instances(&folder.path().join("services")),
            Vec::<PathBuf>::new()
        );
    }
    Ok(())
}

async fn a_killed_owner_leaves_no_redis_and_no_folder() -> Outcome {
    let folder = empty_folder();
    let mut owner = Role::start(
        "redis",
        &[("CARGO_TARGET_DIR", folder.path().to_str().unwrap())],
        None,
    );
    let line = owner.ready();
    if line[0] == "error" {
        return Err(End::NoService(line[1].clone()));
    }
    set(&line[1], "k", "1").unwrap();
    owner.kill();
    until("no process", || processes_in(folder.path()).is_empty()).await;
    until("no folder", || {
        instances(&folder.path().join("services")).is_empty()
    })
    .await;
    assert!(get(&line[1], "k").is_err());
    Ok(())
}

/// Somebody's server: a private one of the test, with a key in it.
async fn theirs(folder: &TempDir) -> Result<Redis, End> {
    let redis = start(folder).await?;
    set(redis.url(), "kata:of-mine", "1").unwrap();
    Ok(redis)
}

fn keys(url: &str) -> Vec<String> {
    let mut keys: Vec<String> = redis::cmd("KEYS")
        .arg("*")
        .query(&mut connect(url).unwrap())
        .unwrap();
    keys.sort();
    keys
}

async fn a_named_redis_keeps_nothing_but_what_was_there() -> Outcome {
    let folder = empty_folder();
    let server = theirs(&folder).await?;
    let named = RedisOptions::from_env().url(Some(server.url().to_owned()));
    let redis = Redis::find_or_start(&named).await?;
    assert!(
        redis
            .describe()
            .ends_with(&format!(" · REDIS_URL, {}", server.upstream()))
    );
    let (one, two) = (redis.fresh_keyspace().await?, redis.fresh_keyspace().await?);
    assert_ne!(one.prefix(), two.prefix());
    let (first, second) = (format!("{}a", one.prefix()), format!("{}a", two.prefix()));
    set(&one.url(), &first, "1").unwrap();
    set(&two.url(), &second, "1").unwrap();
    one.drop().await?;
    assert!(!keys(server.url()).contains(&first));
    assert!(keys(server.url()).contains(&second));
    for result in [
        redis.pause().await,
        redis.kill().await,
        redis.restart().await,
    ] {
        assert!(matches!(result, Err(ServiceError::NotPrivate { .. })));
    }
    redis.close().await?;
    assert_eq!(keys(server.url()), ["kata:of-mine"]);
    Ok(())
}

async fn what_a_killed_run_left_in_a_named_redis_is_swept() -> Outcome {
    let folder = empty_folder();
    let server = theirs(&folder).await?;
    let named = RedisOptions::from_env().url(Some(server.url().to_owned()));
    let living = Redis::find_or_start(&named).await?;
    let mine = format!("{}a", living.fresh_keyspace().await?.prefix());
    set(server.url(), &mine, "1").unwrap();
    let mut killed = Role::start("redis", &[("REDIS_URL", server.url())], None);
    let left = format!("{}a", killed.ready()[2]);
    set(server.url(), &left, "1").unwrap();
    killed.kill();
    // The server needs a moment to notice that the connection is gone.
    until("swept", || {
        let named = named.clone();
        let start = move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async { Redis::find_or_start(&named).await?.close().await })
        };
        std::thread::spawn(start).join().unwrap().unwrap();
        !keys(server.url()).contains(&left)
    })
    .await;
    assert!(keys(server.url()).contains(&mine));
    living.close().await?;
    assert_eq!(keys(server.url()), ["kata:of-mine"]);
    Ok(())
}

async fn a_redis_that_refuses_is_one_clear_error() -> Outcome {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let named = RedisOptions::from_env().url(Some(format!("redis://{address}")));
    let text = Redis::find_or_start(&named).await.unwrap_err().to_string();
    assert!(
        text.starts_with(&format!("REDIS_URL points at {address}, which refuses: ")),
        "{text}"
    );
    assert!(
        text.ends_with("or unset REDIS_URL to use a private one."),
        "{text}"
    );
    Ok(())
}
