//! Operations on many tasks. What one may say is checked in `forebay_core`; dispatchers carry it out.

use forebay_core::{Operation, OperationId, OperationRequest, OperationState, Violation};
use forebay_runtime::supervise::random_bytes;
use forebay_store::{Matching, OPERATIONS_MAX};

use crate::{
    App,
    error::{ApiError, Code, Result},
    ops::{
        once,
        page::{self, Page},
        read,
    },
};

/// How many of the tasks that it means a dry run names.
pub(crate) const SAMPLE: usize = 20;

/// An operation as a door read it: what it says, and what the door already found wrong with it.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) request: OperationRequest,
    pub(crate) violations: Vec<Violation>,
    /// Whether only to count.
    pub(crate) dry_run: bool,
}

/// What became of it.
#[derive(Debug)]
pub(crate) enum Answered {
    /// It would be about these.
    Counted(Matching),
    /// It is begun.
    Begun(Box<Operation>),
}

/// Parses an operation's id as a door received it.
pub(crate) fn parse_id(text: &str) -> Result<OperationId> {
    text.parse()
        .map_err(|_| ApiError::at(Code::InvalidParameter, "/operation", "must be a UUID"))
}

/// Counts the tasks that an operation is about, and begins it unless only this was wanted.
pub(crate) async fn begin(app: &App, asked: Asked) -> Result<Answered> {
    let Asked {
        request,
        mut violations,
        dry_run,
    } = asked;
    let plan = match request.accept() {
        Ok(plan) if violations.is_empty() => plan,
        Ok(_) => return Err(ApiError::violations(violations)),
        Err(more) => {
            violations.extend(more);
            return Err(ApiError::violations(violations));
        }
    };
    let matching = read(app, || app.store.matching(&plan, SAMPLE)).await?;
    if dry_run {
        return Ok(Answered::Counted(matching));
    }
    let id = OperationId::new(app.clock.now(), &random_bytes());
    // To begin it again changes nothing.
    let begun = read(app, || app.store.begin_operation(id, &plan, &matching)).await?;
    let Some(operation) = begun else {
        let detail = format!("{OPERATIONS_MAX} operations run already: abort one, or wait for one to end");
        return Err(ApiError::new(Code::Overloaded, detail));
    };
    let (action, expected) = (operation.plan.action, operation.expected);
    tracing::info!(operation = %id, %action, expected, "an operation was begun");
    Ok(Answered::Begun(Box::new(operation)))
}

/// Reads an operation.
pub(crate) async fn get(app: &App, id: OperationId) -> Result<Operation> {
    let found = read(app, || app.store.operation(id)).await?;
    found.ok_or_else(|| unknown(id))
}

/// Lists a page of operations, the latest first.
pub(crate) async fn list(app: &App, asked: page::Asked) -> Result<Page<Operation>> {
    let wanted = asked.check::<OperationId>()?;
    let found = read(app, || app.store.operations(wanted.count(), wanted.after)).await?;
    Ok(wanted.page(found, |last| last.id.to_string()))
}

/// Ends an operation that runs. To end it again changes nothing.
pub(crate) async fn abort(app: &App, id: OperationId) -> Result<Operation> {
    let found = once(app, app.store.abort_operation(id)).await?;
    let operation = found.ok_or_else(|| unknown(id))?;
    match operation.state {
        OperationState::Completed => {
            let detail = "an operation that is completed can't be aborted";
            Err(ApiError::new(Code::StateConflict, detail))
        }
        OperationState::Running | OperationState::Aborted => {
            tracing::info!(operation = %id, "an operation was aborted");
            Ok(operation)
        }
    }
}

fn unknown(id: OperationId) -> ApiError {
    ApiError::new(Code::OperationNotFound, format!("there is no operation {id}"))
}
