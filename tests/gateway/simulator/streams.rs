//! Streams, in Azure's habits.

use tokio::time::Instant;

use super::*;

fn plain() -> Resource {
    Resource::new(Knobs::default())
}

#[tokio::test]
async fn a_stream_has_azures_events_in_azures_order() {
    let answer = plain().post(CHAT, &streamed(&json!({"max_tokens": 2}))).await;
    assert_eq!(answer.header("content-type"), "text/event-stream; charset=utf-8");
    let chunks = answer.chunks();
    assert_eq!(chunks.len(), 5);
    assert_eq!(chunks[0]["choices"], json!([]));
    assert!(chunks[0]["prompt_filter_results"][0]["content_filter_results"].is_object());
    let delta = &chunks[1]["choices"][0]["delta"];
    assert_eq!(*delta, json!({"role": "assistant", "content": "", "refusal": null}));
    for said in &chunks[2..4] {
        assert_eq!(said["object"], "chat.completion.chunk");
        assert_eq!(said["choices"][0]["content_filter_results"]["violence"]["filtered"], false);
        assert!(!said["choices"][0]["delta"]["content"].as_str().unwrap().is_empty());
        assert_eq!(said["id"], chunks[1]["id"]);
    }
    assert_eq!(chunks[4]["choices"][0]["delta"], json!({}));
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "length");
    assert!(!answer.body.windows(7).any(|bytes| bytes == b"\"usage\""));
}

#[tokio::test]
async fn usage_comes_when_it_is_asked_for_and_is_null_before() {
    let asking = json!({"stream_options": {"include_usage": true}});
    let chunks = plain().post(CHAT, &streamed(&asking)).await.chunks();
    let (last, others) = chunks.split_last().unwrap();
    assert_eq!(last["choices"], json!([]));
    assert_eq!(last["usage"]["completion_tokens"], 5);
    assert_eq!(last["usage"]["total_tokens"], 16);
    for chunk in others {
        assert!(chunk.as_object().unwrap().contains_key("usage"), "{chunk}");
        assert_eq!(chunk["usage"], Value::Null);
    }
    let not_asking = json!({"stream_options": {"include_usage": false}});
    let chunks = plain().post(CHAT, &streamed(&not_asking)).await.chunks();
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
}

#[tokio::test]
async fn a_stream_says_what_the_whole_reply_says() {
    let resource = plain();
    let asked = json!({"max_tokens": 30, "n": 2});
    let whole = resource.post(CHAT, &with(hello(), &asked)).await.json();
    for words in ["tokens-per-chunk=1", "tokens-per-chunk=7", "chunk-bytes=10"] {
        let chunks = resource.told(words, CHAT, &streamed(&asked)).await.chunks();
        for index in [0, 1] {
            let choices = chunks.iter().filter_map(|chunk| chunk["choices"].get(0));
            let said: String = choices
                .filter(|choice| choice["index"] == index)
                .filter_map(|choice| choice["delta"]["content"].as_str())
                .collect();
            assert_eq!(whole["choices"][index]["message"]["content"], said, "{words}");
        }
    }
}

#[tokio::test]
async fn tool_calls_are_streamed_in_fragments() {
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {
        "type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}}})
    };
    let messages = json!([{"role": "user", "content": "The weather, and a hotel"}]);
    let body =
        json!({"stream": true, "messages": messages, "tools": [tool("get_weather"), tool("find_hotel")]});
    let chunks = plain().post(CHAT, &body).await.chunks();
    let calls: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    for (index, name) in ["get_weather", "find_hotel"].iter().enumerate() {
        let mine: Vec<_> = calls.iter().filter(|call| call["index"] == index).collect();
        assert_eq!(mine[0]["function"]["name"], **name);
        assert!(mine[0]["id"].is_string() && mine[1].get("id").is_none());
        let fragments = mine.iter().map(|call| call["function"]["arguments"].as_str().unwrap());
        let arguments: Value = serde_json::from_str(&fragments.collect::<String>()).unwrap();
        assert!(arguments["city"].is_string(), "{arguments}");
    }
    assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn legacy_completions_stream_texts() {
    let body = json!({"model": "gpt-35-turbo-instruct", "prompt": "Hi", "max_tokens": 3, "stream": true});
    let chunks = plain().post("/openai/v1/completions", &body).await.chunks();
    assert_eq!(chunks.len(), 5);
    assert!(chunks[0]["prompt_filter_results"].is_array());
    assert!(chunks[1..].iter().all(|chunk| chunk["object"] == "text_completion"));
    assert!(chunks[1..4].iter().all(|chunk| chunk["choices"][0]["text"] != ""));
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn each_event_is_an_http_chunk_of_its_own() {
    let listening = Listening::new(Knobs::default()).await;
    let all = listening.ask("tokens-per-second=0", &streamed(&json!({"max_tokens": 2}))).await;
    let mut all = all;
    let read = read_until(&mut all, "\r\n0\r\n\r\n").await;
    let (_, body) = read.split_once("\r\n\r\n").unwrap();
    let mut rest = body;
    let mut chunks = 0;
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        if length == 0 {
            break;
        }
        let (chunk, after) = after.split_at(length);
        assert!(chunk.starts_with("data: ") && chunk.ends_with("\n\n"), "{chunk:?}");
        assert_eq!(chunk.matches("\n\n").count(), 1);
        rest = after.strip_prefix("\r\n").unwrap();
        chunks += 1;
    }
    assert_eq!(chunks, 6);
}

#[tokio::test(start_paused = true)]
async fn the_pace_is_as_it_was_told() {
    let knobs = Knobs { ttft_ms: 300, tokens_per_second: 10.0, ..Knobs::default() };
    let resource = Resource::new(knobs);
    for body in [hello(), streamed(&json!({}))] {
        let began = Instant::now();
        resource.post(CHAT, &body).await;
        let taken = began.elapsed();
        assert!((790..830).contains(&taken.as_millis()), "{taken:?}");
    }
    let began = Instant::now();
    resource.told("ttft-ms=50,tokens-per-second=0", CHAT, &hello()).await;
    assert!((45..60).contains(&began.elapsed().as_millis()));
}

#[tokio::test]
async fn a_stream_may_be_told_to_leave_out_usage_and_done() {
    let asking = streamed(&json!({"stream_options": {"include_usage": true}}));
    let chunks = plain().told("no-usage", CHAT, &asking).await.chunks();
    assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()));
    let events = plain().told("no-done", CHAT, &asking).await.events();
    assert!(events.last().unwrap().contains("\"usage\":{"));
    let whole = plain().told("no-usage", CHAT, &hello()).await.json();
    assert!(whole.get("usage").is_none());
}
