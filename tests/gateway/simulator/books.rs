//! The resource's own books, and the last request it saw.

use super::*;

#[tokio::test]
async fn tokens_are_counted_by_deployment_and_by_whether_the_client_was_told() {
    let resource = Resource::new(Knobs { cached_tokens: 4, ..Knobs::default() });
    let v1 = with(hello(), &json!({"model": "gpt-4o"}));
    resource.post(CHAT, &hello()).await;
    resource.post(CHAT, &streamed(&json!({"stream_options": {"include_usage": true}}))).await;
    resource.post(CHAT, &streamed(&json!({}))).await;
    resource.told("status=503", CHAT, &hello()).await;
    resource.told("status=503", V1_CHAT, &v1).await;
    let counts = resource.counts().await;
    let mini = &counts["deployments"]["gpt-4o-mini"];
    assert_eq!((&mini["requests"], &mini["streams"]), (&json!(4), &json!(2)));
    assert_eq!(mini["by_status"], json!({"200": 3, "503": 1}));
    let sums = |requests: u64| {
        json!({"requests": requests, "prompt_tokens": 11 * requests, "completion_tokens": 5 * requests,
            "cached_tokens": 4 * requests, "reasoning_tokens": 0})
    };
    assert_eq!(mini["reported"], sums(2));
    assert_eq!(mini["unreported"], sums(1));
    assert_eq!(mini["prompt_tokens"], 33);
    assert_eq!(counts["total"]["requests"], 5);
    assert_eq!(counts["deployments"]["gpt-4o"]["by_status"], json!({"503": 1}));
}

#[tokio::test]
async fn the_books_can_be_begun_anew() {
    let resource = Resource::new(Knobs::default());
    resource.post(CHAT, &hello()).await;
    let answer = resource.send("DELETE", "/simulator/counts", NO_HEADERS, "").await;
    assert_eq!(answer.status, 204);
    let counts = resource.counts().await;
    assert_eq!((&counts["total"]["requests"], &counts["deployments"]), (&json!(0), &json!({})));
}

#[tokio::test]
async fn the_last_request_is_shown_as_it_came() {
    let resource = Resource::new(Knobs::default());
    let last = async || resource.send("GET", "/simulator/last", NO_HEADERS, "").await.json();
    assert_eq!(last().await, Value::Null);
    let headers = &[("x-one", "1"), ("x-one", "2")];
    resource.send("POST", CHAT, headers, "not even JSON").await;
    let last = last().await;
    assert_eq!(last["method"], "POST");
    assert_eq!(last["path"], "/openai/deployments/gpt-4o-mini/chat/completions");
    assert_eq!(last["query"], "api-version=2024-10-21");
    assert_eq!(last["headers"]["x-one"], json!(["1", "2"]));
    assert_eq!(last["body"], "not even JSON");
    resource.send("POST", "/openai/v1/embeddings", NO_HEADERS, "no model").await;
    assert_eq!(resource.send("GET", "/simulator/last", NO_HEADERS, "").await.json()["body"], "no model");
    let long = "a".repeat(100_000);
    resource.send("POST", CHAT, NO_HEADERS, &long).await;
    let last = resource.send("GET", "/simulator/last", NO_HEADERS, "").await.json();
    assert_eq!(last["body"].as_str().unwrap().len(), 64 * 1024);
    assert_eq!(last["body_bytes"], 100_000);
}

#[tokio::test]
async fn a_running_resource_can_be_told_to_fail_and_to_recover() {
    let resource = Resource::new(Knobs::default());
    for (words, told, status) in [("status=429", 204, 429), ("nonsense", 400, 429), ("", 204, 200)] {
        let answer = resource.send("PUT", "/simulator/always", NO_HEADERS, words).await;
        assert_eq!(answer.status, told, "{words}");
        assert_eq!(resource.post(CHAT, &hello()).await.status, status, "{words}");
    }
}
