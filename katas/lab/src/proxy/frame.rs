//! PostgreSQL's message framing, version 3, both directions: where a frame begins, what kind it
//! is, how long it is. Nothing here copies or waits; a reader's buffer is walked in place.
//!
//! A frame is a tag byte and a length that counts itself. Only the first frame of a connection has
//! no tag. Frames that are longer than the buffer are announced once, and their rest is skipped as
//! it comes, so that a frame of 1 GiB streams through a small buffer.

use std::{io, ops::Range};

/// PostgreSQL itself refuses longer messages. A larger length is not a frame but a stream that we
/// have lost the thread of (or TLS, which nobody agreed to).
const MAX_LENGTH: usize = 1 << 30;

/// PostgreSQL's own limit for the first packet.
const MAX_STARTUP: usize = 10_000;

const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;

/// A Flush from us: it makes the server send what it has answered so far, and nothing else.
pub(super) const FLUSH: &[u8] = b"H\0\0\0\x04";

/// The length is impossible: the connection cannot be understood any further.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a {what} of {length} bytes is no PostgreSQL message")]
pub(super) struct Malformed {
    what: &'static str,
    length: usize,
}

impl From<Malformed> for io::Error {
    fn from(malformed: Malformed) -> Self {
        Self::new(io::ErrorKind::InvalidData, malformed)
    }
}

/// A frame whose header, and as much of its body as was asked for, lies in the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) tag: u8,
    /// Where its tag lies in the buffer.
    pub(super) at: usize,
    /// The part of its body that lies in the buffer; maybe not all of it.
    pub(super) body: Range<usize>,
}

/// Walks the frames of one direction through a buffer that grows at its end and is drained at its
/// front.
#[derive(Debug, Default)]
pub(super) struct Scanner {
    /// Everything before this offset belongs to frames that were announced.
    walked: usize,
    /// Bytes of the last announced frame that have not come yet.
    missing: usize,
}

impl Scanner {
    /// The next frame of the buffer, or `None` until more has come. `want` says how many bytes of
    /// a frame's body the caller has to see; the frame is not announced before they are there.
    pub(super) fn next(
        &mut self,
        buffer: &[u8],
        want: impl FnOnce(u8) -> usize,
    ) -> Result<Option<Frame>, Malformed> {
        let skipped = self.missing.min(buffer.len() - self.walked);
        self.walked += skipped;
        self.missing -= skipped;

        let at = self.walked;
        let Some(&[tag, a, b, c, d]) = buffer.get(at..at + 5) else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if !(4..=MAX_LENGTH).contains(&length) {
            return Err(Malformed {
                what: "frame",
                length,
            });
        }
        let (body, end) = (at + 5, at + 1 + length);
        if buffer.len() < end.min(body.saturating_add(want(tag))) {
            return Ok(None);
        }
        self.walked = end.min(buffer.len());
        self.missing = end - self.walked;
        Ok(Some(Frame {
            tag,
            at,
            body: body..self.walked,
        }))
    }

    /// How much of the buffer belongs to frames that were announced.
    pub(super) fn walked(&self) -> usize {
        self.walked
    }

    /// The buffer has lost this many bytes at its front.
    pub(super) fn drained(&mut self, bytes: usize) {
        self.walked -= bytes;
    }
}

/// The first packet of a connection, or the answer to a refused encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// A session begins; its packet has this length.
    Session(usize),
    /// Another session's statement is to be cancelled; the packet has this length.
    Cancel(usize),
    /// TLS or GSSAPI is asked for; the packet has this length.
    Encryption(usize),
}

impl Opening {
    /// Reads the packet at the buffer's front, or `None` until all of it has come.
    pub(super) fn read(buffer: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some(length) = word(buffer) else {
            return Ok(None);
        };
        let length = length as usize;
        let malformed = Malformed {
            what: "first packet",
            length,
        };
        if !(8..=MAX_STARTUP).contains(&length) {
            return Err(malformed);
        }
        let Some(packet) = buffer.get(..length) else {
            return Ok(None);
        };
        match word(&packet[4..]) {
            Some(CANCEL_REQUEST) => Ok(Some(Self::Cancel(length))),
            Some(SSL_REQUEST | GSSENC_REQUEST) if length == 8 => Ok(Some(Self::Encryption(length))),
            Some(version) if version >> 16 == 3 => Ok(Some(Self::Session(length))),
            _ => Err(malformed),
        }
    }
}

/// The big-endian word at the front, if there is one.
pub(super) fn word(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().copied().map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn frame(tag: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend((body.len() as u32 + 4).to_be_bytes());
        bytes.extend(body);
        bytes
    }

    /// Feeds the pieces one after the other, draining all that was walked after each, and returns
    /// every frame's tag with the wanted part of its body, and everything that was drained.
    fn walk(pieces: &[&[u8]], want: usize) -> (Vec<(u8, Vec<u8>)>, Vec<u8>) {
        let (mut scanner, mut buffer) = (Scanner::default(), Vec::new());
        let (mut seen, mut passed) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            while let Some(frame) = scanner.next(&buffer, |_| want).unwrap() {
                let body = &buffer[frame.body.clone()];
                seen.push((frame.tag, body[..body.len().min(want)].to_vec()));
            }
            let walked = scanner.walked();
            passed.extend(buffer.drain(..walked));
            scanner.drained(walked);
        }
        (seen, passed)
    }

    #[test]
    fn frames_are_the_same_wherever_the_stream_is_split() {
        let stream = [
            frame(b'P', b"name\0select 1\0\0\0"),
            frame(b'S', b""),
            frame(b'd', &[7; 40]),
        ];
        let stream = stream.concat();
        let whole = walk(&[&stream], 6);
        assert_eq!(
            whole.0,
            [
                (b'P', b"name\0s".to_vec()),
                (b'S', vec![]),
                (b'd', vec![7; 6])
            ]
        );
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let pieces = [&stream[..first], &stream[first..second], &stream[second..]];
                assert_eq!(walk(&pieces, 6), whole, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn random_streams_in_random_pieces_lose_and_add_nothing() {
        let mut rng = StdRng::seed_from_u64(0x5eed);
        for _ in 0..300 {
            let bodies: Vec<Vec<u8>> = (0..rng.random_range(1..20))
                .map(|_| {
                    (0..rng.random_range(0..200))
                        .map(|_| rng.random())
                        .collect()
                })
                .collect();
            let stream: Vec<u8> = bodies.iter().flat_map(|body| frame(b'D', body)).collect();
            let want = rng.random_range(0..30);
            let (mut rest, mut pieces) = (stream.as_slice(), Vec::new());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rng.random_range(1..=rest.len().min(90)));
                pieces.push(piece);
                rest = after;
            }
            let (seen, passed) = walk(&pieces, want);
            assert_eq!(passed, stream);
            let expected: Vec<_> = bodies
                .iter()
                .map(|body| (b'D', body[..body.len().min(want)].to_vec()))
                .collect();
            assert_eq!(seen, expected);
        }
    }

    #[test]
    fn random_bytes_are_walked_or_refused_but_never_panic() {
        let mut rng = StdRng::seed_from_u64(0xbad);
        for _ in 0..2_000 {
            let bytes: Vec<u8> = (0..rng.random_range(0..64)).map(|_| rng.random()).collect();
            let mut scanner = Scanner::default();
            while let Ok(Some(frame)) = scanner.next(&bytes, |tag| tag as usize) {
                assert!(frame.body.end <= bytes.len());
            }
            let _ = Opening::read(&bytes);
        }
    }

    #[test]
    fn a_frame_of_one_gibibyte_is_announced_from_its_header_and_then_skipped() {
        let mut scanner = Scanner::default();
        let mut buffer = vec![b'D'];
        buffer.extend((1_u32 << 30).to_be_bytes());
        let frame = scanner.next(&buffer, |_| 0).unwrap().unwrap();
        assert_eq!((frame.tag, frame.body), (b'D', 5..5));
        scanner.drained(5);
        let mut left = (1_usize << 30) - 4;
        let chunk = vec![0; 1 << 16];
        while left > 0 {
            let piece = &chunk[..chunk.len().min(left)];
            assert_eq!(scanner.next(piece, |_| 0).unwrap(), None);
            assert_eq!(scanner.walked(), piece.len());
            scanner.drained(piece.len());
            left -= piece.len();
        }
        let end = b"Z\0\0\0\x05I";
        assert_eq!(scanner.next(end, |_| 0).unwrap().unwrap().tag, b'Z');
    }

    #[test]
    fn impossible_lengths_are_refused() {
        for length in [0_u32, 3, (1 << 30) + 1, u32::MAX] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert!(Scanner::default().next(&bytes, |_| 0).is_err(), "{length}");
        }
    }

    #[test]
    fn the_first_packet_is_told_apart() {
        let packet = |code: u32, rest: &[u8]| {
            let mut bytes = (rest.len() as u32 + 8).to_be_bytes().to_vec();
            bytes.extend(code.to_be_bytes());
            bytes.extend(rest);
            bytes
        };
        let session = packet(3 << 16, b"user\0me\0\0");
        for split in 0..session.len() {
            assert_eq!(Opening::read(&session[..split]), Ok(None));
        }
        assert_eq!(
            Opening::read(&session),
            Ok(Some(Opening::Session(session.len())))
        );
        assert_eq!(
            Opening::read(&packet(SSL_REQUEST, b"")),
            Ok(Some(Opening::Encryption(8)))
        );
        assert_eq!(
            Opening::read(&packet(GSSENC_REQUEST, b"")),
            Ok(Some(Opening::Encryption(8)))
        );
        assert_eq!(
            Opening::read(&packet(CANCEL_REQUEST, &[0; 8])),
            Ok(Some(Opening::Cancel(16)))
        );
        assert!(Opening::read(&packet(2 << 16, b"")).is_err());
        // A TLS handshake that nobody agreed to, and HTTP.
        assert!(Opening::read(&[0x16, 0x03, 0x01, 0x02]).is_err());
        assert!(Opening::read(b"GET / HTTP/1.1").is_err());
    }
}
