//! A TCP proxy whose connections can be cut: a network that fails while broker and workers live.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use shared::services::Upstream;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::{AbortHandle, JoinSet};

/// Passes bytes on until it is cut. Ends with its handle.
pub(crate) struct Proxy {
    address: SocketAddr,
    connections: Arc<Mutex<JoinSet<()>>>,
    accepting: AbortHandle,
}

impl Proxy {
    pub(crate) async fn start(upstream: Upstream) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let accepted = Arc::clone(&connections);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut open = accepted.lock().unwrap();
                while open.try_join_next().is_some() {}
                open.spawn(pass(client, upstream.clone()));
            }
        });
        Self {
            address,
            connections,
            accepting: accepting.abort_handle(),
        }
    }

    pub(crate) fn upstream(&self) -> Upstream {
        Upstream::Tcp(self.address.ip().to_string(), self.address.port())
    }

    /// Ends every connection, wherever its bytes are. How many there were.
    pub(crate) fn cut(&self) -> usize {
        let mut open = self.connections.lock().unwrap();
        while open.try_join_next().is_some() {}
        let cut = open.len();
        open.abort_all();
        cut
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, upstream: Upstream) {
    // Small messages are not held back; that it cannot be set changes only how long they take.
    let _ = client.set_nodelay(true);
    match upstream {
        Upstream::Tcp(host, port) => match TcpStream::connect((host, port)).await {
            Ok(server) => {
                let _ = server.set_nodelay(true);
                between(client, server).await;
            }
            // The client sees its connection end, as it would with the server gone.
            Err(_) => drop(client),
        },
        Upstream::Unix(path) => match UnixStream::connect(path).await {
            Ok(server) => between(client, server).await,
            Err(_) => drop(client),
        },
    }
}

async fn between(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) {
    // An error is a side that went away, and the other one is told by the drop.
    let _ = copy_bidirectional(&mut client, &mut server).await;
}
