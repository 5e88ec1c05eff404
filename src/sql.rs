//! Subscriptions, their audit and the ledger in a SQL database: a SQLite file, or PostgreSQL.
//!
//! Never decides anything: what a change makes of a row stands in `domain`.

use crate::ports::Unavailable;

pub mod postgres;
mod rates;
mod rows;
mod spans;
pub mod sqlite;
mod statements;

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
    /// A server, which may answer later.
    #[error("cannot use the database {0}: {1}")]
    Server(String, #[source] postgres::Trouble),
}

/// Thirty-two bytes of the system's generator, to hash keys under.
fn fresh_pepper() -> Result<[u8; 32], Unavailable> {
    let mut fresh = [0_u8; 32];
    getrandom::fill(&mut fresh)
        .map_err(|error| Unavailable { what: "the system's random generator", source: error.into() })?;
    Ok(fresh)
}

fn unavailable(error: sqlx::Error) -> Unavailable {
    Unavailable { what: "the database", source: error.into() }
}
