use super::{Fixture, kit::*};

/// What was confirmed is there after a restart, in order.
pub async fn confirmed_messages_survive_a_restart(mut fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("lasting"));
    let published = tasks(&lane, 20);
    publish(&*broker, &published).await;
    make_ready(&fixture, &published).await;
    drop(broker);
    if !fixture.restart().await {
        return;
    }
    let broker = fixture.broker();
    if !fixture.records_by_itself() {
        let mut recorder = record(&*broker).await;
        assert_eq!(ids_of(&take(&mut recorder, 20).await), ids(&published));
    }
    let mut subscription = consume(&*broker, &lane).await;
    assert_eq!(ids_of(&take(&mut subscription, 20).await), ids(&published));
}

/// What was delivered and not acknowledged comes again after a restart.
pub async fn deliveries_under_way_survive_a_restart(mut fixture: impl Fixture) {
    let (broker, lane) = (fixture.broker(), lane("halfway"));
    let published = tasks(&lane, 10);
    make_ready(&fixture, &published).await;
    let mut subscription = consume(&*broker, &lane).await;
    let done = take(&mut subscription, 4).await;
    finish(&fixture, &subscription, done).await;
    take(&mut subscription, 3).await;
    drop((subscription, broker));
    if !fixture.restart().await {
        return;
    }
    let broker = fixture.broker();
    let mut subscription = consume(&*broker, &lane).await;
    let seen = drain(&fixture, &mut subscription, 6).await;
    for task in &published[4..] {
        assert!(seen.contains_key(&task.id), "a delivery under way was lost");
    }
}
