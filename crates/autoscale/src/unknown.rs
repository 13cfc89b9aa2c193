use forebay_core::Timestamp;
use thiserror::Error;

/// Why the figures of a queue are not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unknown {
    /// What runs and what is scheduled is not known.
    #[error("the store is not available, since {since}")]
    Store {
        /// When it was first found to be away.
        since: Timestamp,
    },
    /// What is ready is not known.
    #[error("the broker is not available, since {since}")]
    Broker {
        /// When it was first found to be away.
        since: Timestamp,
    },
    /// Nothing is known.
    #[error("neither the store nor the broker is available, since {since}")]
    Both {
        /// When the first of them was found to be away.
        since: Timestamp,
    },
}

impl Unknown {
    /// What is missing where a dependency is away since the time that is given for it.
    pub(crate) fn of(store: Option<Timestamp>, broker: Option<Timestamp>) -> Option<Self> {
        match (store, broker) {
            (None, None) => None,
            (Some(since), None) => Some(Self::Store { since }),
            (None, Some(since)) => Some(Self::Broker { since }),
            (Some(store), Some(broker)) => Some(Self::Both {
                since: store.min(broker),
            }),
        }
    }

    /// Since when.
    #[must_use]
    pub fn since(self) -> Timestamp {
        match self {
            Self::Store { since } | Self::Broker { since } | Self::Both { since } => since,
        }
    }
}
