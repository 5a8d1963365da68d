//! A timeline: who did what, when, in columns.

use super::{dim, text};
use crate::history::Event;

/// Longer timelines are shortened in the middle when they are part of a finding.
pub const LONG: usize = 28;

/// How much of a shortened timeline comes before the gap: how the scene began says more than what
/// happened just before it was judged.
const HEAD: (usize, usize) = (3, 5);

/// A message may take this many lines before it is cut.
const LINES_EACH: usize = 3;

const INDENT: usize = 4;

/// A timeline with at most `most` events, each as `time  actor  what`.
pub fn timeline(events: &[Event], most: usize, columns: usize) -> String {
    let events = &crowds(events);
    let slow = events.iter().any(|event| event.at.as_secs() >= 10);
    let times: Vec<_> = events
        .iter()
        .map(|event| match slow {
            true => format!("{:.3} s", event.at.as_secs_f64()),
            false => format!("{:.1} ms", event.at.as_secs_f64() * 1_000.0),
        })
        .collect();
    let gap = (events.len() > most).then(|| {
        let head = (most * HEAD.0 / HEAD.1).max(1);
        let tail = most.saturating_sub(head);
        head..events.len() - tail
    });
    let shown = |index: &usize| gap.as_ref().is_none_or(|gap| !gap.contains(index));
    let widest = |widths: &mut dyn Iterator<Item = usize>| widths.max().unwrap_or_default();
    let time_width = widest(
        &mut (0..events.len())
            .filter(shown)
            .map(|i| text::width(&times[i])),
    );
    let actor_width = widest(
        &mut (0..events.len())
            .filter(shown)
            .map(|i| text::width(&events[i].actor)),
    );
    let actor_width = actor_width.min(columns / 4);
    let indent = INDENT + time_width + 2 + actor_width + 2;

    let mut out = String::new();
    for (index, event) in events.iter().enumerate() {
        if let Some(gap) = gap.as_ref().filter(|gap| gap.contains(&index)) {
            if index == gap.start {
                let left_out = format!("… {} more events …", text::count(gap.len() as u64));
                out.push_str(&format!("{}{}\n", " ".repeat(INDENT), dim(&left_out)));
            }
            continue;
        }
        let actor = text::cut(&text::harmless(&event.actor), actor_width);
        let time = text::pad_left(&times[index], INDENT + time_width);
        let mut lines = text::wrap(&event.what, columns.saturating_sub(indent));
        if lines.len() > LINES_EACH {
            lines.truncate(LINES_EACH);
            if let Some(last) = lines.last_mut() {
                *last = text::cut(&format!("{last} ……"), columns.saturating_sub(indent));
            }
        }
        let first = lines.first().map(String::as_str).unwrap_or_default();
        let line = format!(
            "{}  {}  {first}",
            dim(&time),
            text::pad(&actor, actor_width)
        );
        out.push_str(line.trim_end());
        out.push('\n');
        for line in lines.iter().skip(1) {
            out.push_str(&format!("{}{line}\n", " ".repeat(indent)));
        }
    }
    out
}

/// Fifty who do the same thing one after the other are told as the first one and "49 more".
fn crowds(events: &[Event]) -> Vec<Event> {
    const CROWD: usize = 3;
    let mut told = Vec::new();
    for run in events.chunk_by(|one, next| one.what == next.what) {
        match run {
            [first, second, rest @ ..] if run.len() >= CROWD => {
                told.push(first.clone());
                told.push(Event {
                    actor: format!("{} more", rest.len() + 1),
                    ..second.clone()
                });
            }
            _ => told.extend_from_slice(run),
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn event(at: u64, actor: &str, what: &str) -> Event {
        Event {
            at: Duration::from_millis(at),
            actor: actor.to_owned(),
            what: what.to_owned(),
        }
    }

    #[test]
    fn a_crowd_is_told_in_two_lines_and_a_pair_in_its_own() {
        let mut events: Vec<_> = (1..=50)
            .map(|number| event(number, &format!("request {number}"), "POST /pay"))
            .collect();
        events.push(event(60, "provider", "held"));
        events.push(event(61, "request 1", "409"));
        events.push(event(62, "request 2", "409"));
        let told = crowds(&events);
        let lines: Vec<_> = told
            .iter()
            .map(|e| format!("{} {}", e.actor, e.what))
            .collect();
        assert_eq!(
            lines,
            [
                "request 1 POST /pay",
                "49 more POST /pay",
                "provider held",
                "request 1 409",
                "request 2 409"
            ]
        );
    }
}
