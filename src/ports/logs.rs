//! Where the ledger's rows go for those who report elsewhere.

use std::time::Duration;

use async_trait::async_trait;

use crate::domain::ids::RequestId;

/// A row, written as a JSON object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRow {
    /// What makes it one row however often it is sent.
    pub id: RequestId,
    pub json: String,
}

/// Takes rows, and keeps twice what comes twice: whoever reads them counts each id once.
#[async_trait]
pub trait LogSink: Send + Sync {
    /// How much one sending takes: each row's JSON, and one byte more for each.
    fn max_bytes(&self) -> usize;
    /// Sends rows: all of them or none.
    async fn send(&self, rows: &[LogRow]) -> Result<(), LogFailure>;
}

/// Why rows were not taken, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum LogFailure {
    /// No row will be taken as things are set up; the text tells the operator what to mend.
    #[error("{0}")]
    Refused(String),
    /// These rows are not taken, and others may be.
    #[error("{0}")]
    BadRows(String),
    /// They must be sent in smaller pieces.
    #[error("it is more than is taken at once")]
    TooLarge,
    /// They may be taken later.
    #[error("{what} cannot be reached")]
    Unavailable {
        /// Such as `Log Analytics`.
        what: &'static str,
        /// For how long it asks to be left alone.
        retry_after: Option<Duration>,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
