//! Hearing signals.

use forebay_broker::{BrokerError, Result, Source, wire};
use forebay_core::Signal;
use futures::{StreamExt, stream, stream::BoxStream};

use crate::{LOOK_TIMEOUT, connection::Link, failure::Failure, listen::Listener, topology::Topology};

/// Listens. The stream ends with the connection; one who listens anew then knows that something was missed.
pub(crate) async fn hear(link: &Link, topology: &Topology) -> Result<BoxStream<'static, Signal>> {
    let fail = |error: Failure| BrokerError::new("listen for signals", error);
    let live = link.live().map_err(fail)?;
    topology
        .ensure(&live, &Source::Submissions, LOOK_TIMEOUT)
        .await
        .map_err(fail)?;
    let listener = Listener::open(&live, &topology.plan().signals()).await;
    let listener = listener.map_err(fail)?;
    let signals = stream::unfold(listener, |mut listener| async move {
        loop {
            match wire::decode_signal(listener.next().await?.data.into()) {
                Ok(signal) => return Some((signal, listener)),
                Err(error) => tracing::warn!(%error, "a signal could not be read"),
            }
        }
    });
    Ok(signals.boxed())
}
