//! What several backends' failures mean together: for the caller, and for the operator.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tollgate::domain::usage::{Outcome, Source};

use super::rig::Rig;

#[tokio::test]
async fn the_best_hope_that_any_backend_leaves_is_what_the_caller_is_told() {
    for (first, second, status, code) in [
        ("status=429,retry-after=30", "status=500", 429, "backends_throttled"),
        ("status=500", "status=429,retry-after=30", 429, "backends_throttled"),
        ("error=permission-denied", "status=429,retry-after=30", 429, "backends_throttled"),
        ("error=permission-denied", "status=500", 503, "no_backend_available"),
        ("reset", "error=key-auth-disabled", 503, "no_backend_available"),
        ("error=deployment-not-found", "error=permission-denied", 502, "backend_misconfigured"),
    ] {
        let rig = Rig::of(&["first", "second"]).await;
        rig.always("first", first).await;
        rig.always("second", second).await;
        let answer = rig.chat(true).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{first} {second}: {}",
            answer.body
        );
        assert_eq!(answer.header("x-tollgate-attempts"), "2");
        assert_eq!(answer.header("x-tollgate-backend"), "");
        if status == 429 {
            let wait: u64 = answer.header("retry-after-ms").parse().unwrap();
            assert!((20_000..=30_000).contains(&wait), "{wait}");
        }
        let event = &rig.events(1).await[0];
        assert_eq!((event.status, event.attempts, event.backend.as_str()), (status, 2, "second"));
        assert_eq!((event.outcome, event.usage.source), (Outcome::BackendFailed, Source::None));
    }
}

#[tokio::test]
async fn a_throttled_backend_counts_while_it_rests_too() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "status=429,retry-after=30").await;
    assert_eq!(rig.server().await, "second");
    rig.always("second", "status=500").await;
    rig.clock.advance(Duration::from_secs(10));
    let answer = rig.chat(false).await;
    assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (429, "1"), "{}", answer.body);
    let wait: u64 = answer.header("retry-after-ms").parse().unwrap();
    assert!((10_000..=20_000).contains(&wait), "{wait}");
    assert_eq!(rig.asked("first").await, 1);
}

#[tokio::test]
async fn short_waits_of_all_backends_are_told_as_they_are_and_rest_nobody() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "status=429,retry-after-ms=300").await;
    rig.always("second", "status=429,retry-after-ms=200").await;
    for _ in 0..3 {
        let answer = rig.chat(false).await;
        assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (429, "2"));
        assert_eq!((answer.header("retry-after-ms"), answer.header("retry-after")), ("200", "1"));
    }
}

#[tokio::test]
async fn a_failed_backend_that_names_a_time_rests_for_it_unless_nobody_else_is_left() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "status=503,retry-after=30").await;
    for _ in 0..5 {
        assert_eq!(rig.server().await, "second");
    }
    assert_eq!(rig.asked("first").await, 1);
    rig.always("second", "status=500").await;
    let answer = rig.chat(false).await;
    assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (503, "2"));
    rig.always("first", "").await;
    assert_eq!(rig.server().await, "first");
}

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn when_every_backend_is_misconfigured_the_log_says_of_each_what_mends_it() {
    let rig = Rig::of(&["roleless", "keyless", "empty"]).await;
    rig.always("roleless", "error=permission-denied").await;
    rig.always("keyless", "error=key-auth-disabled").await;
    rig.always("empty", "error=deployment-not-found").await;
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    let answer = rig.chat(false).await;
    drop(guard);
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_misconfigured"));
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for (backend, mends) in [
        ("roleless", "Cognitive Services OpenAI User"),
        ("keyless", "\"kind\": \"entra\""),
        ("empty", "has no deployment `gpt-4o-mini`"),
    ] {
        let line = log.lines().find(|line| line.contains(&format!("backend `{backend}`")));
        let line = line.unwrap_or_else(|| panic!("nothing of `{backend}` in {log}"));
        assert!(line.contains(mends) && line.contains("ERROR"), "{line}");
    }
    assert!(!log.contains(&rig.gateway.key) && !log.contains("Say hello"), "{log}");
}
