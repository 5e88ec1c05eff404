//! What is posted is sent, once the endpoint takes it, by whoever is alive.

use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate::ledger::ship::Shipped;
use tollgate::ports::{Clock as _, Outbox as _};

use super::rig::Rig;
use crate::azure::log_ingestion::Says;

/// Longer than any turn is given.
const LONG: Duration = Duration::from_mins(10);
/// What a claim lasts at most.
const CLAIM: Duration = Duration::from_mins(1);

#[tokio::test]
async fn only_what_is_new_is_sent() {
    let rig = Rig::start().await;
    let shipping = rig.shipping();
    assert_eq!(rig.post(0..100, &json!({})).await, 100);
    assert_eq!(shipping.ship(LONG).await, Shipped { rows: 100, ..Shipped::default() });
    assert_eq!(rig.post(50..150, &json!({})).await, 50);
    assert_eq!(shipping.ship(LONG).await.rows, 50);
    assert_eq!(shipping.ship(LONG).await, Shipped::default());
    rig.assert_came(0..150);
    assert_eq!(rig.endpoint.rows().len(), 150, "something was sent twice");
}

#[tokio::test]
async fn no_call_is_larger_than_a_megabyte_however_long_the_texts_are() {
    let rig = Rig::start().await;
    let long = "\u{1}\u{1F600}".repeat(20_000);
    rig.post(0..40, &json!({"end_user": long, "cost_center": long, "model": long})).await;
    rig.post(40..2_000, &json!({"end_user": "x".repeat(900)})).await;
    assert_eq!(rig.shipping().ship(LONG).await.rows, 2_000);
    rig.assert_came(0..2_000);
    let calls = rig.endpoint.calls();
    assert!(calls.iter().all(|(_, bytes)| *bytes <= 950_000), "{calls:?}");
    assert!(calls.len() < 20, "many small calls where few large ones would do: {}", calls.len());
}

#[tokio::test]
async fn a_row_that_is_never_taken_does_not_block_the_others() {
    let rig = Rig::start().await;
    rig.endpoint.refuse_rows_with("poison");
    rig.post(0..1, &json!({"model": "poison"})).await;
    rig.post(1..700, &json!({})).await;
    rig.post(700..702, &json!({"model": "poison"})).await;
    let shipped = rig.shipping().ship(LONG).await;
    assert_eq!(shipped, Shipped { rows: 699, taken_out: 3, trouble: None });
    rig.assert_came(1..700);
    assert_eq!(rig.waiting().await, 0);
    assert!(rig.endpoint.calls().len() < 80, "{}", rig.endpoint.calls().len());
}

#[tokio::test]
async fn where_every_row_is_refused_none_is_given_up() {
    let rig = Rig::start().await;
    rig.endpoint.refuse_rows_with("standard");
    for numbers in [0..1, 1..2_000] {
        rig.post(numbers.clone(), &json!({})).await;
        let shipped = rig.shipping().ship(LONG).await;
        assert_eq!((shipped.rows, shipped.taken_out), (0, 0));
        assert!(shipped.trouble.is_some());
        assert_eq!(rig.waiting().await, numbers.end);
    }
    assert!(rig.endpoint.calls().len() < 450, "{} calls", rig.endpoint.calls().len());
    rig.endpoint.refuse_rows_with("nothing at all");
    assert_eq!(rig.shipping().ship(LONG).await.rows, 2_000);
    rig.assert_came(0..2_000);
}

#[tokio::test]
async fn the_endpoint_is_left_alone_for_as_long_as_it_asks() {
    let rig = Rig::start().await;
    let shipping = rig.shipping();
    rig.post(0..10, &json!({})).await;
    rig.endpoint.next([Says::Wait(429, 90), Says::Wait(503, 30)]);
    for wait in [90, 30] {
        assert!(shipping.ship(LONG).await.trouble.is_some());
        let calls = rig.endpoint.calls().len();
        rig.clock.advance(Duration::from_secs(wait - 1));
        assert!(shipping.ship(LONG).await.trouble.is_some());
        assert_eq!(rig.endpoint.calls().len(), calls, "it was asked before its time");
        rig.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(shipping.ship(LONG).await, Shipped { rows: 10, ..Shipped::default() });
}

#[tokio::test]
async fn whatever_fails_every_event_comes_in_the_end() {
    let rig = Rig::start().await;
    let shipping = rig.shipping();
    rig.post(0..3_500, &json!({})).await;
    let failures = [
        Says::Status(500),
        Says::CutAfterTaking,
        Says::Wait(429, 1),
        Says::Status(403),
        Says::Status(502),
        Says::CutAfterTaking,
        Says::Status(408),
    ];
    rig.endpoint.next(failures);
    for _ in failures {
        shipping.ship(LONG).await;
        rig.clock.advance(Duration::from_mins(6));
    }
    assert_eq!(shipping.ship(LONG).await.trouble, None);
    rig.assert_came(0..3_500);
    assert_eq!(rig.waiting().await, 0);
    assert!(rig.endpoint.rows().len() > 3_500, "what was lost was the answer, not the rows");
}

#[tokio::test]
async fn what_a_dead_process_had_in_hand_is_sent_by_another() {
    let rig = Rig::start().await;
    rig.post(0..10, &json!({})).await;
    let (now, until) = (rig.clock.now(), rig.clock.now().0 + 60_000);
    let until = tollgate::domain::units::UnixMillis(until);
    assert_eq!(rig.database.claim(now, until, 100).await.unwrap().len(), 10);
    let another = rig.shipping_elsewhere().await;
    assert_eq!(another.ship(LONG).await.rows, 0, "it is another's for a while");
    rig.clock.advance(CLAIM);
    assert_eq!(another.ship(LONG).await.rows, 10);
    rig.assert_came(0..10);
}

#[tokio::test]
async fn two_that_send_at_once_send_each_row_once() {
    let rig = Rig::start().await;
    rig.post(0..6_000, &json!({})).await;
    let (one, two) = (rig.shipping(), rig.shipping_elsewhere().await);
    let (one, two) = tokio::join!(one.ship(LONG), two.ship(LONG));
    assert_eq!((one.rows + two.rows, one.trouble, two.trouble), (6_000, None, None));
    rig.assert_came(0..6_000);
    assert_eq!(rig.endpoint.rows().len(), 6_000, "something was sent twice");
}

#[tokio::test]
async fn a_process_that_stops_leaves_nothing_in_hand() {
    let rig = Rig::start().await;
    rig.endpoint.next([Says::Hangs]);
    rig.post(0..10, &json!({})).await;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let shipping = std::sync::Arc::new(rig.shipping_until(stop.clone()));
    tasks.spawn(shipping.keep_up());
    rig.endpoint.another_call().await;
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    assert_eq!(rig.shipping_elsewhere().await.ship(LONG).await.rows, 10);
    rig.assert_came(0..10);
}
