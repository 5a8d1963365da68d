//! SQS's fixture: what `SQS_URL` names, or else moto, an emulation. Which one it was stands in the
//! measurements.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use shared::services::guard::{Guarded, Program};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::conformance::{self, Fixture};
use super::failing;
use crate::server;
use crate::support::{End, find};

const ADVICE: &str = ".ci/run brokers installs it and runs this; or set SQS_URL=sqs+https://…";

pub(crate) fn tests() -> Vec<libtest_mimic::Trial> {
    let mut all = conformance::trials("sqs", || Box::pin(start()));
    all.extend(failing::tests("sqs", || Box::pin(start())));
    all
}

/// Shared by all trials: their queues have names of their own.
struct Sqs {
    url: String,
    _turn: SemaphorePermit<'static>,
}

/// moto is slow: more trials at a time would wait for each other longer than their delays are.
static TURNS: Semaphore = Semaphore::const_new(2);

async fn start() -> Result<Box<dyn Fixture>, End> {
    static MOTO: OnceCell<Moto> = OnceCell::const_new();
    let turn = TURNS.acquire().await.unwrap();
    let named = std::env::var("SQS_URL").ok();
    let url = match named.filter(|url| !url.trim().is_empty()) {
        Some(url) => url,
        None => {
            // The Python that moto is installed for is beside it.
            let python = find("moto_server", ADVICE)?.with_file_name("python3");
            let start = || server::on_free_ports(|[port]| Moto::start(&python, port));
            let port = MOTO.get_or_init(start).await.port;
            // The two settings keep clear of what moto does otherwise than SQS: see the backend's
            // `Address::parse`.
            format!(
                "sqs+http://test:test@127.0.0.1:{port}?emulation=moto&fifo_batch=1&long_poll_s=0"
            )
        }
    };
    Ok(Box::new(Sqs { url, _turn: turn }))
}

struct Moto {
    port: u16,
    _process: Guarded,
}

/// moto, one request after the other. Its own program serves several at a time without a lock, and
/// then now and then hands out two messages of a key at once, which SQS never does.
const ONE_BY_ONE: &str = "\
import sys
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
app = DomainDispatcherApplication(create_backend_app)
run_simple('127.0.0.1', int(sys.argv[1]), app, threaded=False)
";

impl Moto {
    async fn start(python: &Path, port: u16) -> Result<Self, String> {
        let argument = port.to_string();
        let argv = [
            python.as_os_str(),
            "-c".as_ref(),
            ONE_BY_ONE.as_ref(),
            argument.as_ref(),
        ];
        let answers = async || {
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_ok()
        };
        Ok(Self {
            port,
            _process: server::start(Program::new(argv), answers).await?,
        })
    }
}

#[async_trait]
impl Fixture for Sqs {
    fn url(&self) -> String {
        self.url.clone()
    }

    /// SQS knows whole seconds, and one is too short for a machine that is busy with other things.
    fn lease(&self) -> Duration {
        Duration::from_secs(2)
    }
}
