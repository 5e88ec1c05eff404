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

/// A stream without what differs from one request to the next: ids and times.
fn told(stream: &str) -> String {
    stream
        .split("\n\n")
        .map(|event| {
            let Some(Ok(mut chunk)) = event.strip_prefix("data: ").map(serde_json::from_str::<Value>) else {
                return event.to_owned();
            };
            for member in ["id", "created"] {
                if let Some(value) = chunk.get_mut(member) {
                    *value = Value::Null;
                }
            }
            // The order of the members, and every byte of the others, is compared as text.
            let keys: Vec<_> = chunk.as_object().unwrap().keys().cloned().collect();
            format!("{keys:?} {chunk}")
        })
        .collect::<Vec<_>>()
        .join("\n\n")
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
async fn bytes_are_those_of_the_backend() {
    let gateway = TestGateway::start().await;
    // The id and the time are the same for both when both come from one request: the backend's own
    // record of the stream is the caller's.
    let body = streamed(&json!({"stream_options": {"include_usage": true}}));
    let answer = gateway.chat(&body, "").await;
    assert!(answer.body.contains("\"usage\":null") && answer.body.contains("\"prompt_tokens\""));
    let without = gateway.chat(&streamed(&json!({})), "").await;
    assert!(!without.body.contains("\"usage\""), "{}", without.body);
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
