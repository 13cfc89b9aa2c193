//! When each task is due: decided before the run, by the profile and the seed alone. Nothing that happens during the run
//! moves it, which is what makes the generator an open loop.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

/// A stretch of the run, over which the rate goes evenly from one value to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Stretch {
    /// How long it is.
    pub(crate) seconds: f64,
    /// Tasks a second at its beginning.
    pub(crate) from: f64,
    /// Tasks a second at its end.
    pub(crate) to: f64,
}

impl Stretch {
    /// How many tasks it has.
    fn tasks(&self) -> f64 {
        self.seconds * f64::midpoint(self.from, self.to)
    }

    /// After how many seconds `tasks` of its tasks are due.
    fn when(&self, tasks: f64) -> f64 {
        if tasks <= 0.0 {
            return 0.0;
        }
        let slope = (self.to - self.from) / self.seconds;
        // The root of `from·t + slope·t²/2 = tasks`, in the form that also holds where the slope is zero.
        let root = (self.from * self.from + 2.0 * slope * tasks).max(0.0).sqrt();
        (2.0 * tasks / (self.from + root)).min(self.seconds)
    }
}

/// The rate over the whole run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve(Vec<Stretch>);

impl Curve {
    /// The same rate all the time.
    pub(crate) fn steady(rate: f64, seconds: f64) -> Self {
        Self::ramp(rate, rate, seconds)
    }

    /// From one rate evenly to another.
    pub(crate) fn ramp(from: f64, to: f64, seconds: f64) -> Self {
        Self(vec![Stretch { seconds, from, to }])
    }

    /// `base` all the time, but `burst` for the last `burst_seconds` of every `every` seconds.
    pub(crate) fn bursts(base: f64, burst: f64, (burst_seconds, every): (f64, f64), seconds: f64) -> Self {
        let burst_seconds = burst_seconds.min(every);
        let level = |seconds, rate| Stretch {
            seconds,
            from: rate,
            to: rate,
        };
        let mut left = seconds;
        let mut stretches = Vec::new();
        while left > 0.0 {
            for stretch in [level(every - burst_seconds, base), level(burst_seconds, burst)] {
                let seconds = stretch.seconds.min(left);
                left -= seconds;
                if seconds > 0.0 {
                    stretches.push(Stretch { seconds, ..stretch });
                }
            }
        }
        Self(stretches)
    }

    /// How long it is.
    pub(crate) fn seconds(&self) -> f64 {
        self.0.iter().map(|stretch| stretch.seconds).sum()
    }

    /// How many tasks it has.
    pub(crate) fn tasks(&self) -> f64 {
        self.0.iter().map(Stretch::tasks).sum()
    }
}

/// How arrivals lie within the rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Spacing {
    /// At even distances
    Constant,
    /// At random, independently of each other, as requests of many users are
    Poisson,
}

/// The moments at which tasks are due, in order, counted from the beginning of the run.
#[derive(Debug)]
pub(crate) struct Arrivals {
    stretches: std::vec::IntoIter<Stretch>,
    stretch: Option<Stretch>,
    /// Seconds, and tasks, before the present stretch.
    seconds: f64,
    tasks: f64,
    /// How many tasks are due by the next arrival.
    count: f64,
    random: Option<StdRng>,
    left: u64,
}

impl Arrivals {
    /// The arrivals of a curve, `tasks_max` at most. The same seed gives the same.
    pub(crate) fn new(curve: &Curve, spacing: Spacing, seed: u64, tasks_max: u64) -> Self {
        let mut stretches = curve.0.clone().into_iter();
        let mut arrivals = Self {
            stretch: stretches.next(),
            stretches,
            seconds: 0.0,
            tasks: 0.0,
            count: 0.0,
            random: (spacing == Spacing::Poisson).then(|| StdRng::seed_from_u64(seed)),
            left: tasks_max,
        };
        arrivals.count = arrivals.distance() - 1.0;
        if arrivals.random.is_some() {
            arrivals.count += 1.0;
        }
        arrivals
    }

    /// To the next arrival, in tasks: one, or as a Poisson process has it.
    fn distance(&mut self) -> f64 {
        match &mut self.random {
            None => 1.0,
            Some(random) => -(1.0 - random.random::<f64>()).ln(),
        }
    }
}

impl Iterator for Arrivals {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if self.left == 0 {
            return None;
        }
        loop {
            let stretch = self.stretch?;
            let within = self.count - self.tasks;
            // A task that falls on the very end belongs to the next stretch; the slack is for what sums round off.
            if within < stretch.tasks() - 1e-7 {
                let at = self.seconds + stretch.when(within);
                self.count += self.distance();
                self.left -= 1;
                return Some(Duration::from_secs_f64(at));
            }
            self.seconds += stretch.seconds;
            self.tasks += stretch.tasks();
            self.stretch = self.stretches.next();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn curves() -> impl Strategy<Value = Curve> {
        let rate = || 0.0..2_000.0_f64;
        let seconds = || 0.5..20.0_f64;
        prop_oneof![
            (rate(), seconds()).prop_map(|(rate, seconds)| Curve::steady(rate, seconds)),
            (rate(), rate(), seconds()).prop_map(|(from, to, seconds)| Curve::ramp(from, to, seconds)),
            (rate(), rate(), 0.1..2.0, 0.5..5.0, seconds()).prop_map(
                |(base, burst, long, every, seconds)| Curve::bursts(base, burst, (long, every), seconds)
            ),
        ]
    }

    fn collect(curve: &Curve, spacing: Spacing, seed: u64) -> Vec<f64> {
        let arrivals = Arrivals::new(curve, spacing, seed, u64::MAX);
        arrivals.map(|at| at.as_secs_f64()).collect()
    }

    /// Tasks due before `until`, by summing the rate up in small steps.
    fn summed(curve: &Curve, until: f64) -> f64 {
        let (mut sum, mut began) = (0.0, 0.0);
        for stretch in &curve.0 {
            let part = (until - began).clamp(0.0, stretch.seconds);
            let steps = 1_000;
            for step in 0..steps {
                let at = part * (f64::from(step) + 0.5) / f64::from(steps);
                sum += (stretch.from + (stretch.to - stretch.from) * at / stretch.seconds) * part
                    / f64::from(steps);
            }
            began += stretch.seconds;
        }
        sum
    }

    proptest! {
        #[test]
        fn are_in_order_and_within_the_run(curve in curves(), seed: u64, poisson: bool) {
            let spacing = if poisson { Spacing::Poisson } else { Spacing::Constant };
            let arrivals = collect(&curve, spacing, seed);
            prop_assert!(arrivals.is_sorted());
            prop_assert!(arrivals.last().is_none_or(|&last| last <= curve.seconds() + 1e-6));
            prop_assert_eq!(arrivals, collect(&curve, spacing, seed), "the same seed");
        }

        #[test]
        fn constant_ones_follow_the_rate_to_the_task(curve in curves(), part in 0.0..1.0_f64) {
            let arrivals = collect(&curve, Spacing::Constant, 0);
            prop_assert!((arrivals.len() as f64 - curve.tasks()).abs() <= 1.001);
            let until = curve.seconds() * part;
            let due = arrivals.iter().filter(|&&at| at < until).count() as f64;
            prop_assert!((due - summed(&curve, until)).abs() <= 1.5, "{due} of {}", summed(&curve, until));
        }

        #[test]
        fn poisson_ones_do_so_on_average(curve in curves(), seed: u64) {
            let count = collect(&curve, Spacing::Poisson, seed).len() as f64;
            // Six standard deviations: once in a billion.
            prop_assert!((count - curve.tasks()).abs() <= 6.0 * curve.tasks().sqrt() + 12.0);
        }

        #[test]
        fn are_bounded_in_number(curve in curves(), most in 0..50_u64) {
            prop_assert!(Arrivals::new(&curve, Spacing::Poisson, 1, most).count() as u64 <= most);
        }
    }

    #[test]
    fn poisson_distances_vary_as_they_should() {
        let arrivals = collect(&Curve::steady(1_000.0, 20.0), Spacing::Poisson, 7);
        let distances: Vec<f64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let mean = distances.iter().sum::<f64>() / distances.len() as f64;
        let variance = distances.iter().map(|d| (d - mean).powi(2)).sum::<f64>() / distances.len() as f64;
        assert!(
            (variance.sqrt() / mean - 1.0).abs() < 0.05,
            "that of an exponential is 1"
        );
    }

    #[test]
    fn bursts_come_at_the_end_of_each_period() {
        let arrivals = collect(
            &Curve::bursts(10.0, 100.0, (1.0, 5.0), 10.0),
            Spacing::Constant,
            0,
        );
        let between = |from: f64, to: f64| arrivals.iter().filter(|&&at| at >= from && at < to).count();
        assert_eq!((between(0.0, 4.0), between(4.0, 5.0)), (40, 100));
        assert_eq!((between(5.0, 9.0), between(9.0, 10.0)), (40, 100));
    }
}
