//! Whether this process works. A component reports what it sees; readiness is the sum of these reports.
//!
//! A report has a time to live: a component that stops reporting, because it hangs or died, is unhealthy by
//! that alone.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What is known of one component.
#[derive(Debug, Clone)]
struct Report {
    problem: Option<String>,
    at: Instant,
    ttl: Duration,
}

/// The state of all components of a process. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Health {
    reports: Arc<Mutex<BTreeMap<String, Report>>>,
}

/// Reports for one component.
#[derive(Debug, Clone)]
pub struct Reporter {
    health: Health,
    component: String,
    ttl: Duration,
}

impl Health {
    /// Adds a component. It counts as unhealthy until its first report, and again whenever the latest report is
    /// older than `ttl`.
    #[must_use]
    pub fn component(&self, name: &str, ttl: Duration) -> Reporter {
        let reporter = Reporter {
            health: self.clone(),
            component: name.to_owned(),
            ttl,
        };
        reporter.failing("has not started");
        reporter
    }

    /// What is wrong, as (component, problem); nothing where the process is ready.
    #[must_use]
    pub fn problems(&self) -> Vec<(String, String)> {
        let now = Instant::now();
        let reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        let mut problems = Vec::new();
        for (component, report) in reports.iter() {
            let silent = now.duration_since(report.at);
            if let Some(problem) = &report.problem {
                problems.push((component.clone(), problem.clone()));
            } else if silent > report.ttl {
                problems.push((
                    component.clone(),
                    format!("has been silent for {:.1} s", silent.as_secs_f64()),
                ));
            }
        }
        problems
    }
}

impl Reporter {
    /// The component works.
    pub fn ok(&self) {
        self.report(None);
    }

    /// The component does not work.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers hand over an error or a text, and keep neither"
    )]
    pub fn failing(&self, problem: impl ToString) {
        self.report(Some(problem.to_string()));
    }

    /// The component has ended for good, as planned.
    pub fn retire(&self) {
        let mut reports = self.health.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.remove(&self.component);
    }

    fn report(&self, problem: Option<String>) {
        let report = Report {
            problem,
            at: Instant::now(),
            ttl: self.ttl,
        };
        let mut reports = self.health.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.insert(self.component.clone(), report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_is_unhealthy_until_it_says_otherwise_and_when_it_falls_silent() {
        let health = Health::default();
        let quick = health.component("quick", Duration::ZERO);
        let slow = health.component("slow", Duration::from_secs(3_600));
        assert_eq!(health.problems().len(), 2);
        slow.ok();
        quick.ok();
        while health.problems().is_empty() {
            std::hint::spin_loop();
        }
        let problems = health.problems();
        assert_eq!(problems[0].0, "quick");
        assert!(problems[0].1.contains("silent"), "{problems:?}");
        quick.retire();
        assert!(health.problems().is_empty());
        slow.failing("broken");
        assert_eq!(health.problems(), [("slow".to_owned(), "broken".to_owned())]);
    }
}
