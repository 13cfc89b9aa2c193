//! Server-Sent Events.

use axum::{
    body::{Body, BodyDataStream},
    http::StatusCode,
};
use forebay_core::{State, TaskEvent, TaskId};
use futures::StreamExt;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::door::{Door, request};

struct Events {
    stream: BodyDataStream,
    text: String,
}

#[derive(Debug, PartialEq)]
struct Event {
    name: String,
    id: String,
    data: Value,
}

impl Events {
    async fn of(door: &Door, path: &str, last: Option<&str>) -> Self {
        let headers: Vec<(&str, &str)> = last.map(|id| ("last-event-id", id)).into_iter().collect();
        let request = request("GET", path, &headers, Body::empty());
        let response = door.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            stream: response.into_body().into_data_stream(),
            text: String::new(),
        }
    }

    /// The next event; `None` at the end. Comments are passed over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = block
                        .lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                    line.unwrap_or_default().to_owned()
                };
                let event = (!field("data").is_empty()).then(|| Event {
                    name: field("event"),
                    id: field("id"),
                    data: serde_json::from_str(&field("data")).unwrap(),
                });
                self.text = rest.to_owned();
                if event.is_some() {
                    return event;
                }
                continue;
            }
            let within = std::time::Duration::from_secs(10);
            let chunk = tokio::time::timeout(within, self.stream.next())
                .await
                .expect("an event in time")?;
            self.text += std::str::from_utf8(&chunk.unwrap()).unwrap();
        }
    }

    async fn state(&mut self) -> Value {
        self.next().await.unwrap().data["state"].clone()
    }
}

#[tokio::test]
async fn follows_a_task_to_its_end() {
    let door = Door::with_background().await;
    let id = door.submit().await.id();
    let path = format!("/v1/tasks/{id}/events");
    let mut events = Events::of(&door, &path, None).await;
    let first = events.next().await.unwrap();
    assert_eq!(
        (first.name.as_str(), &first.data["state"]),
        ("state", &json!("queued"))
    );
    assert_eq!(first.data["task"]["id"], id.to_string());
    door.fake.change(id, State::Running, "2026-03-01T12:00:01Z");
    let second = events.next().await.unwrap();
    assert_eq!(
        (&second.data["state"], &second.data["attempt"]),
        (&json!("running"), &json!(1))
    );
    door.fake.change(id, State::Succeeded, "2026-03-01T12:00:02Z");
    let last = events.next().await.unwrap();
    assert_eq!(last.data["task"]["result"], json!({"done": true}));
    assert_eq!(events.next().await, None);
    let seen = request("GET", &path, &[("last-event-id", &last.id)], Body::empty());
    assert_eq!(door.call(seen).await.status, StatusCode::NO_CONTENT);
    let mut again = Events::of(&door, &path, Some(&second.id)).await;
    assert_eq!(again.next().await.unwrap(), last);
}

#[tokio::test]
async fn resumes_without_repeating_what_was_seen() {
    let door = Door::with_background().await;
    let id = door.submit().await.id();
    let path = format!("/v1/tasks/{id}/events");
    let first = Events::of(&door, &path, None).await.next().await.unwrap();
    let mut again = Events::of(&door, &path, Some(&first.id)).await;
    door.fake.change(id, State::Running, "2026-03-01T12:00:01Z");
    assert_eq!(again.state().await, "running");
    let mut garbage = Events::of(&door, &path, Some("garbage")).await;
    assert_eq!(garbage.state().await, "running");
}

#[tokio::test]
async fn follows_without_hearing_anything() {
    let door = Door::new();
    let id = door.submit().await.id();
    let mut events = Events::of(&door, &format!("/v1/tasks/{id}/events"), None).await;
    assert_eq!(events.state().await, "queued");
    door.fake.change(id, State::Succeeded, "2026-03-01T12:00:02Z");
    assert_eq!(events.state().await, "succeeded");
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn tells_of_all_tasks_that_are_asked_for() {
    let door = Door::with_background().await;
    let mut all = Events::of(&door, "/v1/events", None).await;
    let mut some = Events::of(&door, "/v1/events?queue=images&state=queued&kind=a", None).await;
    let other = door.submit().await.id();
    let image = door
        .post_json("/v1/tasks", r#"{"kind":"a","queue":"images"}"#)
        .await
        .id();
    let heard = all.next().await.unwrap();
    assert_eq!(
        (heard.name.as_str(), &heard.data["id"]),
        ("state", &json!(other.to_string()))
    );
    assert_eq!(all.next().await.unwrap().data["id"], image.to_string());
    assert_eq!(
        some.next().await.unwrap().data,
        json!({"id": image.to_string(), "kind": "a", "queue": "images", "state": "queued", "attempt": 0,
            "at": "2026-03-01T12:00:00Z"})
    );
    let mut resumed = Events::of(&door, "/v1/events", Some(&heard.id)).await;
    assert_eq!(resumed.next().await.unwrap().data["id"], image.to_string());
    let mut lost = Events::of(&door, "/v1/events", Some("long-gone")).await;
    let missed = lost.next().await.unwrap();
    assert_eq!(
        (missed.name.as_str(), missed.data),
        ("missed", json!({"missed": null}))
    );
}

#[tokio::test]
async fn a_slow_listener_learns_how_much_it_missed() {
    let door = Door::with_background().await;
    let mut events = Events::of(&door, "/v1/events", None).await;
    let event = |n: u32| TaskEvent {
        id: TaskId::new("2026-03-01T12:00:00Z".parse().unwrap(), &[0; 10]),
        kind: "echo".parse().unwrap(),
        queue: "default".parse().unwrap(),
        state: State::Queued,
        attempt: n,
        at: "2026-03-01T12:00:00Z".parse().unwrap(),
    };
    let mut watcher = Events::of(&door, "/v1/events?kind=marker", None).await;
    door.fake.tell((0..5_000).map(event).collect());
    let marker = TaskEvent {
        kind: "marker".parse().unwrap(),
        ..event(0)
    };
    // One that keeps up sees the marker; then all the events before it have been handed out.
    door.fake.tell(vec![marker]);
    while watcher.next().await.unwrap().name == "missed" {}
    let missed = events.next().await.unwrap();
    assert_eq!(missed.name, "missed");
    let count = missed.data["missed"].as_u64().unwrap();
    assert!(count >= 5_001 - 4_096, "{count}");
    let next = events.next().await.unwrap();
    assert_eq!(next.data["attempt"].as_u64().unwrap(), count);
}

#[tokio::test]
async fn streams_end_when_the_process_stops() {
    let door = Door::with_background().await;
    let id = door.submit().await.id();
    let mut all = Events::of(&door, "/v1/events?kind=none", None).await;
    let mut one = Events::of(&door, &format!("/v1/tasks/{id}/events"), None).await;
    assert_eq!(one.state().await, "queued");
    door.app.stop.cancel();
    assert_eq!(all.next().await, None);
    assert_eq!(one.next().await, None);
}

#[tokio::test]
async fn tells_how_far_a_task_is() {
    let door = Door::with_background().await;
    let id = door.submit().await.id();
    let path = format!("/v1/tasks/{id}/events");
    let mut events = Events::of(&door, &path, None).await;
    assert_eq!(events.state().await, "queued");
    door.fake.change(id, State::Running, "2026-03-01T12:00:01Z");
    let running = events.next().await.unwrap();
    assert_eq!(
        (running.name.as_str(), &running.data["progress"]),
        ("state", &Value::Null)
    );
    for (fraction, message, at) in [
        (0.25, "a", "2026-03-01T12:00:02Z"),
        (1.0, "", "2026-03-01T12:00:03Z"),
    ] {
        door.fake.progress(id, fraction, message, at);
        let told = events.next().await.unwrap();
        let mut expected = running.data.clone();
        expected["task"] = Value::Null;
        expected["progress"] = json!({"fraction": fraction, "message": message, "at": at});
        assert_eq!(
            (told.name.as_str(), &told.id, told.data),
            ("progress", &running.id, expected)
        );
    }
    // Who comes back is told how far it is by now, and not the state that was seen.
    let mut again = Events::of(&door, &path, Some(&running.id)).await;
    let told = again.next().await.unwrap();
    assert_eq!(
        (told.name.as_str(), &told.data["progress"]["fraction"]),
        ("progress", &json!(1.0))
    );
    door.fake.change(id, State::Succeeded, "2026-03-01T12:00:04Z");
    for events in [&mut events, &mut again] {
        let last = events.next().await.unwrap();
        assert_eq!(
            (last.name.as_str(), &last.data["progress"]),
            ("state", &Value::Null)
        );
        assert_eq!(last.data["task"]["progress"]["fraction"], json!(1.0));
        assert_eq!(events.next().await, None);
    }
}

#[tokio::test]
async fn how_far_a_task_is_shows_without_hearing_anything() {
    let door = Door::new();
    let id = door.submit().await.id();
    door.fake.change(id, State::Running, "2026-03-01T12:00:01Z");
    let mut events = Events::of(&door, &format!("/v1/tasks/{id}/events"), None).await;
    assert_eq!(events.state().await, "running");
    door.fake.progress(id, 0.5, "half", "2026-03-01T12:00:02Z");
    assert_eq!(events.next().await.unwrap().data["progress"]["message"], "half");
}
