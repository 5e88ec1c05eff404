//! How many tokens is this prompt?
//!
//! Pure functions on a request's JSON, by the rule that OpenAI publishes for each API. What a backend
//! adds of its own (the wrapping of tool schemas, an image's size) is not public, so those parts are
//! stated figures here, and a count of them is an estimate. It must never fail: a shape that no
//! backend would accept counts for nothing.

use serde_json::Value;

use super::tokens::Encoding;

/// What frames a message: its start, its end and the break after its role.
const PER_MESSAGE: u64 = 3;
/// A name, beside its text.
const PER_NAME: u64 = 1;
/// Every reply is begun with these.
const PRIMING: u64 = 3;
/// An image of 1024 x 1024 in high detail: 85 and four tiles of 170. Its real size is not looked at.
pub const IMAGE: u64 = 765;
/// An image in low detail, whatever its size.
pub const IMAGE_LOW_DETAIL: u64 = 85;

/// The prompt tokens of a chat completions request.
pub fn chat_tokens(body: &Value, encoding: Encoding) -> u64 {
    let messages: u64 =
        items(&body["messages"]).iter().map(|message| message_tokens(message, encoding)).sum();
    let schemas: u64 = ["tools", "functions"]
        .iter()
        .flat_map(|list| items(&body[*list]))
        .map(|schema| json_tokens(schema, encoding))
        .sum();
    messages + schemas + PRIMING
}

/// The prompt tokens of a (legacy) completions request.
pub fn completions_tokens(body: &Value, encoding: Encoding) -> u64 {
    input_tokens(&body["prompt"], encoding)
}

/// The tokens of an embeddings request.
pub fn embeddings_tokens(body: &Value, encoding: Encoding) -> u64 {
    input_tokens(&body["input"], encoding)
}

/// The prompt tokens of a responses request, as far as they stand in it: those of a response that it
/// goes on from are known to the backend alone.
pub fn responses_tokens(body: &Value, encoding: Encoding) -> u64 {
    let framed = |text: &str| PER_MESSAGE + encoding.count(text);
    let input: u64 = match &body["input"] {
        Value::String(text) => framed(text),
        input => items(input).iter().map(|item| item_tokens(item, encoding)).sum(),
    };
    let instructions = body["instructions"].as_str().map_or(0, framed);
    let schemas: u64 = items(&body["tools"]).iter().map(|tool| json_tokens(tool, encoding)).sum();
    input + instructions + schemas + PRIMING
}

/// A message, a call of a tool, or what a tool answered.
fn item_tokens(item: &Value, encoding: Encoding) -> u64 {
    let Value::Object(members) = item else {
        return 0;
    };
    let said: u64 = members
        .iter()
        .map(|(name, value)| match (name.as_str(), value) {
            ("content" | "output" | "summary", Value::Array(parts)) => {
                parts.iter().map(|part| part_tokens(part, encoding)).sum()
            }
            (
                "role" | "content" | "name" | "arguments" | "input" | "output" | "code",
                Value::String(text),
            ) => encoding.count(text),
            _ => 0,
        })
        .sum();
    PER_MESSAGE + said
}

/// The tokens of a text, of a list of texts, of a list of token ids, or of a list of such lists.
pub fn input_tokens(input: &Value, encoding: Encoding) -> u64 {
    match input {
        Value::String(text) => encoding.count(text),
        Value::Number(_) => 1,
        Value::Array(items) => items.iter().map(|item| input_tokens(item, encoding)).sum(),
        _ => 0,
    }
}

fn message_tokens(message: &Value, encoding: Encoding) -> u64 {
    let Value::Object(members) = message else {
        return 0;
    };
    let said: u64 = members
        .iter()
        .map(|(name, value)| match (name.as_str(), value) {
            ("name", Value::String(text)) => PER_NAME + encoding.count(text),
            ("content", Value::Array(parts)) => parts.iter().map(|part| part_tokens(part, encoding)).sum(),
            (_, Value::String(text)) => encoding.count(text),
            ("tool_calls" | "function_call", value) if !value.is_null() => json_tokens(value, encoding),
            _ => 0,
        })
        .sum();
    PER_MESSAGE + said
}

fn part_tokens(part: &Value, encoding: Encoding) -> u64 {
    match part["type"].as_str() {
        Some("image_url") if part["image_url"]["detail"] == "low" => IMAGE_LOW_DETAIL,
        Some("input_image") if part["detail"] == "low" => IMAGE_LOW_DETAIL,
        // Files and sound have no published figure; an image's is nearer than none.
        Some("image_url" | "file" | "input_audio" | "input_image" | "input_file") => IMAGE,
        _ => ["text", "refusal"]
            .iter()
            .filter_map(|member| part[*member].as_str())
            .map(|text| encoding.count(text))
            .sum(),
    }
}

fn json_tokens(value: &Value, encoding: Encoding) -> u64 {
    encoding.count(&value.to_string())
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const O200K: Encoding = Encoding::O200k;

    #[test]
    fn messages_count_by_the_published_rule() {
        let body = json!({"messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": "Hello, world!"},
        ]});
        let text = O200K.count("system") + O200K.count("Be brief.") + O200K.count("user");
        let named = O200K.count("ann") + 1 + O200K.count("Hello, world!");
        assert_eq!(chat_tokens(&body, O200K), 3 + 3 + 3 + text + named);
    }

    #[test]
    fn parts_tools_and_images_count_too() {
        let text = json!({"messages": [{"role": "user", "content": "see"}]});
        let parts = json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "see"},
            {"type": "image_url", "image_url": {"url": "data:"}},
            {"type": "image_url", "image_url": {"url": "data:", "detail": "low"}},
        ]}]});
        let plain = chat_tokens(&text, O200K);
        assert_eq!(chat_tokens(&parts, O200K), plain + IMAGE + IMAGE_LOW_DETAIL);
        let tool = json!({"type": "function", "function": {"name": "now"}});
        let tools = json!({"messages": text["messages"], "tools": [tool.clone()]});
        assert_eq!(chat_tokens(&tools, O200K), plain + O200K.count(&tool.to_string()));
    }

    #[test]
    fn a_responses_request_counts_like_the_chat_that_says_the_same() {
        let chat = json!({"messages": [{"role": "user", "content": "Hello, world!"}]});
        let chat = chat_tokens(&chat, O200K);
        let text = responses_tokens(&json!({"input": "Hello, world!"}), O200K);
        assert_eq!(text + O200K.count("user"), chat);
        let message = json!([{"role": "user", "content": [
            {"type": "input_text", "text": "Hello, world!"},
            {"type": "input_image", "image_url": "data:", "detail": "low"},
        ]}]);
        assert_eq!(responses_tokens(&json!({"input": message}), O200K), chat + IMAGE_LOW_DETAIL);
        let tool = json!({"type": "function", "name": "now"});
        let body = json!({"input": "Hello, world!", "instructions": "Be brief.", "tools": [tool.clone()],
                          "previous_response_id": "resp_1"});
        let more = 3 + O200K.count("Be brief.") + O200K.count(&tool.to_string());
        assert_eq!(responses_tokens(&body, O200K), text + more);
        let call = json!([{"type": "function_call", "id": "fc_1", "name": "now", "arguments": "{}"},
                          {"type": "function_call_output", "call_id": "call_1", "output": "noon"}]);
        let said = O200K.count("now") + O200K.count("{}") + O200K.count("noon");
        assert_eq!(responses_tokens(&json!({"input": call}), O200K), 3 + 3 + 3 + said);
    }

    #[test]
    fn every_shape_of_an_input_counts() {
        for (input, tokens) in [
            (json!("Hello, world!"), 4),
            (json!(["Hello, world!", "Hello, world!"]), 8),
            (json!([1, 2, 3]), 3),
            (json!([[1, 2], [3]]), 3),
            (json!(null), 0),
        ] {
            let body = json!({"input": input, "prompt": input});
            assert_eq!(embeddings_tokens(&body, O200K), tokens, "{body}");
            assert_eq!(completions_tokens(&body, O200K), tokens, "{body}");
        }
    }

    #[test]
    fn a_shape_that_no_backend_accepts_counts_for_nothing_and_does_not_fail() {
        for body in [json!([]), json!({"messages": 7}), json!({"messages": [1]})] {
            assert_eq!(chat_tokens(&body, O200K), PRIMING);
        }
    }
}
