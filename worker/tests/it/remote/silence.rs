//! Attempts that may not be silent for long.

use std::time::Duration;

use forebay_core::State;
use forebay_proto::v1::{Heartbeat, Hello, KindSettings, LogLines, Progress, stop::Reason};

use super::{
    NEVER, Say,
    client::{hello, id_of, kind, succeeded},
    without_lease,
};
use crate::support::{World, request};

/// How long an attempt may be silent here.
const SILENCE: Duration = Duration::from_millis(300);

fn impatient() -> Hello {
    let settings = KindSettings {
        heartbeat_timeout: SILENCE.try_into().ok(),
        max_attempts: Some(2),
        ..kind("test")
    };
    Hello {
        kinds: vec![settings],
        ..hello("test", 1)
    }
}

#[tokio::test]
async fn a_silent_attempt_is_stopped_and_tried_again() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let mut worker = server.worker(impatient()).await;
    let id = world.submit(request()).await;
    let start = worker.start().await;
    assert_eq!(start.heartbeat_timeout, SILENCE.try_into().ok());
    let stop = worker.stop().await;
    assert_eq!((stop.reason(), stop.id), (Reason::TimedOut, start.id.clone()));
    let task = world.wait_for(id, State::Retrying).await;
    assert_eq!(task.errors[0].outcome, "timed_out");
    assert_eq!(
        task.errors[0].message,
        "heartbeat timeout: the attempt said nothing for 0.3 s"
    );
    worker.finish(&start, succeeded("\"too late\"")).await;
    let again = worker.start().await;
    assert_eq!(id_of(&again), (id.to_string(), 2));
    worker.finish(&again, succeeded("2")).await;
    world.wait_for(id, State::Succeeded).await;
}

/// Whatever is said of it keeps an attempt alive, for several times as long as it may be silent.
#[tokio::test]
async fn an_attempt_that_is_heard_of_goes_on() {
    let world = World::default();
    let _clerk = world.clerk(NEVER);
    let server = world.serve(without_lease()).await;
    let mut worker = server.worker(impatient()).await;
    let first = world.submit(request()).await;
    let start = worker.start().await;
    let id = start.id.clone();
    for turn in 0..15 {
        tokio::time::sleep(SILENCE / 5).await;
        let said = match turn % 3 {
            0 => Say::Heartbeat(Heartbeat {
                alive: id.iter().cloned().collect(),
            }),
            1 => Say::Progress(Progress {
                id: id.clone(),
                fraction: 0.5,
                message: String::new(),
            }),
            _ => Say::LogLines(LogLines {
                id: id.clone(),
                lines: vec!["still there".to_owned()],
            }),
        };
        worker.say(said).await;
    }
    worker.finish(&start, succeeded("1")).await;
    let task = world.wait_for(first, State::Succeeded).await;
    assert_eq!((task.attempt, task.errors.len()), (1, 0));
}
