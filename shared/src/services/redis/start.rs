//! Prepares and starts a private Redis server. Blocks.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::Client;
use rustix::process::Signal;

use super::connection::{field, information, open, refused, server_name};
use super::{DATABASES, Inner, Origin, Redis, RedisOptions};
use crate::services::folder::ServicesFolder;
use crate::services::private::{Launch, Private};
use crate::services::programs::find_redis;
use crate::services::{ServiceError, install_help};

pub(super) fn start(options: &RedisOptions) -> Result<Redis, ServiceError> {
    let began = Instant::now();
    let program =
        find_redis(&options.places).ok_or_else(|| ServiceError::Missing(install_help::redis()))?;
    let folder = ServicesFolder::open(options.folder.as_deref(), None)?;
    folder.sweep()?;
    // Redis cannot choose a port itself, so somebody may take ours before it does.
    let mut attempts = 0;
    let (server, client, url, name) = loop {
        attempts += 1;
        let port = crate::services::free_port()?;
        let password = crate::services::random_secret();
        let url = format!("redis://:{password}@127.0.0.1:{port}");
        let client = Client::open(url.as_str()).map_err(refused)?;
        let mut server = launch(&folder, &program, port, &password, &options.settings)?;
        match wait_until_ready(&mut server, &client) {
            Ok(name) => break (server, client, url, name),
            Err(ServiceError::DidNotStart { log, .. })
                if attempts < 10 && log.contains("Address already in use") => {}
            Err(error) => return Err(error),
        }
    };
    Ok(Redis {
        inner: Arc::new(Inner {
            client,
            url,
            name,
            run: rand::random(),
            next: AtomicU64::new(0),
            live: Mutex::default(),
            origin: Origin::Private {
                server: Arc::new(Mutex::new(server)),
                ready_in: began.elapsed(),
            },
        }),
    })
}

fn launch(
    folder: &ServicesFolder,
    program: &Path,
    port: u16,
    password: &str,
    settings: &[(String, String)],
) -> Result<Private, ServiceError> {
    let instance = folder.instance("redis")?;
    // A password, so that nobody who finds the port by chance takes it for theirs. In a file,
    // since arguments are seen by all.
    let mut text = format!(
        "bind 127.0.0.1\nport {port}\nrequirepass {password}\ndatabases {DATABASES}\n\
         save \"\"\nappendonly no\ndaemonize no\ndir \"{}\"\n",
        instance.path().display()
    );
    for (name, value) in settings {
        text.push_str(&format!("{name} {value}\n"));
    }
    let path = instance.path().join("redis.conf");
    fs::write(&path, text).map_err(|error| ServiceError::io("write", &path, error))?;
    let launch = Launch {
        what: "Redis",
        argv: vec![OsString::from(program), path.into()],
        polite: Signal::TERM,
        at_once: Signal::KILL,
    };
    Private::start(folder, instance, launch)
}

/// Asks until our own server answers; what it calls itself.
pub(super) fn wait_until_ready(
    server: &mut Private,
    client: &Client,
) -> Result<String, ServiceError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    let ask = || {
        let mut connection = open(client)?;
        // While it loads its log it answers INFO, and refuses everything else.
        redis::cmd("PING").exec(&mut connection)?;
        information(&mut connection)
    };
    loop {
        let failure = match ask() {
            // Another server may have taken the port, ours about to find out.
            Ok(text) if is_process(&text, server) => return Ok(server_name(&text)),
            Ok(_) => "another server answers on its port".to_owned(),
            Err(error) => error.to_string(),
        };
        server.check_running(&failure, Instant::now() > deadline)?;
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn is_process(information: &str, server: &Private) -> bool {
    server
        .pid()
        .is_ok_and(|pid| field(information, "process_id") == Some(&pid.to_string()))
}
