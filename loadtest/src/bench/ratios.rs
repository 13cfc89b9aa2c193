//! What the figures come to: Forebay beside the limits and the peers, and beside what it aims at.

use forebay_testkit::broker::BrokerKind;

use super::{
    figures::Figures,
    forebay::{SMALL, name, section},
    limited,
};
use crate::{
    limits::{self, name as limit},
    peers::{self, Peer},
};

/// One line of the first table.
pub(super) struct Ratio {
    /// What is compared.
    pub(super) what: &'static str,
    /// Forebay's figure, in words.
    pub(super) figure: String,
    /// What it is held against, in words.
    pub(super) against: String,
    /// Forebay's figure in units of that.
    pub(super) ratio: Option<f64>,
    /// What it aims at, in words, and whether it is reached.
    pub(super) target: Option<(String, bool)>,
}

const NATS: BrokerKind = BrokerKind::Nats;

/// All lines for which there are figures.
pub(super) fn of(figures: &Figures) -> Vec<Ratio> {
    let look = Look(figures);
    let lines = [
        look.single_against_peers(),
        look.single_against_thinnest(),
        look.bulk(),
        look.stream(),
        look.drain_against_peers(true),
        look.drain_against_peers(false),
        look.drain_against_floor(BrokerKind::Nats),
        look.drain_against_floor(BrokerKind::RabbitMq),
        look.sustained(name::SUSTAINED, "sustained/s", 12_000.0, "sustained, one by one"),
        look.sustained(
            name::SUSTAINED_BULK,
            "sustained bulk/s",
            30_000.0,
            "sustained, bulk, as far ahead as the worker has slots",
        ),
        look.limited(
            [limited::name::WITH, limited::name::WITHOUT],
            "10,000 tasks with a limit that is never reached",
        ),
        look.limited(
            [limited::name::KEYS_WITH, limited::name::KEYS_WITHOUT],
            "10,000 tasks with a limit by key that is never reached",
        ),
        look.latency("p50 ms", 1.5, "submit to start at 100/s, p50"),
        look.latency("p99 ms", 4.0, "submit to start at 100/s, p99"),
        look.small(name::MEMORY_API, "MiB", 20.0),
        look.small(name::MEMORY_WORKER, "MiB", 25.0),
        look.small(name::BINARY, "MiB", 40.0),
        look.small(name::READY_DEV, "ms", 300.0),
    ];
    lines.into_iter().flatten().collect()
}

struct Look<'a>(&'a Figures);

impl Look<'_> {
    fn forebay(&self, kind: BrokerKind, row: &str, column: &str) -> Option<f64> {
        self.0.median(section(kind), row, column)
    }

    fn limit(&self, row: &str) -> Option<f64> {
        self.0.median(limits::SECTION, row, "per second")
    }

    /// The best of the peers that count, by a rate.
    fn best(&self, column: &str, counts: impl Fn(&Peer) -> bool) -> Option<(&'static str, f64)> {
        let rates = peers::ALL.iter().filter(|peer| counts(peer)).filter_map(|peer| {
            let rate = self.0.median(peers::SECTION, peer.name, column)?;
            Some((peer.name, rate))
        });
        rates.max_by(|a, b| a.1.total_cmp(&b.1))
    }

    fn single_against_peers(&self) -> Option<Ratio> {
        let own = self.forebay(NATS, name::SINGLE_32, "per second")?;
        let best = self.best("submit/s", |peer| !peer.rabbitmq);
        Some(rates(
            "submit one by one, HTTP, 32 connections",
            own,
            best,
            Some(4.0),
        ))
    }

    fn single_against_thinnest(&self) -> Option<Ratio> {
        let own = self.forebay(NATS, name::SINGLE_256, "per second")?;
        let thin = self
            .limit(limit::THIN_256)
            .map(|rate| ("the thinnest path", rate));
        Some(rates(
            "submit one by one, HTTP, 256 connections",
            own,
            thin,
            Some(0.6),
        ))
    }

    fn bulk(&self) -> Option<Ratio> {
        let own = self.forebay(NATS, name::NDJSON, "per second")?;
        let best = self.best("bulk/s", |_| true);
        let mut line = rates("bulk, NDJSON, burst", own, best, None);
        let ahead = best.is_none_or(|(_, rate)| own > rate);
        line.target = Some(("100,000/s, and ahead".to_owned(), own >= 100_000.0 && ahead));
        Some(line)
    }

    fn stream(&self) -> Option<Ratio> {
        let own = self.forebay(NATS, name::GRPC, "per second")?;
        let ndjson = self.forebay(NATS, name::NDJSON, "per second");
        Some(rates(
            "bulk, gRPC stream, burst",
            own,
            ndjson.map(|rate| ("NDJSON", rate)),
            Some(1.0),
        ))
    }

    fn drain_against_peers(&self, keeping: bool) -> Option<Ratio> {
        let own = self.forebay(NATS, name::DRAIN, "per second")?;
        let best = self.best("drain/s", |peer| peer.keeps_outcome == keeping)?;
        let (what, target) = if keeping {
            ("drain, outcome kept, against who keeps it", Some(1.25))
        } else {
            ("drain, outcome kept, against who deletes it", None)
        };
        Some(rates(what, own, Some(best), target))
    }

    /// The parts of a drain one after the other: the delivery, and two updates.
    fn drain_against_floor(&self, kind: BrokerKind) -> Option<Ratio> {
        let own = self.forebay(kind, name::DRAIN, "per second")?;
        let (what, deliver) = match kind {
            BrokerKind::Nats => ("drain, NATS, against the sum of its parts", limit::NATS_PULL),
            BrokerKind::RabbitMq => (
                "drain, RabbitMQ, against the sum of its parts",
                limit::RABBIT_CONSUME,
            ),
        };
        let (deliver, update) = (self.limit(deliver)?, self.limit(limit::UPDATE_2)?);
        let floor = 1.0 / (1.0 / deliver + 2.0 / update);
        Some(rates(
            what,
            own,
            Some(("deliver, claim, complete", floor)),
            Some(0.5),
        ))
    }

    fn sustained(&self, row: &str, column: &str, rate: f64, what: &'static str) -> Option<Ratio> {
        let own = self.forebay(NATS, row, "per second")?;
        let best = self.best(column, |_| true);
        let mut line = rates(what, own, best, Some(3.0));
        let three = line.target.take().is_none_or(|(_, reached)| reached);
        let words = format!("{}/s, and 3 times any", grouped(rate));
        line.target = Some((words, own >= rate && three));
        Some(line)
    }

    fn limited(&self, [with, without]: [&str; 2], what: &'static str) -> Option<Ratio> {
        let rate = |row| self.0.median(limited::SECTION, row, "per second");
        let without = rate(without).map(|rate| ("the same tasks without it", rate));
        Some(rates(what, rate(with)?, without, Some(0.9)))
    }

    fn latency(&self, column: &str, target: f64, what: &'static str) -> Option<Ratio> {
        let own = self.forebay(NATS, name::LATENCY, column)?;
        let floor = self.0.median(limits::SECTION, limit::FLOOR, column);
        Some(Ratio {
            what,
            figure: format!("{own:.2} ms"),
            against: floor.map_or_else(String::new, |floor| {
                format!("{floor:.2} ms: synced publish, delivery, commit")
            }),
            ratio: floor.map(|floor| own / floor),
            target: Some((format!("at most {target} ms"), own <= target)),
        })
    }

    fn small(&self, row: &'static str, unit: &str, target: f64) -> Option<Ratio> {
        let own = self.0.median(SMALL, row, unit)?;
        Some(Ratio {
            what: row,
            figure: format!("{own:.1} {unit}"),
            against: String::new(),
            ratio: None,
            target: Some((format!("at most {target} {unit}"), own <= target)),
        })
    }
}

fn rates(what: &'static str, own: f64, other: Option<(&str, f64)>, target: Option<f64>) -> Ratio {
    let ratio = other.map(|(_, rate)| own / rate);
    Ratio {
        what,
        figure: format!("{}/s", grouped(own)),
        against: other.map_or_else(String::new, |(whose, rate)| {
            format!("{}/s: {whose}", grouped(rate))
        }),
        ratio,
        target: target
            .zip(ratio)
            .map(|(target, ratio)| (format!("at least {target}"), ratio >= target)),
    }
}

/// A whole number with its thousands divided.
pub(super) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_medians_and_say_whether_the_target_is_reached() {
        let mut figures = Figures::default();
        for rate in [16_000.0, 20_000.0, 18_000.0] {
            figures.note(section(NATS), name::SINGLE_32, "per second", rate);
        }
        figures.note(peers::SECTION, "apalis", "submit/s", 4_000.0);
        figures.note(peers::SECTION, "pg-boss", "submit/s", 2_000.0);
        figures.note(peers::SECTION, "Celery", "submit/s", 9_000.0);
        let lines = of(&figures);
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].ratio, Some(4.5));
        assert_eq!(lines[0].against, "4,000/s: apalis");
        assert_eq!(lines[0].target, Some(("at least 4".to_owned(), true)));
    }

    #[test]
    fn thousands_are_divided() {
        assert_eq!(grouped(999.4), "999");
        assert_eq!(grouped(1_234_567.0), "1,234,567");
    }
}
