//! The contract of the ledger's ports: `LedgerStore`, `Ratings`, `DeadLetters` and `Outbox`. The store is empty.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::json;
use time::macros::date;
use tollgate::domain::price::{Counts, Rate, Terms};
use tollgate::domain::units::UnixMillis;
use tollgate::domain::usage::{Source, UsageEvent};
use tollgate::ports::{
    DeadLetter, DeadLetters, Entry, Group, LedgerStore, Outbox, Postings, Ratings, Rerating, SumQuery, Sums,
};

pub(crate) async fn keeps_the_contract(store: &(impl LedgerStore + Ratings + DeadLetters + Outbox)) {
    // Rows must be posted whether or not room was made for them.
    posts_once(store).await;
    store.prepare(at("2027-01-10T00:00:00Z")).await.unwrap();
    store.prepare(at("2027-01-10T00:00:00Z")).await.unwrap();
    sums_what_is_in_a_time(store).await;
    tells_rates_apart(store).await;
    posts_all_or_nothing_when_many_post_at_once(store).await;
    rates_anew(store).await;
    rates_only_what_a_rate_covers(store).await;
    keeps_dead_letters_until_they_are_replayed(store).await;
    gives_each_new_row_to_one(store).await;
}

pub(crate) fn at(text: &str) -> UnixMillis {
    UnixMillis::parse(text).unwrap()
}

fn rate(input: &str) -> Arc<Rate> {
    Arc::new(Rate::new(Terms {
        currency: "USD".to_owned(),
        input_per_million: Some(input.parse().unwrap()),
        output_per_million: Some("2".parse().unwrap()),
        image_each: Some("1".parse().unwrap()),
        ..Terms::default()
    }))
}

/// An event of a subscription; its number makes its id.
pub(crate) fn event(number: u32, time: &str, subscription: &str) -> UsageEvent {
    serde_json::from_value(json!({
        "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
        "time": time, "subscription_id": subscription, "product": "p", "cost_center": "4711",
        "operation": "chat.completions", "deployment": "d", "model": "m", "backend": "b", "status": 200,
        "outcome": "completed", "end_user": "Ünï\u{1F600}'; --", "first_byte_ms": 3,
        "usage": {"source": "reported", "input_tokens": 10, "cached_input_tokens": 4, "output_tokens": 20,
                  "reasoning_tokens": 5, "audio_input_tokens": 1, "audio_output_tokens": 2,
                  "cache_write_tokens": 3, "images": 1},
    }))
    .unwrap()
}

pub(crate) fn entry(event: UsageEvent) -> Entry {
    Entry { event, is_provisioned: false, rate: Some(rate("1")) }
}

pub(crate) async fn post(store: &impl LedgerStore, entries: Vec<Entry>) -> u64 {
    store.post(&Postings { entries, ..Postings::default() }).await.unwrap()
}

async fn sums(store: &impl LedgerStore, from: &str, to: &str, group_by: &[Group]) -> Vec<Sums> {
    let query = SumQuery { from: at(from), to: at(to), group_by: group_by.to_vec(), provisioned_only: false };
    let mut sums = store.sums(&query).await.unwrap();
    sums.sort_by(|a, b| (&a.group, a.is_provisioned).cmp(&(&b.group, b.is_provisioned)));
    sums
}

async fn posts_once(store: &impl LedgerStore) {
    let day = ["2026-01-05T00:00:00Z", "2026-01-06T00:00:00Z"];
    let batch: Vec<_> = (0..150).map(|n| entry(event(n, "2026-01-05T09:30:00.123Z", "once"))).collect();
    let overlapping: Vec<_> =
        (100..200).rev().map(|n| entry(event(n, "2026-01-05T09:30:00.123Z", "once"))).collect();
    assert_eq!(post(store, batch.clone()).await, 150);
    assert_eq!(post(store, batch).await, 0);
    assert_eq!(post(store, overlapping.clone()).await, 50);
    assert_eq!(post(store, overlapping).await, 0);
    assert_eq!(post(store, Vec::new()).await, 0);
    // The same event twice in one batch.
    let twice = vec![entry(event(200, "2026-01-05T09:30:00Z", "once")); 2];
    assert_eq!(post(store, twice).await, 1);
    let [only] = sums(store, day[0], day[1], &[]).await.try_into().unwrap();
    assert_eq!((only.requests, only.used_requests, only.estimated_requests), (201, 201, 0));
    let counts = Counts {
        input_tokens: 2_010,
        cached_input_tokens: 804,
        output_tokens: 4_020,
        reasoning_tokens: 1_005,
        audio_input_tokens: 201,
        audio_output_tokens: 402,
        cache_write_tokens: 603,
        images: 201,
    };
    assert_eq!(only.counts, counts);
    assert_eq!(only.rate, Some(rate("1")));
}

/// Full hours come from totals, what is before and behind them from rows: nobody must see the seam.
async fn sums_what_is_in_a_time(store: &impl LedgerStore) {
    let times = [
        "2026-02-01T09:59:59.999Z",
        "2026-02-01T10:00:00Z",
        "2026-02-01T10:30:00Z",
        "2026-02-01T10:59:59.999Z",
        "2026-02-01T11:00:00Z",
        "2026-02-01T23:59:59.999Z",
        "2026-02-02T00:00:00Z",
    ];
    let number = |index: usize| 1_000 + u32::try_from(index).unwrap();
    let entries = times.iter().enumerate().map(|(n, time)| entry(event(number(n), time, "seam"))).collect();
    post(store, entries).await;
    let mut moments: Vec<_> = times.iter().map(|time| at(time)).collect();
    moments.extend([at("2026-02-01T00:00:00Z"), at("2026-02-01T10:30:00.001Z"), at("2026-02-03T00:00:00Z")]);
    for from in &moments {
        for to in moments.iter().filter(|to| *to >= from) {
            let expected = times.iter().filter(|time| at(time) >= *from && at(time) < *to).count();
            let query = SumQuery { from: *from, to: *to, group_by: vec![], provisioned_only: false };
            let found: u64 = store.sums(&query).await.unwrap().iter().map(|sums| sums.requests).sum();
            assert_eq!(found, expected as u64, "{} to {}", from.to_rfc3339(), to.to_rfc3339());
        }
    }
    let by_hour =
        sums(store, "2026-02-01T10:15:00Z", "2026-02-01T11:30:00Z", &[Group::Hour, Group::Day]).await;
    let groups: Vec<_> = by_hour.iter().map(|sums| (sums.group.clone(), sums.requests)).collect();
    let group = |hour: &str| vec![Some(hour.to_owned()), Some("2026-02-01".to_owned())];
    assert_eq!(groups, [(group("2026-02-01T10:00:00Z"), 2), (group("2026-02-01T11:00:00Z"), 1)]);
}

async fn tells_rates_apart(store: &impl LedgerStore) {
    const TIME: &str = "2026-03-01T09:30:00Z";
    let bare = UsageEvent { cost_center: None, model: None, ..event(2_003, TIME, "rates") };
    let mut estimated = event(2_004, TIME, "rates");
    estimated.usage.source = Source::Estimated;
    let mut nothing = event(2_005, TIME, "rates");
    nothing.usage = tollgate::domain::usage::Usage::default();
    let entries = vec![
        entry(event(2_000, TIME, "rates")),
        Entry { rate: Some(rate("7")), ..entry(event(2_001, TIME, "rates")) },
        Entry { rate: None, ..entry(event(2_002, TIME, "rates")) },
        Entry { is_provisioned: true, ..entry(bare) },
        Entry { rate: None, ..entry(estimated) },
        Entry { rate: None, ..entry(nothing) },
    ];
    assert_eq!(post(store, entries).await, 6);
    let groups = [
        Group::Subscription,
        Group::Product,
        Group::CostCenter,
        Group::Deployment,
        Group::Model,
        Group::Backend,
    ];
    let found = sums(store, "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z", &groups).await;
    let text = |text: &str| Some(text.to_owned());
    let whole = vec![text("rates"), text("p"), text("4711"), text("d"), text("m"), text("b")];
    let bare = vec![text("rates"), text("p"), None, text("d"), None, text("b")];
    assert_eq!(found.len(), 4);
    let of = |group: &[Option<String>], rate: Option<&Arc<Rate>>| {
        found.iter().find(|sums| sums.group == group && sums.rate.as_ref() == rate).unwrap()
    };
    assert_eq!(of(&whole, Some(&rate("1"))).requests, 1);
    assert_eq!(of(&whole, Some(&rate("7"))).requests, 1);
    let unpriced = of(&whole, None);
    assert_eq!((unpriced.requests, unpriced.used_requests, unpriced.estimated_requests), (3, 2, 1));
    assert!(of(&bare, Some(&rate("1"))).is_provisioned);
    let (from, to) = (at("2026-03-01T09:15:00Z"), at("2026-03-02T00:00:00Z"));
    for from in [from, at("2026-03-01T00:00:00Z")] {
        let query = SumQuery { from, to, group_by: groups.to_vec(), provisioned_only: true };
        let [only] = store.sums(&query).await.unwrap().try_into().unwrap();
        assert_eq!((&only, only.group == bare), (of(&bare, Some(&rate("1"))), true));
    }
}

/// The same and other events, in other orders, by many at once.
async fn posts_all_or_nothing_when_many_post_at_once(store: &impl LedgerStore) {
    const TIME: &str = "2026-04-01T09:30:00Z";
    let batches = (0..8_u32).map(|turn| async move {
        let mut numbers: Vec<_> = (0..200).map(|n| 3_000 + (n * 7 + turn * 50) % 400).collect();
        if turn % 2 == 1 {
            numbers.reverse();
        }
        let subscription = |n: u32| format!("many-{}", n % 5);
        post(store, numbers.into_iter().map(|n| entry(event(n, TIME, &subscription(n)))).collect()).await
    });
    let new: u64 = futures_util::future::join_all(batches).await.into_iter().sum();
    let found = sums(store, "2026-04-01T00:00:00Z", "2026-04-02T00:00:00Z", &[Group::Subscription]).await;
    assert_eq!(found.iter().map(|sums| sums.requests).sum::<u64>(), new);
    assert_eq!(new, 400);
}

async fn rates_anew(store: &(impl LedgerStore + Ratings)) {
    let other = |number, time| UsageEvent { deployment: name("other"), ..event(number, time, "anew") };
    let entries = vec![
        entry(event(4_000, "2026-05-01T00:00:00Z", "anew")),
        Entry { rate: None, ..entry(event(4_001, "2026-05-01T23:59:59.999Z", "anew")) },
        Entry { rate: None, ..entry(other(4_002, "2026-05-01T12:00:00Z")) },
        Entry { rate: None, ..entry(event(4_003, "2026-05-02T00:00:00Z", "anew")) },
    ];
    post(store, entries).await;
    let rated = store.rated(date!(2026 - 05 - 01), date!(2026 - 05 - 03)).await.unwrap();
    let seen: BTreeSet<_> = rated
        .iter()
        .map(|rated| (rated.day, rated.deployment.as_str(), rated.rate.is_some(), rated.requests))
        .collect();
    let expected = [
        (date!(2026 - 05 - 01), "d", true, 1),
        (date!(2026 - 05 - 01), "d", false, 1),
        (date!(2026 - 05 - 01), "other", false, 1),
        (date!(2026 - 05 - 02), "d", false, 1),
    ];
    assert_eq!(seen, BTreeSet::from(expected));
    let first = &rated[0];
    assert_eq!(
        (first.model.as_deref(), first.backend.as_str(), first.counts.input_tokens),
        (Some("m"), "b", 10)
    );
    let change = Rerating {
        deployment: "d".to_owned(),
        model: Some("m".to_owned()),
        backend: "b".to_owned(),
        is_provisioned: false,
        rate: Some(rate("3")),
    };
    assert_eq!(store.rerate(date!(2026 - 05 - 01), std::slice::from_ref(&change)).await.unwrap(), 2);
    assert_eq!(store.rerate(date!(2026 - 05 - 01), std::slice::from_ref(&change)).await.unwrap(), 0);
    let day = sums(store, "2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z", &[Group::Deployment]).await;
    let seen: Vec<_> = day.iter().map(|sums| (sums.rate.clone(), sums.requests)).collect();
    assert_eq!(seen, [(Some(rate("3")), 2), (None, 1)]);
    // The rows agree with the totals: part of an hour is read from them.
    let row = sums(store, "2026-05-01T00:00:00Z", "2026-05-01T00:30:00Z", &[]).await;
    assert_eq!((row[0].rate.clone(), row[0].requests), (Some(rate("3")), 1));
    let next = sums(store, "2026-05-02T00:00:00Z", "2026-05-03T00:00:00Z", &[]).await;
    assert_eq!((next[0].rate.clone(), next[0].requests), (None, 1));
    let provisioned = Rerating { is_provisioned: true, rate: None, ..change };
    assert_eq!(store.rerate(date!(2026 - 05 - 01), &[provisioned]).await.unwrap(), 2);
    let day = sums(store, "2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z", &[]).await;
    let seen: Vec<_> =
        day.iter().map(|sums| (sums.is_provisioned, sums.rate.clone(), sums.requests)).collect();
    assert_eq!(seen, [(false, None, 1), (true, None, 2)]);
}

/// What a rate does not cover has none, row by row, whatever it is rated together with.
async fn rates_only_what_a_rate_covers(store: &(impl LedgerStore + Ratings)) {
    let mut input_only = event(4_100, "2026-05-10T00:00:00Z", "covers");
    input_only.usage = tollgate::domain::usage::Usage { input_tokens: 10, ..Default::default() };
    let entries = vec![
        Entry { rate: None, ..entry(input_only) },
        Entry { rate: None, ..entry(event(4_101, "2026-05-10T00:00:00Z", "covers")) },
    ];
    post(store, entries).await;
    let terms = Terms {
        currency: "USD".to_owned(),
        input_per_million: Some("3".parse().unwrap()),
        ..Terms::default()
    };
    let rate = Arc::new(Rate::new(terms));
    let change = Rerating {
        deployment: "d".to_owned(),
        model: Some("m".to_owned()),
        backend: "b".to_owned(),
        is_provisioned: false,
        rate: Some(Arc::clone(&rate)),
    };
    assert_eq!(store.rerate(date!(2026 - 05 - 10), std::slice::from_ref(&change)).await.unwrap(), 1);
    assert_eq!(store.rerate(date!(2026 - 05 - 10), &[change]).await.unwrap(), 0);
    let day = sums(store, "2026-05-10T00:00:00Z", "2026-05-11T00:00:00Z", &[Group::Deployment]).await;
    let seen: Vec<_> = day.iter().map(|sums| (sums.rate.clone(), sums.counts.input_tokens)).collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.contains(&(Some(rate), 10)) && seen.contains(&(None, 10)), "{seen:?}");
}

fn name(text: &str) -> tollgate::domain::ids::Name {
    tollgate::domain::ids::Name::new(text).unwrap()
}

async fn keeps_dead_letters_until_they_are_replayed(store: &(impl LedgerStore + DeadLetters)) {
    let letter = |number: u8| DeadLetter {
        id: [number; 32],
        received_at: UnixMillis(1_700_000_000_000 + i64::from(number) / 2),
        reason: format!("not JSON: {number}"),
        message: "gar\"bage'; --\u{1F600}".to_owned(),
    };
    let letters: Vec<_> = (1..=5).map(letter).collect();
    for _ in 0..2 {
        let batch = Postings { dead_letters: letters.clone(), ..Postings::default() };
        assert_eq!(store.post(&batch).await.unwrap(), 0);
    }
    assert_eq!(store.dead_letters(None, 10).await.unwrap(), letters);
    let page = store.dead_letters(None, 2).await.unwrap();
    assert_eq!(page, letters[..2]);
    let behind = Some((page[1].received_at, page[1].id));
    assert_eq!(store.dead_letters(behind, 10).await.unwrap(), letters[2..]);
    let entries = vec![entry(event(5_000, "2026-06-01T00:00:00Z", "replayed"))];
    let replayed = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(store.post(&Postings { entries, replayed, ..Postings::default() }).await.unwrap(), 1);
    assert_eq!(store.dead_letters(None, 10).await.unwrap(), []);
}

async fn gives_each_new_row_to_one(store: &(impl LedgerStore + Outbox)) {
    let (now, later) = (UnixMillis(1_000_000), UnixMillis(2_000_000));
    assert_eq!(store.waiting().await.unwrap(), 0, "what is not to be shipped does not wait");
    let time = |n: u32| format!("2026-07-01T00:00:{:02}Z", 30 - n);
    let entries: Vec<_> = (0..30).map(|n| entry(event(6_000 + n, &time(n), "shipped"))).collect();
    let batch = Postings { entries: entries.clone(), ship: true, ..Postings::default() };
    assert_eq!(store.post(&batch).await.unwrap(), 30);
    assert_eq!(store.post(&batch).await.unwrap(), 0);
    assert_eq!(store.waiting().await.unwrap(), 30);
    let (some, others) = tokio::join!(store.claim(now, later, 10), store.claim(now, later, 10));
    let (some, others) = (some.unwrap(), others.unwrap());
    let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.event.id.0).collect::<BTreeSet<_>>();
    let oldest: Vec<_> = entries.iter().rev().take(20).cloned().collect();
    assert_eq!(&ids(&some) | &ids(&others), ids(&oldest), "the oldest first, each once");
    assert_eq!((some.len(), others.len()), (10, 10));
    for claimed in &some {
        assert!(entries.contains(claimed), "as it was posted: {claimed:?}");
    }
    let ids_of = |entries: &[Entry]| entries.iter().map(|entry| entry.event.id).collect::<Vec<_>>();
    store.shipped(&ids_of(&some)).await.unwrap();
    store.release(&ids_of(&others)).await.unwrap();
    assert_eq!(store.waiting().await.unwrap(), 20);
    assert_eq!(store.claim(now, later, 100).await.unwrap().len(), 20);
    assert_eq!(store.claim(now, later, 100).await.unwrap().len(), 0, "somebody has them in hand");
    let again = store.claim(later, UnixMillis(3_000_000), 100).await.unwrap();
    assert_eq!(again.len(), 20, "whoever had them is gone");
    store.shipped(&ids_of(&again)).await.unwrap();
    assert_eq!(store.waiting().await.unwrap(), 0);
    assert_eq!(store.post(&batch).await.unwrap(), 0, "a batch that comes again ships nothing twice");
    assert_eq!(store.waiting().await.unwrap(), 0);
}
