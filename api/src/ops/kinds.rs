//! The schemas of kinds: what payloads must look like, by kind. Kept in the store; each replica holds payloads against
//! what it knows.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use forebay_core::{Json, KIND_SCHEMAS_MAX, Kind, KindSchema, SchemaMode, Submission, Timestamp, Violation};
use forebay_runtime::metrics::Metrics;
use forebay_schema::{Fault, Schema};
use forebay_store::PutSchema;
use tokio::{
    sync::oneshot::Receiver,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    App,
    error::{ApiError, Code, Result},
    kinds::Ready,
    ops::{
        once,
        page::{self, Page},
        read,
    },
};

/// How often a replica asks which schemas count.
const REFRESH_EVERY: Duration = Duration::from_secs(1);
/// How much memory the schemas of all kinds may take, about, in bytes.
const SCHEMAS_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How many payloads are held against schemas in one go.
const CHECKED_AT_ONCE: usize = 50;

/// How much is told of the payloads of a batch.
const BATCH_FAULTS_MAX: usize = 100;

/// Registers a schema as the next version of its kind's. Returns it, and whether it is new: to put the latest again changes
/// nothing, so it may be tried again. It counts here at once, and within a second or two everywhere.
pub(crate) async fn put(
    app: &App,
    kind: Kind,
    mode: Option<String>,
    schema: Option<Json>,
) -> Result<(KindSchema, bool)> {
    let (mode, schema, bytes) = check(app, mode, schema).await?;
    // One after another, so that each counts those before it.
    let _changing = app.schemas.changing.lock().await;
    renew(app).await;
    if app.schemas.bytes_without(&kind).saturating_add(bytes) > SCHEMAS_BYTES_MAX {
        let detail = "the schemas of all kinds would take more than 64 MiB of memory";
        return Err(ApiError::new(Code::TooManySchemas, detail));
    }
    let put = read(app, || app.store.put_schema(&kind, mode, &schema)).await?;
    let (put, is_new) = match put {
        PutSchema::New(put) => (put, true),
        PutSchema::Same(put) => (put, false),
        PutSchema::TooMany => {
            let detail = format!("{KIND_SCHEMAS_MAX} kinds have schemas already");
            return Err(ApiError::new(Code::TooManySchemas, detail));
        }
    };
    if is_new {
        tracing::info!(kind = %kind, version = put.version, mode = %put.mode, "a schema was registered");
    }
    renew(app).await;
    Ok((put, is_new))
}

/// What was asked for, where it is right, and about how much memory the schema takes.
async fn check(app: &App, mode: Option<String>, schema: Option<Json>) -> Result<(SchemaMode, Json, u64)> {
    let mut wrong = Vec::new();
    let mode = mode.map(|text| text.parse::<SchemaMode>()).transpose();
    let mode = mode.map_err(|error| wrong.push(Violation::invalid("/mode", error.to_string())));
    match schema {
        None => wrong.push(Violation::invalid(
            "/schema",
            "is needed: a JSON Schema, such as {\"type\": \"object\"}",
        )),
        Some(schema) => {
            let text = schema.clone();
            let compiled = app
                .schemas
                .run(move || Schema::compile(text.as_str()).map(|schema| schema.bytes()));
            let compiled = answered(app.bounds.submit_patient, compiled.ok()).await?;
            match (compiled, mode) {
                (Ok(bytes), Ok(mode)) => return Ok((mode.unwrap_or_default(), schema, bytes)),
                (Ok(_), Err(())) => {}
                (Err(faults), _) => wrong.extend(faults.into_iter().map(|fault| within("/schema", fault))),
            }
        }
    }
    Err(ApiError::violations(wrong))
}

fn within(place: &str, fault: Fault) -> Violation {
    Violation::invalid(format!("{place}{}", fault.pointer), fault.detail)
}

/// What a thread answers, within a time.
async fn answered<T>(within: Duration, asked: Option<Receiver<T>>) -> Result<T> {
    let asked = asked.ok_or_else(|| ApiError::of(Code::Overloaded))?;
    match timeout(within, asked).await {
        Ok(answer) => answer.map_err(|_| ApiError::of(Code::Internal)),
        Err(_) => Err(ApiError::of(Code::Overloaded)),
    }
}

/// Reads the version that counts, or another one.
pub(crate) async fn get(app: &App, kind: &Kind, version: Option<u32>) -> Result<KindSchema> {
    let found = read(app, || app.store.schema(kind, version)).await?;
    found.ok_or_else(|| unknown(kind, version))
}

/// Lists a page of the schemas that count, by kind.
pub(crate) async fn list(app: &App, asked: page::Asked) -> Result<Page<KindSchema>> {
    let wanted = asked.check::<Kind>()?;
    let found = read(app, || app.store.schemas(wanted.count(), wanted.after.as_ref())).await?;
    Ok(wanted.page(found, |last| last.kind.to_string()))
}

/// Lets payloads of a kind look as they like.
pub(crate) async fn delete(app: &App, kind: &Kind) -> Result<()> {
    // Once: where only the answer was lost, a second try would find nothing.
    let deleted = once(app, app.store.delete_schema(kind)).await?;
    if !deleted {
        return Err(unknown(kind, None));
    }
    tracing::info!(kind = %kind, "a schema was deleted");
    refresh(app).await;
    Ok(())
}

fn unknown(kind: &Kind, version: Option<u32>) -> ApiError {
    let detail = match version {
        Some(version) => format!("there is no version {version} of a schema of {kind}"),
        None => format!("{kind} has no schema"),
    };
    ApiError::new(Code::SchemaNotFound, detail)
}

/// Holds the payload of a submission against the schema of its kind.
pub(crate) async fn check_payload(app: &App, submission: &Submission) -> Result<()> {
    check_part(app, &submission.kind, &submission.payload, app.clock.now()).await
}

/// As [`check_payload`], for what is not submitted yet.
pub(crate) async fn check_part(app: &App, kind: &Kind, payload: &Json, now: Timestamp) -> Result<()> {
    let Some(ready) = app.schemas.of(kind) else {
        return Ok(());
    };
    let (checked, payload) = (Arc::clone(&ready), payload.clone());
    let faults = app.schemas.run(move || checked.faults(payload.as_str())).ok();
    let faults = answered(app.bounds.submit, faults).await;
    judged(&app.metrics, kind, &ready, faults, now)
}

/// As [`check_payload`], for many: takes those out that do not fit, and says of each what is wrong.
pub(crate) async fn take_misfits(
    app: &App,
    submissions: &mut Vec<(usize, Submission)>,
) -> Vec<(usize, ApiError)> {
    let all: Vec<&Submission> = submissions.iter().map(|(_, submission)| submission).collect();
    let mut checked = check_payloads(app, &all).await.into_iter();
    let mut misfits = Vec::new();
    submissions.retain(|(index, _)| match checked.next() {
        Some(Err(error)) => {
            misfits.push((*index, error));
            false
        }
        _ => true,
    });
    misfits
}

/// As [`check_payload`], for the tasks of a batch, which are accepted all or none.
pub(crate) async fn check_batch(
    app: &App,
    tasks: &[Submission],
    completion: Option<&Submission>,
) -> Result<()> {
    if !app.schemas.any() {
        return Ok(());
    }
    let all: Vec<&Submission> = tasks.iter().chain(completion).collect();
    let mut wrong = Vec::new();
    for (index, checked) in check_payloads(app, &all).await.into_iter().enumerate() {
        let Err(error) = checked else { continue };
        if error.errors.is_empty() {
            return Err(error);
        }
        let at = match index < tasks.len() {
            true => format!("/tasks/{index}"),
            false => "/on_complete".to_owned(),
        };
        wrong.extend(error.errors.into_iter().map(|mut field| {
            field.pointer.insert_str(0, &at);
            field
        }));
    }
    wrong.truncate(BATCH_FAULTS_MAX);
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(ApiError::fields(Code::InvalidRequest, wrong)),
    }
}

/// One result for each, in order.
async fn check_payloads(app: &App, submissions: &[&Submission]) -> Vec<Result<()>> {
    let known = app.schemas.all();
    let now = app.clock.now();
    let with_schemas: Vec<(Option<Arc<Ready>>, &Submission)> = submissions
        .iter()
        .map(|submission| (known.get(&submission.kind).cloned(), *submission))
        .collect();
    let mut results = Vec::with_capacity(with_schemas.len());
    for part in with_schemas.chunks(CHECKED_AT_ONCE) {
        let work: Vec<(Arc<Ready>, Json)> = part
            .iter()
            .filter_map(|(ready, submission)| Some((Arc::clone(ready.as_ref()?), submission.payload.clone())))
            .collect();
        if work.is_empty() {
            results.extend(part.iter().map(|_| Ok(())));
            continue;
        }
        let faults = app.schemas.run(move || -> Vec<Vec<Fault>> {
            work.iter()
                .map(|(ready, payload)| ready.faults(payload.as_str()))
                .collect()
        });
        let faults = answered(app.bounds.submit, faults.ok()).await;
        let mut faults = faults.map(Vec::into_iter);
        results.extend(part.iter().map(|(ready, submission)| match (ready, &mut faults) {
            (None, _) => Ok(()),
            (Some(ready), faults) => {
                let faults = faults.as_mut().map(|faults| faults.next().unwrap_or_default());
                judged(
                    &app.metrics,
                    &submission.kind,
                    ready,
                    faults.map_err(|error| error.clone()),
                    now,
                )
            }
        }));
    }
    results
}

/// What comes of a check. The log has nothing of the payload.
fn judged(
    metrics: &Metrics,
    kind: &Kind,
    ready: &Ready,
    checked: Result<Vec<Fault>>,
    now: Timestamp,
) -> Result<()> {
    let version = ready.version;
    match (ready.mode, checked) {
        (SchemaMode::Enforce, Err(error)) => Err(error),
        (_, Ok(faults)) if faults.is_empty() => Ok(()),
        (SchemaMode::Enforce, Ok(faults)) => {
            let violations = faults.into_iter().map(|fault| within("/payload", fault));
            Err(ApiError::violations(violations.collect()))
        }
        (SchemaMode::Warn, checked) => {
            metrics.schema_warning(kind.as_str(), checked.as_ref().map_or("unchecked", |_| "misfit"));
            match (ready.may_warn(now), checked) {
                (false, _) => {}
                (true, Ok(faults)) => {
                    let keyword = faults.first().map_or("", |fault| fault.keyword.as_str());
                    tracing::warn!(%kind, version, keyword, "a payload does not fit the schema of its kind");
                }
                (true, Err(_)) => tracing::warn!(%kind, version, "a payload was accepted unchecked"),
            }
            Ok(())
        }
    }
}

/// Asks which schemas count, now and every second, until the process is to stop. Until they were read once, and each was tried, the
/// process is not ready: what is submitted meanwhile is not checked.
pub(crate) async fn follow(app: &App) {
    let reporter = app.health.component("schemas", Duration::MAX);
    reporter.failing("were not read yet");
    let (mut known, mut warned) = (false, false);
    let mut ticks = interval(REFRESH_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let is_true = refresh(app).await;
        if is_true && !known {
            known = true;
            reporter.ok();
        } else if !known && !warned {
            warned = true;
            tracing::warn!(
                "the schemas of kinds can't be read: payloads are accepted unchecked until they can"
            );
        }
    }
}

/// Brings what this replica knows up to date, and says whether all was read that there is, and tried. What can't be asked stays as it
/// is.
async fn refresh(app: &App) -> bool {
    let _changing = app.schemas.changing.lock().await;
    renew(app).await
}

/// As [`refresh`], for who holds the lock.
async fn renew(app: &App) -> bool {
    let versions = match timeout(app.bounds.ask, app.store.schema_versions()).await {
        Ok(Ok(versions)) => versions,
        Ok(Err(error)) => {
            tracing::debug!(error = %error, "schemas stay as they are");
            return false;
        }
        Err(_) => {
            tracing::debug!("schemas stay as they are: the store does not answer");
            return false;
        }
    };
    let known = app.schemas.all();
    let is_known =
        |(kind, version): &(Kind, u32)| known.get(kind).is_some_and(|ready| ready.version == *version);
    if versions.len() == known.len() && versions.iter().all(is_known) {
        return true;
    }
    let counting: HashSet<&Kind> = versions.iter().map(|(kind, _)| kind).collect();
    let mut all: HashMap<Kind, Arc<Ready>> = known
        .iter()
        .filter(|(kind, _)| counting.contains(kind))
        .map(|(kind, ready)| (kind.clone(), Arc::clone(ready)))
        .collect();
    let mut is_whole = true;
    for (kind, version) in versions.iter().filter(|version| !is_known(version)) {
        match fetch(app, kind, *version).await {
            Fetched::Ready(ready) => drop(all.insert(kind.clone(), ready)),
            // They are tried again in a second.
            Fetched::Late => {
                let version = *version;
                tracing::error!(%kind, version, "a schema takes too long to compile, and does not count yet");
            }
            Fetched::Unread => is_whole = false,
        }
    }
    app.schemas.set(all);
    is_whole
}

/// What came of a schema that counts.
enum Fetched {
    Ready(Arc<Ready>),
    /// It was read, and could not be compiled in time.
    Late,
    Unread,
}

async fn fetch(app: &App, kind: &Kind, version: u32) -> Fetched {
    let kept = timeout(app.bounds.ask, app.store.schema(kind, Some(version))).await;
    let Ok(Ok(Some(kept))) = kept else {
        return Fetched::Unread;
    };
    let Ok(compiled) = app.schemas.compile(kept) else {
        return Fetched::Unread;
    };
    match timeout(app.bounds.submit_patient, compiled).await {
        Ok(Ok(ready)) => Fetched::Ready(ready),
        _ => Fetched::Late,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(mode: SchemaMode) -> Ready {
        Ready::of(&KindSchema {
            kind: "thumbnail".parse().unwrap(),
            version: 1,
            mode,
            schema: Json::parse(b"false").unwrap(),
            created_at: "2026-03-01T12:00:00Z".parse().unwrap(),
        })
    }

    #[test]
    fn what_could_not_be_checked_is_refused_only_where_it_must_fit() {
        let kind = "thumbnail".parse().unwrap();
        let now: Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let unanswered = || Err(ApiError::of(Code::Overloaded));
        let metrics = Metrics::default();
        let judged = |kind, ready: &_, checked| judged(&metrics, kind, ready, checked, now);
        let warns = ready(SchemaMode::Warn);
        assert!(judged(&kind, &warns, unanswered()).is_ok());
        assert!(!warns.may_warn(now), "it was told of");
        assert!(judged(&kind, &warns, Ok(warns.faults("1"))).is_ok());
        let told = metrics.encode();
        for reason in ["misfit", "unchecked"] {
            let line = format!(r#"forebay_schema_warnings_total{{kind="thumbnail",reason="{reason}"}} 1"#);
            assert!(told.contains(&line), "{told}");
        }
        let enforces = ready(SchemaMode::Enforce);
        assert_eq!(
            judged(&kind, &enforces, unanswered()).unwrap_err().code,
            Code::Overloaded
        );
        let misfit = judged(&kind, &enforces, Ok(enforces.faults("1"))).unwrap_err();
        assert_eq!(misfit.code, Code::InvalidRequest);
        assert!(judged(&kind, &enforces, Ok(Vec::new())).is_ok());
    }
}
