//! Webhooks: kept as they are put, and told of each end once.

use std::{sync::Arc, time::Duration};

use forebay_core::{
    DELIVERY_DELAYS, Decision, Json, NewWebhook, State, Submission, Task, TaskId, Terms, WEBHOOK_KIND,
    WEBHOOK_QUEUE, Webhook, WebhookName, WebhookRequest,
};
use tokio::task::JoinSet;

use super::support::*;
use crate::{Delivery, Replay, Replayed, Store, TaskFilter};

const URL: &str = "https://example.com/hook";

fn name(text: &str) -> WebhookName {
    text.parse().expect("a valid name")
}

fn to(url: &str) -> WebhookRequest {
    WebhookRequest {
        url: url.to_owned(),
        ..WebhookRequest::default()
    }
}

fn asked(text: &str, request: WebhookRequest) -> NewWebhook {
    request.accept(name(text), &[7; 32]).expect("a valid webhook")
}

async fn put(store: &dyn Store, text: &str, request: WebhookRequest) -> Webhook {
    let put = store.put_webhook(&asked(text, request)).await.expect("put");
    put.webhook
}

/// A task that names these webhooks, recorded.
async fn notifying(store: &dyn Store, names: &[&str]) -> Submission {
    let terms = Terms {
        notify: names.iter().map(|text| name(text)).collect(),
        ..Terms::default()
    };
    let task = Submission {
        terms: Some(Box::new(terms)),
        ..task(store).await
    };
    record(store, &task).await;
    task
}

/// Runs a task to its end, and sees to that end.
async fn end(store: &dyn Store, task: &Submission, decision: Decision) {
    let worker = worker(store).await;
    let claimed = claim_ready(store, worker, task, 0).await.expect("it is granted");
    complete(store, worker, ended(&claimed, decision)).await;
    settle(store).await;
}

async fn settle(store: &dyn Store) {
    while store.settle(100).await.expect("settle").more {}
}

async fn deliveries(store: &dyn Store, text: &str) -> Vec<Delivery> {
    store.deliveries(&name(text), 100, None).await.expect("list")
}

/// The one delivery to a webhook, and its task.
async fn only(store: &dyn Store, text: &str) -> (Delivery, Task) {
    let mut all = deliveries(store, text).await;
    assert_eq!(all.len(), 1, "{all:?}");
    let delivery = all.remove(0);
    let task = delivery.delivered_by.expect("it is delivered");
    let task = get(store, task).await;
    (delivery, task)
}

async fn delivery_tasks(store: &dyn Store) -> Vec<Task> {
    let filter = TaskFilter {
        kind: Some(WEBHOOK_KIND.parse().expect("a kind")),
        ..TaskFilter::default()
    };
    store.list(&filter, 1_000, None).await.expect("list").tasks
}

/// What a delivery's payload says of the event.
fn says(task: &Task, what: &str) {
    let text = task.payload.as_str();
    assert!(text.contains(what), "{what} is not in {text}");
}

fn done(replayed: Replayed) -> (Vec<TaskId>, bool) {
    match replayed {
        Replayed::Done { events, more } => (events.iter().map(|event| event.id).collect(), more),
        other => panic!("{other:?}"),
    }
}

/// Lets a delivery end, as a worker would.
async fn deliver(store: &dyn Store, delivery: TaskId, decision: Decision) {
    let sink = Sink::open();
    wait_until("the delivery is dispatched", || async {
        store.dispatch_due(100, &sink).await.expect("dispatch");
        sink.ids().contains(&delivery)
    })
    .await;
    let published = sink.published();
    let ready = published.iter().find(|ready| ready.id == delivery);
    let worker = worker(store).await;
    let ready = ready.expect("it was published").clone();
    let claimed = claim(store, worker, wants(ready)).await.expect("it is granted");
    complete(store, worker, ended(&claimed, decision)).await;
}

/// It is read as it was put, and a secret that was made for it is the one of the request.
pub async fn a_webhook_comes_back_as_it_was_put(store: Arc<dyn Store>) {
    let request = WebhookRequest {
        states: Some(vec!["failed".into(), "expired".into()]),
        include_result: true,
        disabled: true,
        ..to(URL)
    };
    let new = asked("billing", request);
    let made = store.put_webhook(&new).await.expect("put");
    assert!(made.is_new && new.has_made_secret_of(&made.webhook));
    let kept = store.webhook(&name("billing")).await.expect("read");
    assert_eq!(kept.as_ref(), Some(&made.webhook));
    assert_eq!(made.webhook.states, [State::Failed, State::Expired]);
    assert_eq!(store.webhook(&name("other")).await.expect("read"), None);
    let again = store.put_webhook(&new).await.expect("put");
    assert_eq!((again.is_new, again.webhook), (false, made.webhook));
}

/// A secret that is replaced is kept beside the new one for a while.
pub async fn a_secret_that_is_replaced_goes_on_signing(store: Arc<dyn Store>) {
    let first = put(&*store, "billing", to(URL)).await;
    let given = WebhookRequest {
        secret: Some("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDsV0a2gFxjPk=".into()),
        ..to(URL)
    };
    put(&*store, "billing", given).await;
    let kept = store.webhook(&name("billing")).await.expect("read");
    let kept = kept.expect("it is there");
    let secrets: Vec<_> = kept.secrets(now(&*store).await).collect();
    assert_eq!(secrets.len(), 2);
    assert_eq!(secrets[1], &first.secret);
    assert_ne!(secrets[0], &first.secret);
    assert!(kept.updated_at > first.updated_at && kept.created_at == first.created_at);
}

/// Page by page, by name; and what is deleted is gone.
pub async fn they_are_listed_by_name_and_deleted(store: Arc<dyn Store>) {
    for text in ["c", "a", "b"] {
        put(&*store, text, to(URL)).await;
    }
    let names = |page: Vec<Webhook>| -> Vec<String> {
        page.into_iter().map(|webhook| webhook.name.to_string()).collect()
    };
    let page = store.webhooks(2, None).await.expect("list");
    assert_eq!(names(page), ["a", "b"]);
    let page = store.webhooks(2, Some(&name("b"))).await.expect("list");
    assert_eq!(names(page), ["c"]);
    assert!(store.delete_webhook(&name("b")).await.expect("delete"));
    assert!(!store.delete_webhook(&name("b")).await.expect("delete"));
    let page = store.webhooks(10, None).await.expect("list");
    assert_eq!(names(page), ["a", "c"]);
}

/// The end of a task becomes a delivery: a task with a schedule of its own, which is due.
pub async fn an_end_is_delivered_once(store: Arc<dyn Store>) {
    put(&*store, "billing", to(URL)).await;
    let task = notifying(&*store, &["billing", "unknown"]).await;
    settle(&*store).await;
    assert_eq!(deliveries(&*store, "billing").await, [], "it has not ended");
    end(&*store, &task, Decision::Succeed).await;
    settle(&*store).await;
    let (delivery, delivering) = only(&*store, "billing").await;
    assert_eq!(delivery.event_kind, "dev.forebay.task.succeeded");
    let finished_at = get(&*store, task.id).await.finished_at.expect("it has ended");
    assert_eq!(
        delivery.event_id,
        format!("{}_succeeded_{}", task.id, finished_at.as_microsecond())
    );
    assert_eq!(delivery.task, Some(task.id));
    assert_eq!(delivering.kind.as_str(), WEBHOOK_KIND);
    assert_eq!(delivering.queue.as_str(), WEBHOOK_QUEUE);
    assert_eq!(delivering.state, State::Scheduled);
    let terms = delivering.terms.as_ref().expect("it has a schedule");
    let retry = terms.retry.as_ref().expect("it has a schedule");
    assert_eq!(retry.delays, DELIVERY_DELAYS);
    says(&delivering, &task.id.to_string());
    let standing = delivery.standing.expect("it stands somewhere");
    assert_eq!((standing.state, standing.attempt), (State::Scheduled, 0));
    assert_eq!(delivery_tasks(&*store).await.len(), 1);
    deliver(&*store, delivering.id, Decision::Succeed).await;
    let (delivery, _) = only(&*store, "billing").await;
    assert_eq!(delivery.standing.expect("it stands").state, State::Succeeded);
    let queues = store.queues().await.expect("list queues");
    assert!(queues.iter().any(|queue| queue.name.as_str() == WEBHOOK_QUEUE));
}

/// A webhook hears of the states that it asked for, and has the result where it asked for that.
pub async fn each_hears_what_it_asked_for(store: Arc<dyn Store>) {
    let failures = WebhookRequest {
        states: Some(vec!["failed".into()]),
        ..to(URL)
    };
    put(&*store, "failures", failures).await;
    let results = WebhookRequest {
        include_result: true,
        ..to(URL)
    };
    put(&*store, "results", results).await;
    put(&*store, "all", to(URL)).await;
    let all = ["failures", "results", "all"];
    let task = notifying(&*store, &all).await;
    let worker = worker(&*store).await;
    let claimed = claim_ready(&*store, worker, &task, 0)
        .await
        .expect("it is granted");
    let with_result = crate::Completion {
        result: Some(Json::parse(br#"{"pages":7}"#).expect("JSON")),
        ..ended(&claimed, Decision::Succeed)
    };
    complete(&*store, worker, with_result).await;
    settle(&*store).await;
    assert_eq!(deliveries(&*store, "failures").await, []);
    let (_, with_result) = only(&*store, "results").await;
    says(&with_result, r#""result":{"pages":7}"#);
    let (_, without) = only(&*store, "all").await;
    assert!(!without.payload.as_str().contains("result"));

    let failing = notifying(&*store, &["failures"]).await;
    let claimed = claim_ready(&*store, worker, &failing, 0)
        .await
        .expect("it is granted");
    let with_error = crate::Completion {
        error: Some("no paper".into()),
        ..ended(&claimed, Decision::Fail)
    };
    complete(&*store, worker, with_error).await;
    settle(&*store).await;
    let (delivery, delivering) = only(&*store, "failures").await;
    assert_eq!(delivery.event_kind, "dev.forebay.task.failed");
    says(&delivering, r#""outcome":"failed","message":"no paper""#);
}

/// A task that is cancelled while it waits ends like any other.
pub async fn a_cancelled_task_is_told_of(store: Arc<dyn Store>) {
    put(&*store, "billing", to(URL)).await;
    let task = notifying(&*store, &["billing"]).await;
    store.cancel(task.id).await.expect("cancel");
    settle(&*store).await;
    let (delivery, _) = only(&*store, "billing").await;
    assert_eq!(delivery.event_kind, "dev.forebay.task.cancelled");
}

/// Each end is an event of its own, also where the task was not started in between; to tell one again is none.
pub async fn a_task_that_ends_twice_is_told_of_twice(store: Arc<dyn Store>) {
    put(&*store, "billing", to(URL)).await;
    let task = notifying(&*store, &["billing"]).await;
    store.cancel(task.id).await.expect("cancel");
    settle(&*store).await;
    store.retry(task.id).await.expect("retry");
    store.cancel(task.id).await.expect("cancel");
    settle(&*store).await;
    let all = deliveries(&*store, "billing").await;
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0].event_kind, all[1].event_kind);
    assert_ne!(all[0].event_id, all[1].event_id);
    let again = store.replay(&name("billing"), Replay::Task(task.id)).await;
    assert_eq!(done(again.expect("replay")).0.len(), 1);
    let repeated = deliveries(&*store, "billing").await.remove(0);
    assert_eq!(repeated.event_id, all[0].event_id, "it is the latest end");
}

/// What comes while it is disabled is noted, and told once it is asked for after that.
pub async fn what_came_while_it_was_disabled_is_replayed(store: Arc<dyn Store>) {
    let since = now(&*store).await;
    let resting = WebhookRequest {
        disabled: true,
        ..to(URL)
    };
    put(&*store, "billing", resting).await;
    let task = notifying(&*store, &["billing"]).await;
    end(&*store, &task, Decision::Succeed).await;
    let noted = deliveries(&*store, "billing").await;
    assert_eq!((noted.len(), noted[0].delivered_by), (1, None));
    let replay = |what| {
        let (store, billing) = (Arc::clone(&store), name("billing"));
        async move { store.replay(&billing, what).await.expect("replay") }
    };
    assert_eq!(replay(Replay::Since(since, None)).await, Replayed::Disabled);
    put(&*store, "billing", to(URL)).await;
    let (told, more) = done(replay(Replay::Since(since, None)).await);
    assert_eq!((told.len(), more), (1, false));
    let all = deliveries(&*store, "billing").await;
    assert_eq!(
        (all.len(), all[0].delivered_by),
        (2, Some(told[0])),
        "the latest first"
    );
    assert_eq!(all[0].event_id, noted[0].event_id, "it can be recognised");
    says(&get(&*store, told[0]).await, &noted[0].event_id);
    let (again, _) = done(replay(Replay::Since(since, None)).await);
    assert_eq!(again, [], "it is under way");
    let later = now_after(&*store, since).await;
    deliver(&*store, told[0], Decision::Succeed).await;
    let (again, _) = done(replay(Replay::Since(since, None)).await);
    assert_eq!(again, [], "it has arrived");
    assert!(later > since);
}

/// What was given up is told again with what it said.
pub async fn what_was_given_up_is_replayed_as_it_was(store: Arc<dyn Store>) {
    let since = now(&*store).await;
    put(&*store, "billing", to(URL)).await;
    let task = notifying(&*store, &["billing"]).await;
    end(&*store, &task, Decision::Succeed).await;
    let (_, first) = only(&*store, "billing").await;
    deliver(&*store, first.id, Decision::Fail).await;
    let before = first.created_at;
    let (told, more) = done(
        store
            .replay(&name("billing"), Replay::Since(since, Some(before)))
            .await
            .expect("replay"),
    );
    assert_eq!((told, more), (Vec::new(), false), "it was noted later");
    let (told, _) = done(
        store
            .replay(&name("billing"), Replay::Since(since, None))
            .await
            .expect("replay"),
    );
    let second = get(&*store, told[0]).await;
    assert_eq!(second.payload, first.payload);
    assert_ne!(second.id, first.id);
    let future = plus(now(&*store).await, 3_600);
    let (told, _) = done(
        store
            .replay(&name("billing"), Replay::Since(future, None))
            .await
            .expect("replay"),
    );
    assert_eq!(told, []);
}

/// One task is told again whenever somebody asks; and a trial tells of nothing.
pub async fn one_task_is_replayed_and_a_trial_is_sent(store: Arc<dyn Store>) {
    let billing = name("billing");
    let replay = |what| {
        let (store, billing) = (Arc::clone(&store), billing.clone());
        async move { store.replay(&billing, what).await.expect("replay") }
    };
    assert_eq!(replay(Replay::Trial).await, Replayed::NoWebhook);
    put(&*store, "billing", to(URL)).await;
    let task = notifying(&*store, &["billing"]).await;
    assert_eq!(
        replay(Replay::Task(task.id)).await,
        Replayed::NotFinal(State::Queued)
    );
    let unknown = task_at(now(&*store).await).id;
    assert_eq!(replay(Replay::Task(unknown)).await, Replayed::NoTask);
    end(&*store, &task, Decision::Succeed).await;
    let (told, _) = done(replay(Replay::Task(task.id)).await);
    assert_eq!(told.len(), 1);
    let all = deliveries(&*store, "billing").await;
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].event_id, all[1].event_id);
    let other = recorded(&*store).await;
    end(&*store, &other, Decision::Succeed).await;
    assert_eq!(replay(Replay::Task(other.id)).await, Replayed::NotItsTask);
    let (trial, _) = done(replay(Replay::Trial).await);
    says(&get(&*store, trial[0]).await, "dev.forebay.webhook.test");
    let page = store.deliveries(&billing, 1, Some(deliveries(&*store, "billing").await[0].place));
    let page = page.await.expect("list");
    assert_eq!(
        (page.len(), page[0].event_id.as_str()),
        (1, all[0].event_id.as_str())
    );
}

/// An endpoint that is gone disables its webhook, but not one that was moved meanwhile.
pub async fn one_that_is_gone_is_disabled(store: Arc<dyn Store>) {
    put(&*store, "billing", to(URL)).await;
    let disable = |url: &'static str| {
        let (store, billing) = (Arc::clone(&store), name("billing"));
        async move {
            store
                .disable_webhook(&billing, url, "gone")
                .await
                .expect("disable")
        }
    };
    assert!(!disable("https://example.com/old").await);
    assert!(disable(URL).await);
    assert!(!disable(URL).await, "it is already");
    let kept = store
        .webhook(&name("billing"))
        .await
        .expect("read")
        .expect("it is there");
    assert!(kept.disabled);
    assert_eq!(kept.disabled_reason.as_deref(), Some("gone"));
    let enabled = put(&*store, "billing", to(URL)).await;
    assert!(!enabled.disabled && enabled.disabled_reason.is_none());
}

/// An endpoint that takes nothing disables its webhook once that has lasted. Only what changes is written.
pub async fn one_that_fails_for_long_is_disabled(store: Arc<dyn Store>) {
    const LONG: Duration = Duration::from_secs(3_600);
    let made = put(&*store, "billing", to(URL)).await;
    assert_eq!(made.failing_since, None);
    let billing = name("billing");
    let fails = |url: &'static str, patience| {
        let (store, billing) = (Arc::clone(&store), billing.clone());
        async move {
            store
                .note_failing(&billing, url, patience, "failing")
                .await
                .expect("note")
        }
    };
    let works = |url: &'static str| {
        let (store, billing) = (Arc::clone(&store), billing.clone());
        async move { store.note_working(&billing, url).await.expect("note") }
    };
    let read = || {
        let (store, billing) = (Arc::clone(&store), billing.clone());
        async move { store.webhook(&billing).await.expect("read").expect("it is there") }
    };
    assert!(!fails("https://example.com/old", LONG).await);
    assert_eq!(read().await, made);
    assert!(!fails(URL, Duration::ZERO).await, "it has only begun");
    let failing = read().await;
    let since = failing.failing_since.expect("it fails");
    assert!(since >= made.created_at && !failing.disabled && failing.updated_at == made.updated_at);
    assert_eq!(
        store.webhooks(10, None).await.expect("list"),
        std::slice::from_ref(&failing)
    );
    now_after(&*store, since).await;
    assert!(!fails(URL, LONG).await, "not for long enough");
    works("https://example.com/old").await;
    assert_eq!(read().await, failing);
    assert_eq!(
        put(&*store, "billing", to(URL)).await,
        failing,
        "nothing was changed"
    );
    works(URL).await;
    assert_eq!(read().await, made);

    assert!(!fails(URL, LONG).await);
    assert!(fails(URL, Duration::ZERO).await);
    let disabled = read().await;
    assert!(disabled.disabled && disabled.failing_since.is_some() && disabled.updated_at > made.updated_at);
    assert_eq!(disabled.disabled_reason.as_deref(), Some("failing"));
    assert!(!fails(URL, Duration::ZERO).await, "it is already");
    works(URL).await;
    assert_eq!(read().await, disabled);
    let enabled = put(&*store, "billing", to(URL)).await;
    assert!(!enabled.disabled && enabled.disabled_reason.is_none() && enabled.failing_since.is_none());
    assert_eq!(read().await, enabled);
}

/// What a deleted webhook was told is not what a new one of its name was told.
pub async fn a_new_one_of_the_same_name_begins_anew(store: Arc<dyn Store>) {
    put(&*store, "billing", to(URL)).await;
    let task = notifying(&*store, &["billing"]).await;
    end(&*store, &task, Decision::Succeed).await;
    only(&*store, "billing").await;
    assert!(store.delete_webhook(&name("billing")).await.expect("delete"));
    put(&*store, "billing", to(URL)).await;
    assert_eq!(deliveries(&*store, "billing").await, []);
    store.maintain(None).await.expect("maintain");
    assert_eq!(deliveries(&*store, "billing").await, []);
}

/// However many dispatchers see to the ends, each is told once.
pub async fn several_dispatchers_tell_once(store: Arc<dyn Store>) {
    const TASKS: usize = 60;
    put(&*store, "billing", to(URL)).await;
    let worker = worker(&*store).await;
    for _ in 0..TASKS {
        let task = notifying(&*store, &["billing"]).await;
        let claimed = claim_ready(&*store, worker, &task, 0)
            .await
            .expect("it is granted");
        complete(&*store, worker, ended(&claimed, Decision::Succeed)).await;
    }
    let mut dispatchers = JoinSet::new();
    for _ in 0..4 {
        let store = Arc::clone(&store);
        dispatchers.spawn(async move { while store.settle(7).await.expect("settle").seen > 0 {} });
    }
    dispatchers.join_all().await;
    settle(&*store).await;
    let all = deliveries(&*store, "billing").await;
    let events: std::collections::BTreeSet<&str> = all.iter().map(|it| it.event_id.as_str()).collect();
    assert_eq!((all.len(), events.len()), (TASKS, TASKS));
    assert_eq!(delivery_tasks(&*store).await.len(), TASKS);
}
