//! Where subscriptions and the ledger are kept, opened.

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::WiringError;
use crate::azure::entra::{self, Tokens};
use crate::azure::postgres::EntraPasswords;
use crate::azure::transport;
use crate::config::settings::{DatabasePlace, PostgresPlace, Settings};
use crate::domain::key::Hasher;
use crate::memory::SystemClock;
use crate::ports::{
    Changes, Clock as _, DatabasePasswords, DeadLetters, LedgerStore, Outbox, Ratings, Subscriptions,
};
use crate::sql::{postgres, sqlite};

/// The database, behind its ports.
pub struct Stores {
    pub subscriptions: Arc<dyn Subscriptions>,
    pub ledger: LedgerStores,
    /// `None`: whoever else changes something is not told of here, and what was read is soon read again.
    pub changes: Option<Box<dyn Changes>>,
    /// Hashes keys as those in it were.
    pub hasher: Hasher,
    /// What goes on behind it, until `stop`.
    pub tasks: TaskTracker,
    pub stop: CancellationToken,
}

/// The ports of the ledger.
pub struct LedgerStores {
    pub store: Arc<dyn LedgerStore>,
    pub letters: Arc<dyn DeadLetters>,
    pub ratings: Arc<dyn Ratings>,
    pub outbox: Arc<dyn Outbox>,
}

impl LedgerStores {
    fn of(database: Arc<impl LedgerStore + DeadLetters + Ratings + Outbox + 'static>) -> Self {
        Self {
            store: database.clone(),
            letters: database.clone(),
            ratings: database.clone(),
            outbox: database,
        }
    }
}

impl Stores {
    /// Opens what the settings name, and brings it up to date.
    ///
    /// # Errors
    /// When it cannot be opened, or has no secret to hash keys under. [`WiringError::may_pass`] says whether
    /// another try makes sense.
    pub async fn open(settings: &Settings) -> Result<Self, WiringError> {
        match &settings.database {
            DatabasePlace::Sqlite(file) => {
                let database = sqlite::Database::open(file).await?;
                let hasher = match hasher(settings) {
                    Some(hasher) => hasher,
                    None => Hasher::new(&database.pepper().await?),
                };
                let database = Arc::new(database);
                Ok(Self {
                    subscriptions: database.clone(),
                    ledger: LedgerStores::of(database),
                    changes: None,
                    hasher,
                    tasks: TaskTracker::new(),
                    stop: CancellationToken::new(),
                })
            }
            DatabasePlace::Postgres(place) => {
                let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
                // What it has begun ends with an attempt that fails.
                let guard = stop.clone().drop_guard();
                let stores = Self::open_postgres(settings, place, tasks, stop).await?;
                guard.disarm();
                Ok(stores)
            }
        }
    }

    async fn open_postgres(
        settings: &Settings,
        place: &PostgresPlace,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, WiringError> {
        let passwords = passwords(settings, place, &tasks, &stop)?;
        let database = postgres::Database::open(place, passwords).await?;
        let hasher = match hasher(settings) {
            Some(hasher) => hasher,
            None => Hasher::new(&database.pepper().await?),
        };
        database.prepare(SystemClock::start().now()).await?;
        let changes = database.changes().await?;
        tasks.spawn(database.clone().keep_signed_in(stop.clone()));
        tasks.spawn(database.listen_for(&changes, stop.clone()));
        let database = Arc::new(database);
        Ok(Self {
            subscriptions: database.clone(),
            ledger: LedgerStores::of(database),
            changes: Some(Box::new(changes)),
            hasher,
            tasks,
            stop,
        })
    }
}

fn hasher(settings: &Settings) -> Option<Hasher> {
    settings.key_pepper.as_ref().map(|pepper| Hasher::new(pepper.expose_secret().as_bytes()))
}

/// What the database is signed in to with, where that is a token: the app's own identity gets it.
///
/// # Errors
/// When no HTTPS client can be made.
pub fn passwords(
    settings: &Settings,
    place: &PostgresPlace,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<Option<Arc<dyn DatabasePasswords>>, WiringError> {
    if !place.takes_token {
        return Ok(None);
    }
    let source = entra::source(settings, transport::client()?);
    let tokens = Tokens::new(source, Arc::new(SystemClock::start()), tasks.clone(), stop.clone());
    Ok(Some(Arc::new(EntraPasswords::new(tokens, settings.cloud))))
}
