//! What a caller sees of a stream: exactly what it would have seen without a gateway, as it arrives.

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use crate::support::{CHAT, TestGateway};

fn streamed(extra: &Value) -> Value {
    let mut body = json!({"stream": true, "messages": [{"role": "user", "content": "Tell me a story."}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

/// A stream without what differs from one request to the next, its ids and times; every other byte is
/// left as it is.
pub(crate) fn told(stream: &str) -> String {
    let mut told = stream.to_owned();
    for (member, is_value) in
        [("\"id\":\"", (|c| c != '"') as fn(char) -> bool), ("\"created\":", |c| c.is_ascii_digit())]
    {
        let mut parts = told.split(member);
        let mut without = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            without.push_str(member);
            without.push_str(part.trim_start_matches(is_value));
        }
        told = without;
    }
    told
}

#[tokio::test]
async fn a_stream_is_what_it_would_be_without_a_gateway() {
    let gateway = TestGateway::start().await;
    for options in [
        json!({}),
        json!({"stream_options": null}),
        json!({"stream_options": {}}),
        json!({"stream_options": {"include_usage": false}}),
        json!({"stream_options": {"include_usage": true}}),
        json!({"n": 2, "max_tokens": 5}),
    ] {
        for behaviour in ["", "chunk-bytes=1", "chunk-bytes=7", "chunk-bytes=1000"] {
            let body = streamed(&options);
            let through = gateway.chat(&body, behaviour).await;
            let direct = gateway.direct(&body, behaviour).await;
            assert_eq!(told(&through.body), told(&direct.body), "{options} {behaviour}");
            assert_eq!(through.header("content-type"), direct.header("content-type"));
            assert!(through.body.ends_with("data: [DONE]\n\n"));
        }
    }
}

#[tokio::test]
async fn usage_is_seen_by_those_who_asked_for_it_and_by_nobody_else() {
    let gateway = TestGateway::start().await;
    let asked = gateway.chat(&streamed(&json!({"stream_options": {"include_usage": true}})), "").await;
    assert!(asked.body.contains("\"usage\":null") && asked.body.contains("\"prompt_tokens\""));
    let unasked = gateway.chat(&streamed(&json!({})), "").await;
    assert!(!unasked.body.contains("\"usage\""), "{}", unasked.body);
    // It was asked for all the same.
    assert!(gateway.received().await["body"].as_str().unwrap().contains("include_usage"));
    assert_eq!(gateway.total(2).await["estimated_requests"], 0);
}

#[tokio::test]
async fn chunks_arrive_one_by_one() {
    let gateway = TestGateway::start().await;
    let url = format!("http://{}{CHAT}", gateway.address);
    let response = gateway
        .client
        .post(url)
        .header("api-key", &gateway.key)
        .header("x-simulate", "reply-tokens=8,tokens-per-second=25")
        .body(streamed(&json!({})).to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers().get("content-length"), None);
    let mut arrivals = Vec::new();
    let mut stream = response.bytes_stream();
    while let Some(chunk) = stream.next().await {
        arrivals.push((Instant::now(), chunk.unwrap()));
    }
    let spread = arrivals.last().unwrap().0 - arrivals[0].0;
    assert!(spread > Duration::from_millis(200), "everything came within {spread:?}");
    assert!(arrivals.len() > 8, "{} pieces", arrivals.len());
}

#[tokio::test]
async fn a_broken_stream_ends_in_an_error_and_no_done() {
    let gateway = TestGateway::start().await;
    for (options, behaviour) in [
        (json!({}), "cut-after=3"),
        (json!({}), "cut-after=3,chunk-bytes=11"),
        (json!({"stream_options": {"include_usage": true}}), "cut-after=3,chunk-bytes=11"),
    ] {
        let answer = gateway.chat(&streamed(&options), behaviour).await;
        assert_eq!(answer.status, 200);
        let events: Vec<_> = answer.body.trim_end().split("\n\n").collect();
        let last = events.last().unwrap().strip_prefix("data: ").unwrap();
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!(last["error"]["code"], "backend_failed", "{}", answer.body);
        assert!(!answer.body.contains("[DONE]") && answer.body.ends_with("\n\n"));
    }
}

#[tokio::test]
async fn a_broken_body_is_seen_to_be_broken() {
    let gateway = TestGateway::start().await;
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let answer = gateway.chat(&body, "cut-after=1").await;
    assert!(answer.body.starts_with("broken:"), "{}", answer.body);
    let total = gateway.total(1).await;
    assert_eq!(total["estimated_requests"], 1, "{total}");
}
