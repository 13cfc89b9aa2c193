//! Tries again what may be tried again: with growing, random pauses, as late as the server asks for, a few times, and
//! within a budget, so that a thousand callers of a server in trouble do not make four thousand.

use std::{future::Future, time::Duration};

use tokio::time::{Instant, sleep};
use tower::retry::budget::{Budget, TpsBudget};

use crate::{Error, Result};

/// How often a call is made, at most.
const ATTEMPTS_MAX: u32 = 4;
/// The pauses between are random, up to the first of these, and up to twice that the next time, up to the second.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// No attempt begins later than this after the first.
const BEGUN_WITHIN: Duration = Duration::from_secs(15);
/// Retries may be a fifth of the calls of the last ten seconds, and one a second in any case.
const BUDGET_SHARE: f32 = 0.2;
const BUDGET_PER_SECOND: u32 = 1;
const BUDGET_TTL: Duration = Duration::from_secs(10);

/// The budget of one client.
pub(crate) fn budget() -> TpsBudget {
    TpsBudget::new(BUDGET_TTL, BUDGET_PER_SECOND, BUDGET_SHARE)
}

/// Makes a call until it succeeds, or fails for good, or was tried often enough. Only for calls that have the same
/// effect twice as once.
pub(crate) async fn again<T, F>(budget: &TpsBudget, call: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    budget.deposit();
    let give_up = Instant::now() + BEGUN_WITHIN;
    let mut attempt = 1;
    loop {
        let error = match call().await {
            Err(error) if is_worth_it(&error) => error,
            answer => return answer,
        };
        let pause = pause(attempt, &error, rand::random());
        if attempt == ATTEMPTS_MAX || Instant::now() + pause > give_up || !budget.withdraw() {
            return Err(error);
        }
        sleep(pause).await;
        attempt += 1;
    }
}

/// Nobody answered, or the answer says that another time is better.
fn is_worth_it(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } => true,
        // Who reads a task that is not recorded yet looks again anyway.
        Error::Refused(problem) if problem.code == "not_yet_recorded" => false,
        Error::Refused(problem) => matches!(problem.status, 429 | 502 | 503 | 504),
        Error::Unexpected { .. } => false,
    }
}

/// Full jitter, after what the server asks for.
fn pause(attempt: u32, error: &Error, luck: f64) -> Duration {
    let ceiling = PAUSE.saturating_mul(1 << (attempt - 1).min(10)).min(PAUSE_MAX);
    error.retry_after().unwrap_or_default() + ceiling.mul_f64(luck)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Problem;

    fn refused(status: u16, retry_after_seconds: Option<u64>) -> Error {
        Error::Refused(Box::new(Problem {
            status,
            code: "test".to_owned(),
            title: String::new(),
            detail: String::new(),
            errors: Vec::new(),
            trace_id: None,
            retry_after_seconds,
        }))
    }

    #[test]
    fn pauses_grow_are_spread_and_honour_the_server() {
        let gone = refused(503, None);
        assert_eq!(pause(1, &gone, 0.0), Duration::ZERO);
        assert_eq!(pause(1, &gone, 1.0), PAUSE);
        assert_eq!(pause(3, &gone, 0.5), 2 * PAUSE);
        assert_eq!(pause(30, &gone, 1.0), PAUSE_MAX);
        let later = refused(429, Some(3));
        assert_eq!(pause(1, &later, 0.5), Duration::from_secs(3) + PAUSE / 2);
    }

    #[test]
    fn a_mistake_is_not_tried_again() {
        for status in [400, 404, 409, 413, 422, 500] {
            assert!(!is_worth_it(&refused(status, None)), "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert!(is_worth_it(&refused(status, None)), "{status}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_server_wants_much_later_is_left_to_the_caller() {
        let (budget, began) = (budget(), Instant::now());
        let failed: Result<()> = again(&budget, || async { Err(refused(503, Some(60))) }).await;
        assert!(failed.is_err());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn retries_cannot_multiply_an_outage() {
        const CALLS: u32 = 1_000;
        let (budget, attempts) = (budget(), std::cell::Cell::new(0_u32));
        let call = || async {
            attempts.set(attempts.get() + 1);
            Err::<(), _>(refused(503, None))
        };
        let calls = (0..CALLS).map(|_| again(&budget, call));
        futures::future::join_all(calls).await;
        let extra = attempts.get() - CALLS;
        let floor = BUDGET_PER_SECOND * 10;
        assert!(extra >= floor, "nothing was tried again");
        assert!(
            extra <= CALLS / 5 + 2 * floor,
            "{extra} retries of {CALLS} calls that all fail"
        );
    }
}
