//! Signing in with tokens: the role's password is what the identity endpoint hands out.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Executor as _};
use tollgate::config::settings::Settings;
use tollgate::ports::Subscriptions as _;
use tollgate::sql::postgres::Database;
use tollgate::wiring::{Stores, passwords};

use super::{Fresh, place};
use crate::azure::identity_endpoint::{IdentityEndpoint, token_for};
use crate::stores::contract;
use crate::support::listener;

const RESOURCE: &str = "https://ossrdbms-aad.database.windows.net";

fn settings(url: &str, endpoint: &IdentityEndpoint) -> Settings {
    let mut values = BTreeMap::from([("TOLLGATE_DATABASE_URL", url.to_owned())]);
    values.extend(endpoint.settings());
    Settings::read(&values).unwrap()
}

/// A server that trusts whoever comes would take any token: the test's own has a role that must prove itself.
async fn with_role(fresh: &Fresh, password: &str) -> String {
    let role = format!("app_{}", fresh.name);
    let mut connection = fresh.connect().await;
    for statement in [
        format!("CREATE ROLE {role} LOGIN PASSWORD '{password}'"),
        format!("GRANT ALL ON DATABASE {} TO {role}", fresh.name),
        format!("GRANT ALL ON SCHEMA public TO {role}"),
    ] {
        connection.execute(AssertSqlSafe(statement)).await.unwrap();
    }
    role
}

async fn set_password(fresh: &Fresh, role: &str, password: &str) {
    let set = format!("ALTER ROLE {role} PASSWORD '{password}'");
    fresh.connect().await.execute(AssertSqlSafe(set)).await.unwrap();
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_url_without_a_password_signs_in_with_the_identitys_token() {
    let fresh = Fresh::make().await;
    let role = with_role(&fresh, &token_for(RESOURCE, 1)).await;
    let endpoint = IdentityEndpoint::start(None).await;
    let settings = settings(&fresh.url_for(&role), &endpoint);
    let stores = Stores::open(&settings).await.unwrap();
    let id = tollgate::domain::ids::Name::new("nobody").unwrap();
    assert_eq!(stores.subscriptions.find(&id).await.unwrap(), None);
    assert_eq!(endpoint.asked(), [RESOURCE]);
    assert_eq!(endpoint.complaints(), [""; 0]);
    stores.stop.cancel();
}

/// The first token is stale for new connections when the second is there, as after an hour.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn new_connections_are_made_with_the_token_that_is_good_then() {
    let fresh = Fresh::make().await;
    let role = with_role(&fresh, &token_for(RESOURCE, 1)).await;
    let endpoint = IdentityEndpoint::start(None).await;
    let settings = settings(&fresh.url_for(&role), &endpoint);
    let place = place(&fresh.url_for(&role));
    let place = tollgate::config::settings::PostgresPlace { takes_token: true, ..place };
    let (tasks, stop) = (tokio_util::task::TaskTracker::new(), tokio_util::sync::CancellationToken::new());
    let first = passwords(&settings, &place, &tasks, &stop).unwrap();
    let database = Database::open(&place, first).await.unwrap();
    contract::keeps_the_contract(&database).await;
    // Every connection goes, and the password with them.
    set_password(&fresh, &role, &token_for(RESOURCE, 2)).await;
    let cut = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{role}'");
    fresh.connect().await.execute(AssertSqlSafe(cut)).await.unwrap();
    let id = tollgate::domain::ids::Name::new("kept").unwrap();
    assert!(database.find(&id).await.is_err());
    let second = passwords(&settings, &place, &tasks, &stop).unwrap().unwrap();
    database.sign_in_with(&second.password().await.unwrap());
    assert!(database.find(&id).await.unwrap().is_some());
    stop.cancel();
}

/// Prefers what mends it over what failed.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn the_doctor_says_what_is_wrong_with_a_server_and_what_mends_it() {
    let fresh = Fresh::make().await;
    let role = with_role(&fresh, "right").await;
    let asked = async |url: &str| tollgate::sql::postgres::examine(&place(url), None).await;
    let fine = asked(&fresh.url).await.unwrap();
    assert!(fine.contains("is empty yet"), "{fine}");
    fresh.open().await;
    let fine = asked(&fresh.url).await.unwrap();
    assert!(fine.ends_with("can be used"), "{fine}");
    let wrong = fresh.url_for(&role).replace('@', ":wrong@");
    let nobody = listener().await.local_addr().unwrap();
    for (url, what, mend) in [
        (wrong.clone(), "password authentication failed", "mend the role and the password"),
        (fresh.url.replace(&fresh.name, "not_there"), "does not exist", "CREATE DATABASE \"not_there\""),
        (format!("postgres://u:p@{nobody}/d"), "refused", "see that `127.0.0.1` runs"),
        (format!("{}?sslmode=require", fresh.url), "TLS", "certificate"),
        (wrong.replace("wrong", "right"), "another role's", "REASSIGN OWNED"),
    ] {
        let (said, mends) = asked(&url).await.unwrap_err();
        assert!(said.contains(what) && mends.contains(mend), "{said}; {mends}");
        assert!(!said.contains("wrong") && !mends.contains("right@"), "{said}; {mends}");
    }
}
