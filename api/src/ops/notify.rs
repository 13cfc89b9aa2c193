//! Looks whether the webhooks exist that a submission names, as far as that is known.

use std::collections::{BTreeSet, HashMap};

use forebay_core::{Violation, WebhookName};
use tokio::time::timeout;

use crate::{App, ops::submit::Asked};

/// How many names are looked up for one request. What is past that is accepted.
const LOOKED_UP_MAX: usize = 50;

/// Notes which of the webhooks that these name do not exist. All is let through while the store does not answer:
/// acceptance depends on the broker alone.
pub(crate) async fn check(app: &App, asked: &mut [&mut Asked]) {
    let named = asked.iter().flat_map(|asked| &asked.request.terms.notify);
    // What is no name is found by the check of the rest.
    let names: BTreeSet<WebhookName> = named.filter_map(|name| name.parse().ok()).collect();
    let look = known(app, names);
    let Some(known) = timeout(app.bounds.lookup, look).await.ok().flatten() else {
        return;
    };
    for asked in asked {
        let named = asked.request.terms.notify.iter().enumerate();
        let unknown = named.filter(|(_, name)| known.get(name.as_str()) == Some(&false));
        let violations = unknown.map(|(index, name)| {
            Violation::invalid(format!("/notify/{index}"), format!("there is no webhook {name}"))
        });
        asked.violations.extend(violations.collect::<Vec<_>>());
    }
}

/// Which of these exist; `None` where the store did not say.
async fn known(app: &App, names: BTreeSet<WebhookName>) -> Option<HashMap<String, bool>> {
    let _place = app.places.lookups.acquire().await.ok()?;
    let mut known = HashMap::with_capacity(names.len());
    for name in names.into_iter().take(LOOKED_UP_MAX) {
        let found = app.store.webhook(&name).await.ok()?;
        known.insert(name.to_string(), found.is_some());
    }
    Some(known)
}
