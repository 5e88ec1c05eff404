//! The faults that backends have, one by one: what the caller sees of each, who was asked, and what is
//! in the ledger.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tollgate::domain::usage::{Outcome, Source, UsageEvent};

use super::rig::{Rig, backend, hello};
use super::scripted::{Script, chunk, scripted, stream_head};
use crate::streaming::told;
use crate::support::{Answer, CHAT};

const ERROR: &str = "data: {\"error\":{\"code\":\"backend_failed\",";

/// Timeouts that a test can wait for.
fn quick(configuration: &mut Value) {
    configuration["timeouts"] = json!({"first_byte": 0.5, "stream_first_byte": 0.5});
}

/// Long enough for what comes in time, on a machine that runs other tests besides.
fn patient(configuration: &mut Value) {
    configuration["timeouts"] = json!({"idle": 1});
}

/// The second backend serves what the first failed at with these words, streamed and whole: the caller
/// sees the second's reply and nothing else, and it is billed once.
async fn is_served_by_the_second(words: &str) {
    let rig = Rig::with(&["first", "second"], quick).await;
    rig.always("first", words).await;
    for stream in [true, false] {
        let answer = rig.chat(stream).await;
        let direct = rig.direct("second", &hello(stream)).await;
        assert_eq!((answer.status, told(&answer.body)), (200, told(&direct)), "{words}");
        assert_eq!(answer.header("x-tollgate-backend"), "second", "{words}");
    }
    let events = rig.events(2).await;
    for event in &events {
        assert_eq!((event.backend.as_str(), event.status), ("second", 200), "{words}");
        assert_eq!((event.outcome, event.usage.source), (Outcome::Completed, Source::Reported), "{words}");
    }
    assert_eq!(events[0].attempts, 2, "{words}");
    assert_ne!(events[0].id, events[1].id);
    // By the second's own books, less what this test asked of it.
    assert_eq!(rig.asked("second").await, 4, "{words}");
    assert_eq!(rig.report("first").await["in_flight"], 0);
}

#[tokio::test]
async fn a_429_with_a_time_is_served_elsewhere() {
    is_served_by_the_second("status=429,retry-after=30").await;
}

#[tokio::test]
async fn a_429_without_a_time_is_served_elsewhere() {
    is_served_by_the_second("status=429,no-retry-after").await;
}

#[tokio::test]
async fn a_503_is_served_elsewhere_and_billed_once() {
    is_served_by_the_second("status=503").await;
}

#[tokio::test]
async fn other_faults_before_the_first_byte_are_served_elsewhere() {
    for words in ["status=408", "status=499", "status=500", "status=502", "status=504"] {
        is_served_by_the_second(words).await;
    }
}

#[tokio::test]
async fn a_connection_that_is_reset_before_its_headers_is_served_elsewhere() {
    is_served_by_the_second("reset").await;
    is_served_by_the_second("refuse").await;
}

#[tokio::test]
async fn a_backend_that_hangs_is_given_up_and_the_next_one_serves() {
    is_served_by_the_second("stall").await;
    // Headers alone are no beginning.
    is_served_by_the_second("stall-after=0").await;
    is_served_by_the_second("cut-after=0").await;
}

#[tokio::test]
async fn one_500_diverts_one_request() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "status=500").await;
    assert_eq!(rig.server().await, "second");
    rig.always("first", "").await;
    for _ in 0..3 {
        assert_eq!(rig.server().await, "first");
    }
}

#[tokio::test]
async fn a_slow_first_token_is_waited_for_and_nothing_is_lost() {
    let rig = Rig::with(&["first", "second"], |configuration| {
        configuration["timeouts"] = json!({"first_byte": 5, "stream_first_byte": 5});
    })
    .await;
    rig.always("first", "ttft-ms=300").await;
    for stream in [true, false] {
        let answer = rig.chat(stream).await;
        let direct = rig.direct("first", &hello(stream)).await;
        assert_eq!((answer.status, told(&answer.body)), (200, told(&direct)));
        assert_eq!(
            (answer.header("x-tollgate-backend"), answer.header("x-tollgate-attempts")),
            ("first", "1")
        );
    }
    assert_eq!(rig.asked("second").await, 0);
}

/// The reply breaks off behind its first byte: the bytes before are the backend's own, an error event
/// follows, no `[DONE]`; nobody else is asked; it is in the ledger once, as what it was.
async fn breaks_off(words: &str) {
    let rig = Rig::with(&["first", "second"], patient).await;
    rig.always("first", words).await;
    for asks_for_usage in [false, true] {
        let mut body = hello(true);
        if asks_for_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        let answer = rig.gateway.chat(&body, "").await;
        let (before, error) = answer.body.split_once(ERROR).expect("an error event");
        let direct = rig.direct("first", &body).await;
        assert!(before.contains("\"content\":\""), "{words}: {before}");
        assert_eq!(told(before), told(&direct), "{words}");
        assert_eq!(error.matches("\n\n").count(), 1, "{words}: {error}");
        assert!(error.ends_with("\n\n") && !answer.body.contains("[DONE]"), "{words}");
        assert!(!answer.body.contains("\"finish_reason\":\""), "{words}: {}", answer.body);
        assert_eq!(answer.header("x-tollgate-attempts"), "1");
    }
    for event in rig.events(2).await {
        assert_eq!((event.backend.as_str(), event.outcome), ("first", Outcome::BackendFailed), "{words}");
        assert_eq!((event.usage.source, event.attempts), (Source::Estimated, 1));
        assert!(event.usage.output_tokens > 0 && event.usage.input_tokens > 0, "{:?}", event.usage);
    }
    assert_eq!(rig.asked("second").await, 0);
    assert_eq!(rig.report("first").await["in_flight"], 0);
}

#[tokio::test]
async fn a_stream_that_is_cut_ends_in_an_error_behind_the_very_bytes_that_came() {
    breaks_off("cut-after=4").await;
    breaks_off("cut-after=4,chunk-bytes=11").await;
}

#[tokio::test]
async fn a_stream_that_stalls_ends_in_an_error_behind_the_very_bytes_that_came() {
    breaks_off("stall-after=4").await;
}

#[tokio::test]
async fn a_malformed_event_passes_as_it_is_and_the_rest_counts() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "malformed-after=3").await;
    let answer = rig.chat(true).await;
    assert_eq!(told(&answer.body), told(&rig.direct("first", &hello(true)).await));
    assert!(answer.body.ends_with("data: [DONE]\n\n"));
    let event = &rig.events(1).await[0];
    assert_eq!((event.outcome, event.usage.source), (Outcome::Completed, Source::Reported));
    assert_eq!(rig.report("first").await["failures"], json!({}));
}

#[tokio::test]
async fn a_stream_without_done_passes_as_it_is() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "no-done").await;
    let answer = rig.chat(true).await;
    assert_eq!(told(&answer.body), told(&rig.direct("first", &hello(true)).await));
    assert!(!answer.body.contains("[DONE]") && !answer.body.contains("error"));
    let event = &rig.events(1).await[0];
    assert_eq!((event.outcome, event.usage.source), (Outcome::Completed, Source::Reported));
}

/// The caller's own fault comes back unchanged from the only backend that was asked, which stays well.
async fn comes_back_unchanged(words: &str, code: &str) {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", words).await;
    for stream in [true, false, true, false] {
        let answer = rig.chat(stream).await;
        assert_eq!((answer.status, answer.code().as_str()), (400, code));
        assert_eq!(answer.body, rig.direct("first", &hello(stream)).await);
        assert_eq!(
            (answer.header("x-tollgate-backend"), answer.header("x-tollgate-attempts")),
            ("first", "1")
        );
    }
    for event in rig.events(4).await {
        assert_eq!((event.status, event.usage.source), (400, Source::None));
    }
    assert_eq!(rig.asked("second").await, 0);
    assert_eq!(rig.report("first").await["state"], "ready");
}

#[tokio::test]
async fn a_prompt_that_is_too_long_comes_back_unchanged() {
    comes_back_unchanged("context-tokens=3", "context_length_exceeded").await;
}

#[tokio::test]
async fn a_prompt_that_the_content_filter_refuses_comes_back_unchanged() {
    comes_back_unchanged("error=content-filter", "content_filter").await;
}

#[tokio::test]
async fn a_reply_that_the_content_filter_ends_passes_as_it_is() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "filtered-after=3").await;
    for stream in [true, false] {
        let answer = rig.chat(stream).await;
        assert_eq!(told(&answer.body), told(&rig.direct("first", &hello(stream)).await));
        assert!(answer.body.contains("\"finish_reason\":\"content_filter\""), "{}", answer.body);
    }
    for event in rig.events(2).await {
        assert_eq!((event.outcome, event.usage.output_tokens), (Outcome::Completed, 3));
    }
}

/// Asks a backend with this script before a good one; the answer, and the one event.
async fn asked(script: Script, body: &Value) -> (Answer, UsageEvent) {
    let (address, _stop) = scripted(script).await;
    let rig = Rig::with(&["good"], |configuration| {
        let good = configuration["backends"][0].clone();
        configuration["backends"] = json!([backend("scripted", address, 1), good]);
        configuration["backends"][1]["priority"] = json!(2);
        patient(configuration);
    })
    .await;
    let answer = rig.gateway.chat(body, "").await;
    let event = rig.events(1).await.remove(0);
    (answer, event)
}

const CHUNK: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"Hi\"},\"index\":0}],\"model\":\"m\"}\n\n";

#[tokio::test]
async fn a_stream_that_breaks_in_the_middle_of_an_event_has_its_line_ended() {
    let half = "data: {\"choices\":[{\"del";
    let script = |end: &str| vec![(0, stream_head() + &chunk(CHUNK) + &chunk(half) + end)];
    // Closed, and continued by something that is no HTTP chunk.
    for end in ["", "what is this\r\n"] {
        let mut body = hello(true);
        body["stream_options"] = json!({"include_usage": true});
        let (answer, event) = asked(script(end), &body).await;
        assert!(answer.body.starts_with(&format!("{CHUNK}{half}\n\n{ERROR}")), "{}", answer.body);
        assert_eq!((event.outcome, event.backend.as_str()), (Outcome::BackendFailed, "scripted"));
        // Usage was asked for by the gateway: what may have to be taken out is not given before it is whole.
        let (answer, event) = asked(script(end), &hello(true)).await;
        assert!(answer.body.starts_with(&format!("{CHUNK}{ERROR}")), "{}", answer.body);
        assert_eq!(event.outcome, Outcome::BackendFailed);
    }
}

#[tokio::test]
async fn a_refusal_that_breaks_off_was_seen_by_nobody_and_is_served_elsewhere() {
    let head =
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let (answer, event) = asked(vec![(0, head.to_owned() + &chunk("{\"error\":"))], &hello(false)).await;
    assert_eq!((answer.status, answer.header("x-tollgate-backend")), (200, "good"), "{}", answer.body);
    assert_eq!((event.attempts, event.backend.as_str()), (2, "good"));
}

#[tokio::test]
async fn a_refusal_without_a_body_is_one_all_the_same() {
    for head in [
        "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let (answer, event) = asked(vec![(0, head.to_owned())], &hello(true)).await;
        assert_eq!(
            (answer.status, answer.body.as_str(), answer.header("x-tollgate-attempts")),
            (400, "", "1")
        );
        assert_eq!((event.status, event.outcome), (400, Outcome::Completed));
    }
}

/// A backend may close a connection that is kept for the next request at any moment; that is no fault.
#[tokio::test]
async fn a_kept_connection_that_was_closed_meanwhile_costs_the_only_backend_nothing() {
    let body = r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#;
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let (address, _stop) = scripted(vec![(0, head + body)]).await;
    let rig = Rig::with(&["any"], |configuration| {
        configuration["backends"] = json!([backend("scripted", address, 1)]);
    })
    .await;
    for _ in 0..20 {
        let answer = rig.chat(false).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, body));
        assert_eq!(answer.header("x-tollgate-attempts"), "1");
    }
}

#[tokio::test]
async fn a_whole_reply_that_breaks_is_aborted_and_billed_as_failed() {
    let rig = Rig::with(&["first", "second"], patient).await;
    for words in ["cut-after=1", "stall-after=1"] {
        rig.always("first", words).await;
        let url = format!("http://{}{CHAT}", rig.gateway.address);
        let request = rig.gateway.client.post(url).header("api-key", &rig.gateway.key);
        let response = request.body(hello(false).to_string()).send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut pieces = response.bytes_stream();
        let mut is_broken = false;
        while let Some(piece) = pieces.next().await {
            is_broken |= piece.is_err();
        }
        assert!(is_broken, "{words}");
    }
    for event in rig.events(2).await {
        assert_eq!((event.outcome, event.backend.as_str()), (Outcome::BackendFailed, "first"));
    }
    assert_eq!(rig.asked("second").await, 0);
}
