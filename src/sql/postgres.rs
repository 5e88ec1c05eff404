//! Subscriptions, their audit and the ledger in PostgreSQL: what many instances share.
//!
//! # When the server cannot be reached
//! Each call fails in bounded time, also where nothing is heard of it at all (`connections.rs` has the bounds), nothing
//! is half written, and the next call tries again.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio_util::sync::CancellationToken;

use super::rates::Rates;
use super::{OpenError, unavailable};
use crate::config::settings::PostgresPlace;
use crate::ports::{DatabasePasswords, Unavailable, with_causes};

mod again;
mod changes;
mod connections;
mod examining;
mod ledger;
mod subscriptions;

use connections::{Connections, Lease, USUAL};

pub use changes::Listener;
pub use examining::examine;

/// For the first connection, with all that it takes.
const CONNECT: Duration = Duration::from_secs(10);
/// Another instance may be at it, and an index over a large ledger takes its time.
const MIGRATE: Duration = Duration::from_mins(10);
/// A token is good for five minutes at least when its successor is there.
const LOOK_FOR_PASSWORD: Duration = Duration::from_secs(30);
const PEPPER: &str = "key_pepper";

/// Why the server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    Sql(#[from] sqlx::Error),
    #[error("it cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    #[error("there is no token to sign in with: {}", with_causes(.0))]
    Password(#[from] Unavailable),
    #[error("no answer within {} s", .0.as_secs())]
    Silent(Duration),
}

/// A PostgreSQL database.
#[derive(Clone)]
pub struct Database {
    connections: Connections,
    place: Arc<PostgresPlace>,
    passwords: Option<Arc<dyn DatabasePasswords>>,
    rates: Rates,
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({})", self.place)
    }
}

impl Database {
    /// Connects, and brings the database up to date: of many that start at once one does, and the others
    /// wait for it.
    ///
    /// # Errors
    /// [`OpenError`], which names the server and never the password.
    pub async fn open(
        place: &PostgresPlace,
        passwords: Option<Arc<dyn DatabasePasswords>>,
    ) -> Result<Self, OpenError> {
        let failed = |trouble| OpenError::Server(place.to_string(), trouble);
        let options = signed_in(place, passwords.as_deref()).await.map_err(failed)?;
        migrate(&options).await.map_err(failed)?;
        Ok(Self {
            connections: Connections::with(options),
            place: Arc::new(place.clone()),
            passwords,
            rates: Rates::default(),
        })
    }

    /// New connections are made with the password that is good then, until `stop`.
    pub async fn keep_signed_in(self, stop: CancellationToken) {
        let Some(passwords) = &self.passwords else { return };
        let mut used: Option<SecretString> = None;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_FOR_PASSWORD)).await.is_some() {
            // What fails here is told, and tried again, by who gets the tokens.
            let Ok(password) = passwords.password().await else { continue };
            if used.as_ref().is_some_and(|used| used.expose_secret() == password.expose_secret()) {
                continue;
            }
            self.sign_in_with(&password);
            used = Some(password);
        }
    }

    /// Connections that are made from now on have this password; those that are there stay.
    pub fn sign_in_with(&self, password: &SecretString) {
        self.connections.make_with(connections::options(&self.place, Some(password)));
    }

    /// The secret under which keys are hashed: made when it is first asked for, and kept.
    ///
    /// # Errors
    /// When the database, or the system's generator, has none to give.
    pub async fn pepper(&self) -> Result<Vec<u8>, Unavailable> {
        let fresh = super::fresh_pepper()?;
        let kept = |mut connection: Lease| async move {
            // Two instances that start at once both insert, and both read the one that was first.
            sqlx::query("INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(PEPPER)
                .bind(fresh.as_slice())
                .execute(&mut *connection)
                .await?;
            let select = sqlx::query_scalar("SELECT value FROM settings WHERE name = $1").bind(PEPPER);
            select.fetch_one(&mut *connection).await
        };
        self.connections.again(USUAL, kept).await.map_err(unavailable)
    }
}

async fn signed_in(
    place: &PostgresPlace,
    passwords: Option<&dyn DatabasePasswords>,
) -> Result<PgConnectOptions, Trouble> {
    let token = match passwords {
        Some(passwords) => Some(passwords.password().await?),
        None => None,
    };
    Ok(connections::options(place, token.as_ref().or(place.password.as_ref())))
}

/// On a connection of its own, which waits as long as that takes.
async fn migrate(options: &PgConnectOptions) -> Result<(), Trouble> {
    let connected = tokio::time::timeout(CONNECT, options.connect()).await;
    let mut connection = connected.map_err(|_| Trouble::Silent(CONNECT))??;
    let mut migrations = sqlx::migrate!("src/sql/postgres/migrations");
    // Migrations add and never take away: an instance of the version before goes on while others are newer.
    migrations.set_ignore_missing(true);
    let migrated = tokio::time::timeout(MIGRATE, migrations.run(&mut connection)).await;
    migrated.map_err(|_| Trouble::Silent(MIGRATE))??;
    sqlx::Connection::close(connection).await?;
    Ok(())
}
