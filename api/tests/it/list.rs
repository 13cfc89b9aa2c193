//! `GET /v1/tasks`.

use forebay_core::State;

use crate::door::Door;

#[tokio::test]
async fn pages_through_everything_newest_first_once() {
    let door = Door::new();
    let mut ids = Vec::new();
    for second in 0..7 {
        door.clock.set(&format!("2026-03-01T12:00:0{second}Z"));
        ids.push(door.submit().await.id().to_string());
    }
    ids.reverse();
    let mut path = "/v1/tasks?page_size=3&queue=default".to_owned();
    let mut seen = Vec::new();
    loop {
        let page = door.get(&path).await;
        let body = page.json();
        let tasks = body["tasks"].as_array().unwrap();
        assert!(tasks.len() <= 3);
        seen.extend(tasks.iter().map(|task| task["id"].as_str().unwrap().to_owned()));
        let Some(token) = body["next_page_token"].as_str() else {
            assert_eq!(page.header("link"), "");
            break;
        };
        let link = page
            .header("link")
            .strip_prefix('<')
            .unwrap()
            .strip_suffix(">; rel=\"next\"")
            .unwrap();
        assert!(link.contains(&format!("page_token={token}")), "{link}");
        path = link.to_owned();
    }
    assert_eq!(seen, ids);
}

#[tokio::test]
async fn a_token_is_bound_to_its_filter() {
    let door = Door::new();
    door.submit().await;
    door.submit().await;
    let page = door.get("/v1/tasks?page_size=1").await.json();
    let token = page["next_page_token"].as_str().unwrap();
    assert_eq!(
        door.get(&format!("/v1/tasks?page_size=2&page_token={token}"))
            .await
            .status,
        200
    );
    let other = door
        .get(&format!("/v1/tasks?state=queued&page_token={token}"))
        .await;
    assert_eq!(other.code(), "invalid_page_token");
}

#[tokio::test]
async fn filters() {
    let door = Door::new();
    let tagged = door
        .post_json("/v1/tasks", r#"{"kind":"a","queue":"q1","tags":["x y","ü"]}"#)
        .await
        .id();
    door.clock.set("2026-03-01T13:00:00Z");
    let other = door.submit().await.id();
    door.fake.change(other, State::Running, "2026-03-01T13:00:01Z");
    for (query, expected) in [
        ("tag=x+y", tagged),
        ("tag=%C3%BC&kind=a", tagged),
        ("queue=q1&state=queued", tagged),
        ("created_before=2026-03-01T12:30:00Z", tagged),
        ("created_after=2026-03-01T14:30:00%2B02:00", other),
        ("state=running", other),
        (
            "created_after=0001-01-01T00:00:00Z&kind=echo&project=default",
            other,
        ),
    ] {
        let body = door.get(&format!("/v1/tasks?{query}")).await.json();
        let ids: Vec<&str> = body["tasks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|task| task["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids, [expected.to_string()], "{query}");
    }
}
