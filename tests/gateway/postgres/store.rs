//! What PostgreSQL keeps, and how.

use std::sync::Arc;

use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Executor as _, Row as _};
use tollgate::domain::audit::Action;
use tollgate::domain::subscription::{Change, Patch};
use tollgate::domain::units::UnixMillis;
use tollgate::ports::{Changed, Changes as _, Created, New, Once, Seen, Subscriptions as _};
use tollgate::sql::postgres::Database;

use super::{Fresh, place};
use crate::stores::contract;

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn postgres_keeps_the_contract() {
    let fresh = Fresh::make().await;
    contract::keeps_the_contract(&fresh.open().await).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn the_ledger_in_postgres_keeps_the_contract() {
    let fresh = Fresh::make().await;
    crate::stores::ledger::keeps_the_contract(&fresh.open().await).await;
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn postgres_never_changes_nor_deletes_an_entry_of_the_audit() {
    let fresh = Fresh::make().await;
    contract::keeps_the_contract(&fresh.open().await).await;
    let mut connection = fresh.connect().await;
    for statement in ["UPDATE audit SET action = 'x'", "DELETE FROM audit", "TRUNCATE audit"] {
        let refused = connection.execute(statement).await.unwrap_err().to_string();
        assert!(refused.contains("append-only"), "{refused}");
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn twenty_instances_that_start_at_once_share_one_new_database() {
    let fresh = Fresh::make().await;
    let place = place(&fresh.url);
    let opened = join_all((0..20).map(|_| Database::open(&place, None))).await;
    let databases: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
    let peppers = join_all(databases.iter().map(Database::pepper)).await;
    let first = peppers[0].as_ref().unwrap();
    assert!(peppers.iter().all(|pepper| pepper.as_ref().unwrap() == first));
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn of_two_instances_that_are_asked_the_same_at_once_one_creates() {
    let fresh = Fresh::make().await;
    let stores = [fresh.open().await, fresh.open().await];
    for round in 0..20_u8 {
        let once = Once { key: [round; 32], request: [2; 32], forget_before: UnixMillis(0) };
        let made = join_all((0..6).map(async |number| {
            let subscription = contract::subscription(&format!("once-{round}-{number}"));
            let keys = contract::keys(subscription.id.as_str());
            let new =
                New { subscription: &subscription, keys: &keys, once: Some(&once), action: Action::Issued };
            stores[number % 2].create(&new, &contract::author(1_000)).await.unwrap()
        }))
        .await;
        assert_eq!(made.iter().filter(|made| **made == Created::New).count(), 1, "{made:?}");
        let mut before = made.iter().filter_map(|made| match made {
            Created::Before(subscription) => Some(&subscription.id),
            _ => None,
        });
        let id = before.next().unwrap();
        assert!(before.all(|other| other == id) && stores[0].find(id).await.unwrap().is_some());
    }
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn changes_that_meet_are_made_one_after_the_other() {
    let fresh = Fresh::make().await;
    let stores = [fresh.open().await, fresh.open().await];
    let subscription = contract::subscription("met");
    let keys = contract::keys("met");
    let new = New { subscription: &subscription, keys: &keys, once: None, action: Action::Issued };
    assert_eq!(stores[0].create(&new, &contract::author(1)).await.unwrap(), Created::New);
    let made = join_all((0..20).map(async |number: usize| {
        let name = Some(format!("name {number}"));
        let change = Change::Fields(Box::new(Patch { name, ..Patch::default() }));
        stores[number % 2].change(&subscription.id, &change, &contract::author(2)).await.unwrap()
    }))
    .await;
    assert!(made.iter().all(|made| matches!(made, Changed::Done(_))));
    // Each entry tells what the one before it made.
    let mut records = contract::audit_of(&stores[0], "met").await;
    records.retain(|record| record.action == Action::Changed);
    assert_eq!(records.len(), 20);
    let names = |of: &serde_json::Map<String, serde_json::Value>| of["name"].as_str().unwrap().to_owned();
    let before: std::collections::BTreeSet<_> = records.iter().map(|record| names(&record.before)).collect();
    assert_eq!(before.len(), 20, "two began with the same");
}

/// One that commits late has a lower number than those that were seen already.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn every_change_is_found_in_whatever_order_they_are_committed() {
    let fresh = Fresh::make().await;
    let store = fresh.open().await;
    for id in ["slow", "quick"] {
        let (subscription, keys) = (contract::subscription(id), contract::keys(id));
        let new = New { subscription: &subscription, keys: &keys, once: None, action: Action::Issued };
        store.create(&new, &contract::author(1)).await.unwrap();
    }
    let mut changes = store.changes().await.unwrap();
    let found = async |changes: &mut tollgate::sql::postgres::Listener| -> Vec<String> {
        match changes.look().await.unwrap() {
            Seen::These(ids) => ids.iter().map(ToString::to_string).collect(),
            Seen::Any => panic!("nothing was missed"),
        }
    };
    // What was made just before may come as well, when somebody else's transaction holds the numbers back.
    changes.look().await.unwrap();
    assert_eq!(found(&mut changes).await, [""; 0]);
    let (mut slow, mut quick) = (fresh.connect().await, fresh.connect().await);
    slow.execute("BEGIN; UPDATE subscriptions SET name = 'x' WHERE id = 'slow'").await.unwrap();
    quick.execute("UPDATE subscriptions SET name = 'x' WHERE id = 'quick'").await.unwrap();
    assert_eq!(found(&mut changes).await, ["quick"]);
    // Told once, though the other holds the numbers back.
    assert_eq!(found(&mut changes).await, [""; 0]);
    quick.execute("UPDATE subscriptions SET name = 'y' WHERE id = 'quick'").await.unwrap();
    assert_eq!(found(&mut changes).await, ["quick"]);
    slow.execute("COMMIT").await.unwrap();
    assert_eq!(found(&mut changes).await, ["slow"]);
    assert_eq!(found(&mut changes).await, [""; 0]);
    // That it was used is no change.
    let id = tollgate::domain::ids::Name::new("slow").unwrap();
    store.touch(&[(id, UnixMillis(5))]).await.unwrap();
    assert_eq!(found(&mut changes).await, [""; 0]);
}

/// Prints how long a look-up takes; what is asserted is how it is done.
#[tokio::test]
#[ignore = "needs PostgreSQL"]
#[expect(clippy::disallowed_methods, reason = "a measurement of the real time")]
async fn of_a_hundred_thousand_subscriptions_one_is_found_as_soon_as_of_ten() {
    let fresh = Fresh::make().await;
    let store = Arc::new(fresh.open().await);
    let mut connection = fresh.connect().await;
    connection
        .execute(
            "INSERT INTO subscriptions (id, name, product, state, owner, limits, tags, created_at, primary_hash, \
             secondary_hash, primary_hint, secondary_hint) SELECT 'sub-' || lpad(n::TEXT, 6, '0'), 'name ' || n, \
             'product-' || n % 10, 'active', 'owner-' || n % 1000, '{}', '{}', n, sha256(('a' || n)::BYTEA), \
             sha256(('b' || n)::BYTEA), 'aaaa', 'bbbb' FROM generate_series(1, 100000) AS n",
        )
        .await
        .unwrap();
    connection.execute("VACUUM ANALYZE subscriptions").await.unwrap();
    let mut plan = async |query: &str| -> String {
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN {query}"))).fetch_all(&mut connection).await;
        rows.unwrap().iter().map(|row| row.get::<String, _>(0) + "\n").collect()
    };
    let by_key =
        plan("SELECT id FROM subscriptions WHERE primary_hash = '\\x01' OR secondary_hash = '\\x01'");
    let by_key = by_key.await;
    assert!(by_key.contains("primary_hash_key") && by_key.contains("secondary_hash_key"), "{by_key}");
    assert!(!by_key.contains("Seq Scan"), "{by_key}");
    // A tenth of them are the product's: to walk along all and leave out the others is as good as its own index.
    for (filter, index) in [
        ("state <> 'ended'", "subscriptions_pkey"),
        ("state <> 'ended' AND product = 'product-3'", "Index Scan"),
        ("state <> 'ended' AND owner = 'owner-3'", "subscriptions_by_owner"),
    ] {
        for after in ["", "sub-090000"] {
            let list = format!(
                "SELECT id FROM subscriptions WHERE id > '{after}' AND {filter} ORDER BY id LIMIT 101"
            );
            let list = plan(&list).await;
            assert!(list.contains(index) && !list.contains("Seq Scan"), "{list}");
        }
    }
    let mut times = Vec::new();
    for number in (1..=100_000_u32).step_by(97) {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("a{number}").as_bytes());
        let began = std::time::Instant::now();
        let found = store.by_key(hash.as_ref().try_into().unwrap()).await.unwrap().unwrap();
        times.push(began.elapsed());
        assert_eq!(found.id.as_str(), format!("sub-{number:06}"));
    }
    times.sort_unstable();
    println!(
        "of 100,000: median look-up {:?}, p99 {:?}",
        times[times.len() / 2],
        times[times.len() * 99 / 100]
    );
    for after in ["sub-000000", "sub-099000"] {
        let after = tollgate::domain::ids::Name::new(after).unwrap();
        let query = tollgate::ports::ListQuery { after: Some(after), limit: 101, ..Default::default() };
        let began = std::time::Instant::now();
        assert_eq!(store.list(&query).await.unwrap().len(), 101);
        println!("a page of 100 behind {}: {:?}", query.after.unwrap(), began.elapsed());
    }
}
