//! The gate that every byte goes through, and the sockets on both sides of it.
//!
//! A cut or a silence has to be *certain*: once it returns, not one more byte may pass, or a crash
//! point would sometimes be the next one. So a write happens under a read lock on the front's
//! mode, and a change of mode takes the write lock. The write does not block: the lock is held for
//! one system call. The channel that wakes the waiting connections is that lock: a
//! [`watch::Ref`](tokio::sync::watch::Ref) is a read guard.

use std::{collections::BTreeSet, io, path::PathBuf, time::Duration};

use socket2::SockRef;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::watch,
};

/// A buffer that has grown beyond this (a held answer) is given back once it is empty.
const KEEP: usize = 1 << 20;
const READ: usize = 1 << 16;

/// Where the server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// A host and a port, as in `127.0.0.1:5432`.
    Tcp(String),
    /// A Unix socket: the socket itself, not its folder.
    Unix(PathBuf),
}

impl Upstream {
    pub(super) async fn connect(&self) -> io::Result<Sock> {
        match self {
            Self::Tcp(address) => TcpStream::connect(address).await.and_then(Sock::tcp),
            Self::Unix(path) => UnixStream::connect(path).await.map(Sock::Unix),
        }
    }
}

/// What a front does with bytes and connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Mode {
    /// No byte passes.
    pub(super) silent: bool,
    /// New connections are closed at once.
    pub(super) closed: bool,
    /// The front is gone; nobody will heal it.
    pub(super) ended: bool,
    /// Raised by each cut: connections of an earlier age are dead.
    pub(super) age: u64,
    /// Connections that are dead whatever their age.
    pub(super) dead: BTreeSet<u64>,
}

/// The gate of one connection, or of one direction of it.
#[derive(Debug, Clone)]
pub(super) struct Gate {
    mode: watch::Receiver<Mode>,
    age: u64,
    connection: u64,
}

impl Gate {
    pub(super) fn new(mode: watch::Receiver<Mode>, age: u64, connection: u64) -> Self {
        Self {
            mode,
            age,
            connection,
        }
    }

    fn is_cut(&self, mode: &Mode) -> bool {
        mode.age != self.age || mode.dead.contains(&self.connection)
    }

    /// Writes all bytes, as soon as the front is not silent.
    pub(super) async fn pass(&mut self, to: &Sock, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let tried = {
                let mode = self.mode.borrow();
                if self.is_cut(&mode) {
                    return Err(io::ErrorKind::ConnectionReset.into());
                }
                if mode.silent {
                    None
                } else {
                    Some(to.try_write(bytes))
                }
            };
            match tried {
                None => self.open().await,
                Some(Ok(written)) => bytes = &bytes[written..],
                Some(Err(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    to.writable().await?;
                }
                Some(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until bytes may pass, or the connection is cut.
    pub(super) async fn open(&mut self) {
        let mut mode = self.mode.clone();
        // An error means that the front is gone, which is a cut.
        let _ = mode
            .wait_for(|mode| !mode.silent || self.is_cut(mode))
            .await;
    }

    /// Waits until the connection is cut.
    pub(super) async fn cut(&mut self) {
        let mut mode = self.mode.clone();
        let _ = mode.wait_for(|mode| self.is_cut(mode)).await;
    }
}

/// A stream to the program or to the server. Both directions work on a shared reference.
#[derive(Debug)]
pub(super) enum Sock {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Sock {
    pub(super) fn tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    /// Appends what has come to the buffer; 0 is the end of the stream.
    ///
    /// Cancel safe: what was not appended was not read.
    pub(super) async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        if buffer.is_empty() && buffer.capacity() > KEEP {
            *buffer = Vec::new();
        }
        if buffer.capacity() - buffer.len() < READ / 4 {
            buffer.reserve(READ);
        }
        loop {
            let read = match self {
                Self::Tcp(stream) => {
                    stream.readable().await?;
                    stream.try_read_buf(buffer)
                }
                Self::Unix(stream) => {
                    stream.readable().await?;
                    stream.try_read_buf(buffer)
                }
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }

    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    /// Writes all bytes, past every gate: for what the front itself says.
    pub(super) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the other side is there and has nothing to say.
    pub(super) fn is_quiet(&self) -> bool {
        let read = match self {
            Self::Tcp(stream) => stream.try_read(&mut [0]),
            Self::Unix(stream) => stream.try_read(&mut [0]),
        };
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Tells the other side that nothing more will come. One that is gone already is no error.
    pub(super) fn end_writing(&self) {
        let _ = match self {
            Self::Tcp(stream) => SockRef::from(stream).shutdown(std::net::Shutdown::Write),
            Self::Unix(stream) => SockRef::from(stream).shutdown(std::net::Shutdown::Write),
        };
    }

    /// Closing it will be a reset, as when the other machine has died.
    pub(super) fn reset_on_close(&self) {
        if let Self::Tcp(stream) = self {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    use super::*;

    /// Takes what has come; a Unix socket has it as soon as it is written. Bounded, and by more
    /// than a socket can keep: a gate that leaks must not keep us here.
    fn drain(peer: &mut std::os::unix::net::UnixStream) -> usize {
        let mut buffer = [0; 4096];
        let mut drained = 0;
        for _ in 0..1000 {
            match io::Read::read(peer, &mut buffer) {
                Ok(read @ 1..) => drained += read,
                _ => break,
            }
        }
        drained
    }

    /// A writer on a thread of its own sends byte after byte, and the mode changes under it.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn once_the_mode_has_changed_not_one_more_byte_passes() {
        let change: [fn(&mut Mode); 2] = [|mode| mode.age += 1, |mode| mode.silent = true];
        for round in 0..100 {
            let (ours, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
            ours.set_nonblocking(true).unwrap();
            peer.set_nonblocking(true).unwrap();
            let ours = Sock::Unix(UnixStream::from_std(ours).unwrap());
            let mode = watch::Sender::new(Mode::default());
            let mut gate = Gate::new(mode.subscribe(), 0, 1);
            let (tries, quits) = (Arc::new(AtomicBool::new(false)), mode.subscribe());
            let has_tried = Arc::clone(&tries);
            let writer = tokio::spawn(async move {
                // Whatever it is told, it tries again: only the gate keeps it.
                while quits.has_changed().is_ok() && !quits.borrow().ended {
                    let bound = Duration::from_millis(1);
                    let _ = tokio::time::timeout(bound, gate.pass(&ours, b"x")).await;
                    has_tried.store(true, Ordering::Release);
                }
            });
            let mut passed = 0;
            while passed < 10 {
                passed += drain(&mut peer);
                std::thread::yield_now();
            }
            mode.send_modify(change[round % 2]);
            drain(&mut peer);
            tries.store(false, Ordering::Release);
            while !tries.load(Ordering::Acquire) {
                std::thread::yield_now();
            }
            assert_eq!(drain(&mut peer), 0, "round {round}");
            mode.send_modify(|mode| mode.ended = true);
            writer.await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_silent_gate_opens_when_the_front_speaks_or_cuts() {
        for ends in [
            |mode: &mut Mode| mode.silent = false,
            |mode: &mut Mode| mode.age += 1,
        ] {
            let mode = watch::Sender::new(Mode::default());
            let mut gate = Gate::new(mode.subscribe(), 0, 1);
            mode.send_modify(|mode| mode.silent = true);
            let at_once = tokio::time::timeout(Duration::ZERO, gate.open()).await;
            assert!(at_once.is_err());
            mode.send_modify(ends);
            gate.open().await;
        }
    }
}
