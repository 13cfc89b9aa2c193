//! Payloads and results are text to a store: they come back as they went in.

use std::sync::Arc;

use forebay_core::{Decision, PAYLOAD_BYTES_MAX, Submission, TaskId};

use super::support::*;
use crate::{Completion, Store};

/// Valid JSON that a database with a JSON type of its own would refuse, reorder or round.
const AWKWARD: [&str; 11] = [
    "null",
    r#""\u0000""#,
    r#"{"a":"\u0000b","\u0000":1}"#,
    r#""\ud800""#,
    r#"["\udfff\ud800","\ud83d\ude00"]"#,
    r#"{"b":1,"a":2,"b":3}"#,
    "123456789012345678901234567890.12345678901234567890e-400",
    "{ \"spaced\" :\n\t[ 1 , 2 ] }",
    "\"\u{1f600} \u{7f} ' \\\\ \\/ \\\" $1 ? :x @y\"",
    "-0.0",
    "[[[[]]],{}]",
];

/// A string of exactly `size` bytes, quotes included.
fn text_of(size: usize) -> String {
    format!("\"{}\"", "ä".repeat((size - 2) / 2))
}

async fn assert_payload(store: &dyn Store, id: TaskId, expected: &str) {
    assert_eq!(get(store, id).await.payload.as_str(), expected);
}

/// Through record and read, and through record and claim.
pub async fn text_comes_back_byte_for_byte(store: Arc<dyn Store>) {
    let worker = worker(&*store).await;
    for text in AWKWARD {
        let task = Submission {
            payload: json(text),
            ..task(&*store).await
        };
        record(&*store, &task).await;
        let claimed = claim(&*store, worker, wants_new(&task)).await.expect("granted");
        assert_eq!(claimed.payload.as_str(), text);
        assert_payload(&*store, task.id, text).await;
    }
}

/// 256 KiB are promised; one large task among small ones is no trouble.
pub async fn the_largest_payload_fits(store: Arc<dyn Store>) {
    let text = text_of(PAYLOAD_BYTES_MAX);
    assert_eq!(text.len(), PAYLOAD_BYTES_MAX);
    let at = now(&*store).await;
    let mut batch = [task_at(at), task_at(at), task_at(at)];
    batch[1].payload = json(&text);
    store.record(&batch).await.expect("record");
    assert_payload(&*store, batch[1].id, &text).await;
    assert_payload(&*store, batch[2].id, "null").await;
    let worker = worker(&*store).await;
    let requests: Vec<_> = batch.iter().map(wants_new).collect();
    let claimed = store.claim(worker, claim_id(), &requests).await.expect("claim");
    let payload = claimed[1].as_ref().expect("granted").payload.clone();
    assert_eq!(payload.as_str(), text);
}

/// What a handler returns is text as well.
pub async fn results_come_back_byte_for_byte(store: Arc<dyn Store>) {
    let large = text_of(PAYLOAD_BYTES_MAX);
    for text in AWKWARD.into_iter().chain([large.as_str()]) {
        let (task, worker, claimed) = running(&*store).await;
        let completion = Completion {
            result: Some(json(text)),
            ..ended(&claimed, Decision::Succeed)
        };
        complete(&*store, worker, completion).await;
        let result = get(&*store, task.id).await.result.expect("a result");
        assert_eq!(result.as_str(), text);
    }
}

/// Labels keep their order and their characters.
pub async fn tags_come_back_as_they_were(store: Arc<dyn Store>) {
    let tags: Vec<String> = ["b", "a", "b", "{x,y}", "\"", "\\", "'", "NULL", "ü,", " "]
        .map(str::to_owned)
        .to_vec();
    let task = Submission {
        tags: tags.clone(),
        ..task(&*store).await
    };
    record(&*store, &task).await;
    assert_eq!(get(&*store, task.id).await.tags, tags);
}
