//! Hands out tasks when they are due. Tokio's own timers are good to a millisecond, which would be most of the latency
//! that is to be measured; a timer of the kernel is good to some ten microseconds.

use std::{
    io::ErrorKind,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use tokio::net::unix::pipe;
use tokio_util::sync::CancellationToken;

use crate::{
    feed::{Feed, Shot},
    tally::Tally,
};

/// How many tasks are handed out before the connections get their turn.
const AT_ONCE: usize = 128;

/// A timer that ends on the microsecond, as far as there is a free processor.
struct Alarm {
    timer: TimerFd,
    /// The same timer, to wait for: it becomes readable, like a pipe.
    ends: pipe::Receiver,
}

impl Alarm {
    fn new() -> Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).context("create a timer")?;
        let same = timer.as_fd().try_clone_to_owned().context("share the timer")?;
        let ends = pipe::Receiver::from_owned_fd_unchecked(same).context("watch the timer")?;
        Ok(Self { timer, ends })
    }

    async fn until(&self, at: Instant) -> Result<()> {
        let left = at.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let once = Expiration::OneShot(TimeSpec::from_duration(left));
        let set = self.timer.set(once, TimerSetTimeFlags::empty());
        set.context("set the timer")?;
        loop {
            self.ends.readable().await.context("wait for the timer")?;
            match self.ends.try_read(&mut [0; 8]) {
                Ok(_) => return Ok(()),
                // What was readable was an earlier time that nobody waited for to the end.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("read the timer"),
            }
        }
    }
}

/// How the pacing ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Paced {
    /// Tasks that were due and for which there was no time any more.
    pub(crate) unsent: u64,
}

/// Hands out each of `arrivals` at its time after `start`, until there are no more, `stop` is cancelled, or `end` has
/// come. Then waits for the answers, up to `end`.
pub(crate) async fn pace(
    arrivals: impl Iterator<Item = (u64, Duration)>,
    (start, end): (Instant, Instant),
    (feed, tally): (&Feed, &Tally),
    stop: &CancellationToken,
) -> Result<Paced> {
    let alarm = Alarm::new()?;
    let mut arrivals = arrivals.peekable();
    let mut at_once = 0;
    while let Some(&(number, after)) = arrivals.peek() {
        let now = Instant::now();
        feed.release_again(now);
        if stop.is_cancelled() || now >= end {
            break;
        }
        let due = start + after;
        if due > now {
            at_once = 0;
            let next = feed.next_again().map_or(due, |again| again.min(due));
            tokio::select! {
                done = alarm.until(next.min(end)) => done?,
                () = feed.refusal() => {},
                () = stop.cancelled() => {},
            }
            continue;
        }
        let shot = Shot {
            due,
            number,
            refusals: 0,
        };
        if !feed.push(shot) {
            tally.held_back();
            wait_for_room(&alarm, end, feed, stop).await?;
            continue;
        }
        tally.released(now - due);
        arrivals.next();
        at_once += 1;
        if at_once == AT_ONCE {
            at_once = 0;
            tokio::task::yield_now().await;
        }
    }
    let mut paced = Paced::default();
    if !stop.is_cancelled() {
        paced.unsent = arrivals.take_while(|(_, after)| start + *after <= end).count() as u64;
    }
    answers(&alarm, end, feed, stop).await?;
    Ok(paced)
}

/// Waits until all is answered, or `end`.
async fn answers(alarm: &Alarm, end: Instant, feed: &Feed, stop: &CancellationToken) -> Result<()> {
    while feed.outstanding() > 0 && Instant::now() < end {
        if stop.is_cancelled() && feed.next_again().is_some() {
            break;
        }
        feed.release_again(Instant::now());
        wait_for_room(alarm, end, feed, &CancellationToken::new()).await?;
    }
    Ok(())
}

async fn wait_for_room(alarm: &Alarm, end: Instant, feed: &Feed, stop: &CancellationToken) -> Result<()> {
    let until = feed.next_again().map_or(end, |again| again.min(end));
    tokio::select! {
        done = alarm.until(until) => done,
        () = feed.room() => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn hands_out_each_task_at_its_time() {
        let (feed, tally) = (Feed::new(1_000), Tally::default());
        let start = Instant::now();
        let arrivals = (0..20).map(|number| (number, Duration::from_millis(number * 5)));
        let end = start + Duration::from_secs(30);
        let stop = CancellationToken::new();
        let receive = async {
            let mut taken = Vec::new();
            for number in 0..20 {
                taken.clear();
                feed.take(1, &mut taken).await;
                let shot = taken[0];
                assert_eq!(shot.number, number);
                assert!(Instant::now() >= shot.due, "before its time");
                feed.settled();
            }
        };
        let (paced, ()) = tokio::join!(pace(arrivals, (start, end), (&feed, &tally), &stop), receive);
        assert_eq!(paced.unwrap(), Paced::default());
        assert!(start.elapsed() >= Duration::from_millis(95));
        assert_eq!(tally.take().lag.len(), 20);
    }

    #[tokio::test]
    async fn a_feed_that_is_full_holds_back_and_what_has_no_time_left_is_counted() {
        let (feed, tally) = (Feed::new(3), Tally::default());
        let start = Instant::now();
        let arrivals = (0..10).map(|number| (number, Duration::ZERO));
        let end = start + Duration::from_millis(50);
        let stop = CancellationToken::new();
        let paced = pace(arrivals, (start, end), (&feed, &tally), &stop)
            .await
            .unwrap();
        assert_eq!(paced.unsent, 7);
        assert_eq!(feed.close(), 3);
        assert!(tally.take().held_back > 0);
    }
}
