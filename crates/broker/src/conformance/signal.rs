use forebay_core::{Clock, Signal, State, SystemClock, TaskEvent};
use futures::{StreamExt, stream::BoxStream};
use tokio::time::timeout;

use super::{Fixture, kit::*};

/// Everyone who listens hears a signal, the one who sent it as well.
pub async fn signals_reach_all_who_listen(fixture: impl Fixture) {
    let (broker, another, lane) = (fixture.broker(), fixture.another().await, lane("loud"));
    let mut listeners = [
        broker.signals().await.expect("a healthy broker"),
        another.signals().await.expect("a healthy broker"),
        another.signals().await.expect("a healthy broker"),
    ];
    let task = task(&lane);
    let event = TaskEvent {
        id: task.id,
        kind: task.kind.clone(),
        queue: task.lane.queue.clone(),
        state: State::Running,
        attempt: 1,
        at: SystemClock.now(),
    };
    for signal in [
        Signal::Cancel(vec![task.id]),
        Signal::Events(vec![event.clone(), event]),
        Signal::Progress(vec![task.id]),
        Signal::QueuesChanged,
        Signal::Due,
    ] {
        broker.signal(signal.clone()).await.expect("a healthy broker");
        for listener in &mut listeners {
            assert_eq!(heard(listener).await, signal);
        }
    }
}

async fn heard(listener: &mut BoxStream<'static, Signal>) -> Signal {
    let next = timeout(PATIENCE, listener.next()).await;
    next.expect("a signal in time").expect("a stream that goes on")
}
