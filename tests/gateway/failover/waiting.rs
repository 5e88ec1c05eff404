//! Long silences, and how long a request may take at all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tollgate::domain::usage::{Outcome, Source};

use super::rig::{Rig, backend, hello};
use super::scripted::{chunk, scripted, stream_head};
use crate::streaming::told;
use crate::support::CHAT;

const WAITING: &str = ": waiting\n\n";
const ERROR: &str = "data: {\"error\":{\"code\":\"backend_failed\",";

/// Callers of a stream hear after 200 ms, and then each 100 ms, that it is waited for; no backend is given
/// up for another one before.
fn talkative(configuration: &mut Value) {
    configuration["timeouts"] =
        json!({"waiting_after": 0.2, "waiting_every": 0.1, "stream_first_byte": 200, "idle": 2});
}

#[tokio::test]
async fn a_silent_stream_says_that_it_waits_and_then_is_what_it_is() {
    let rig = Rig::with(&["first", "second"], talkative).await;
    rig.always("first", "ttft-ms=500").await;
    for asks_for_usage in [false, true] {
        let mut body = hello(true);
        if asks_for_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        let answer = rig.gateway.chat(&body, "").await;
        let direct = rig.direct("first", &body).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
        assert_eq!(
            (answer.header("x-tollgate-backend"), answer.header("x-tollgate-attempts")),
            ("first", "1")
        );
        assert!(answer.body.starts_with(WAITING), "{}", answer.body);
        assert!(answer.body.matches(WAITING).count() < 30);
        assert_eq!(told(answer.body.trim_start_matches(WAITING)), told(&direct));
    }
    for event in rig.events(2).await {
        assert_eq!((event.outcome, event.usage.source), (Outcome::Completed, Source::Reported));
    }
    assert_eq!(rig.asked("second").await, 0);
}

#[tokio::test]
async fn a_whole_reply_never_says_that_it_waits() {
    let rig = Rig::with(&["first"], talkative).await;
    rig.always("first", "ttft-ms=500").await;
    let answer = rig.chat(false).await;
    assert_eq!(told(&answer.body), told(&rig.direct("first", &hello(false)).await));
}

/// Once a caller was told to wait nobody else is asked, whatever the backend then says: the headers
/// that its status would need are gone.
#[tokio::test]
async fn behind_the_comments_a_failure_is_an_error_event_and_nobody_else_is_asked() {
    for words in ["status=500", "status=429,retry-after=30", "error=permission-denied"] {
        let rig = Rig::with(&["first", "second"], talkative).await;
        rig.always("first", &format!("{words},ttft-ms=500")).await;
        let answer = rig.chat(true).await;
        assert_eq!(answer.status, 200, "{words}");
        let behind = answer.body.trim_start_matches(WAITING);
        assert!(behind.starts_with(ERROR) && behind.matches("\n\n").count() == 1, "{words}: {}", answer.body);
        let event = &rig.events(1).await[0];
        assert_eq!((event.outcome, event.attempts), (Outcome::BackendFailed, 1), "{words}");
        assert_eq!((event.backend.as_str(), event.usage.output_tokens), ("first", 0), "{words}");
        assert_eq!(rig.asked("second").await, 0, "{words}");
        assert_eq!(rig.report("first").await["in_flight"], 0, "{words}");
    }
}

#[tokio::test]
async fn a_caller_that_hangs_up_while_it_waits_is_in_the_ledger_once_and_frees_the_backend() {
    let rig = Rig::with(&["first"], talkative).await;
    rig.always("first", "stall").await;
    let url = format!("http://{}{CHAT}", rig.gateway.address);
    let request = rig.gateway.client.post(url).header("api-key", &rig.gateway.key);
    let mut response = request.body(hello(true).to_string()).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), WAITING);
    drop(response);
    let event = &rig.events(1).await[0];
    assert_eq!((event.outcome, event.backend.as_str()), (Outcome::ClientCancelled, "first"));
    assert_eq!(rig.report("first").await["in_flight"], 0);
    while rig.books("first").await["cancelled"] != 1 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn in_the_middle_of_a_stream_comments_stand_between_events_only() {
    let (one, two) = (
        "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"index\":0}],\"model\":\"m\"}\n\n",
        "data: {\"choices\":[{\"delta\":{\"content\":\" you\"},\"index\":0}],\"model\":\"m\"}\n\n",
    );
    let (half, rest) = two.split_at(20);
    let script = vec![
        (0, stream_head() + &chunk(one)),
        (700, chunk(half)),
        (700, chunk(rest)),
        (0, chunk("data: [DONE]\n\n") + "0\r\n\r\n"),
    ];
    let (address, _stop) = scripted(script).await;
    let rig = Rig::with(&["good"], |configuration| {
        talkative(configuration);
        configuration["backends"] = json!([backend("scripted", address, 1)]);
    })
    .await;
    let mut body = hello(true);
    body["stream_options"] = json!({"include_usage": true});
    let answer = rig.gateway.chat(&body, "").await;
    let comments = answer.body.matches(WAITING).count();
    assert!(comments > 0);
    let waited = WAITING.repeat(comments);
    assert_eq!(answer.body, format!("{one}{waited}{two}data: [DONE]\n\n"));
    // Where the gateway asked for usage the half is held back, and comments stand before it.
    let answer = rig.chat(true).await;
    let waited = WAITING.repeat(answer.body.matches(WAITING).count());
    assert_eq!(answer.body, format!("{one}{waited}{two}data: [DONE]\n\n"));
}

#[tokio::test]
async fn a_request_ends_in_its_own_time_whatever_its_backends_do() {
    let rig = Rig::with(&["first", "second", "third"], |configuration| {
        configuration["timeouts"] =
            json!({"first_byte": 0.4, "stream_first_byte": 0.4, "total": 1.5, "waiting_after": 5});
    })
    .await;
    for backend in ["first", "second", "third"] {
        rig.always(backend, "stall").await;
    }
    for stream in [false, true] {
        let answer = rig.chat(stream).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"), "{}", answer.body);
        assert_eq!(answer.header("x-tollgate-attempts"), "3");
    }
    for event in rig.events(2).await {
        assert_eq!((event.outcome, event.attempts, event.status), (Outcome::BackendFailed, 3, 503));
    }
}

#[tokio::test]
async fn behind_the_comments_the_backends_refusal_of_what_was_asked_is_told_in_its_own_words() {
    let rig = Rig::with(&["first", "second"], talkative).await;
    rig.always("first", "error=content-filter,ttft-ms=500").await;
    let answer = rig.chat(true).await;
    assert_eq!(answer.status, 200);
    let behind = answer.body.trim_start_matches(WAITING);
    let event = behind.strip_prefix("data: ").and_then(|event| event.strip_suffix("\n\n")).unwrap();
    let told: Value = serde_json::from_str(event).unwrap();
    assert_eq!(told["error"]["code"], "content_filter", "{told}");
    let event = &rig.events(1).await[0];
    assert_eq!((event.outcome, event.status, event.attempts), (Outcome::Completed, 400, 1));
    assert_eq!(rig.asked("second").await, 0);
}

#[tokio::test]
async fn a_stream_that_was_told_to_wait_ends_in_its_own_time_with_an_error() {
    let rig = Rig::with(&["first", "second"], |configuration| {
        talkative(configuration);
        configuration["timeouts"]["total"] = json!(0.5);
    })
    .await;
    rig.always("first", "stall").await;
    let answer = rig.chat(true).await;
    assert!(answer.body.starts_with(WAITING), "{}", answer.body);
    assert!(answer.body.trim_start_matches(WAITING).starts_with(ERROR), "{}", answer.body);
    assert_eq!(rig.events(1).await[0].outcome, Outcome::BackendFailed);
    assert_eq!(rig.asked("second").await, 0);
}

#[tokio::test]
async fn a_body_that_comes_slowly_takes_no_time_from_its_backends() {
    let rig = Rig::of(&["first"]).await;
    let body = hello(false).to_string();
    let head = format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\napi-key: {}\r\ncontent-length: {}\r\n\r\n",
        rig.gateway.key,
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(rig.gateway.address).await.unwrap();
    stream.write_all((head + &body[..10]).as_bytes()).await.unwrap();
    // Its request has begun once its key was looked up; nothing shows that from outside.
    tokio::time::sleep(Duration::from_millis(200)).await;
    rig.clock.advance(Duration::from_mins(5));
    stream.write_all(&body.as_bytes()[10..]).await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
