use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use forebay_core::{Lane, Signal, SubmitRequest, SystemClock};
use futures::stream::BoxStream;
use tokio::sync::Semaphore;

use super::*;
use crate::{Depth, Source, Subscription};

/// Confirms a batch only when the test lets it, and notes how large each was.
#[derive(Default)]
struct Gated {
    gate: Option<Semaphore>,
    batches: Mutex<Vec<usize>>,
}

#[async_trait]
impl Broker for Gated {
    async fn publish(&self, batch: Vec<Message>) -> Vec<Result<(), PublishError>> {
        self.batches.lock().unwrap().push(batch.len());
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        batch.iter().map(|_| Ok(())).collect()
    }
    async fn consume(&self, _: Source) -> crate::Result<Subscription> {
        unreachable!("not consumed")
    }
    async fn depth(&self, _: &Lane) -> crate::Result<Depth> {
        Ok(Depth::default())
    }
    async fn unrecorded(&self) -> crate::Result<u64> {
        Ok(0)
    }
    async fn signal(&self, _: Signal) -> crate::Result<()> {
        Ok(())
    }
    async fn signals(&self) -> crate::Result<BoxStream<'static, Signal>> {
        Ok(Box::pin(futures::stream::empty()))
    }
    async fn trim(&self) -> crate::Result<()> {
        Ok(())
    }
    async fn check(&self) -> crate::Result<()> {
        Ok(())
    }
}

fn task(payload: &str) -> Submission {
    let request = SubmitRequest {
        kind: "echo".into(),
        payload: forebay_core::Json::parse(payload.as_bytes()).ok(),
        ..SubmitRequest::default()
    };
    request
        .accept(forebay_core::Clock::now(&SystemClock), &[0; 10])
        .unwrap()
}

#[tokio::test]
async fn what_comes_while_a_batch_is_under_way_makes_up_the_next() {
    let broker = Arc::new(Gated {
        gate: Some(Semaphore::new(0)),
        ..Gated::default()
    });
    let (submitter, group) = GroupCommit::new(broker.clone());
    let group = tokio::spawn(group.run());
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let submitter = submitter.clone();
            tokio::spawn(async move { submitter.submit(task("1")).await })
        })
        .collect();
    while broker.batches.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    broker.gate.as_ref().unwrap().add_permits(50);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(()));
    }
    drop(submitter);
    group.await.unwrap();
    let batches = broker.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), 50);
    assert!(batches.len() <= 3, "50 submissions made {batches:?}");
}

#[tokio::test]
async fn a_full_line_refuses_at_once() {
    let (submitter, _never_run) = GroupCommit::new(Arc::new(Gated::default()));
    for _ in 0..LINE_MAX {
        let submitter = submitter.clone();
        tokio::spawn(async move { submitter.submit(task("1")).await });
    }
    let refused = async {
        while submitter.submit(task("1")).await != Err(PublishError::Full) {
            tokio::task::yield_now().await;
        }
    };
    while submitter.places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    tokio::time::timeout(Duration::from_secs(5), refused)
        .await
        .expect("a full line must not make a caller wait");
}

#[tokio::test]
async fn a_batch_is_bounded_by_bytes() {
    let broker = Arc::new(Gated {
        gate: Some(Semaphore::new(0)),
        ..Gated::default()
    });
    let (submitter, group) = GroupCommit::new(broker.clone());
    let payload = format!("\"{}\"", "a".repeat(200_000));
    let callers: Vec<_> = (0..60)
        .map(|_| {
            let (submitter, payload) = (submitter.clone(), payload.clone());
            tokio::spawn(async move { submitter.submit(task(&payload)).await })
        })
        .collect();
    while submitter.places.available_permits() > LINE_MAX - 60 {
        tokio::task::yield_now().await;
    }
    broker.gate.as_ref().unwrap().add_permits(60);
    tokio::spawn(group.run());
    for caller in callers {
        assert_eq!(caller.await.unwrap(), Ok(()));
    }
    let batches = broker.batches.lock().unwrap().clone();
    assert!(
        batches.iter().all(|&size| size <= BATCH_BYTES_MAX / 200_000),
        "{batches:?}"
    );
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_published() {
    let broker = Arc::new(Gated {
        gate: Some(Semaphore::new(0)),
        ..Gated::default()
    });
    let (submitter, group) = GroupCommit::new(broker.clone());
    let submit = || {
        let submitter = submitter.clone();
        tokio::spawn(async move { submitter.submit(task("1")).await })
    };
    let group = tokio::spawn(group.run());
    let first = submit();
    while broker.batches.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    // With one batch under way, these stand in line, or in the batch that is being gathered.
    let (leaving, staying): (Vec<_>, Vec<_>) = (0..50).map(|n| (n, submit())).partition(|(n, _)| n % 2 == 0);
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    for (_, caller) in leaving {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
    }
    broker.gate.as_ref().unwrap().add_permits(50);
    assert_eq!(first.await.unwrap(), Ok(()));
    for (_, caller) in staying {
        assert_eq!(caller.await.unwrap(), Ok(()));
    }
    drop(submitter);
    group.await.unwrap();
    let batches = broker.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), 26, "{batches:?}");
}

#[tokio::test]
async fn many_are_answered_together_and_in_order() {
    /// Refuses every third message.
    struct Picky(Gated);
    #[async_trait]
    impl Broker for Picky {
        async fn publish(&self, batch: Vec<Message>) -> Vec<Result<(), PublishError>> {
            let results = self.0.publish(batch.clone()).await;
            let refuse = |message: &Message| match message {
                Message::Submission(task) => task.payload.as_str().parse::<usize>().is_ok_and(|n| n % 3 == 0),
                Message::Ready(_) => false,
            };
            let judged = results.into_iter().zip(&batch);
            judged
                .map(|(result, message)| {
                    if refuse(message) {
                        Err(PublishError::Full)
                    } else {
                        result
                    }
                })
                .collect()
        }
        async fn consume(&self, source: Source) -> crate::Result<Subscription> {
            self.0.consume(source).await
        }
        async fn depth(&self, lane: &Lane) -> crate::Result<Depth> {
            self.0.depth(lane).await
        }
        async fn unrecorded(&self) -> crate::Result<u64> {
            self.0.unrecorded().await
        }
        async fn signal(&self, signal: Signal) -> crate::Result<()> {
            self.0.signal(signal).await
        }
        async fn signals(&self) -> crate::Result<BoxStream<'static, Signal>> {
            self.0.signals().await
        }
        async fn trim(&self) -> crate::Result<()> {
            Ok(())
        }
        async fn check(&self) -> crate::Result<()> {
            Ok(())
        }
    }
    let broker = Arc::new(Picky(Gated::default()));
    let (submitter, group) = GroupCommit::new(broker.clone());
    let group = tokio::spawn(group.run());
    let expected = |from: usize, count: usize| -> Vec<_> {
        (from..from + count)
            .map(|n| {
                if n % 3 == 0 {
                    Err(PublishError::Full)
                } else {
                    Ok(())
                }
            })
            .collect()
    };
    let callers: Vec<_> = [(0, 7), (1, 2_500), (2, 1), (0, 0), (5, 999)]
        .into_iter()
        .map(|(from, count)| {
            let submitter = submitter.clone();
            let tasks = (from..from + count).map(|n| task(&n.to_string())).collect();
            (
                from,
                count,
                tokio::spawn(async move { submitter.submit_all(tasks).await }),
            )
        })
        .collect();
    for (from, count, caller) in callers {
        assert_eq!(
            caller.await.unwrap(),
            expected(from, count),
            "{count} from {from}"
        );
    }
    drop(submitter);
    group.await.unwrap();
    let batches = broker.0.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().sum::<usize>(), 3_507);
    assert!(batches.iter().all(|&size| size <= BATCH_MAX), "{batches:?}");
}

#[tokio::test]
async fn many_wait_for_places_in_a_full_line() {
    let broker = Arc::new(Gated {
        gate: Some(Semaphore::new(0)),
        ..Gated::default()
    });
    let (submitter, group) = GroupCommit::new(broker.clone());
    let tasks = |count: usize| vec![task("1"); count];
    let fill = {
        let (submitter, tasks) = (submitter.clone(), tasks(LINE_MAX));
        tokio::spawn(async move { submitter.submit_all(tasks).await })
    };
    while submitter.places.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(submitter.submit(task("1")).await, Err(PublishError::Full));
    let (late, more) = (submitter.clone(), tasks(10));
    let late = tokio::spawn(async move { late.submit_all(more).await });
    broker.gate.as_ref().unwrap().add_permits(100);
    let group = tokio::spawn(group.run());
    assert_eq!(fill.await.unwrap(), vec![Ok(()); LINE_MAX]);
    assert_eq!(late.await.unwrap(), vec![Ok(()); 10]);
    drop(submitter);
    group.await.unwrap();
}
