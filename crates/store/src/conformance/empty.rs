//! What happens when there is nothing to do.

use std::{sync::Arc, time::Duration};

use forebay_core::{State, Timestamp};

use super::support::*;
use crate::Store;

/// Nothing asked, nothing done, no error.
pub async fn an_empty_batch_is_fine_everywhere(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    assert_eq!(store.record(&[]).await.expect("record"), []);
    store.set_aside(&[]).await.expect("set aside");
    assert_eq!(store.claim(worker, claim_id(), &[]).await.expect("claim"), []);
    assert_eq!(store.complete(worker, &[], &[]).await.expect("complete"), []);
    assert_eq!(
        store.complete(worker, &[], &[claim_id()]).await.expect("release"),
        []
    );
    let sink = Sink::open();
    assert_eq!(store.dispatch_due(10, &sink).await.expect("dispatch"), []);
    assert_eq!(store.dispatch_due(0, &sink).await.expect("dispatch none"), []);
    let horizons = [(lane("a.high"), now(&*store).await)];
    for horizons in [&horizons[..], &[]] {
        let answer = store
            .republish_lost(horizons, Timestamp::UNIX_EPOCH, 10, &sink)
            .await;
        assert_eq!(answer.expect("publish again").count, 0);
    }
    assert_eq!(
        store
            .take_back(Duration::from_secs(3_600), 3)
            .await
            .expect("take back"),
        []
    );
    assert_eq!(store.queues().await.expect("list the queues"), []);
    assert_eq!(store.watermarks().await.expect("read the watermarks"), []);
    store.maintain(None).await.expect("maintain");
    store
        .maintain(Some(Duration::from_secs(86_400)))
        .await
        .expect("maintain");
    assert_eq!(sink.ids(), []);
}

/// Retention forgets what has ended, and never what has not.
pub async fn maintenance_keeps_what_is_unfinished(store: Arc<dyn Store>) {
    let at = plus(now(&*store).await, -10 * 24 * 3_600);
    let old = task_at(at);
    record(&*store, &old).await;
    let new = recorded(&*store).await;
    store.cancel(new.id).await.expect("cancel");
    for retention in [None, Some(Duration::from_secs(86_400))] {
        store.maintain(retention).await.expect("maintain");
        assert_eq!(get(&*store, old.id).await.state, State::Queued);
        assert_eq!(get(&*store, new.id).await.state, State::Cancelled);
    }
}

/// The schema is up to date, and stays so.
pub async fn migrating_again_changes_nothing(store: Arc<dyn Store>) {
    let task = recorded(&*store).await;
    let (one, other) = tokio::join!(store.migrate(), store.migrate());
    one.expect("migrate again");
    other.expect("migrate side by side");
    store.check().await.expect("the schema is the right one");
    assert_eq!(get(&*store, task.id).await.state, State::Queued);
}
