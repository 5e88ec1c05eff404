//! Instances that share one database: what is done on one holds on all.

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::json;
use sqlx::Executor as _;
use tokio::time::Instant;

use super::Fresh;
use crate::support::{ADMIN_KEY, CHAT, TestGateway, ask, configuration, resource};

/// The promise: on every instance.
const HOLDS_WITHIN: Duration = Duration::from_secs(5);
const ROUNDS: usize = 100;
/// More would wait for a connection to the database, which is not what is measured.
const AT_ONCE: usize = 20;

async fn instance(fresh: &Fresh, resource: std::net::SocketAddr) -> TestGateway {
    let settings = [("TOLLGATE_DATABASE_URL", fresh.url.clone())];
    TestGateway::with_settings(resource, &configuration(resource), &settings).await
}

async fn call(gateway: &TestGateway, key: &str) -> u16 {
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}).to_string();
    gateway.send("POST", CHAT, &[("api-key", key)], Some(body)).await.status
}

/// Issues on one, calls on the other, takes it away on the one, and measures how long the other serves it.
async fn round(one: &TestGateway, other: &TestGateway, number: usize) -> Duration {
    let name = json!({"name": format!("round {number}"), "product": "standard"});
    let issued = one.manage("POST", "/subscriptions", Some(&name)).await.json();
    let (id, key) = (issued["id"].as_str().unwrap(), issued["primary_key"].as_str().unwrap());
    for _ in 0..3 {
        assert_eq!(call(other, key).await, 200);
    }
    let path = format!("/subscriptions/{id}");
    let revoked = match number % 3 {
        0 => one.manage("DELETE", &path, None).await,
        1 => one.manage("PATCH", &path, Some(&json!({"state": "suspended"}))).await,
        _ => one.manage("POST", &format!("{path}/keys/primary"), None).await,
    };
    assert!(revoked.status < 300, "{}", revoked.body);
    let began = Instant::now();
    while call(other, key).await != 401 {
        assert!(began.elapsed() < HOLDS_WITHIN, "round {number}: still served");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

fn tell(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    println!("{what}: median {:?}, longest {:?}", times[times.len() / 2], times[times.len() - 1]);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_is_revoked_on_one_is_refused_on_the_other_within_five_seconds_a_hundred_times() {
    let fresh = Fresh::make().await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let (one, other) = (instance(&fresh, address).await, instance(&fresh, address).await);
    let mut times = Vec::new();
    for number in 0..ROUNDS {
        times.push(round(&one, &other, number).await);
    }
    tell("revoked on one instance, refused on the other", times);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn it_is_refused_as_soon_while_whoever_listens_is_cut_off_again_and_again() {
    let fresh = Fresh::make().await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let (one, other) = (instance(&fresh, address).await, instance(&fresh, address).await);
    let mut connection = fresh.connect().await;
    let cutting = async {
        loop {
            // Those that listen have said so last.
            let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND query LIKE 'LISTEN%'";
            connection.execute(cut).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let rounds = (0..ROUNDS).map(async |number: usize| {
        tokio::time::sleep(Duration::from_millis(23)).await;
        round(&one, &other, number).await
    });
    let rounds = futures_util::stream::iter(rounds).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    let times = tokio::select! {
        times = rounds => times,
        () = cutting => unreachable!("it never ends"),
    };
    tell("the same while those who listen are cut off", times);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn it_is_refused_within_five_seconds_when_no_notification_ever_comes() {
    let fresh = Fresh::make().await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let (one, other) = (instance(&fresh, address).await, instance(&fresh, address).await);
    let silent = "CREATE OR REPLACE FUNCTION subscription_changes() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN NEW.changed_by := pg_current_xact_id(); RETURN NEW; END $$";
    fresh.connect().await.execute(silent).await.unwrap();
    // Many at once, so that they meet every moment between two looks.
    let rounds = (0..ROUNDS).map(async |number: usize| {
        tokio::time::sleep(Duration::from_millis(43) * u32::try_from(number % AT_ONCE).unwrap()).await;
        round(&one, &other, number).await
    });
    let times = futures_util::stream::iter(rounds).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
    tell("the same without notifications", times.await);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn what_is_issued_on_one_serves_on_the_other_and_its_audit_is_one() {
    let fresh = Fresh::make().await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let (one, other) = (instance(&fresh, address).await, instance(&fresh, address).await);
    assert_eq!(call(&other, &one.key).await, 200);
    assert_eq!(call(&one, &other.key).await, 200);
    let bearer = format!("Bearer {ADMIN_KEY}");
    let url = format!("http://{}/reports/audit", other.address);
    let audit = ask(&other.client, "GET", &url, &[("authorization", &bearer)], None).await.json();
    assert_eq!(audit["items"].as_array().unwrap().len(), 2, "{audit}");
}
