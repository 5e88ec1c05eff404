//! Responses: made, streamed, kept, gone on from.

use tollgate::domain::tokens::Encoding;

use super::*;

const V1: &str = "/openai/v1/responses";
const DATED: &str = "/openai/responses?api-version=2025-04-01-preview";

fn asked(more: &Value) -> Value {
    with(json!({"model": "gpt-4o-mini", "input": "Hello, world!", "max_output_tokens": 5}), more)
}

async fn get(resource: &Resource, path: &str) -> Answer {
    resource.send("GET", path, NO_HEADERS, "").await
}

fn said(response: &Value) -> String {
    response["output"][0]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// The events of a stream: their names, and their data.
fn events(answer: &Answer) -> Vec<(String, Value)> {
    let text = std::str::from_utf8(&answer.body).unwrap();
    let event = |event: &str| {
        let (name, data) = event.split_once("\ndata: ").unwrap();
        (name.strip_prefix("event: ").unwrap().to_owned(), serde_json::from_str(data).unwrap())
    };
    text.strip_suffix("\n\n").unwrap().split("\n\n").map(event).collect()
}

#[tokio::test]
async fn a_response_has_azures_members_and_true_counts() {
    let resource = Resource::new(Knobs { cached_tokens: 2, ..Knobs::default() });
    for path in [V1, DATED] {
        let response = resource.post(path, &asked(&json!({}))).await.json();
        assert_eq!((&response["object"], &response["status"]), (&json!("response"), &json!("incomplete")));
        assert_eq!(response["incomplete_details"]["reason"], "max_output_tokens");
        assert_eq!(response["model"], "gpt-4o-mini-2024-07-18");
        assert!(response["id"].as_str().unwrap().starts_with("resp_"));
        let usage = &response["usage"];
        assert_eq!(usage["output_tokens"], Encoding::O200k.count(&said(&response)));
        assert_eq!((&usage["input_tokens"], &usage["total_tokens"]), (&json!(3 + 3 + 4), &json!(15)));
        assert_eq!(usage["input_tokens_details"]["cached_tokens"], 2);
        assert_eq!(usage["output_tokens_details"]["reasoning_tokens"], 0);
    }
}

#[tokio::test]
async fn a_stream_tells_a_response_piece_by_piece_and_its_usage_in_the_last_event() {
    let resource = Resource::new(Knobs::default());
    let whole = resource.post(V1, &asked(&json!({}))).await.json();
    let events = events(&resource.post(V1, &asked(&json!({"stream": true}))).await);
    let names: Vec<_> = events.iter().map(|(name, _)| name.strip_prefix("response.").unwrap()).collect();
    assert_eq!(names[..4], ["created", "in_progress", "output_item.added", "content_part.added"]);
    assert_eq!(names[4..9], ["output_text.delta"; 5]);
    assert_eq!(names[9..], ["output_text.done", "content_part.done", "output_item.done", "incomplete"]);
    let mut text = String::new();
    for (place, (name, data)) in events.iter().enumerate() {
        assert_eq!((&data["type"], &data["sequence_number"]), (&json!(name), &json!(place)));
        text.push_str(data["delta"].as_str().unwrap_or_default());
    }
    assert_eq!(text, said(&whole));
    assert_eq!(events[0].1["response"]["usage"], Value::Null);
    let last = &events.last().unwrap().1["response"];
    assert_eq!((&last["usage"], said(last)), (&whole["usage"], said(&whole)));
    assert_eq!(last["id"], events[0].1["response"]["id"]);
}

#[tokio::test]
async fn a_tool_is_called_and_its_answer_heard() {
    let resource = Resource::new(Knobs::default());
    let tool = json!([{"type": "function", "name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]);
    let body = asked(&json!({"input": "The weather?", "tools": tool, "max_output_tokens": null}));
    let call = resource.post(V1, &body).await.json()["output"][0].clone();
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("get_weather")));
    assert!(serde_json::from_str::<Value>(call["arguments"].as_str().unwrap()).unwrap()["city"].is_string());
    let names: Vec<_> = events(&resource.post(V1, &with(body.clone(), &json!({"stream": true}))).await)
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert!(names.contains(&"response.function_call_arguments.delta".to_owned()), "{names:?}");
    let output = json!([{"role": "user", "content": "The weather?"}, call,
        {"type": "function_call_output", "call_id": "call_1", "output": "rain"}]);
    let answered = resource.post(V1, &with(body, &json!({"input": output}))).await.json();
    assert_eq!(answered["output"][0]["type"], "message");
}

#[tokio::test]
async fn a_response_is_kept_until_it_is_deleted() {
    let resource = Resource::new(Knobs::default());
    let made = resource.post(V1, &asked(&json!({}))).await.json();
    let id = made["id"].as_str().unwrap();
    let item = format!("{V1}/{id}");
    assert_eq!(get(&resource, &item).await.json(), made);
    let items = get(&resource, &format!("{item}/input_items")).await.json();
    assert_eq!(items["data"][0]["content"][0]["text"], "Hello, world!");
    let cancelled = resource.send("POST", &format!("{item}/cancel"), NO_HEADERS, "").await;
    assert!(cancelled.status == 400 && cancelled.json()["error"]["message"] != Value::Null);
    let deleted = resource.send("DELETE", &item, NO_HEADERS, "").await.json();
    assert_eq!(deleted, json!({"id": id, "object": "response", "deleted": true}));
    let gone = get(&resource, &item).await;
    assert_eq!(gone.status, 404);
    insta::assert_snapshot!(
        gone.refusal().replace(id, "ID"),
        @r#"
    404 Not Found
    {"error":{"message":"Response with id 'ID' not found.","type":"invalid_request_error","param":null,"code":null}}
    "#
    );
    // What is not to be stored is not.
    let unstored = resource.post(V1, &asked(&json!({"store": false}))).await.json();
    let path = format!("{V1}/{}", unstored["id"].as_str().unwrap());
    assert_eq!(get(&resource, &path).await.status, 404);
    assert_eq!(resource.counts().await["total"]["prompt_tokens"], 20);
}

#[tokio::test]
async fn a_response_goes_on_from_another_whose_tokens_are_part_of_its_prompt() {
    let resource = Resource::new(Knobs::default());
    let first = resource.post(V1, &asked(&json!({}))).await.json();
    let next = resource.post(V1, &asked(&json!({"previous_response_id": first["id"]}))).await.json();
    assert_eq!(next["usage"]["input_tokens"], 10 + 15);
    assert_eq!(next["previous_response_id"], first["id"]);
    let lost = resource.post(V1, &asked(&json!({"previous_response_id": "resp_none"}))).await;
    insta::assert_snapshot!(lost.refusal(), @r#"
    400 Bad Request
    {"error":{"message":"Previous response with id 'resp_none' not found.","type":"invalid_request_error","param":"previous_response_id","code":"previous_response_not_found"}}
    "#);
}

#[tokio::test]
async fn what_azure_refuses_is_refused() {
    let resource = Resource::new(Knobs::default());
    let old = "/openai/responses?api-version=2024-10-21";
    for (path, more, told) in [
        (old, json!({}), "only for api-version 2025-03-01-preview and later"),
        ("/openai/responses", json!({}), "Resource not found"),
        (V1, json!({"input": null}), "Missing required parameter: 'input'."),
        (V1, json!({"stream": true, "stream_options": {"include_usage": true}}), "Unknown parameter"),
        (V1, json!({"background": true}), "background"),
    ] {
        let refused = resource.post(path, &asked(&more)).await;
        assert!(refused.refusal().contains(told), "{}", refused.refusal());
    }
    let below = "/openai/deployments/gpt-4o-mini/responses?api-version=2025-04-01-preview";
    assert_eq!(resource.post(below, &asked(&json!({}))).await.status, 404);
}
