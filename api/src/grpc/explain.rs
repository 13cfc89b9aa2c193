//! An explanation as a message.

use forebay_proto::v1;
use forebay_store::Hold;

use crate::{
    grpc::convert::{task_state, to_timestamp},
    ops::explain::Explanation,
};

pub(crate) fn explanation(explained: &Explanation) -> v1::TaskExplanation {
    let text = |text: Option<String>| text.unwrap_or_default();
    v1::TaskExplanation {
        id: explained.id.to_string(),
        state: task_state(explained.state).into(),
        reason: explained.reason.as_str().to_owned(),
        detail: explained.detail.clone(),
        run_at: explained.run_at.map(to_timestamp),
        next_attempt: explained.next_attempt,
        ahead: explained.ahead,
        ahead_is_exact: explained.ahead_is_exact.unwrap_or(false),
        worker: text(explained.worker.map(|worker| worker.to_string())),
        worker_name: text(explained.worker_name.clone()),
        limit: explained.limit.as_ref().map(limit),
        blocked_on: explained.blocked_on.iter().map(ToString::to_string).collect(),
        batch: text(explained.batch.map(|batch| batch.to_string())),
        at: Some(to_timestamp(explained.at)),
    }
}

fn limit(held: &Hold) -> v1::TaskHold {
    v1::TaskHold {
        limit: held.limit.to_string(),
        key: held.key.clone().unwrap_or_default(),
        running: held.running.into(),
        concurrency: held.concurrency,
        next_at: held.next_at.map(to_timestamp),
        ahead: held.ahead,
    }
}
