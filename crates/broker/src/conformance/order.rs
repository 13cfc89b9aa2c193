use forebay_core::Lane;

use super::{Fixture, kit::*};

/// What is published first is delivered first, within a batch and from one to the next.
pub async fn a_lane_is_first_in_first_out(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("line"));
    let mut published = tasks(&lane, 300);
    make_ready(&fixture, &published).await;
    for _ in 0..20 {
        let next = tasks(&lane, 1);
        make_ready(&fixture, &next).await;
        published.extend(next);
    }
    let mut subscription = consume(&*broker, &lane).await;
    let mut came = Vec::new();
    while came.len() < published.len() {
        let taken = take(&mut subscription, 16).await;
        came.extend(ids_of(&taken));
        finish(&fixture, &subscription, taken).await;
    }
    assert_eq!(came, ids(&published));
}

/// A queue's priorities are lanes of their own, and so are queues whose names are alike.
pub async fn lanes_are_separate(fixture: impl Fixture) {
    let broker = fixture.broker();
    let mut lanes: Vec<Lane> = Lane::all_of(&lane("a").queue).into();
    lanes.extend(Lane::all_of(&lane("a_high").queue));
    lanes.extend(Lane::all_of(&lane("a-high").queue));
    let published: Vec<_> = lanes.iter().map(task).collect();
    make_ready(&fixture, &published).await;
    for (lane, task) in lanes.iter().zip(&published) {
        let mut subscription = consume(&*broker, lane).await;
        let taken = take(&mut subscription, 1).await;
        assert_eq!(ids_of(&taken), [task.id], "in lane {lane}");
        finish(&fixture, &subscription, taken).await;
        assert_quiet(&mut subscription).await;
    }
}

/// A worker may start before anything was ever published.
pub async fn consuming_may_begin_before_the_first_publish(fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("early"));
    let mut subscription = consume(&*broker, &lane).await;
    assert_quiet(&mut subscription).await;
    let published = tasks(&lane, 3);
    make_ready(&fixture, &published).await;
    assert_eq!(ids_of(&take(&mut subscription, 3).await), ids(&published));
}

/// Two workers that read one lane have different tasks, and all of them between them.
pub async fn two_subscriptions_share_without_overlap(fixture: impl Fixture) {
    let (broker, another, lane) = (fixture.broker(), fixture.another().await, lane("shared"));
    let mut one = consume(&*broker, &lane).await;
    let mut other = consume(&*another, &lane).await;
    let published = tasks(&lane, 200);
    make_ready(&fixture, &published).await;
    let mut came = Vec::new();
    while came.len() < published.len() {
        for subscription in [&mut one, &mut other] {
            let left = published.len() - came.len();
            if left > 0 {
                let taken = take(subscription, left.min(20)).await;
                came.extend(ids_of(&taken));
                finish(&fixture, subscription, taken).await;
            }
        }
    }
    came.sort_unstable();
    assert_eq!(came, ids(&published));
    assert_quiet(&mut one).await;
    assert_quiet(&mut other).await;
}
