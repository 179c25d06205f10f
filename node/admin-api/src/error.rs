//! What a backend may answer instead of a result.

use std::time::Duration;

/// Why the cluster did not do it. One variant per thing a caller does differently.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The thing named does not exist.
    #[error("{what} does not exist")]
    NotFound {
        /// `tenant "acme"`
        what: String,
    },
    /// It exists already, or its state forbids the change.
    #[error("{what}")]
    Conflict {
        /// The sentence for the operator.
        what: String,
    },
    /// The request makes no sense whatever the state of the cluster.
    #[error("{what}")]
    Invalid {
        /// The sentence for the operator.
        what: String,
    },
    /// Not now: no quorum, no leader, starting, or overloaded. The same request may work later.
    #[error("{what}")]
    Unavailable {
        /// The sentence for the operator.
        what: String,
        /// When to ask again.
        retry_after: Duration,
    },
    /// A fault of the node. The cause goes to the log, not to the client.
    #[error("{doing} failed")]
    Internal {
        /// `reading the membership`
        doing: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
