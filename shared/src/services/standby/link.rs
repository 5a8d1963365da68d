//! The link between a primary and its standby: a loopback port that can be cut.
//!
//! Changing the standby's `primary_conninfo` would cut it as well, but the process that has to
//! notice is the one that replays, and it does not look while it waits for a delay or is paused.
//! This one is cut at once, whatever the two servers are doing.

use std::io;
use std::sync::Arc;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::services::{ServiceError, Upstream};

/// A port on 127.0.0.1 that leads to the primary. It works on a thread of its own, so it is bound
/// to nobody's runtime, and ends when it is dropped.
#[derive(Debug)]
pub(super) struct Link {
    port: u16,
    orders: mpsc::UnboundedSender<Order>,
}

#[derive(Debug)]
enum Order {
    Cut(oneshot::Sender<()>),
    Heal(oneshot::Sender<()>),
}

impl Link {
    /// Opens a free port.
    pub(super) fn open(upstream: Upstream) -> Result<Self, ServiceError> {
        let failed = |error| ServiceError::io("open", "a link to the primary".as_ref(), error);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let (orders, inbox) = mpsc::unbounded_channel();
        std::thread::Builder::new()
            .name("postgres-link".to_owned())
            .spawn(move || {
                let work = async move {
                    let listener = TcpListener::from_std(listener)?;
                    serve(listener, Arc::new(upstream), inbox).await;
                    Ok::<_, io::Error>(())
                };
                if let Err(error) = runtime.block_on(work) {
                    tracing::warn!(%error, "the link to the primary has no runtime");
                }
            })
            .map_err(failed)?;
        Ok(Self { port, orders })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Closes all connections, and new ones at once. When it returns, not one more byte passes.
    pub(super) async fn cut(&self) {
        self.order(Order::Cut).await;
    }

    /// Lets connections through again.
    pub(super) async fn heal(&self) {
        self.order(Order::Heal).await;
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, is_done) = oneshot::channel();
        // A thread that is gone lets nothing through either.
        if self.orders.send(order(done)).is_ok() {
            let _ = is_done.await;
        }
    }
}

async fn serve(
    listener: TcpListener,
    upstream: Arc<Upstream>,
    mut inbox: mpsc::UnboundedReceiver<Order>,
) {
    let mut connections = JoinSet::new();
    let mut is_cut = false;
    loop {
        tokio::select! {
            order = inbox.recv() => match order {
                Some(Order::Cut(done)) => {
                    is_cut = true;
                    // Ended, not only told to end: their sockets are closed.
                    connections.shutdown().await;
                    let _ = done.send(());
                }
                Some(Order::Heal(done)) => {
                    is_cut = false;
                    let _ = done.send(());
                }
                None => return,
            },
            accepted = listener.accept() => match accepted {
                Ok((standby, _)) if !is_cut => {
                    connections.spawn(carry(standby, Arc::clone(&upstream)));
                }
                Ok(_) => {}
                // Out of file descriptors: without a pause this would spin.
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
            },
            // Takes away what has ended.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Carries bytes both ways until one side ends; whichever fails, both see the end.
async fn carry(mut standby: TcpStream, upstream: Arc<Upstream>) {
    let carried = async {
        match &*upstream {
            Upstream::Tcp(host, port) => {
                let mut primary = TcpStream::connect((host.as_str(), *port)).await?;
                primary.set_nodelay(true)?;
                standby.set_nodelay(true)?;
                copy_bidirectional(&mut standby, &mut primary).await
            }
            Upstream::Unix(socket) => {
                let mut primary = UnixStream::connect(socket).await?;
                standby.set_nodelay(true)?;
                copy_bidirectional(&mut standby, &mut primary).await
            }
        }
    };
    if let Err(error) = carried.await {
        tracing::debug!(%error, "a connection between primary and standby ended");
    }
}
