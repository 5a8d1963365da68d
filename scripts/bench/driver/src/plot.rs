//! The plots, as SVG: two kinds of marks on a scale, which is less to build than a library.

use std::fmt::Write;

use crate::plan::Store;
use crate::results::{BurnDown, Latency, Spread};
use crate::table::{milliseconds, thousands};

const WIDTH: f64 = 880.0;
/// Where the scale begins; names stand to the left of it.
const LEFT: f64 = 240.0;
const RIGHT: f64 = 90.0;
const ROW: f64 = 26.0;
const TOP: f64 = 64.0;

const INK: &str = "#222";
const FAINT: &str = "#ccc";

fn colour(store: Option<Store>, ours: bool) -> &'static str {
    match (store, ours) {
        (_, true) => "#c2410c",
        (Some(Store::Postgres), _) => "#336791",
        (Some(Store::Redis), _) => "#7a2b8f",
        (None, _) => "#888",
    }
}

/// Bars for the throughput, with whiskers from the slowest to the fastest round.
pub(crate) fn throughput(lines: &[BurnDown]) -> String {
    let mut lines: Vec<&BurnDown> = lines.iter().collect();
    let height = |line: &BurnDown| line.jobs_per_second.map_or(0.0, |it| it.median);
    lines.sort_by(|a, b| height(b).total_cmp(&height(a)));
    let greatest = lines.iter().filter_map(|it| it.jobs_per_second);
    let greatest = greatest.map(|it| it.greatest).fold(1.0, f64::max);
    let step = nice_step(greatest);
    let scale = Scale::Linear(step * (greatest / step).ceil());

    let ticks = (0..).map(|count| f64::from(count) * step);
    let ticks: Vec<f64> = ticks.take_while(|tick| *tick <= scale.end()).collect();
    let mut svg = Svg::begin(
        "Burn-down: jobs a second",
        "median, and the slowest and fastest round; more is better",
        lines.len(),
    );
    svg.scale(&scale, &ticks, lines.len(), thousands);
    for (row, line) in lines.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        svg.name(y, &line.name);
        let Some(it) = line.jobs_per_second else {
            svg.text(LEFT + 6.0, y + 17.0, "start", "no run finished");
            continue;
        };
        let (from, to) = (scale.x(0.0), scale.x(it.median));
        svg.rectangle(
            from,
            y + 5.0,
            to - from,
            ROW - 10.0,
            colour(line.store, line.ours),
        );
        svg.whisker(&scale, y, it);
        let beside = scale.x(it.greatest) + 6.0;
        svg.text(beside, y + 17.0, "start", &thousands(it.median));
    }
    svg.legend(lines.len());
    svg.end()
}

/// For each queue and rate, dots at p50, p95 and p99 on a logarithmic scale.
pub(crate) fn latency(lines: &[Latency]) -> String {
    let seen = lines.iter().flat_map(|it| [it.p50, it.p99]).flatten();
    let (mut least, mut greatest) = (1.0_f64, 10.0_f64);
    for it in seen {
        least = least.min(it.median);
        greatest = greatest.max(it.greatest);
    }
    let ends = (least.max(0.001).log10().floor(), greatest.log10().ceil());
    let scale = Scale::Logarithmic(ends.0, ends.1);
    let ticks: Vec<f64> = (ends.0 as i32..=ends.1 as i32)
        .map(|power| 10_f64.powi(power))
        .collect();

    let mut svg = Svg::begin(
        "Latency at a fixed offered rate, milliseconds",
        "p50, p95, p99 from the moment a job was due to the end of its handler; less is better",
        lines.len(),
    );
    svg.scale(&scale, &ticks, lines.len(), |tick| match tick {
        tick if tick < 1.0 => format!("{tick}"),
        tick => milliseconds(tick).trim_end_matches(".0").to_owned(),
    });
    for (row, line) in lines.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        svg.name(
            y,
            &format!("{} at {}/s", line.name, thousands(line.rate as f64)),
        );
        let (Some(p50), Some(p95), Some(p99)) = (line.p50, line.p95, line.p99) else {
            svg.text(LEFT + 6.0, y + 17.0, "start", "no figure");
            continue;
        };
        let fill = colour(Some(line.store), line.ours);
        svg.line(
            scale.x(p50.median),
            y + 13.0,
            scale.x(p99.median),
            y + 13.0,
            fill,
            2.0,
        );
        for (value, radius) in [(p50, 3.5), (p95, 4.5), (p99, 6.0)] {
            svg.circle(scale.x(value.median), y + 13.0, radius, fill);
        }
        let beside = scale.x(p99.median) + 11.0;
        svg.text(beside, y + 17.0, "start", &milliseconds(p99.median));
    }
    svg.legend(lines.len());
    svg.end()
}

enum Scale {
    /// From 0 to this.
    Linear(f64),
    /// From one power of ten to another.
    Logarithmic(f64, f64),
}

impl Scale {
    fn end(&self) -> f64 {
        match self {
            Self::Linear(end) => *end,
            Self::Logarithmic(_, end) => 10_f64.powf(*end),
        }
    }

    fn x(&self, value: f64) -> f64 {
        let part = match self {
            Self::Linear(end) => value / end,
            Self::Logarithmic(from, to) => (value.max(1e-9).log10() - from) / (to - from).max(1.0),
        };
        LEFT + part.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

/// 1, 2 or 5 times a power of ten, so that there are four to ten steps.
fn nice_step(greatest: f64) -> f64 {
    let power = 10_f64.powf((greatest / 4.0).log10().floor());
    let steps = [5.0, 2.0].map(|step| step * power);
    let wide = steps.into_iter().find(|step| greatest / step >= 4.0);
    wide.unwrap_or(power)
}

struct Svg(String);

impl Svg {
    fn begin(title: &str, below: &str, rows: usize) -> Self {
        let height = TOP + ROW * rows as f64 + 62.0;
        let mut svg = Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"{INK}\" role=\"img\" \
             aria-label=\"{title}\">\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n"
        ));
        svg.push(format_args!(
            "<text x=\"12\" y=\"24\" font-size=\"16\" font-weight=\"600\">{title}</text>\n\
             <text x=\"12\" y=\"44\" fill=\"#555\">{below}</text>\n"
        ));
        svg
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.0.write_fmt(text);
    }

    fn scale(&mut self, scale: &Scale, ticks: &[f64], rows: usize, label: impl Fn(f64) -> String) {
        let bottom = TOP + ROW * rows as f64;
        for tick in ticks {
            let x = scale.x(*tick);
            self.line(x, TOP, x, bottom, FAINT, 1.0);
            self.text(x, bottom + 16.0, "middle", &label(*tick));
        }
    }

    fn name(&mut self, y: f64, name: &str) {
        self.text(LEFT - 8.0, y + 17.0, "end", name);
    }

    fn whisker(&mut self, scale: &Scale, y: f64, it: Spread) {
        let (from, to, middle) = (scale.x(it.least), scale.x(it.greatest), y + ROW / 2.0);
        self.line(from, middle, to, middle, INK, 1.5);
        for x in [from, to] {
            self.line(x, middle - 4.0, x, middle + 4.0, INK, 1.5);
        }
    }

    fn legend(&mut self, rows: usize) {
        let y = TOP + ROW * rows as f64 + 40.0;
        let entries = [
            ("ours", colour(None, true)),
            ("on PostgreSQL", colour(Some(Store::Postgres), false)),
            ("on Redis", colour(Some(Store::Redis), false)),
            ("bare SQL", colour(None, false)),
        ];
        for (at, (text, fill)) in entries.into_iter().enumerate() {
            let x = LEFT + 130.0 * at as f64;
            self.rectangle(x, y - 10.0, 12.0, 12.0, fill);
            self.text(x + 18.0, y, "start", text);
        }
    }

    fn rectangle(&mut self, x: f64, y: f64, width: f64, height: f64, fill: &str) {
        self.push(format_args!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{fill}\"/>\n"
        ));
    }

    fn line(&mut self, x1: f64, y1: f64, x2: f64, y2: f64, stroke: &str, width: f64) {
        self.push(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{stroke}\" \
             stroke-width=\"{width}\"/>\n"
        ));
    }

    fn circle(&mut self, x: f64, y: f64, radius: f64, fill: &str) {
        self.push(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{fill}\"/>\n"
        ));
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        self.push(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
        ));
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_and_few() {
        for (greatest, step) in [(10.0, 2.0), (48_000.0, 10_000.0), (21_000.0, 5_000.0)] {
            assert_eq!(nice_step(greatest), step, "{greatest}");
        }
    }

    #[test]
    fn a_decade_is_as_wide_as_another() {
        let scale = Scale::Logarithmic(0.0, 2.0);
        let [one, ten, hundred] = [1.0, 10.0, 100.0].map(|value| scale.x(value));
        assert!((ten - one - (hundred - ten)).abs() < 1e-9);
        assert_eq!(one, LEFT);
    }

    #[test]
    fn a_queue_without_a_result_still_has_its_row() {
        let line = BurnDown {
            name: "a < b".to_owned(),
            store: Some(Store::Redis),
            ours: false,
            jobs_per_second: None,
            enqueued_per_second: None,
            client_cpu_us: None,
            server_cpu_us: None,
            log_bytes: None,
            dead_tuples: None,
            of_best: None,
            troubles: Vec::new(),
        };
        let svg = throughput(&[line]);
        assert!(
            svg.contains("a &lt; b") && svg.contains("no run finished"),
            "{svg}"
        );
    }
}
