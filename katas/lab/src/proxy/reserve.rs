//! Sessions that nobody uses any more, kept for the next one who asks for the same.
//!
//! A new session costs the server a process: two or three milliseconds, and as much again until
//! its caches are warm. Labs crash and restart their instances thousands of times in a run. So a
//! session that has nothing under way when its program goes is put back to how it began, by what
//! the server itself does when a session ends (roll back, let every lock go), and is given to the
//! next program that opens one with the very same first packet.
//!
//! The program sees no difference: the server's own first words, as it said them then, are said
//! again. Only the password is not asked for a second time.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    frame::{Scanner, word},
    gate::Sock,
};

/// How long the server may take to put a session back. One that does not is let go.
const LIMIT: Duration = Duration::from_secs(5);

/// `ROLLBACK` and `DISCARD ALL`, each a simple Query: the second must not run in a transaction.
const RENEW: &[u8] = b"Q\0\0\0\x0drollback\0Q\0\0\0\x10discard all\0";

/// By their first packet, each with its share of the room.
type Sessions = HashMap<Vec<u8>, Vec<(Kept, OwnedSemaphorePermit)>>;

/// The sessions of one role that wait for their next program.
///
/// They live on the Tokio runtime that opened them.
#[derive(Debug)]
pub struct Reserve {
    sessions: Mutex<Sessions>,
    room: Arc<Semaphore>,
}

impl Reserve {
    /// An empty one. `room` is how many sessions may be kept on that server, in all reserves that
    /// share it: they count towards what the server allows. Where there is none, sessions are let
    /// go.
    pub fn within(room: Arc<Semaphore>) -> Self {
        Self {
            sessions: Mutex::default(),
            room,
        }
    }

    /// A session that began with this packet. If there is none, one of the others is let go, so
    /// that what is kept never takes a place that a program needs.
    pub(super) fn take(&self, packet: &[u8]) -> Option<Kept> {
        let mut sessions = self.sessions();
        if let Some(kept) = sessions.get_mut(packet) {
            while let Some((session, _)) = kept.pop() {
                if session.server.is_quiet() {
                    return Some(session);
                }
            }
        }
        sessions.values_mut().find_map(Vec::pop);
        None
    }

    /// Puts a session back to how it began and keeps it; false if the server does not do it, and
    /// the session is let go.
    pub(super) async fn put(&self, session: Kept) -> bool {
        let Ok(room) = self.room.clone().try_acquire_owned() else {
            return false;
        };
        let renewed = tokio::time::timeout(LIMIT, renew(&session.server)).await;
        match renewed {
            Ok(Ok(())) => {
                let packet = session.packet.clone();
                let mut sessions = self.sessions();
                sessions.entry(packet).or_default().push((session, room));
                true
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a session is not kept");
                false
            }
            Err(_) => false,
        }
    }

    fn sessions(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A session of the server without a program.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) server: Sock,
    /// What the program began with.
    pub(super) packet: Vec<u8>,
    /// What the server said then, from the end of the authentication on.
    pub(super) greeting: Vec<u8>,
}

/// Asks the server for a session as new, and hears it say so.
async fn renew(server: &Sock) -> io::Result<()> {
    server.write_all(RENEW).await?;
    let (mut scanner, mut buffer) = (Scanner::default(), Vec::new());
    let mut done = 0;
    while done < 2 {
        if server.read(&mut buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Some(frame) = scanner.next(&buffer, |_| 1)? {
            match (frame.tag, buffer.get(frame.body.start)) {
                (b'Z', Some(b'I')) => done += 1,
                (b'Z' | b'E', _) => return Err(io::Error::other("it cannot be put back")),
                _ => {}
            }
        }
    }
    Ok(())
}

/// Listens to how the server begins a session.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    scanner: Scanner,
    bytes: Vec<u8>,
    /// Where it says that the program is who it says it is.
    authenticated: Option<usize>,
}

impl Greeting {
    /// Takes what the server has sent; all of the greeting once its end has come.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> io::Result<Option<Vec<u8>>> {
        self.bytes.extend_from_slice(bytes);
        while let Some(frame) = self.scanner.next(&self.bytes, |_| usize::MAX)? {
            let code = word(&self.bytes[frame.body.clone()]);
            match (frame.tag, self.authenticated) {
                (b'R', None) if code == Some(0) => self.authenticated = Some(frame.at),
                (b'Z', Some(from)) => {
                    return Ok(Some(self.bytes[from..frame.body.end].to_vec()));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_greeting_is_heard_in_any_pieces_and_without_the_authentication() {
        let asks = frame(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]);
        let greets = [
            frame(b'R', &[0, 0, 0, 0]),
            frame(b'S', b"TimeZone\0UTC\0"),
            frame(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]),
            frame(b'Z', b"I"),
        ]
        .concat();
        let stream = [asks, greets.clone()].concat();
        for split in 0..stream.len() {
            let mut greeting = Greeting::default();
            assert_eq!(greeting.hear(&stream[..split]).unwrap(), None);
            assert_eq!(
                greeting.hear(&stream[split..]).unwrap().as_ref(),
                Some(&greets)
            );
        }
    }

    #[test]
    fn the_two_queries_are_well_formed() {
        let (mut scanner, mut said) = (Scanner::default(), Vec::new());
        while let Some(frame) = scanner.next(RENEW, |_| usize::MAX).unwrap() {
            said.push((frame.tag, &RENEW[frame.body]));
        }
        assert_eq!(
            said,
            [
                (b'Q', b"rollback\0".as_slice()),
                (b'Q', b"discard all\0".as_slice())
            ]
        );
        assert_eq!(scanner.walked(), RENEW.len());
    }
}
