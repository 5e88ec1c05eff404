//! The real PostgreSQL, for tests that need one: its address is in `TOLLGATE_TEST_POSTGRES`, such as
//! `postgres://postgres@127.0.0.1:5432/postgres`, and its role may do anything. Each test has a database of its own.

mod instances;
mod ledger;
mod outage;
mod sign_in;
mod store;

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Executor as _};
use tollgate::config::settings::{DatabasePlace, PostgresPlace, Settings};
use tollgate::sql::postgres::Database;

#[expect(clippy::disallowed_methods, reason = "where the server is that a test was given")]
fn server() -> String {
    std::env::var("TOLLGATE_TEST_POSTGRES")
        .expect("TOLLGATE_TEST_POSTGRES: the address of a PostgreSQL server")
}

/// What a setting makes of a URL.
pub(crate) fn place(url: &str) -> PostgresPlace {
    let settings = Settings::read(&BTreeMap::from([("TOLLGATE_DATABASE_URL", url.to_owned())])).unwrap();
    match settings.database {
        DatabasePlace::Postgres(place) => place,
        DatabasePlace::Sqlite(_) => panic!("TOLLGATE_TEST_POSTGRES is no PostgreSQL"),
    }
}

/// A database with nothing in it. It goes with the server.
pub(crate) struct Fresh {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Fresh {
    pub(crate) async fn make() -> Self {
        let name = format!("test_{}", uuid::Uuid::now_v7().simple());
        let mut connection = connect(&server()).await;
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        let mut url = url::Url::parse(&server()).unwrap();
        url.set_path(&name);
        Self { url: url.into(), name }
    }

    pub(crate) async fn open(&self) -> Database {
        Database::open(&place(&self.url), None).await.unwrap()
    }

    /// A connection of the test's own.
    pub(crate) async fn connect(&self) -> PgConnection {
        connect(&self.url).await
    }

    /// The same database for another role.
    pub(crate) fn url_for(&self, role: &str) -> String {
        let mut url = url::Url::parse(&self.url).unwrap();
        url.set_username(role).unwrap();
        url.set_password(None).unwrap();
        url.into()
    }

    /// Where its server listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        let place = place(&self.url);
        std::net::ToSocketAddrs::to_socket_addrs(&(place.host.as_str(), place.port)).unwrap().next().unwrap()
    }

    /// The same database behind another address.
    pub(crate) fn url_at(&self, address: std::net::SocketAddr) -> String {
        let mut url = url::Url::parse(&self.url).unwrap();
        url.set_ip_host(address.ip()).unwrap();
        url.set_port(Some(address.port())).unwrap();
        url.into()
    }
}

async fn connect(url: &str) -> PgConnection {
    let place = place(url);
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&place.host)
        .port(place.port)
        .username(&place.user)
        .database(&place.database);
    if let Some(password) = &place.password {
        options = options.password(password.expose_secret());
    }
    options.connect().await.unwrap()
}
