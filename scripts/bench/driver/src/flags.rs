//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use crate::plan::Plan;

pub(crate) const USAGE: &str = "\
Usage: scripts/bench/run [--quick] [OPTIONS]

Measures our queue against its peers, side by side on private servers that are durable as in
production, and prints one table. The same, every single run and two plots are kept below the
target folder. Whatever happens, the servers are stopped and their data is removed.

  --quick           20,000 jobs, and 4 seconds at 1,000 a second: less than 8 minutes
  --rounds N        how often all of them run, in turn [default: 3]
  --jobs N          jobs of a burn-down [default: 100000]
  --seconds N       how long each offered rate is measured [default: 8]
  --rates A,B       jobs offered a second; `none` leaves latency out [default: 200,1000]
  --concurrency N   handlers at a time [default: 64]
  --limit N         seconds after which a burn-down counts as stalled [default: 90]
  --drain N         seconds that a queue may go on after the last job was offered [default: 10]
  --only A,B        names that contain one of these, the bare statements (`raw`) among them
  --out FOLDER      where results go [default: bench/ below the target folder]
  --no-build        use the programs that are there

Exit code: 0 if everything ran, whatever the figures are; 2 if it could not be measured.";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) plan: Plan,
    /// Where the built programs are.
    pub(crate) programs: PathBuf,
    /// Where `raw/` is.
    pub(crate) scripts: PathBuf,
    pub(crate) out: Option<PathBuf>,
}

impl Flags {
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let arguments: Vec<String> = arguments.into_iter().collect();
        // First, so that what is given beside it holds wherever it stands.
        let mut plan = match arguments.iter().any(|it| it == "--quick") {
            true => Plan::quick(),
            false => Plan::full(),
        };
        let (mut programs, mut scripts, mut out) = (None, None, None);
        let mut arguments = arguments.into_iter().filter(|it| it != "--quick");
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or(format!("{name} needs a value"))?;
            let number = |text: &str| match text.parse::<usize>() {
                Ok(number) if (1..=10_000_000).contains(&number) => Ok(number),
                _ => Err(format!(
                    "{name} needs a number from 1 to 10000000, not {text}"
                )),
            };
            match name.as_str() {
                "--rounds" => plan.rounds = number(&value)?,
                "--jobs" => plan.jobs = number(&value)?,
                "--seconds" => plan.seconds = number(&value)?,
                "--concurrency" => plan.concurrency = number(&value)?,
                "--limit" => plan.limit = Duration::from_secs(number(&value)? as u64),
                "--drain" => plan.drain = Duration::from_secs(number(&value)? as u64),
                "--rates" if value == "none" => plan.rates.clear(),
                "--rates" => plan.rates = value.split(',').map(number).collect::<Result<_, _>>()?,
                "--only" => {
                    let wanted =
                        |name: &str| value.split(',').any(|part| name.contains(part.trim()));
                    plan.contestants.retain(|it| wanted(it.name));
                    plan.raw.retain(|it| wanted(it.name));
                    if plan.contestants.is_empty() && plan.raw.is_empty() {
                        return Err(format!("nobody's name contains one of {value}"));
                    }
                }
                "--out" => out = Some(PathBuf::from(value)),
                "--programs" => programs = Some(PathBuf::from(value)),
                "--scripts" => scripts = Some(PathBuf::from(value)),
                _ => return Err(format!("there is no flag {name}")),
            }
        }
        let given = |it: Option<PathBuf>, name: &str| {
            it.ok_or(format!("{name} is missing: use scripts/bench/run"))
        };
        Ok(Self {
            plan,
            programs: given(programs, "--programs")?,
            scripts: given(scripts, "--scripts")?,
            out,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Flags, String> {
        let line = format!("--programs p --scripts s {line}");
        Flags::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_is_given_beside_quick_holds_wherever_it_stands() {
        for line in ["--jobs 7 --quick", "--quick --jobs 7"] {
            let plan = parse(line).expect("it is right").plan;
            assert_eq!(
                (plan.jobs, plan.seconds),
                (7, Plan::quick().seconds),
                "{line}"
            );
        }
    }

    #[test]
    fn only_chooses_by_a_part_of_the_name() {
        let plan = parse("--only river,raw").expect("it is right").plan;
        assert_eq!(plan.contestants.len(), 1);
        assert_eq!(plan.raw.len(), 3);
        assert!(parse("--only nobody").is_err());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in ["--jobs", "--jobs 0", "--rates 1,x", "--colour red"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }
}
