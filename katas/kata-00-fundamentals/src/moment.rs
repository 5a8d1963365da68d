//! A moment as the contract writes it: `2026-03-07T23:59:59Z`. Yours to use in `exercise.rs`.
//!
//! It comes from the input and never from a clock, so there is no `now()` here. A moment keeps the
//! text that it was read from: all have the same form, so texts in order are moments in order, and
//! what was sent is what is shown.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A second in the years 2000 to 2099, in UTC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Moment(String);

/// A text that names no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: expected YYYY-MM-DDTHH:MM:SSZ, one that exists, in 2000 to 2099")]
pub struct NoMoment(String);

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names are all there is to say")]
pub enum Weekday {
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

impl Weekday {
    const ALL: [Weekday; 7] = [
        Weekday::Monday,
        Weekday::Tuesday,
        Weekday::Wednesday,
        Weekday::Thursday,
        Weekday::Friday,
        Weekday::Saturday,
        Weekday::Sunday,
    ];

    /// Saturday or Sunday.
    pub fn is_weekend(self) -> bool {
        matches!(self, Weekday::Saturday | Weekday::Sunday)
    }

    /// The weekday of a day that is counted from 1970-01-01, a Thursday.
    pub fn of_day(days_since_1970: i64) -> Self {
        Self::ALL[(days_since_1970 + 3).rem_euclid(7) as usize]
    }
}

impl Moment {
    /// The day of the week, in UTC.
    pub fn weekday(&self) -> Weekday {
        let [year, month, day, ..] = fields(&self.0).unwrap_or_default();
        Weekday::of_day(days_since_1970(year, month, day))
    }

    /// As it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Moment {
    type Error = NoMoment;

    fn try_from(text: String) -> Result<Self, NoMoment> {
        match fields(&text) {
            Some(fields) if exists(fields) => Ok(Self(text)),
            _ => Err(NoMoment(text)),
        }
    }
}

impl From<Moment> for String {
    fn from(moment: Moment) -> String {
        moment.0
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Year, month, day, hour, minute and second, if the text has the form.
fn fields(text: &str) -> Option<[i64; 6]> {
    const FORM: &[u8; 20] = b"dddd-dd-ddTdd:dd:ddZ";
    let has_form = |(byte, form): (u8, &u8)| match form {
        b'd' => byte.is_ascii_digit(),
        _ => byte == *form,
    };
    if text.len() != FORM.len() || !text.bytes().zip(FORM).all(has_form) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| text[range].parse().unwrap_or_default();
    Some([0..4, 5..7, 8..10, 11..13, 14..16, 17..19].map(number))
}

fn exists([year, month, day, hour, minute, second]: [i64; 6]) -> bool {
    (2000..=2099).contains(&year)
        && (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if is_leap(year) => 29,
        2 => 28,
        _ => 31,
    }
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    // Leap days of all years before this one; the constant is their number before 1970.
    let before = year - 1;
    let leap_days = before / 4 - before / 100 + before / 400 - 477;
    let months: i64 = (1..month).map(|month| days_in(year, month)).sum();
    (year - 1970) * 365 + leap_days + months + day - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Result<Moment, NoMoment> {
        text.to_owned().try_into()
    }

    #[test]
    fn days_that_everybody_can_look_up() {
        for (text, weekday) in [
            ("2000-01-01T00:00:00Z", Weekday::Saturday),
            ("2000-02-29T12:00:00Z", Weekday::Tuesday),
            ("2000-03-01T00:00:00Z", Weekday::Wednesday),
            ("2024-02-29T00:00:00Z", Weekday::Thursday),
            ("2026-03-06T23:59:59Z", Weekday::Friday),
            ("2026-03-07T00:00:00Z", Weekday::Saturday),
            ("2099-12-31T23:59:59Z", Weekday::Thursday),
        ] {
            assert_eq!(moment(text).unwrap().weekday(), weekday, "{text}");
        }
        assert_eq!(days_since_1970(1970, 1, 1), 0);
    }

    #[test]
    fn each_day_follows_the_one_before_for_a_hundred_years() {
        let mut yesterday = days_since_1970(1999, 12, 31);
        for year in 2000..=2099 {
            for month in 1..=12 {
                for day in 1..=days_in(year, month) {
                    assert_eq!(days_since_1970(year, month, day), yesterday + 1);
                    yesterday += 1;
                }
            }
        }
        assert_eq!(yesterday - days_since_1970(1999, 12, 31), 36_525);
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        for text in [
            "2026-02-29T00:00:00Z",
            "2100-01-01T00:00:00Z",
            "1999-12-31T23:59:59Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-04-31T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01 00:00:00Z",
            "2026-01-01T00:00:00+00:00",
            "2026-01-01T00:00:00",
            "+026-01-01T00:00:00Z",
            "２026-01-01T00:00:0",
            "",
        ] {
            assert!(moment(text).is_err(), "{text}");
        }
        assert!(moment("2028-02-29T23:59:59Z").is_ok());
    }
}
