//! Connections to the server: few for each instance, each wait on one bounded.
//!
//! Never waits for a server that says nothing: what is under way on a connection ends in time, and so does what is
//! done to give it back. The bounds that the server keeps are of no use when it, or the way to it, is gone.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, Executor as _, Postgres};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::again::is_cut;
use crate::config::settings::{PostgresPlace, Tls};

/// An app has many instances, and a small server takes few dozen connections. One more listens.
pub(super) const AT_MOST: u32 = 4;
/// With all that a new connection takes: a request waits for it.
const ACQUIRE: Duration = Duration::from_secs(2);
/// Behind a rush they are given back.
const IDLE: Duration = Duration::from_mins(5);
/// A role that was taken away, or a server that was failed over, is noticed by then at last.
const LIFE: Duration = Duration::from_mins(30);
/// One that lay still for longer is tried before it is used: firewalls drop what is silent.
const TRIED_AFTER: Duration = Duration::from_secs(10);
/// For a sign of life, which takes the server no work.
const ALIVE: Duration = Duration::from_millis(500);

/// For what a caller's request waits for: one row, found by its key.
pub(super) const PROMPT: Duration = Duration::from_secs(3);
/// For the rest: the server ends a statement before that by itself, and says so.
pub(super) const USUAL: Duration = Duration::from_secs(12);

/// Statements end, and locks are waited for, in bounded time: an instance that hangs must not hang others. A
/// machine that is gone is noticed within a minute, and its locks with it.
const BOUNDS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '3s'; \
    SET idle_in_transaction_session_timeout = '10s'; \
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3";

/// How to connect, with this password or with none.
pub(super) fn options(place: &PostgresPlace, password: Option<&SecretString>) -> PgConnectOptions {
    let mode = match place.tls {
        Tls::Disable => PgSslMode::Disable,
        Tls::Prefer => PgSslMode::Prefer,
        Tls::Require => PgSslMode::Require,
        Tls::VerifyCa => PgSslMode::VerifyCa,
        Tls::VerifyFull => PgSslMode::VerifyFull,
    };
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&place.host)
        .port(place.port)
        .username(&place.user)
        .database(&place.database)
        .application_name("tollgate")
        .ssl_mode(mode);
    if let Some(file) = &place.root_certificate {
        options = options.ssl_root_cert(file);
    }
    match password {
        Some(password) => options.password(password.expose_secret()),
        None => options,
    }
}

/// Connections that are made when they are needed, and go when the server says nothing on them.
#[derive(Clone, Debug)]
pub(super) struct Connections {
    pool: PgPool,
    silence: Silence,
    /// Those that are on their way back.
    returning: TaskTracker,
}

/// When a connection was last found silent: what lay still then may be as dead, and is tried before it is used.
#[derive(Clone, Debug)]
struct Silence(Arc<Mutex<Instant>>);

impl Silence {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn is_within(&self, last: Duration) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed() <= last
    }
}

impl Connections {
    pub(super) fn with(options: PgConnectOptions) -> Self {
        let silence = Silence(Arc::new(Mutex::new(Instant::now())));
        Self { pool: pool(options, AT_MOST, silence.clone()), silence, returning: TaskTracker::new() }
    }

    /// From now on they are made so; those that are there stay.
    pub(super) fn make_with(&self, options: PgConnectOptions) {
        self.pool.set_connect_options(options);
    }

    /// One more, of a pool of its own: a listener waits for the server when it goes, and nobody waits for that.
    pub(super) fn apart(&self) -> PgPool {
        pool(self.pool.connect_options().as_ref().clone(), 1, self.silence.clone())
    }

    /// Does this on one of them, once.
    ///
    /// # Errors
    /// When none is to be had, when `work` fails, and when it takes longer than `limit`.
    pub(super) async fn once<T, W>(
        &self,
        limit: Duration,
        work: impl FnOnce(Lease) -> W,
    ) -> Result<T, sqlx::Error>
    where
        W: Future<Output = Result<T, sqlx::Error>>,
    {
        let (lease, slot) = self.lease().await?;
        let worked = tokio::time::timeout(limit, work(lease)).await;
        let outcome = worked.unwrap_or_else(|_| Err(silent(limit)));
        self.take_back(&slot, &outcome);
        outcome
    }

    /// What does no harm when it is done again: the connection that it met may have been cut since it was used
    /// last, as the others that lie in the pool.
    ///
    /// # Errors
    /// As [`Connections::once`].
    pub(super) async fn again<T, W>(
        &self,
        limit: Duration,
        work: impl Fn(Lease) -> W,
    ) -> Result<T, sqlx::Error>
    where
        W: Future<Output = Result<T, sqlx::Error>>,
    {
        for _ in 0..AT_MOST {
            match self.once(limit, &work).await {
                Err(error) if is_cut(&error) => {}
                outcome => return outcome,
            }
        }
        self.once(limit, work).await
    }

    /// What is done whole or not at all: undone when `work` fails.
    ///
    /// # Errors
    /// As [`Connections::once`].
    pub(super) async fn transaction<T, W>(
        &self,
        limit: Duration,
        work: impl FnOnce(Lease) -> W,
    ) -> Result<T, sqlx::Error>
    where
        W: Future<Output = Result<T, sqlx::Error>>,
    {
        let (lease, slot) = self.begun().await?;
        let whole = async {
            let value = work(lease).await?;
            let mut lease = slot.leased().ok_or(sqlx::Error::WorkerCrashed)?;
            lease.execute("COMMIT").await?;
            Ok(value)
        };
        let outcome = tokio::time::timeout(limit, whole).await.unwrap_or_else(|_| Err(silent(limit)));
        if outcome.is_ok() {
            self.take_back(&slot, &outcome);
        } else if is_usable_after(&outcome)
            && let Some(mut lease) = slot.leased()
        {
            let undone = tokio::time::timeout(PROMPT, lease.execute("ROLLBACK")).await;
            drop(lease);
            self.take_back(&slot, &undone.unwrap_or_else(|_| Err(silent(PROMPT))));
        }
        outcome
    }

    /// One with a transaction that has begun. Nothing was done in it, so that it may be tried again.
    async fn begun(&self) -> Result<(Lease, Arc<Slot>), sqlx::Error> {
        let mut left = AT_MOST;
        loop {
            let (mut lease, slot) = self.lease().await?;
            let begun = tokio::time::timeout(PROMPT, lease.execute("BEGIN")).await;
            match begun.unwrap_or_else(|_| Err(silent(PROMPT))) {
                Ok(_) => return Ok((lease, slot)),
                Err(error) if is_cut(&error) && left > 0 => left -= 1,
                Err(error) => return Err(error),
            }
        }
    }

    async fn lease(&self) -> Result<(Lease, Arc<Slot>), sqlx::Error> {
        let connection = self.pool.acquire().await?;
        let slot = Arc::new(Slot { connection: Mutex::default(), silence: self.silence.clone() });
        Ok((Lease { connection: Some(connection), slot: slot.clone() }, slot))
    }

    /// Gives it back to the pool, if it can still be used.
    fn take_back<T>(&self, slot: &Slot, outcome: &Result<T, sqlx::Error>) {
        if is_usable_after(outcome)
            && let Some(mut connection) = slot.take()
        {
            // The pool asks the server whether all is well, for however long.
            self.returning.spawn(tokio::time::timeout(ALIVE, connection.return_to_pool()));
        }
    }
}

/// A connection that is in use.
#[derive(Debug)]
pub(super) struct Lease {
    /// Until it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    slot: Arc<Slot>,
}

impl Deref for Lease {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        self.connection.as_ref().expect("it is there until the lease is dropped")
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is there until the lease is dropped")
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        *self.slot.lock() = self.connection.take();
    }
}

/// Where a connection lies when its lease has ended. If nobody takes it from there, because the work was dropped,
/// took too long or broke it, its socket is closed at once, without a word to the server: the pool would ask
/// the server first.
#[derive(Debug)]
struct Slot {
    connection: Mutex<Option<PoolConnection<Postgres>>>,
    silence: Silence,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<PoolConnection<Postgres>>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Option<PoolConnection<Postgres>> {
        self.lock().take()
    }

    /// The same again.
    fn leased(self: &Arc<Self>) -> Option<Lease> {
        Some(Lease { connection: Some(self.take()?), slot: self.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(connection) = self.take() {
            self.silence.note();
            drop(connection.detach());
        }
    }
}

pub(super) fn silent(limit: Duration) -> sqlx::Error {
    let text = format!("the server has not answered within {} s", limit.as_secs());
    sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, text))
}

/// An error that the server tells leaves the connection as it was, unless it ends the session.
fn is_usable_after<T>(outcome: &Result<T, sqlx::Error>) -> bool {
    match outcome {
        Ok(_) => true,
        Err(sqlx::Error::Database(error)) => {
            !error.code().is_some_and(|code| code.starts_with("57P") || code == "25P03")
        }
        Err(_) => false,
    }
}

fn pool(options: PgConnectOptions, at_most: u32, silence: Silence) -> PgPool {
    PgPoolOptions::new()
        .max_connections(at_most)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(IDLE)
        .max_lifetime(LIFE)
        .test_before_acquire(false)
        .before_acquire(move |connection, seen| {
            let is_doubted = seen.idle_for > TRIED_AFTER || silence.is_within(seen.idle_for);
            Box::pin(async move {
                if is_doubted {
                    tokio::time::timeout(ALIVE, connection.ping()).await.map_err(|_| silent(ALIVE))??;
                }
                Ok(true)
            })
        })
        .after_connect(|connection, _| Box::pin(async move { bound(connection).await }))
        .connect_lazy_with(options)
}

async fn bound(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(BOUNDS).await.map(drop)
}
