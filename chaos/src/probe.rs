//! Whether Forebay works again.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{driver::Driver, stack::Stack};

/// How long it may take until a task that is submitted after a fault was undone is finished. Longer is a stall.
pub(crate) const RECOVERY_MAX: Duration = Duration::from_secs(60);
/// How long is waited between two tries.
const POLL: Duration = Duration::from_millis(50);
/// How long is waited after a refusal.
const REFUSED_WAIT: Duration = Duration::from_millis(200);
/// How long a look at a task may take.
const READ_MAX: Duration = Duration::from_secs(2);

/// Submits a task, and waits until a replica of the API says that it has finished.
///
/// # Errors
/// What it waited for, where that took longer than [`RECOVERY_MAX`].
pub(crate) async fn recovered(driver: &Driver, stack: &Stack) -> Result<(), String> {
    let deadline = Instant::now() + RECOVERY_MAX;
    let id = loop {
        if Instant::now() > deadline {
            return Err(format!("nothing was accepted for {RECOVERY_MAX:?}"));
        }
        match driver.probe().await {
            Some(id) => break id,
            None => sleep(REFUSED_WAIT).await,
        }
    };
    let doors = stack.doors();
    for door in doors.iter().cycle() {
        match state(&stack.client, door, id).await.as_deref() {
            Some("succeeded") => return Ok(()),
            last if Instant::now() > deadline => {
                return Err(format!(
                    "task {id} did not finish within {RECOVERY_MAX:?}; at last: {last:?}"
                ));
            }
            _ => sleep(POLL).await,
        }
    }
    Err("there is no API".to_owned())
}

/// The state of a task, where the API says it.
async fn state(client: &reqwest::Client, door: &str, id: Uuid) -> Option<String> {
    let request = client.get(format!("{door}/v1/tasks/{id}")).timeout(READ_MAX);
    let answer = request.send().await.ok()?;
    let task: serde_json::Value = answer.error_for_status().ok()?.json().await.ok()?;
    task["state"].as_str().map(str::to_owned)
}
