//! Subscriptions, their audit and the ledger in a SQL database.
//!
//! Never decides anything: what a change makes of a row stands in `domain`.

use crate::ports::Unavailable;

mod spans;
pub mod sqlite;

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot make the folder {0}: {1}")]
    Folder(String, #[source] std::io::Error),
    #[error("cannot make the database {0}: {1}")]
    Make(String, #[source] std::io::Error),
    #[error("cannot open the database {0}: {1}")]
    Open(String, #[source] sqlx::Error),
    #[error("cannot bring the database {0} up to date: {1}")]
    Migrate(String, #[source] sqlx::migrate::MigrateError),
}

fn unavailable(error: sqlx::Error) -> Unavailable {
    Unavailable { what: "the database", source: error.into() }
}
