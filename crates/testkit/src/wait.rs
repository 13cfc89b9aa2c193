//! Waiting for a condition, never for a time.

use std::{fmt::Debug, time::Duration};

use tokio::time::{Instant, sleep, timeout};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);

/// What a look at a condition says: `true` or `Some` where it is met. A `Result` is looked into; its error counts
/// as not yet met, and is shown if it stays so.
pub trait Look {
    /// What is known once the condition is met.
    type Found;
    /// The value, or how it looks at the moment.
    fn found(self) -> Result<Self::Found, String>;
}

impl Look for bool {
    type Found = ();
    fn found(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Look for Option<T> {
    type Found = T;
    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<L: Look, E: Debug> Look for Result<L, E> {
    type Found = L::Found;
    fn found(self) -> Result<L::Found, String> {
        self.map_err(|error| format!("{error:?}"))?.found()
    }
}

/// Looks again and again until the condition is met.
///
/// # Panics
/// Where it is not met `within` that time; the message says how it looked last.
pub async fn until<L: Look>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> L) -> L::Found {
    let deadline = Instant::now() + within;
    let mut last = "never looked at in time".to_owned();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match timeout(left, look()).await.map(Look::found) {
            Ok(Ok(found)) => return found,
            Ok(Err(status)) => last = status,
            Err(_) => panic!("waited {within:?} for {what}; at last: {last}, then no answer"),
        }
        if Instant::now() + POLL > deadline {
            panic!("waited {within:?} for {what}; at last: {last}");
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn returns_what_it_found() {
        let mut looks = 0;
        let found = until("the third look", Duration::from_secs(1), || {
            looks += 1;
            let seen = looks;
            async move { Ok::<_, String>((seen == 3).then_some(seen)) }
        })
        .await;
        assert_eq!(found, 3);
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "waited 1s for better times; at last: \"gloomy\"")]
    async fn says_how_it_looked_last() {
        until("better times", Duration::from_secs(1), || async {
            Err::<bool, _>("gloomy")
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    #[should_panic(expected = "then no answer")]
    async fn a_look_that_hangs_is_given_up() {
        until("an answer", Duration::from_secs(1), std::future::pending::<bool>).await;
    }
}
