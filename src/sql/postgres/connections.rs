//! Connections to the server: few for each instance, each wait on one bounded.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, Executor as _};

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

/// Connections that are made when they are needed.
pub(super) fn pool(options: PgConnectOptions, at_most: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(at_most)
        .acquire_timeout(ACQUIRE)
        .idle_timeout(IDLE)
        .max_lifetime(LIFE)
        .test_before_acquire(false)
        .before_acquire(|connection, seen| {
            Box::pin(async move {
                if seen.idle_for > TRIED_AFTER {
                    connection.ping().await?;
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
