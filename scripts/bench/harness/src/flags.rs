//! The flags, the same for every program.

use std::time::Duration;

pub(crate) const USAGE: &str = "\
Flags: --url URL         the store, for this program alone
       --mode MODE       burn-down (enqueue all, then work) or latency (a fixed rate is offered)
       --jobs N          burn-down: how many jobs [default: 2000]
       --concurrency N   handlers at a time [default: 64]
       --rate N          latency: jobs a second [default: 200]
       --seconds N       latency: how long it is measured, after two seconds to warm up [default: 5]
       --limit N         seconds after which a queue that gets nowhere is called stalled [default: 60]";

/// What to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Enqueue all jobs, then start the worker: how long until none is left?
    BurnDown,
    /// Offer jobs at a fixed rate to a running worker: how late is each one done?
    Latency,
}

/// How to measure.
#[derive(Debug, Clone)]
pub struct Flags {
    /// The store.
    pub url: String,
    /// What to measure.
    pub mode: Mode,
    /// Jobs to burn down.
    pub jobs: usize,
    /// Handlers at a time.
    pub concurrency: usize,
    /// Jobs offered a second.
    pub rate: usize,
    /// How long latency is measured.
    pub seconds: usize,
    /// When to give up.
    pub limit: Duration,
}

/// What the load lasts before it counts: connections are opened and plans are cached in this time.
/// It is offered load like the rest.
pub(crate) const WARM_UP_SECONDS: usize = 2;

impl Flags {
    /// All jobs of the run, those of the warm-up included.
    #[must_use]
    pub fn all_jobs(&self) -> usize {
        match self.mode {
            Mode::BurnDown => self.jobs,
            Mode::Latency => self.rate * (WARM_UP_SECONDS + self.seconds),
        }
    }

    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut flags = Self {
            url: String::new(),
            mode: Mode::BurnDown,
            jobs: 2_000,
            concurrency: 64,
            rate: 200,
            seconds: 5,
            limit: Duration::from_secs(60),
        };
        let mut arguments = arguments;
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            let number = || match value.parse::<usize>() {
                Ok(number) if (1..=10_000_000).contains(&number) => Ok(number),
                _ => Err(format!(
                    "{name} needs a number from 1 to 10000000, not {value}"
                )),
            };
            match name.as_str() {
                "--url" => flags.url = value,
                "--mode" => {
                    flags.mode = match value.as_str() {
                        "burn-down" => Mode::BurnDown,
                        "latency" => Mode::Latency,
                        _ => return Err(format!("there is no mode {value}")),
                    }
                }
                "--jobs" => flags.jobs = number()?,
                "--concurrency" => flags.concurrency = number()?,
                "--rate" => flags.rate = number()?,
                "--seconds" => flags.seconds = number()?,
                "--limit" => flags.limit = Duration::from_secs(number()? as u64),
                _ => return Err(format!("there is no flag {name}")),
            }
        }
        if flags.url.is_empty() {
            return Err("--url is missing".to_owned());
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn every_flag_is_read() {
        let flags = parse(
            "--url redis://h --mode latency --jobs 7 --concurrency 8 --rate 9 --seconds 10 --limit 11",
        );
        let flags = flags.expect("they are right");
        assert_eq!(flags.mode, Mode::Latency);
        assert_eq!(
            (flags.jobs, flags.concurrency, flags.rate, flags.seconds),
            (7, 8, 9, 10)
        );
        assert_eq!(flags.limit, Duration::from_secs(11));
    }

    #[test]
    fn what_cannot_be_measured_is_refused() {
        for line in [
            "",
            "--url",
            "--url redis://h --jobs 0",
            "--url redis://h --rate many",
            "--url redis://h --mode sideways",
            "--url redis://h --colour red",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
