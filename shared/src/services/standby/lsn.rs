//! Positions in PostgreSQL's write-ahead log.

use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log, in bytes from its beginning.
///
/// Written as PostgreSQL does: `0/16B3748`, the upper and the lower half in hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// It is not two hexadecimal numbers with a slash between them.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no position in a log: expected something like 0/16B3748")]
pub struct NotAnLsn(String);

impl FromStr for Lsn {
    type Err = NotAnLsn;

    fn from_str(text: &str) -> Result<Self, NotAnLsn> {
        let half = |text: &str| {
            let fits = (1..=8).contains(&text.len());
            let plain = text.bytes().all(|byte| byte.is_ascii_hexdigit());
            (fits && plain)
                .then(|| u64::from_str_radix(text, 16).ok())
                .flatten()
        };
        text.split_once('/')
            .and_then(|(upper, lower)| Some(Self((half(upper)? << 32) | half(lower)?)))
            .ok_or_else(|| NotAnLsn(text.to_owned()))
    }
}

/// How far a primary and its standby are, read one after the other: the primary first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Positions {
    /// What the primary has written; every commit that it answered is below.
    pub flushed: Lsn,
    /// What the standby has received and written.
    pub received: Lsn,
    /// What the standby has replayed: its readers see every commit below.
    pub replayed: Lsn,
}

impl Positions {
    /// What readers of the standby may lack, in bytes of log.
    pub fn lag_bytes(&self) -> u64 {
        self.flushed.0.saturating_sub(self.replayed.0)
    }

    /// Whether readers of the standby lack nothing of what the primary had answered.
    pub fn is_complete(&self) -> bool {
        self.replayed >= self.flushed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_reads_as_it_is_written() {
        for (text, bytes) in [
            ("0/0", 0),
            ("0/16B3748", 0x16b_3748),
            ("1/0", 1 << 32),
            ("FFFFFFFF/FFFFFFFF", u64::MAX),
        ] {
            assert_eq!(text.parse(), Ok(Lsn(bytes)));
            assert_eq!(Lsn(bytes).to_string(), text);
        }
        for wrong in [
            "",
            "/",
            "0",
            "0/",
            "0/x",
            "0/-1",
            "0/+1",
            "0/123456789",
            "0/1/2",
        ] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_standby_that_is_ahead_of_what_was_read_lags_by_nothing() {
        let positions = |flushed, replayed| Positions {
            flushed: Lsn(flushed),
            received: Lsn(replayed),
            replayed: Lsn(replayed),
        };
        assert_eq!(positions(100, 60).lag_bytes(), 40);
        assert!(!positions(100, 60).is_complete());
        // The primary is asked first, so the standby may have replayed what came in between.
        assert_eq!(positions(100, 120).lag_bytes(), 0);
        assert!(positions(100, 120).is_complete());
    }
}
