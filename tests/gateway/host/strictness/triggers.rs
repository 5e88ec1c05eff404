//! The Event Hub trigger: which answers count, which batches come again, which are lost.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::post;
use serde_json::Value;
use tollgate::cli::package;

use super::super::app::{App, Settings};
use super::super::function::Retry;
use super::super::hub::{Failure, Hub, Listener};
use super::super::wire::Event;
use super::Fake;

const JSON: [(&str, &str); 1] = [("content-type", "application/json; charset=utf-8")];

fn app(scratch: &Path) -> App {
    std::fs::write(scratch.join("binary"), "#!/bin/sh\n").unwrap();
    package::stage(&scratch.join("binary"), scratch).unwrap();
    let settings: Settings = [("USAGE_EVENTHUB_NAME", "usage"), ("UsageEventHub", "Endpoint=sb://localhost")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    App::load(&scratch.join("functionapp"), &settings).unwrap()
}

fn listener(fake: &Fake) -> Listener {
    let scratch = tempfile::tempdir().unwrap();
    Listener::new(&app(scratch.path()), "token-accounting", fake.state.clone()).without_pauses()
}

/// What the host makes of this answer.
async fn verdict(answer: impl IntoResponse + Clone + Send + Sync + 'static) -> Result<Value, Failure> {
    let router = Router::new().route("/token-accounting", post(move || async move { answer }));
    let fake = Fake::start(router).await;
    listener(&fake).invoke(0, &[Event { body: b"{}".to_vec(), sequence: 0 }], None).await
}

#[tokio::test]
async fn only_a_json_object_ends_an_invocation_well() {
    assert!(verdict((JSON, "{}")).await.is_ok());
    assert!(verdict((JSON, r#"{"Outputs":{},"Logs":["posted 1"],"ReturnValue":null}"#)).await.is_ok());
    assert!(matches!(verdict((JSON, "")).await, Err(Failure::Hangs("empty"))));
    assert!(matches!(verdict(StatusCode::NO_CONTENT).await, Err(Failure::Hangs("empty"))));
    assert!(matches!(verdict((JSON, "null")).await, Err(Failure::Hangs("null"))));
    assert!(matches!(verdict("{}").await, Err(Failure::MediaType(Some(_)))));
    assert!(matches!(verdict((JSON, "[]")).await, Err(Failure::NotAnObject(_))));
    assert!(matches!(verdict((JSON, "{")).await, Err(Failure::NotAnObject(_))));
    assert!(matches!(verdict((JSON, r#"{"Logs":[1]}"#)).await, Err(Failure::NotAnObject(_))));
    assert!(matches!(verdict((StatusCode::BAD_GATEWAY, JSON, "{}")).await, Err(Failure::Status(502))));
}

#[tokio::test]
#[should_panic(expected = "on which the host hangs")]
async fn an_empty_answer_hangs_and_fails_the_test() {
    let fake = Fake::start(Router::new().route("/token-accounting", post(|| async { StatusCode::OK }))).await;
    let hub = Hub::new(1);
    hub.publish(0, "{}");
    listener(&fake).drain(&hub).await;
}

/// A handler that counts each event's id once, and fails the first `failures` batches.
async fn ledger(failures: usize) -> (Fake, Arc<Mutex<BTreeSet<String>>>) {
    let posted: Arc<Mutex<BTreeSet<String>>> = Arc::default();
    let (seen, calls) = (posted.clone(), Arc::new(AtomicUsize::new(0)));
    let accept = move |headers: HeaderMap, body: String| async move {
        assert_eq!(headers["transfer-encoding"], "chunked");
        if calls.fetch_add(1, Ordering::Relaxed) < failures {
            return (StatusCode::SERVICE_UNAVAILABLE, JSON, "{}");
        }
        let batch: Value = serde_json::from_str(&body).unwrap();
        let events: Vec<String> = serde_json::from_str(batch["Data"]["events"].as_str().unwrap()).unwrap();
        seen.lock().unwrap().extend(events);
        (StatusCode::OK, JSON, "{}")
    };
    let router = Router::new().route("/token-accounting", post(accept)).layer(DefaultBodyLimit::disable());
    (Fake::start(router).await, posted)
}

fn filled(events: usize) -> Hub {
    let hub = Hub::new(2);
    for event in 0..events {
        hub.publish(event % 2, format!(r#"{{"id":{event}}}"#));
    }
    hub
}

#[tokio::test]
async fn with_the_policy_for_ever_nothing_is_lost() {
    let (fake, posted) = ledger(7).await;
    let (hub, listener) = (filled(300), listener(&fake));
    listener.drain(&hub).await;
    assert_eq!(posted.lock().unwrap().len(), 300);
    assert_eq!((hub.checkpoint(0), hub.checkpoint(1)), (150, 150));
}

#[tokio::test]
async fn without_a_policy_a_failed_batch_is_checkpointed_and_lost() {
    let (fake, posted) = ledger(1).await;
    let (hub, mut listener) = (filled(300), listener(&fake));
    listener.retry = None;
    listener.drain(&hub).await;
    assert_eq!(posted.lock().unwrap().len(), 200);
    assert_eq!((hub.checkpoint(0), hub.checkpoint(1)), (150, 150));
}

#[tokio::test]
async fn a_policy_that_is_exhausted_loses_the_batch_too() {
    let (fake, posted) = ledger(100).await;
    let (hub, mut listener) = (filled(2), listener(&fake));
    let pause = Duration::from_millis(1);
    listener.retry = Some(Retry { max: Some(2), shortest: pause, longest: pause });
    listener.drain(&hub).await;
    assert_eq!(posted.lock().unwrap().len(), 0);
    assert_eq!(hub.checkpoint(0), 1);
}

#[tokio::test]
async fn an_instance_that_dies_leaves_no_checkpoint_and_the_batch_comes_again() {
    let (fake, posted) = ledger(usize::MAX).await;
    let (hub, dying) = (filled(300), listener(&fake));
    let died = tokio::time::timeout(Duration::from_millis(100), dying.drain(&hub)).await;
    assert!(died.is_err());
    assert_eq!((hub.checkpoint(0), posted.lock().unwrap().len()), (0, 0));
    let (fake, posted) = ledger(0).await;
    listener(&fake).drain(&hub).await;
    assert_eq!(posted.lock().unwrap().len(), 300);
}

#[test]
fn pauses_grow_to_their_longest() {
    let scratch = tempfile::tempdir().unwrap();
    let (_sender, state) = tokio::sync::watch::channel(super::super::process::State::Starting);
    let retry = Listener::new(&app(scratch.path()), "token-accounting", state).retry.unwrap();
    assert_eq!(retry.max, None);
    let pauses: Vec<_> = (1..=8).map(|failures| retry.pause(failures).as_secs()).collect();
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 300, 300]);
}
