//! The `FOREBAY_*` variables of the environment, and those among them that nobody knows.

use std::{collections::BTreeMap, ffi::OsString};

use super::{FILE_TWIN, PREFIX, WITH_FILE_TWIN, did_you_mean};

/// Set by Forebay for the programs that it runs, which may call `forebay` themselves. The first is only there in
/// such a program; without it the others are mistakes.
const GIVEN_TO_HANDLERS: [&str; 5] = [
    "FOREBAY_TASK_ID",
    "FOREBAY_ATTEMPT",
    "FOREBAY_FENCE",
    "FOREBAY_KIND",
    "FOREBAY_QUEUE",
];

/// Where scripts look for the binary.
const OF_SCRIPTS: &str = "FOREBAY_BIN";

/// Where the packages for other languages look for the server.
const OF_PACKAGES: &str = "FOREBAY_GRPC_URL";

/// Variables of the tests.
const TEST_PREFIX: &str = "FOREBAY_TEST_";

/// The variables that concern Forebay, by name.
#[derive(Debug, Default)]
pub(super) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// Picks them from the environment. Adds to `problems` what is not known there, or is not text. An empty
    /// variable counts as not set.
    pub(super) fn pick(
        env: impl IntoIterator<Item = (OsString, OsString)>,
        known: &[String],
        problems: &mut Vec<String>,
    ) -> Self {
        let mut picked = BTreeMap::new();
        let env: Vec<(OsString, OsString)> = env.into_iter().collect();
        let within_handler = env.iter().any(|(name, _)| name == GIVEN_TO_HANDLERS[0]);
        for (name, value) in env {
            let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if value.is_empty() {
                continue;
            }
            let value = value.to_string_lossy();
            if is_known(name, known) {
                if value.contains('\u{fffd}') {
                    problems.push(format!("{name} in the environment is not UTF-8 text"));
                } else {
                    picked.insert(name.to_owned(), value.into_owned());
                }
            } else if !(is_foreign(name, &value) || within_handler && GIVEN_TO_HANDLERS.contains(&name)) {
                let known = known.iter().map(String::as_str);
                problems.push(format!(
                    "{name} in the environment is no setting{}",
                    did_you_mean(name, known)
                ));
            }
        }
        Self(picked)
    }

    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

fn is_known(name: &str, known: &[String]) -> bool {
    let twin_of = |key: &str| format!("{PREFIX}{}{FILE_TWIN}", key.to_uppercase());
    known.iter().any(|known| known == name) || WITH_FILE_TWIN.iter().any(|key| twin_of(key) == name)
}

/// Not ours, although it begins like it: what Kubernetes puts into each pod beside a Service whose name begins
/// with `forebay`, and what tests and scripts use.
fn is_foreign(name: &str, value: &str) -> bool {
    let of_a_service = name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.contains("_PORT_") && (name.contains("_TCP") || name.contains("_UDP")))
        || (name.ends_with("_PORT") && (value.starts_with("tcp://") || value.starts_with("udp://")));
    of_a_service || name.starts_with(TEST_PREFIX) || [OF_SCRIPTS, OF_PACKAGES].contains(&name)
}
