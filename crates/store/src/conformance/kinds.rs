//! The schemas of kinds.

use std::sync::Arc;

use forebay_core::{KIND_SCHEMAS_MAX, Kind, KindSchema, SCHEMA_VERSIONS_MAX, SchemaMode};
use tokio::task::JoinSet;

use super::support::json;
use crate::{PutSchema, Store};

const ENFORCE: SchemaMode = SchemaMode::Enforce;

fn kind(name: &str) -> Kind {
    name.parse().expect("a kind")
}

/// A version that is new.
async fn put(store: &dyn Store, name: &str, mode: SchemaMode, schema: &str) -> KindSchema {
    match store
        .put_schema(&kind(name), mode, &json(schema))
        .await
        .expect("put a schema")
    {
        PutSchema::New(kept) => kept,
        other => panic!("{other:?}"),
    }
}

async fn read(store: &dyn Store, name: &str, version: Option<u32>) -> Option<KindSchema> {
    store.schema(&kind(name), version).await.expect("read a schema")
}

async fn versions(store: &dyn Store) -> Vec<(String, u32)> {
    let versions = store.schema_versions().await.expect("look which schemas count");
    versions
        .into_iter()
        .map(|(kind, version)| (kind.to_string(), version))
        .collect()
}

/// Versions are counted by kind, the same again is none, and the text comes back as it was.
pub async fn each_put_is_a_version_and_the_same_again_is_none(store: Arc<dyn Store>) {
    let store = &*store;
    let text = r#"{ "type": "object", "x": 1.0e2, "\u00e4": "\u0000" }"#;
    let first = put(store, "a", ENFORCE, text).await;
    assert_eq!(
        (first.version, first.mode, first.schema.as_str()),
        (1, ENFORCE, text)
    );
    assert_eq!(read(store, "a", None).await, Some(first.clone()));
    let same = store
        .put_schema(&kind("a"), ENFORCE, &json(text))
        .await
        .expect("put it again");
    assert_eq!(same, PutSchema::Same(first.clone()));
    let second = put(store, "a", SchemaMode::Warn, text).await;
    assert_eq!((second.version, second.mode), (2, SchemaMode::Warn));
    assert_eq!(put(store, "b", ENFORCE, "true").await.version, 1);
    assert_eq!(read(store, "a", None).await, Some(second));
    assert_eq!(read(store, "a", Some(1)).await, Some(first));
    assert_eq!(read(store, "a", Some(3)).await, None);
    assert_eq!(read(store, "c", None).await, None);
    assert_eq!(versions(store).await, [("a".to_owned(), 2), ("b".to_owned(), 1)]);
}

/// What was deleted counts no more, can be read by its version, and its versions are not given again.
pub async fn what_is_deleted_does_not_count_and_its_versions_stay(store: Arc<dyn Store>) {
    let store = &*store;
    let first = put(store, "a", ENFORCE, "true").await;
    assert!(store.delete_schema(&kind("a")).await.expect("delete it"));
    assert!(!store.delete_schema(&kind("a")).await.expect("delete it again"));
    assert_eq!(read(store, "a", None).await, None);
    assert_eq!(read(store, "a", Some(1)).await, Some(first));
    assert_eq!(
        (
            versions(store).await,
            store.schemas(10, None).await.expect("list")
        ),
        (vec![], vec![])
    );
    assert_eq!(put(store, "a", ENFORCE, "true").await.version, 2);
    assert_eq!(versions(store).await, [("a".to_owned(), 2)]);
}

/// Pages go by kind.
pub async fn those_that_count_are_listed_by_kind(store: Arc<dyn Store>) {
    let store = &*store;
    for name in ["b", "a", "a-", "c", "gone"] {
        put(store, name, ENFORCE, "true").await;
    }
    store.delete_schema(&kind("gone")).await.expect("delete one");
    let first = store.schemas(2, None).await.expect("list");
    let names = |page: &[KindSchema]| page.iter().map(|kept| kept.kind.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&first), ["a", "a-"]);
    let second = store.schemas(10, Some(&first[1].kind)).await.expect("list on");
    assert_eq!(names(&second), ["b", "c"]);
}

/// The oldest versions are forgotten, and only so many kinds have schemas.
pub async fn versions_and_kinds_are_bounded(store: Arc<dyn Store>) {
    let store = &*store;
    for number in 0..=SCHEMA_VERSIONS_MAX {
        put(store, "kind-0", ENFORCE, &format!("{{\"title\":\"{number}\"}}")).await;
    }
    assert_eq!(read(store, "kind-0", Some(1)).await, None);
    assert_eq!(
        read(store, "kind-0", Some(2)).await.map(|kept| kept.version),
        Some(2)
    );
    for number in 1..KIND_SCHEMAS_MAX {
        put(store, &format!("kind-{number}"), ENFORCE, "true").await;
    }
    let refused = store
        .put_schema(&kind("more"), ENFORCE, &json("true"))
        .await
        .expect("be refused");
    assert_eq!(refused, PutSchema::TooMany);
    assert_eq!(read(store, "more", None).await, None);
    put(store, "kind-7", SchemaMode::Warn, "true").await;
    store.delete_schema(&kind("kind-7")).await.expect("make room");
    put(store, "more", ENFORCE, "true").await;
}

/// Of several who put at once, each that is new has a version of its own.
pub async fn several_put_at_once_and_no_version_is_given_twice(store: Arc<dyn Store>) {
    let mut puts = JoinSet::new();
    for number in 0..8 {
        let store = Arc::clone(&store);
        puts.spawn(async move {
            let schema = json(&format!("{{\"title\":\"{number}\"}}"));
            store
                .put_schema(&kind("a"), ENFORCE, &schema)
                .await
                .expect("put a schema")
        });
    }
    let mut given = Vec::new();
    for put in puts.join_all().await {
        match put {
            PutSchema::New(kept) => given.push(kept.version),
            other => panic!("{other:?}"),
        }
    }
    given.sort_unstable();
    assert_eq!(given, (1..=8).collect::<Vec<u32>>());
}
