//! Cron expressions and time zones: which instants are ticks. The grammar is croner's, which also walks the calendar;
//! what happens where a wall clock is set forward or back is decided here.

use std::{fmt, str::FromStr, sync::Arc};

use croner::parser::{CronParser, Year};
use jiff::{
    civil::DateTime,
    tz::{AmbiguousOffset, Offset},
};
use thiserror::Error;

use crate::Timestamp;

/// The longest cron expression, in bytes.
const CRON_BYTES_MAX: usize = 255;
/// How many changes of a clock are gone through in search of a tick: as many as come in centuries.
const CHANGES_MAX: usize = 2_000;

/// Why a cron expression was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be a cron expression of five fields, or of six with seconds first: {reason}")]
pub struct InvalidCron {
    reason: String,
}

/// A cron expression: times of a wall clock.
///
/// Where the clock is set forward or back, two rules hold, by the field of hours. If it *names hours* (`0 3 * * *`,
/// `*/10 8-17 * * *`), each time comes once a day: one that is left out by the clock comes at the first instant after
/// the gap, and one that the clock shows twice comes the first time. If it has a `*`, or all hours, (`0 * * * *`,
/// `*/10 * * * *`), a tick comes whenever the clock shows it: not in a gap, and twice in an hour that is repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    text: String,
    pattern: croner::Cron,
    /// Whether the field of hours names hours.
    names_hours: bool,
}

impl Cron {
    /// The expression as it was given, with one space between its fields.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The first tick after `after`. `None` where there is none in some thousand years, or where the zone is not known here.
    #[must_use]
    pub fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let zone = zone.rules.as_ref()?;
        // Ticks are whole seconds.
        let after = Timestamp::from_second(after.as_microsecond().div_euclid(1_000_000)).ok()?;
        if self.names_hours {
            self.next_of_hours(zone, after)
        } else {
            self.next_shown(zone, after)
        }
    }

    /// Each time of the wall clock is one instant. They have the same order, so the first that lies ahead is next.
    fn next_of_hours(&self, zone: &jiff::tz::TimeZone, after: Timestamp) -> Option<Timestamp> {
        let mut shown = zone.to_datetime(after);
        loop {
            shown = self.next_shown_time(shown)?;
            let instant = the_instant(zone, shown)?;
            if instant > after {
                return Some(instant);
            }
        }
    }

    /// Goes from one change of the clock to the next: in between, wall clock and instants differ by the same.
    fn next_shown(&self, zone: &jiff::tz::TimeZone, after: Timestamp) -> Option<Timestamp> {
        let mut from = after;
        for _ in 0..CHANGES_MAX {
            let offset = zone.to_offset(from);
            let tick = offset
                .to_timestamp(self.next_shown_time(offset.to_datetime(from))?)
                .ok()?;
            let Some(change) = zone.following(from).next().map(|change| change.timestamp()) else {
                return Some(tick);
            };
            if tick < change {
                return Some(tick);
            }
            if let Some(tick) = self.shown_at(change, zone.to_offset(change)) {
                return Some(tick);
            }
            from = change;
        }
        None
    }

    fn shown_at(&self, at: Timestamp, offset: Offset) -> Option<Timestamp> {
        let matches = self
            .pattern
            .is_time_matching(&offset.to_datetime(at))
            .unwrap_or(false);
        matches.then_some(at)
    }

    fn next_shown_time(&self, after: DateTime) -> Option<DateTime> {
        self.pattern.find_next_occurrence(&after, false).ok()
    }
}

/// The instant at which a clock shows this for the first time, or would have if it had not been set forward.
fn the_instant(zone: &jiff::tz::TimeZone, shown: DateTime) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { before, .. } => {
            // By the offset before the gap it would be after the change: the change itself is the first instant.
            let after_change = before.to_timestamp(shown).ok()?;
            let mut changes = zone.preceding(
                after_change
                    .checked_add(jiff::SignedDuration::from_secs(1))
                    .ok()?,
            );
            changes.next().map(|change| change.timestamp())
        }
        _ => ambiguous.earlier().ok(),
    }
}

impl FromStr for Cron {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let refused = |reason: &str| InvalidCron {
            reason: reason.to_owned(),
        };
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        if text.len() > CRON_BYTES_MAX || !text.is_ascii() {
            return Err(refused("it has at most 255 characters, all of them ASCII"));
        }
        if !matches!(fields.len(), 5 | 6) {
            return Err(refused(&format!("it has {} fields", fields.len())));
        }
        // croner takes these, and then looks through thousands of years for what never comes.
        if fields.iter().any(|field| field.split(',').any(str::is_empty)) {
            return Err(refused("a part of a list is empty"));
        }
        if text.contains('+') {
            return Err(refused("+ means nothing in it"));
        }
        let weekdays = fields[fields.len() - 1];
        if weekdays.split(',').any(|part| part.eq_ignore_ascii_case("L")) {
            return Err(refused("L needs its weekday: 5L is the last Friday of a month"));
        }
        let parser = CronParser::builder().year(Year::Disallowed).build();
        let pattern = parser.parse(text).map_err(|error| refused(&error.to_string()))?;
        if !has_a_day(&pattern) {
            return Err(refused("there is no such day"));
        }
        let hours = fields[fields.len() - 4];
        let names_hours = !hours.contains('*') && !all_hours(&pattern);
        let cron = Self {
            text: fields.join(" "),
            pattern,
            names_hours,
        };
        match cron.next_shown_time(DateTime::constant(2000, 1, 1, 0, 0, 0, 0)) {
            Some(_) => Ok(cron),
            None => Err(refused("there is no such day")),
        }
    }
}

fn all_hours(pattern: &croner::Cron) -> bool {
    (0..24).all(|hour| pattern.pattern.hour_match(hour).unwrap_or(false))
}

/// Whether one of its months has one of its days. Where weekdays are named they will do, too, and what is counted from
/// the end of a month is there in each.
fn has_a_day(pattern: &croner::Cron) -> bool {
    const DAYS: [u16; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let (days, weekdays) = (&pattern.pattern.days, &pattern.pattern.days_of_week);
    let first_day = days.values().first().copied().unwrap_or(u16::MAX);
    let mut months = pattern.pattern.months.values().into_iter();
    days.has_modifiers()
        || weekdays.has_modifiers()
        || weekdays.values().len() < 7
        || months.any(|month| first_day <= DAYS[usize::from(month) - 1])
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The text names no time zone that is known here.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("must be the IANA name of a time zone, such as Europe/Berlin")]
pub struct UnknownTimeZone;

/// A time zone of the IANA database, by its name. `UTC` unless said.
#[derive(Clone)]
pub struct TimeZone {
    name: Arc<str>,
    /// `None` where this machine does not know the zone.
    rules: Option<jiff::tz::TimeZone>,
}

/// Zones are the same by their name: what it means may be said anew by a newer database of zones.
impl PartialEq for TimeZone {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl TimeZone {
    /// The zone that was accepted under this name, by a machine that knew it. This one may not: then nothing can be said of
    /// its ticks here.
    #[must_use]
    pub fn kept(name: &str) -> Self {
        name.parse().unwrap_or_else(|UnknownTimeZone| Self {
            name: name.into(),
            rules: None,
        })
    }

    /// Whether this machine knows it.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.rules.is_some()
    }

    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    #[cfg(test)]
    pub(super) fn rules(&self) -> &jiff::tz::TimeZone {
        self.rules.as_ref().expect("it is known")
    }
}

impl Default for TimeZone {
    fn default() -> Self {
        Self {
            name: "UTC".into(),
            rules: Some(jiff::tz::TimeZone::UTC),
        }
    }
}

impl FromStr for TimeZone {
    type Err = UnknownTimeZone;

    fn from_str(name: &str) -> Result<Self, UnknownTimeZone> {
        let rules = jiff::tz::TimeZone::get(name).map_err(|_| UnknownTimeZone)?;
        let name = rules.iana_name().filter(|_| !rules.is_unknown());
        let name = name.ok_or(UnknownTimeZone)?.into();
        Ok(Self {
            name,
            rules: Some(rules),
        })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}
