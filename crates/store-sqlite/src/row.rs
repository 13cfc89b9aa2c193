//! Between rows and the domain's types.

use std::{str::FromStr, time::Duration};

use forebay_core::{
    Fingerprint, Json, Lane, Ready, Task, TaskEvent, TaskId, TaskProgress, Terms, Timestamp, TraceParent,
    WorkerId, from_unix_micros,
};
use forebay_store::{Result, StoreError};
use sqlx::{Decode, Row, Sqlite, Type, sqlite::SqliteRow};
use uuid::Uuid;

/// A time as the store keeps it.
pub(crate) fn micros_of(at: Timestamp) -> i64 {
    at.as_microsecond()
}

/// A duration as the store keeps it.
pub(crate) fn micros_of_duration(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// An id in the JSON of a batch, as `unhex` reads it.
pub(crate) fn hex(id: TaskId) -> String {
    id.as_uuid().simple().to_string()
}

/// Writes what has a JSON form for certain: numbers, strings and lists of them.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|e| StoreError::Corrupt(format!("has no JSON form: {e}")))
}

fn senseless(column: &str, error: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(format!("in column {column}: {error}"))
}

/// The columns of a row, by name.
pub(crate) struct Fields<'r>(pub(crate) &'r SqliteRow);

impl<'r> Fields<'r> {
    pub(crate) fn get<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &str) -> Result<T> {
        self.0.try_get(column).map_err(|e| senseless(column, e))
    }

    /// A value kept as text.
    pub(crate) fn text<T>(&self, column: &str) -> Result<T>
    where
        T: FromStr,
        T::Err: std::fmt::Display,
    {
        let text: &str = self.get(column)?;
        text.parse().map_err(|e: T::Err| senseless(column, e))
    }

    pub(crate) fn time(&self, column: &str) -> Result<Timestamp> {
        self.get(column).map(from_unix_micros)
    }

    pub(crate) fn maybe_time(&self, column: &str) -> Result<Option<Timestamp>> {
        Ok(self.get::<Option<i64>>(column)?.map(from_unix_micros))
    }

    pub(crate) fn duration(&self, column: &str) -> Result<Option<Duration>> {
        let micros: Option<i64> = self.get(column)?;
        micros
            .map(|micros| u64::try_from(micros).map(Duration::from_micros))
            .transpose()
            .map_err(|e| senseless(column, e))
    }

    pub(crate) fn task_id(&self) -> Result<TaskId> {
        self.get::<Uuid>("id").map(TaskId::from)
    }

    pub(crate) fn lane(&self) -> Result<Lane> {
        Ok(Lane::new(self.text("queue")?, self.text("priority")?))
    }

    /// JSON text of the user's, which was checked before it was stored.
    pub(crate) fn json(&self, column: &str) -> Result<Option<Json>> {
        self.get::<Option<String>>(column)?
            .map(|text| Json::from_trusted(text.into_bytes().into()))
            .transpose()
            .map_err(|e| senseless(column, e))
    }

    /// JSON text of ours.
    pub(crate) fn list<T: serde::de::DeserializeOwned>(&self, column: &str) -> Result<T> {
        serde_json::from_str(self.get(column)?).map_err(|e| senseless(column, e))
    }

    pub(crate) fn traceparent(&self) -> Result<Option<TraceParent>> {
        Ok(self
            .get::<Option<&str>>("traceparent")?
            .and_then(TraceParent::parse))
    }

    pub(crate) fn fingerprint(&self) -> Result<Option<Fingerprint>> {
        self.get::<Option<&[u8]>>("fingerprint")?
            .map(|bytes| bytes.try_into().map(Fingerprint))
            .transpose()
            .map_err(|e| senseless("fingerprint", e))
    }

    pub(crate) fn terms(&self) -> Result<Option<Box<Terms>>> {
        self.get::<Option<&str>>("terms")?
            .map(Terms::from_json)
            .transpose()
            .map_err(|e| senseless("terms", e))
    }

    fn progress(&self) -> Result<Option<TaskProgress>> {
        self.get::<Option<&str>>("progress")?
            .map(serde_json::from_str)
            .transpose()
            .map_err(|e| senseless("progress", e))
    }

    pub(crate) fn ready(&self) -> Result<Ready> {
        Ok(Ready {
            id: self.task_id()?,
            kind: self.text("kind")?,
            lane: self.lane()?,
            fence: self.get("fence")?,
            lost: self.get("lost")?,
        })
    }

    pub(crate) fn event(&self, at: Timestamp) -> Result<TaskEvent> {
        Ok(TaskEvent {
            id: self.task_id()?,
            kind: self.text("kind")?,
            queue: self.text("queue")?,
            state: self.text("state")?,
            attempt: self.get("attempt")?,
            at,
        })
    }

    pub(crate) fn task(&self) -> Result<Task> {
        Ok(Task {
            id: self.task_id()?,
            project: self.text("project")?,
            kind: self.text("kind")?,
            queue: self.text("queue")?,
            priority: self.text("priority")?,
            state: self.text("state")?,
            payload: self.json("payload")?.unwrap_or_else(Json::null),
            result: self.json("result")?,
            attempt: self.get("attempt")?,
            fence: self.get("fence")?,
            max_attempts: self.get("max_attempts")?,
            timeout: self.duration("timeout")?,
            tags: self.list("tags")?,
            run_at: self.maybe_time("run_at")?,
            created_at: self.time("created_at")?,
            started_at: self.maybe_time("started_at")?,
            finished_at: self.maybe_time("finished_at")?,
            worker: self.get::<Option<Uuid>>("worker")?.map(WorkerId::from),
            cancel_requested: self.get("cancel_requested")?,
            errors: self.list("errors")?,
            log: self.get("log")?,
            progress: self.progress()?,
            traceparent: self.traceparent()?,
            fingerprint: self.fingerprint()?,
            terms: self.terms()?,
        })
    }
}
