//! Whole replies: chat completions, completions, embeddings.

use tollgate::domain::tokens::Encoding;

use super::*;

const COMPLETIONS: &str = "/openai/deployments/gpt-35-turbo-instruct/completions?api-version=2024-10-21";
const EMBEDDINGS: &str = "/openai/deployments/text-embedding-3-small/embeddings?api-version=2024-10-21";

fn plain() -> Resource {
    Resource::new(Knobs::default())
}

fn weather() -> Value {
    json!([{"type": "function", "function": {"name": "get_weather", "parameters": {
        "type": "object", "required": ["city", "unit"], "additionalProperties": false,
        "properties": {"city": {"type": "string"}, "unit": {"enum": ["c", "f"]}},
    }}}])
}

fn asked(text: &str, more: &Value) -> Value {
    with(json!({"messages": [{"role": "user", "content": text}]}), more)
}

#[tokio::test]
async fn a_chat_completion_has_azures_members_and_true_counts() {
    let reply = plain().post(CHAT, &hello()).await.json();
    assert_eq!(reply["object"], "chat.completion");
    assert_eq!(reply["model"], "gpt-4o-mini-2024-07-18");
    assert!(reply["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(reply["created"].as_u64().unwrap() > 1_700_000_000);
    assert!(reply["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    let prompt = &reply["prompt_filter_results"][0];
    assert_eq!(prompt["content_filter_results"]["jailbreak"]["detected"], false);
    let choice = &reply["choices"][0];
    assert_eq!(choice["content_filter_results"]["hate"]["severity"], "safe");
    assert_eq!(choice["finish_reason"], "length");
    assert_eq!(choice["message"]["role"], "assistant");
    let said = choice["message"]["content"].as_str().unwrap();
    let usage = &reply["usage"];
    assert_eq!(usage["completion_tokens"], Encoding::O200k.count(said));
    assert_eq!(usage["completion_tokens"], 5);
    assert_eq!(usage["prompt_tokens"], 3 + 3 + 1 + 4);
    assert_eq!(usage["total_tokens"], 16);
    assert_eq!(usage["prompt_tokens_details"], json!({"audio_tokens": 0, "cached_tokens": 0}));
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 0);
}

#[tokio::test]
async fn both_routes_serve_and_the_same_prompt_gets_the_same_reply() {
    let resource = plain();
    let deployment = resource.post(CHAT, &hello()).await.json();
    let v1 = resource.post(V1_CHAT, &with(hello(), &json!({"model": "gpt-4o-mini"}))).await.json();
    assert_eq!(v1["choices"], deployment["choices"]);
    assert_eq!(v1["model"], deployment["model"]);
    let other = resource.post(CHAT, &asked("Another prompt", &json!({"max_tokens": 5}))).await.json();
    assert_ne!(other["choices"], deployment["choices"]);
}

#[tokio::test]
async fn every_reply_carries_azures_headers() {
    let headers = &[("x-ms-client-request-id", "mine")];
    let answer = plain().send("POST", CHAT, headers, &hello().to_string()).await;
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-ms-client-request-id"), "mine");
    assert_eq!(answer.header("x-ms-region"), "East US");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    for name in [
        "apim-request-id",
        "x-request-id",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "azureml-model-session",
        "x-envoy-upstream-service-time",
        "strict-transport-security",
    ] {
        assert_ne!(answer.header(name), "", "{name}");
    }
}

#[tokio::test]
async fn length_stop_and_number_of_answers_are_the_requests_to_choose() {
    let resource = plain();
    let reply = resource.post(CHAT, &asked("Hi", &json!({"n": 3}))).await.json();
    assert_eq!(reply["choices"].as_array().unwrap().len(), 3);
    assert_eq!(reply["choices"][2]["index"], 2);
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    assert_eq!(reply["usage"]["completion_tokens"], 3 * 64);
    let whole = reply["choices"][0]["message"]["content"].as_str().unwrap();
    let stop = whole.split(' ').nth(4).unwrap();
    let reply = resource.post(CHAT, &asked("Hi", &json!({"stop": [stop]}))).await.json();
    let said = reply["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(said, &whole[..whole.find(stop).unwrap()]);
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_tool_is_called_when_spoken_of_and_its_arguments_fit() {
    let resource = plain();
    let tools = json!({"tools": weather()});
    let reply = resource.post(CHAT, &asked("How is the weather?", &tools)).await.json();
    let choice = &reply["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let call = &choice["message"]["tool_calls"][0];
    assert!(call["id"].as_str().unwrap().starts_with("call_"));
    let arguments: Value = serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
    assert!(arguments["city"].is_string() && arguments.as_object().unwrap().len() == 2, "{arguments}");
    let reply = resource.post(CHAT, &asked("How are you?", &tools)).await.json();
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn a_tool_may_be_demanded_or_forbidden() {
    let resource = plain();
    for (choice, text, finish, calls) in [
        (json!("required"), "How are you?", "tool_calls", true),
        (json!({"type": "function", "function": {"name": "get_weather"}}), "Hi", "stop", true),
        (json!("none"), "How is the weather?", "stop", false),
    ] {
        let more = json!({"tools": weather(), "tool_choice": choice});
        let reply = resource.post(CHAT, &asked(text, &more)).await.json();
        assert_eq!(reply["choices"][0]["finish_reason"], finish, "{choice}");
        assert_eq!(reply["choices"][0]["message"]["tool_calls"].is_array(), calls, "{choice}");
    }
    let functions = json!({"functions": [weather()[0]["function"]]});
    let reply = resource.post(CHAT, &asked("How is the weather?", &functions)).await.json();
    assert_eq!(reply["choices"][0]["finish_reason"], "function_call");
    assert_eq!(reply["choices"][0]["message"]["function_call"]["name"], "get_weather");
}

#[tokio::test]
async fn several_tools_are_called_at_once_unless_that_is_forbidden() {
    let mut tools = weather();
    tools.as_array_mut().unwrap().push(json!({"type": "function", "function": {"name": "find_hotel"}}));
    let text = "The weather, and a hotel";
    for (parallel, calls) in [(true, 2), (false, 1)] {
        let more = json!({"tools": tools, "parallel_tool_calls": parallel});
        let reply = plain().post(CHAT, &asked(text, &more)).await.json();
        let made = reply["choices"][0]["message"]["tool_calls"].as_array().unwrap().len();
        assert_eq!(made, calls);
    }
}

#[tokio::test]
async fn once_a_tool_has_answered_the_model_speaks() {
    let body = json!({"tools": weather(), "tool_choice": "auto", "messages": [
        {"role": "user", "content": "How is the weather?"},
        {"role": "assistant", "content": null, "tool_calls": [{"id": "call_1", "type": "function",
            "function": {"name": "get_weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    ]});
    let reply = plain().post(CHAT, &body).await.json();
    assert!(reply["choices"][0]["message"]["content"].is_string(), "{reply}");
}

#[tokio::test]
async fn a_response_format_is_kept() {
    let said = async |format: Value| -> Value {
        let body = asked("Hi", &json!({"response_format": format}));
        let reply = plain().post(CHAT, &body).await.json();
        serde_json::from_str(reply["choices"][0]["message"]["content"].as_str().unwrap()).unwrap()
    };
    assert!(said(json!({"type": "json_object"})).await.is_object());
    let schema = json!({"type": "object", "required": ["n", "s"], "additionalProperties": false,
        "properties": {"n": {"type": "integer"}, "s": {"$ref": "#/$defs/S"}},
        "$defs": {"S": {"type": "array", "items": {"enum": ["x", "y"]}}}});
    let made = said(json!({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})).await;
    assert!(made["n"].is_i64() && made["s"][0].is_string(), "{made}");
}

#[tokio::test]
async fn models_that_think_charge_for_their_thoughts() {
    let body = with(asked("Hi", &json!({"max_completion_tokens": 100})), &json!({"model": "o3-mini"}));
    let usage = plain().post(V1_CHAT, &body).await.json()["usage"].clone();
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 64);
    assert_eq!(usage["completion_tokens"], 100);
}

#[tokio::test]
async fn a_reply_of_any_length_is_held_in_bounded_memory() {
    let body = json!({"messages": [{"role": "user", "content": "Hi"}], "n": 100});
    let reply = plain().told("reply-tokens=1000000000", CHAT, &body).await.json();
    assert_eq!(reply["choices"][99]["finish_reason"], "length");
    assert_eq!(reply["usage"]["completion_tokens"], 10_000_000);
}

#[tokio::test]
async fn completions_take_every_shape_of_a_prompt() {
    let resource = plain();
    for (prompt, tokens, choices) in [
        (json!("Hello, world!"), 4, 1),
        (json!(["Hello, world!", "Hello, world!"]), 8, 2),
        (json!([1, 2, 3]), 3, 1),
        (json!([[1, 2], [3]]), 3, 2),
    ] {
        let reply = resource.post(COMPLETIONS, &json!({"prompt": prompt})).await.json();
        assert_eq!(reply["object"], "text_completion");
        assert_eq!(reply["usage"]["prompt_tokens"], tokens, "{prompt}");
        assert_eq!(reply["usage"]["completion_tokens"], 16 * choices, "{prompt}");
        assert_eq!(reply["choices"].as_array().unwrap().len(), choices, "{prompt}");
    }
    let echo = json!({"prompt": "Hello, world!", "echo": true, "max_tokens": 2});
    let reply = resource.post(COMPLETIONS, &echo).await.json();
    assert!(reply["choices"][0]["text"].as_str().unwrap().starts_with("Hello, world!"));
    assert_eq!(reply["usage"]["completion_tokens"], 2);
}

#[tokio::test]
async fn embeddings_are_unit_vectors_of_the_length_asked_for() {
    let resource = plain();
    for (more, dimensions) in [(json!({}), 1536), (json!({"dimensions": 256}), 256)] {
        let body = with(json!({"input": ["Hello, world!", "Hello, world!"]}), &more);
        let reply = resource.post(EMBEDDINGS, &body).await.json();
        let vector: Vec<f64> = serde_json::from_value(reply["data"][0]["embedding"].clone()).unwrap();
        assert_eq!(vector.len(), dimensions);
        let length = vector.iter().map(|part| part * part).sum::<f64>();
        assert!((length - 1.0).abs() < 1e-3, "{length}");
        assert_eq!(reply["data"][0]["embedding"], reply["data"][1]["embedding"]);
        assert_eq!(reply["usage"], json!({"prompt_tokens": 8, "total_tokens": 8}));
    }
}

#[tokio::test]
async fn embeddings_come_as_base64_of_the_same_floats() {
    use base64::Engine;
    let resource = plain();
    let body = |format: &str| json!({"input": [1, 2], "dimensions": 3, "encoding_format": format});
    let floats = resource.post(EMBEDDINGS, &body("float")).await.json();
    let floats: Vec<f32> = serde_json::from_value(floats["data"][0]["embedding"].clone()).unwrap();
    let encoded = resource.post(EMBEDDINGS, &body("base64")).await.json();
    let encoded = encoded["data"][0]["embedding"].as_str().unwrap().to_owned();
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    let expected: Vec<u8> = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
    assert_eq!(bytes, expected);
}

#[tokio::test]
async fn a_body_of_many_megabytes_is_read_and_counted() {
    let image = format!("data:image/png;base64,{}", "A".repeat(20_000_000));
    let parts = json!([{"type": "image_url", "image_url": {"url": image}}]);
    let body = json!({"messages": [{"role": "user", "content": parts}], "max_tokens": 1});
    let answer = plain().post(CHAT, &body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["usage"]["prompt_tokens"], 3 + 3 + 1 + 765);
}
