//! A timeline: who did what, when, in columns.
//!
//! Fifty who do the same one after the other are told in two lines. A long one is shortened further:
//! events that differ in their ids only are thinned out, and what happened once stays. If that is
//! not enough, the middle goes.

use std::collections::HashMap;

use super::{dim, text};
use crate::history::Event;

/// Longer timelines are shortened when they are part of a finding.
pub const LONG: usize = 28;

/// How many events that look alike are kept: the first ones, and the last.
const ALIKE: usize = 3;

/// How much of a shortened timeline comes before the gap: how the scene began says more than what
/// happened just before it was judged.
const HEAD: (usize, usize) = (3, 5);

/// A message may take this many lines before it is cut.
const LINES_EACH: usize = 3;

const INDENT: usize = 4;

/// A timeline with at most `most` events, each as `time  actor  what`.
pub fn timeline(events: &[Event], most: usize, columns: usize) -> String {
    let events = &crowds(events);
    let kept = kept(events, most);
    let slow = events.iter().any(|event| event.at.as_secs() >= 10);
    let time = |event: &Event| match slow {
        true => format!("{:.3} s", event.at.as_secs_f64()),
        false => format!("{:.1} ms", event.at.as_secs_f64() * 1_000.0),
    };
    let shown = || kept.iter().map(|index| &events[*index]);
    let times = shown().map(|event| text::width(&time(event))).max();
    let actors = shown().map(|event| text::width(&event.actor)).max();
    let time_width = INDENT + times.unwrap_or_default();
    let actor_width = actors.unwrap_or_default().min(columns / 4);
    let indent = time_width + 2 + actor_width + 2;
    let room = columns.saturating_sub(indent);

    let mut out = String::new();
    let mut next = 0;
    // One past the end, for a gap after the last one.
    for index in kept.iter().copied().chain([events.len()]) {
        if index > next {
            let left_out = text::plural(index - next, "more event");
            let gap = dim(&format!("… {left_out} …"));
            out.push_str(&format!("{}{gap}\n", " ".repeat(indent)));
        }
        next = index + 1;
        let Some(event) = events.get(index) else {
            break;
        };
        let actor = text::cut(&text::harmless(&event.actor), actor_width);
        let mut lines = text::wrap(&event.what, room);
        if lines.len() > LINES_EACH {
            lines.truncate(LINES_EACH);
            if let Some(last) = lines.last_mut() {
                *last = text::cut(&format!("{last} ……"), room);
            }
        }
        let first = lines.first().map(String::as_str).unwrap_or_default();
        let time = dim(&text::pad_left(&time(event), time_width));
        let line = format!("{time}  {}  {first}", text::pad(&actor, actor_width));
        out.push_str(&format!("{}\n", line.trim_end()));
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

/// Which events are shown, at most so many.
fn kept(events: &[Event], most: usize) -> Vec<usize> {
    let all: Vec<usize> = (0..events.len()).collect();
    if all.len() <= most {
        return all;
    }
    let mut alike: HashMap<String, Vec<usize>> = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        alike.entry(shape(event)).or_default().push(index);
    }
    let mut kept: Vec<usize> = alike
        .into_values()
        .flat_map(|mut same| {
            if same.len() > ALIKE + 1 {
                // A gap of one line would save nothing, hence the `+ 1`.
                same.drain(ALIKE - 1..same.len() - 1);
            }
            same
        })
        .collect();
    kept.sort_unstable();
    if kept.len() > most {
        let head = (most * HEAD.0 / HEAD.1).max(1);
        let tail = most.saturating_sub(head);
        kept.drain(head..kept.len() - tail);
    }
    kept
}

/// The event without what tells one id, number or caller from another. Statuses stay: `← 201` and
/// `← 409` are not alike.
fn shape(event: &Event) -> String {
    let mut shape = String::new();
    let is_word = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    let said = format!("{} {}", event.actor, event.what);
    for word in said.split_inclusive(|c| !is_word(c)) {
        let (word, end) = match word.char_indices().next_back() {
            Some((at, c)) if !is_word(c) => word.split_at(at),
            _ => (word, ""),
        };
        let is_status = ["← ", "→ "].iter().any(|arrow| shape.ends_with(arrow));
        match word.chars().any(|c| c.is_ascii_digit()) && !is_status {
            true => shape.push('#'),
            false => shape.push_str(word),
        }
        shape.push_str(end);
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(actor: &str, what: &str) -> Event {
        Event {
            at: std::time::Duration::ZERO,
            actor: actor.to_owned(),
            what: what.to_owned(),
        }
    }

    #[test]
    fn a_crowd_is_told_in_two_lines_and_a_pair_in_its_own() {
        let mut events: Vec<_> = (1..=50)
            .map(|number| event(&format!("request {number}"), "POST /pay"))
            .collect();
        events.push(event("provider", "held"));
        events.push(event("request 1", "409"));
        events.push(event("request 2", "409"));
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

    #[test]
    fn ids_do_not_make_a_difference_and_statuses_do() {
        let of = |actor, what| shape(&event(actor, what));
        assert_eq!(
            of("request 1", "POST /pay  key a-7f"),
            of("request 22", "POST /pay  key a-31")
        );
        assert_eq!(
            of("request 1", "← 201 {\"id\":\"ch_1\"}"),
            of("request 2", "← 201 {\"id\":\"ch_2\"}")
        );
        assert_ne!(of("request 1", "← 201 {}"), of("request 1", "← 409 {}"));
        assert_ne!(of("request 1", "POST /pay"), of("provider", "POST /pay"));
    }

    #[test]
    fn what_happened_once_survives_among_many_that_look_alike() {
        let mut events: Vec<_> = (0..200)
            .map(|n| event(&format!("request {n}"), "POST /pay"))
            .collect();
        events.insert(100, event("provider", "charge → 201 ch_41"));
        assert_eq!(kept(&events, 28), [0, 1, 100, 200]);
    }

    #[test]
    fn never_more_than_asked_for_even_if_all_differ() {
        let letters: Vec<_> = (0..26_u8)
            .flat_map(|a| (0..26_u8).map(move |b| [b'a' + a, b'a' + b]))
            .collect();
        let events: Vec<_> = letters
            .iter()
            .map(|two| event("lab", &String::from_utf8_lossy(two)))
            .collect();
        let kept = kept(&events, 28);
        assert_eq!(kept.len(), 28);
        assert_eq!((kept[0], kept[27]), (0, events.len() - 1));
    }
}
