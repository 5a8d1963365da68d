//! One running instance of an implementation, with its own front to the database.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::Method;

use crate::{
    app::Env,
    client::Request,
    fronts::Fronts,
    history::History,
    implementation::{Implementation, Output, Process, StartError, Threads},
    proxy::Front,
    verdict::{Judged, Promise, Stop},
};

/// How long the server may take to notice that a crashed instance's sessions are gone.
const SESSIONS_GONE: Duration = Duration::from_secs(30);

/// The same when nobody needs to know: what is at work for longer is ended by force.
const SOON: Duration = Duration::from_millis(200);

/// What an instance is started with.
pub(crate) struct Setting {
    pub(crate) name: String,
    pub(crate) implementation: Implementation,
    pub(crate) env: Env,
    /// Before the database and its replica, if there are any.
    pub(crate) fronts: Fronts,
    pub(crate) history: History,
    pub(crate) start_timeout: Duration,
    pub(crate) output: Output,
}

/// A running (or crashed) instance. Cloning gives another handle to it.
#[derive(Clone)]
pub struct Instance(Arc<Inner>);

struct Inner {
    setting: Setting,
    address: Mutex<SocketAddr>,
    // Tokio's mutex, since starting and ending are awaited while it is held.
    process: tokio::sync::Mutex<Option<Process>>,
}

impl Instance {
    pub(crate) async fn start(setting: Setting) -> Result<Self, StartError> {
        let process = Process::start(
            &setting.implementation,
            &setting.env,
            setting.start_timeout,
            &setting.output,
        )
        .await?;
        let address = Mutex::new(process.address());
        let process = tokio::sync::Mutex::new(Some(process));
        Ok(Self(Arc::new(Inner {
            setting,
            address,
            process,
        })))
    }

    /// Its name in the history.
    pub fn name(&self) -> &str {
        &self.0.setting.name
    }

    /// Its base address, without a trailing slash. It may change with a restart.
    pub fn url(&self) -> String {
        let address = self
            .0
            .address
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        format!("http://{address}")
    }

    /// The proxy between it and the database.
    ///
    /// # Panics
    /// If the kata's map gives no database.
    pub fn front(&self) -> &Front {
        let database = self.fronts().database.as_ref();
        &database.expect("the kata's map gives a database").front
    }

    /// The proxy between it and the replica.
    ///
    /// # Panics
    /// If the check does not ask for a replica.
    pub fn replica_front(&self) -> &Front {
        let replica = self.fronts().replica.as_ref();
        &replica.expect("the check asks for a replica").front
    }

    /// What its threads have done until now. A program in process is not told apart from the lab
    /// around it, so only a check that runs alone learns something from that. `None` where nobody can
    /// tell: a program on another machine or somebody else's, or no Linux.
    pub async fn threads(&self) -> Option<Threads> {
        let process = self.0.process.lock().await;
        process.as_ref().and_then(Process::threads)
    }

    pub(crate) fn fronts(&self) -> &Fronts {
        &self.0.setting.fronts
    }

    pub(crate) fn history(&self) -> &History {
        &self.0.setting.history
    }

    /// The last lines that it wrote.
    pub(crate) fn output(&self) -> Vec<String> {
        self.0.setting.output.lines()
    }

    /// A `GET`.
    pub fn get(&self, path: impl Into<String>) -> Request {
        Request::new(self.clone(), Method::GET, path)
    }

    /// A `POST`.
    pub fn post(&self, path: impl Into<String>) -> Request {
        Request::new(self.clone(), Method::POST, path)
    }

    /// A `PUT`.
    pub fn put(&self, path: impl Into<String>) -> Request {
        Request::new(self.clone(), Method::PUT, path)
    }

    /// Ends it at once, and waits until its database sessions are gone: otherwise dead sessions
    /// would still hold locks.
    ///
    /// # Errors
    /// [`Stop::NotRun`] for a program that the lab did not start; [`Stop::Inconclusive`] if its
    /// sessions do not end.
    pub async fn crash(&self) -> Judged {
        self.must_be_ours("a crash")?;
        self.history()
            .note("lab", format!("{} crashes", self.name()));
        // Silence first, so that nothing that the dying instance still says reaches the server,
        // then kill, then cut, which discards what was held.
        self.fronts().silence();
        if let Some(process) = self.0.process.lock().await.take() {
            process.crash().await;
        }
        Fronts::sessions_gone(self.fronts().cut(), SESSIONS_GONE, self.name()).await
    }

    /// Ends it politely and waits until its database sessions are gone.
    ///
    /// # Errors
    /// As [`Instance::crash`].
    pub async fn stop(&self) -> Judged {
        self.must_be_ours("a stop")?;
        self.history()
            .note("lab", format!("{} is stopped", self.name()));
        let sessions = self.fronts().sessions();
        if let Some(process) = self.0.process.lock().await.take() {
            process.stop().await;
        }
        self.fronts().cut();
        Fronts::sessions_gone(sessions, SESSIONS_GONE, self.name()).await
    }

    /// Starts it again after a crash or a stop, with the same variables (another port).
    ///
    /// # Errors
    /// [`Stop::Failed`] if it does not come up.
    pub async fn restart(&self) -> Judged {
        let setting = &self.0.setting;
        self.fronts().heal();
        let mut process = self.0.process.lock().await;
        let started = Process::start(
            &setting.implementation,
            &setting.env,
            setting.start_timeout,
            &setting.output,
        );
        match started.await {
            Ok(started) => {
                *self
                    .0
                    .address
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner) = started.address();
                *process = Some(started);
                self.history()
                    .note("lab", format!("{} is up again", self.name()));
                Ok(())
            }
            Err(StartError::NotStarted(what)) => Err(Box::new(Stop::NotStarted(what))),
            Err(error) => Promise::new("started it again after a crash", "GET /health answers 200")
                .broken(error.to_string()),
        }
    }

    /// Ends it without any ceremony; the lab is done with it. False if the server may still be at
    /// work for it.
    pub(crate) async fn end(&self) -> bool {
        let sessions = self.fronts().cut();
        if let Some(process) = self.0.process.lock().await.take() {
            process.crash().await;
        }
        Fronts::sessions_gone(sessions, SOON, self.name())
            .await
            .is_ok()
    }

    fn must_be_ours(&self, what: &str) -> Judged {
        match self.0.setting.implementation.is_ours() {
            true => Ok(()),
            false => Stop::not_run(format!(
                "it needs {what}, which only the lab can cause (--cmd)"
            )),
        }
    }
}
