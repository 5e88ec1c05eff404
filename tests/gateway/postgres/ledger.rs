//! The ledger where many instances post, and where it is large.

use std::sync::Arc;

use futures_util::future::join_all;
use sqlx::Executor as _;
use tollgate::ports::{Entry, Group, LedgerStore as _, Outbox as _, Postings, SumQuery};

use super::Fresh;
use crate::stores::ledger::{at, entry, event, post};

/// Each posts batches that overlap with the others', in orders of their own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn batches_that_meet_on_many_instances_are_posted_once_and_none_fails() {
    let fresh = Fresh::make().await;
    let stores = [fresh.open().await, fresh.open().await, fresh.open().await];
    let entries: Vec<Entry> = (0..600)
        .map(|number| {
            let subscription = format!("s{}", number % 7);
            entry(event(number, &format!("2026-01-05T0{}:00:00Z", number % 9), &subscription))
        })
        .collect();
    let posted = join_all((0..30_usize).map(async |turn| {
        let mut batch = entries[turn % 10 * 50..turn % 10 * 50 + 150].to_vec();
        if turn % 2 == 0 {
            batch.reverse();
        }
        post(&stores[turn % 3], batch).await
    }))
    .await;
    assert_eq!(posted.iter().sum::<u64>(), 600);
    let query = SumQuery {
        from: at("2026-01-05T00:00:00Z"),
        to: at("2026-01-06T00:00:00Z"),
        group_by: vec![Group::Subscription],
        provisioned_only: false,
    };
    let sums = stores[0].sums(&query).await.unwrap();
    assert_eq!(sums.iter().map(|sums| sums.requests).sum::<u64>(), 600);
    assert_eq!(sums.iter().map(|sums| sums.counts.output_tokens).sum::<u64>(), 600 * 20);
}

#[tokio::test]
#[ignore = "needs PostgreSQL"]
async fn a_months_rows_lie_together_and_what_was_early_moves_there() {
    let fresh = Fresh::make().await;
    let store = fresh.open().await;
    let early = [1, 2].map(|number| entry(event(number, "2026-03-05T09:00:00Z", "early"))).to_vec();
    assert_eq!(post(&store, early.clone()).await, 2);
    let instances = [fresh.open().await, fresh.open().await, fresh.open().await];
    let made = join_all(instances.iter().map(|store| store.prepare(at("2026-02-10T00:00:00Z")))).await;
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let mut connection = fresh.connect().await;
    let mut lie = async |table: &str| -> i64 {
        let count = format!("SELECT COUNT(*) FROM {table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&mut connection).await.unwrap()
    };
    assert_eq!((lie("usage_events_2026_03").await, lie("usage_events_other").await), (2, 0));
    // It is known there as well.
    assert_eq!(post(&store, early).await, 0);
    let later = entry(event(3, "2026-04-30T23:59:59.999Z", "later"));
    assert_eq!(post(&store, vec![later]).await, 1);
    assert_eq!(lie("usage_events_2026_04").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn instances_that_ship_at_once_never_take_the_same_row() {
    let fresh = Fresh::make().await;
    let stores = [fresh.open().await, fresh.open().await];
    let entries = (0..400).map(|number| entry(event(number, "2026-01-05T09:00:00Z", "shipped"))).collect();
    let batch = Postings { entries, ship: true, ..Postings::default() };
    assert_eq!(stores[0].post(&batch).await.unwrap(), 400);
    let (now, until) = (at("2026-01-05T10:00:00Z"), at("2026-01-05T10:05:00Z"));
    let claimed = join_all((0..16_usize).map(async |turn| {
        let rows = stores[turn % 2].claim(now, until, 25).await.unwrap();
        rows.into_iter().map(|entry| entry.event.id).collect::<Vec<_>>()
    }))
    .await;
    let mut ids: Vec<_> = claimed.into_iter().flatten().map(|id| id.0).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count, "a row was taken twice");
    let left = stores[1].claim(now, until, 1_000).await.unwrap();
    assert_eq!(count + left.len(), 400);
}

/// Prints how many events are posted in a second, in batches of a hundred; 5,000 are wanted of a release build.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
#[expect(clippy::disallowed_methods, reason = "a measurement of the real time")]
async fn thousands_of_events_are_posted_in_a_second() {
    const BATCHES: u32 = 200;
    let fresh = Fresh::make().await;
    let store = Arc::new(fresh.open().await);
    store.prepare(at("2026-01-05T00:00:00Z")).await.unwrap();
    let batches: Vec<Vec<Entry>> = (0..BATCHES)
        .map(|batch| {
            let one = |number: u32| {
                let subscription = format!("sub-{}", number % 20);
                entry(event(batch * 100 + number, "2026-01-05T09:00:00Z", &subscription))
            };
            (0..100).map(one).collect()
        })
        .collect();
    for at_once in [1, 4] {
        fresh.connect().await.execute("TRUNCATE usage_events, usage_hours").await.unwrap();
        let began = std::time::Instant::now();
        let posted = join_all((0..at_once).map(async |turn| {
            let mut posted = 0;
            for batch in batches.iter().skip(turn).step_by(at_once) {
                posted += post(&*store, batch.clone()).await;
            }
            posted
        }))
        .await;
        let rate = f64::from(BATCHES * 100) / began.elapsed().as_secs_f64();
        assert_eq!(posted.iter().sum::<u64>(), u64::from(BATCHES * 100));
        println!("{rate:.0} events a second were posted, {at_once} batches at once");
    }
}

/// Prints how long a month's sums take. By hand: it takes some minutes, and gigabytes.
#[tokio::test]
#[ignore = "needs PostgreSQL and minutes"]
#[expect(clippy::disallowed_methods, reason = "a measurement of the real time")]
async fn a_months_sums_of_ten_million_rows_come_from_the_totals() {
    let fresh = Fresh::make().await;
    let store = fresh.open().await;
    store.prepare(at("2026-01-05T00:00:00Z")).await.unwrap();
    assert_eq!(post(&store, vec![entry(event(0, "2026-01-05T09:00:00Z", "s"))]).await, 1);
    let mut connection = fresh.connect().await;
    connection
        .execute(
            "INSERT INTO usage_events SELECT gen_random_uuid(), 1767225600000 + n::BIGINT * 267, 's' || n % 500, 'p', \
             'c' || n % 50, NULL, 'chat.completions', 'd' || n % 3, 'm', NULL, 'b' || n % 2, NULL, 1, 200, TRUE, \
             'completed', 'reported', 10, 0, 20, 0, 0, 0, 0, 0, 100, 10, FALSE, \
             (SELECT id FROM rates LIMIT 1), NULL FROM generate_series(1, 10000000) AS n",
        )
        .await
        .unwrap();
    connection
        .execute(
            "INSERT INTO usage_hours SELECT hour, subscription_id, product, cost_center, deployment, model, backend, \
             is_provisioned, rate, SUM(requests), SUM(used_requests), SUM(estimated_requests), SUM(input_tokens), \
             SUM(cached_input_tokens), SUM(output_tokens), SUM(reasoning_tokens), SUM(audio_input_tokens), \
             SUM(audio_output_tokens), SUM(cache_write_tokens), SUM(images) FROM usage_units WHERE time > 1767225600000 \
             AND subscription_id <> 's' GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9",
        )
        .await
        .unwrap();
    connection.execute("ANALYZE usage_hours").await.unwrap();
    let hours: i64 =
        sqlx::query_scalar("SELECT COUNT(*) FROM usage_hours").fetch_one(&mut connection).await.unwrap();
    let of_chargeback = vec![
        Group::CostCenter,
        Group::Subscription,
        Group::Product,
        Group::Deployment,
        Group::Model,
        Group::Backend,
    ];
    for group_by in [vec![Group::CostCenter, Group::Subscription], vec![Group::Day], of_chargeback] {
        let query = SumQuery {
            from: at("2026-01-01T00:00:00Z"),
            to: at("2026-02-01T00:00:00Z"),
            group_by,
            provisioned_only: false,
        };
        let began = std::time::Instant::now();
        let sums = store.sums(&query).await.unwrap();
        let took = began.elapsed();
        assert_eq!(sums.iter().map(|sums| sums.requests).sum::<u64>(), 10_000_001);
        println!(
            "{hours} totals of 10,000,001 rows, by {:?}: {} groups in {took:?}",
            query.group_by,
            sums.len()
        );
    }
}
