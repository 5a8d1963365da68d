//! What a consumer knows of a partition beyond one offset, as a text that is committed with it.
//!
//! A commit says "all below is done", and nothing of what is done above, nor how often something
//! was tried. Kafka keeps a text of up to 4,096 bytes with each committed offset for its client's
//! use (KIP-211 calls it metadata). In it stand the exceptions: up to where the partition was
//! touched, and which offsets below that are not done, with their attempts and when they are due.
//! So an acknowledgement out of order, an attempt and a delay survive the consumer.
//!
//! The text is `1` and base64url of LEB128 numbers:
//! `touched - base`, `earliest due in ms`, then for each exception
//! `offset - offset before`, `attempts × 4 + leased × 2 + has_due`, and `due - earliest due` if it has one.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// More than this in one partition would not surely fit; the window stops handing out before.
pub(super) const MOST: usize = 256;

/// Kafka's default for `offset.metadata.max.bytes`.
const ROOM_BYTES: usize = 4_096;

/// The text's first character: which form it has.
const FORM: char = '1';

/// An offset that was touched and is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) offset: i64,
    /// How often it was handed out.
    pub(super) attempts: u32,
    /// Whether somebody had it when this was committed.
    pub(super) leased: bool,
    /// Not before this time, in milliseconds since 1970; 0 if at once.
    pub(super) due_ms: u64,
}

/// A committed offset and its text, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Marks {
    /// All below are done.
    pub(super) base: i64,
    /// None at or above was touched. From `base` up to here, what is not in `open` is done.
    pub(super) touched: i64,
    /// By offset, ascending.
    pub(super) open: Vec<Mark>,
}

impl Marks {
    /// Nothing but an offset: what another client committed, for example.
    pub(super) fn plain(base: i64) -> Self {
        Self {
            base,
            touched: base,
            open: Vec::new(),
        }
    }

    /// The text to commit with `base`. Empty if the offset says it all.
    ///
    /// Should it not fit, the due times are left out: better too early than not at all.
    pub(super) fn text(&self) -> String {
        if self.open.is_empty() {
            return String::new();
        }
        let text = self.encode(true);
        if text.len() <= ROOM_BYTES {
            return text;
        }
        self.encode(false)
    }

    fn encode(&self, with_due: bool) -> String {
        let due = |mark: &Mark| if with_due { mark.due_ms } else { 0 };
        let dues = self.open.iter().map(due).filter(|due_ms| *due_ms > 0);
        let earliest = dues.min().unwrap_or(0);
        let mut bytes = Vec::with_capacity(16 + 6 * self.open.len());
        write(&mut bytes, distance(self.base, self.touched));
        write(&mut bytes, earliest);
        let mut before = self.base;
        for mark in &self.open {
            write(&mut bytes, distance(before, mark.offset));
            let due_ms = due(mark);
            write(
                &mut bytes,
                u64::from(mark.attempts) << 2 | u64::from(mark.leased) << 1 | u64::from(due_ms > 0),
            );
            if due_ms > 0 {
                write(&mut bytes, due_ms - earliest);
            }
            before = mark.offset;
        }
        format!("{FORM}{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes))
    }

    /// Reads what `text` wrote. A text of somebody else's counts as none: then all from `base` on
    /// is handed out, which is what Kafka's own offset means.
    pub(super) fn read(base: i64, text: &str) -> Self {
        Self::decode(base, text).unwrap_or_else(|| Self::plain(base))
    }

    fn decode(base: i64, text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(text.strip_prefix(FORM)?)
            .ok()?;
        let mut rest = bytes.as_slice();
        let touched = base.checked_add(i64::try_from(number(&mut rest)?).ok()?)?;
        let earliest = number(&mut rest)?;
        let mut open = Vec::new();
        let mut before = base;
        while !rest.is_empty() {
            let offset = before.checked_add(i64::try_from(number(&mut rest)?).ok()?)?;
            let tried = number(&mut rest)?;
            let due_ms = match tried & 1 {
                1 => earliest.checked_add(number(&mut rest)?)?,
                _ => 0,
            };
            open.push(Mark {
                offset,
                attempts: u32::try_from(tried >> 2).ok()?,
                leased: tried & 2 != 0,
                due_ms,
            });
            before = offset;
        }
        Some(Self {
            base,
            touched,
            open,
        })
    }
}

fn distance(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

fn write(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: i64, attempts: u32, due_ms: u64) -> Mark {
        Mark {
            offset,
            attempts,
            leased: offset % 2 == 0,
            due_ms,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let now_ms = 1_795_000_000_000;
        for open in [
            vec![],
            vec![mark(100, 1, 0)],
            vec![
                mark(100, 0, now_ms),
                mark(101, 300, 0),
                mark(9_000_000, 7, now_ms + 86_400_000),
            ],
        ] {
            let touched = open.last().map_or(100, |mark| mark.offset + 5);
            let marks = Marks {
                base: 100,
                touched,
                open,
            };
            assert_eq!(Marks::read(100, &marks.text()), marks);
        }
    }

    #[test]
    fn as_many_as_are_allowed_fit_even_if_all_are_far_apart_and_wait() {
        let now_ms = 1_795_000_000_000;
        let open = (0..MOST as i64)
            .map(|n| mark(n * 200_000, 60, now_ms + n as u64 * 288_000))
            .collect();
        let marks = Marks {
            base: 0,
            touched: i64::from(i32::MAX),
            open,
        };
        let text = marks.text();
        assert!(text.len() <= ROOM_BYTES, "{} bytes", text.len());
        assert_eq!(Marks::read(0, &text), marks);
    }

    #[test]
    fn what_does_not_fit_loses_the_due_times_and_nothing_else() {
        let open: Vec<_> = (0..MOST as i64)
            .map(|n| mark(n * 10_000_000_000, 60, 1 << (50 + n % 10)))
            .collect();
        let marks = Marks {
            base: 0,
            touched: i64::MAX / 2,
            open: open.clone(),
        };
        let text = marks.text();
        assert!(text.len() <= ROOM_BYTES, "{} bytes", text.len());
        let read = Marks::read(0, &text);
        assert_eq!(read.open.len(), open.len());
        for (read, written) in read.open.iter().zip(&open) {
            assert_eq!(
                (read.offset, read.attempts, read.due_ms),
                (written.offset, 60, 0)
            );
        }
    }

    #[test]
    fn a_text_of_somebody_else_is_no_text() {
        for text in [
            "",
            "hello",
            "1",
            "1A",
            "1!!!!",
            "1_____________________",
            "2AAAA",
        ] {
            assert_eq!(Marks::read(7, text), Marks::plain(7), "{text:?}");
        }
    }
}
