//! Subscriptions, their audit and the ledger in a SQLite file; migrations.

use std::path::Path;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use super::rates::Rates;
use super::{OpenError, unavailable};
use crate::ports::Unavailable;

mod ledger;
mod subscriptions;

/// Readers never wait for the writer, and there is one writer at a time anyway.
const READERS: u32 = 4;
/// As long as another process that has the file open may write.
const BUSY: Duration = Duration::from_secs(5);
/// One for each size of a batch that is posted in a single statement, and a few more.
const STATEMENTS: usize = 100;
/// At a start, before what fails is said to have failed.
const TRIES: u32 = 10;
const BEFORE_ANOTHER: Duration = Duration::from_millis(20);
const PEPPER: &str = "key_pepper";

/// A SQLite database in write-ahead mode.
///
/// # What is safe when
/// A commit is in the operating system's hands when it returns: killing the process loses nothing.
/// A machine that loses its power may lose the commits of its last moments (`synchronous=NORMAL`).
#[derive(Clone, Debug)]
pub struct Database {
    readers: SqlitePool,
    writer: SqlitePool,
    rates: Rates,
}

impl Database {
    /// Opens the file, makes it if it is not there, and brings it up to date.
    ///
    /// # Errors
    /// [`OpenError`], which names the file.
    pub async fn open(file: &Path) -> Result<Self, OpenError> {
        let shown = || file.display().to_string();
        if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| OpenError::Folder(folder.display().to_string(), error))?;
        }
        make_private(file).map_err(|error| OpenError::Make(shown(), error))?;
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(BUSY)
            .statement_cache_capacity(STATEMENTS);
        let pool = |size| SqlitePoolOptions::new().max_connections(size).test_before_acquire(false);
        let open = |error| OpenError::Open(shown(), error);
        let writer = again(async || pool(1).connect_with(options.clone()).await).await.map_err(open)?;
        let migrations = sqlx::migrate!("src/sql/sqlite/migrations");
        let migrated = again(async || migrations.run(&writer).await).await;
        migrated.map_err(|error| OpenError::Migrate(shown(), error))?;
        let readers = pool(READERS).connect_lazy_with(options.read_only(true));
        Ok(Self { readers, writer, rates: Rates::default() })
    }

    /// The secret under which keys are hashed: made when it is first asked for, and kept.
    ///
    /// # Errors
    /// When the database, or the system's generator, has none to give.
    pub async fn pepper(&self) -> Result<Vec<u8>, Unavailable> {
        let fresh = super::fresh_pepper()?;
        // Two processes that start at once both insert, and both read the one that was first.
        sqlx::query("INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(PEPPER)
            .bind(fresh.as_slice())
            .execute(&self.writer)
            .await
            .map_err(unavailable)?;
        sqlx::query_scalar("SELECT value FROM settings WHERE name = ?")
            .bind(PEPPER)
            .fetch_one(&self.writer)
            .await
            .map_err(unavailable)
    }
}

/// Whether the file is there and a database, without making or changing it.
///
/// # Errors
/// When it is there and cannot be read.
pub async fn is_there(file: &Path) -> Result<bool, OpenError> {
    let shown = || file.display().to_string();
    if !file.try_exists().map_err(|error| OpenError::Make(shown(), error))? {
        return Ok(false);
    }
    let options = SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(BUSY);
    let look = async {
        let mut connection = SqliteConnection::connect_with(&options).await?;
        sqlx::query("SELECT count(*) FROM sqlite_schema").execute(&mut connection).await?;
        connection.close().await
    };
    look.await.map_err(|error| OpenError::Open(shown(), error)).map(|()| true)
}

/// Tries what may have met another process's start on a new file: of two that find nothing there the
/// second fails on what the first has just made, and SQLite does not wait where the journal's mode
/// changes. Whoever looks again finds it done.
async fn again<T, E>(mut attempt: impl AsyncFnMut() -> Result<T, E>) -> Result<T, E> {
    for _ in 0..TRIES {
        if let Ok(done) = attempt().await {
            return Ok(done);
        }
        tokio::time::sleep(BEFORE_ANOTHER).await;
    }
    attempt().await
}

/// Makes the file for its owner alone, if it is not there: the secret under which keys are hashed lies
/// in it. SQLite gives the files beside it the same mode.
fn make_private(file: &Path) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map(drop)
}
