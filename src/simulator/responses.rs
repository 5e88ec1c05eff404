//! Responses: is the request in order, what is said in answer, and how a response is written.
//!
//! What is said is what a chat completion of the same sense would say: the request is turned into one.

use serde::Serialize;
use serde_json::{Value, json};

use super::ask::{Ask, flag, limit, list};
use super::chat;
use super::model;
use super::refusal::Refusal;
use super::reply::{Call, Said};
use super::usage::Usage;
use super::words::Text;

pub(super) mod events;

/// Refuses what Azure refuses, before anything is counted.
pub(super) fn check(ask: &Ask) -> Result<(), Refusal> {
    match &ask.body["input"] {
        Value::Array(items) => items.iter().enumerate().try_for_each(|(index, item)| {
            let param = format!("input[{index}]");
            if item.is_object() { Ok(()) } else { Err(Refusal::wrong_type(&param, "an object", item)) }
        })?,
        Value::String(_) => {}
        Value::Null => return Err(Refusal::missing("input")),
        other => return Err(Refusal::wrong_type("input", "one of a string or array of objects", other)),
    }
    if !ask.body["stream_options"]["include_usage"].is_null() {
        return Err(Refusal::unknown_parameter("stream_options.include_usage"));
    }
    if flag(&ask.body, "background")? {
        let message = "The simulated resource makes no responses in the background.";
        return Err(Refusal::invalid_value("background", message));
    }
    flag(&ask.body, "store")?;
    list(&ask.body, "tools")?;
    limit(&ask.body, "max_output_tokens", u64::MAX)?;
    Ok(())
}

/// One item of the output.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// Thoughts, which are not told.
    Reasoning(String),
    Message(String, Text),
    Call(String, Call),
}

/// A response, ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Response {
    pub(super) id: String,
    pub(super) usage: Usage,
    pub(super) output: Vec<Output>,
    reports_usage: bool,
    model: String,
    /// Seconds since 1970.
    created: u64,
    is_whole: bool,
    /// The request, but for its input.
    asked: Value,
}

/// What is said in answer to a request that is in order.
pub(super) fn reply(ask: &Ask) -> Response {
    let reply = chat::reply(&as_chat(ask));
    let mut output = Vec::new();
    if model::reasons(&ask.model) {
        output.push(Output::Reasoning(ask.ids.prefixed("rs_", 48)));
    }
    let mut is_whole = true;
    for choice in reply.choices {
        is_whole &= choice.finish != "length";
        match choice.said {
            Said::Text(text) => output.push(Output::Message(ask.ids.prefixed("msg_", 48), text)),
            Said::Calls(calls) => {
                output.extend(calls.into_iter().map(|call| Output::Call(ask.ids.prefixed("fc_", 48), call)));
            }
            Said::Function(call) => output.push(Output::Call(ask.ids.prefixed("fc_", 48), call)),
        }
    }
    let mut asked = ask.body.clone();
    asked["input"].take();
    Response {
        id: ask.ids.prefixed("resp_", 48),
        usage: reply.usage,
        output,
        reports_usage: ask.behaviour.reports_usage,
        model: ask.model.clone(),
        created: ask.now,
        is_whole,
        asked,
    }
}

/// The chat completion of the same sense.
fn as_chat<'a>(ask: &Ask<'a>) -> Ask<'a> {
    let body = &ask.body;
    let input = match &body["input"] {
        Value::String(text) => vec![json!({"role": "user", "content": text})],
        input => members(input).iter().map(as_message).collect(),
    };
    let tools: Vec<_> = members(&body["tools"]).iter().map(|tool| json!({"function": tool})).collect();
    let format = &body["text"]["format"];
    let response_format = match format["type"].as_str() {
        Some("json_schema") => json!({"type": "json_schema", "json_schema": format}),
        _ => format.clone(),
    };
    let chat = json!({
        "messages": input, "tools": tools, "tool_choice": body["tool_choice"],
        "parallel_tool_calls": body["parallel_tool_calls"], "response_format": response_format,
        "max_completion_tokens": body["max_output_tokens"],
    });
    Ask { body: chat, model: ask.model.clone(), behaviour: ask.behaviour.clone(), ..*ask }
}

fn as_message(item: &Value) -> Value {
    match item["type"].as_str() {
        Some("function_call_output") => json!({"role": "tool", "content": item["output"]}),
        Some("function_call") => json!({"role": "assistant"}),
        _ => json!({"role": item["role"], "content": item["content"]}),
    }
}

/// What was asked, as `GET …/input_items` lists it.
pub(super) fn input_items(ask: &Ask) -> Vec<Value> {
    let text = |text: &Value| json!([{"type": "input_text", "text": text}]);
    let listed = |mut item: Value| {
        if item["id"].is_null() {
            item["id"] = ask.ids.prefixed("msg_", 48).into();
        }
        if item["type"].is_null() {
            item["type"] = "message".into();
        }
        if item["content"].is_string() {
            item["content"] = text(&item["content"]);
        }
        item["status"] = "completed".into();
        item
    };
    match &ask.body["input"] {
        Value::String(_) => vec![listed(json!({"role": "user", "content": ask.body["input"]}))],
        input => members(input).iter().cloned().map(listed).collect(),
    }
}

fn members(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// The members stand in the order that Azure writes them in.
#[derive(Serialize)]
struct Written<'a> {
    id: &'a str,
    object: &'static str,
    created_at: u64,
    status: &'static str,
    background: bool,
    error: Option<&'static str>,
    incomplete_details: Value,
    instructions: &'a Value,
    max_output_tokens: &'a Value,
    model: &'a str,
    output: Vec<Value>,
    parallel_tool_calls: bool,
    previous_response_id: &'a Value,
    reasoning: Value,
    service_tier: &'static str,
    store: bool,
    temperature: Value,
    text: Value,
    tool_choice: Value,
    tools: Value,
    top_p: Value,
    truncation: &'static str,
    usage: Option<WrittenUsage>,
    user: &'a Value,
    metadata: Value,
}

#[derive(Serialize)]
struct WrittenUsage {
    input_tokens: u64,
    input_tokens_details: Value,
    output_tokens: u64,
    output_tokens_details: Value,
    total_tokens: u64,
}

impl Response {
    fn status(&self) -> &'static str {
        if self.is_whole { "completed" } else { "incomplete" }
    }

    /// As it is when all is said.
    pub(super) fn whole(&self) -> Vec<u8> {
        let output = self.output.iter().map(|item| item.whole(self.status())).collect();
        let usage = self.reports_usage.then(|| WrittenUsage {
            input_tokens: self.usage.prompt,
            input_tokens_details: json!({"cached_tokens": self.usage.cached}),
            output_tokens: self.usage.completion,
            output_tokens_details: json!({"reasoning_tokens": self.usage.reasoning}),
            total_tokens: self.usage.prompt + self.usage.completion,
        });
        self.write(self.status(), output, usage)
    }

    /// As it is before anything is said.
    fn begun(&self) -> Vec<u8> {
        self.write("in_progress", Vec::new(), None)
    }

    fn write(&self, status: &'static str, output: Vec<Value>, usage: Option<WrittenUsage>) -> Vec<u8> {
        let asked = &self.asked;
        let or = |name: &str, usual: Value| match &asked[name] {
            Value::Null => usual,
            given => given.clone(),
        };
        let written = Written {
            id: &self.id,
            object: "response",
            created_at: self.created,
            status,
            background: false,
            error: None,
            incomplete_details: match status {
                "incomplete" => json!({"reason": "max_output_tokens"}),
                _ => Value::Null,
            },
            instructions: &asked["instructions"],
            max_output_tokens: &asked["max_output_tokens"],
            model: &self.model,
            output,
            parallel_tool_calls: asked["parallel_tool_calls"] != false,
            previous_response_id: &asked["previous_response_id"],
            reasoning: or("reasoning", json!({"effort": null, "summary": null})),
            service_tier: "default",
            store: asked["store"] != false,
            temperature: or("temperature", json!(1.0)),
            text: or("text", json!({"format": {"type": "text"}})),
            tool_choice: or("tool_choice", json!("auto")),
            tools: or("tools", json!([])),
            top_p: or("top_p", json!(1.0)),
            truncation: "disabled",
            usage,
            user: &asked["user"],
            metadata: or("metadata", json!({})),
        };
        serde_json::to_vec(&written).expect("texts and numbers can be written")
    }
}

impl Output {
    fn id(&self) -> &str {
        match self {
            Self::Reasoning(id) | Self::Message(id, _) | Self::Call(id, _) => id,
        }
    }

    /// The item when it is said.
    fn whole(&self, status: &str) -> Value {
        match self {
            Self::Reasoning(id) => json!({"id": id, "type": "reasoning", "summary": []}),
            Self::Message(id, text) => json!({
                "id": id, "type": "message", "status": status, "role": "assistant",
                "content": [part(&said(text))],
            }),
            Self::Call(id, call) => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call.id,
                "name": call.name, "arguments": said(&call.arguments),
            }),
        }
    }

    /// The item before it is said.
    fn begun(&self) -> Value {
        let mut begun = self.whole("in_progress");
        match self {
            Self::Reasoning(_) => {}
            Self::Message(..) => begun["content"] = json!([]),
            Self::Call(..) => begun["arguments"] = "".into(),
        }
        begun
    }
}

fn part(text: &str) -> Value {
    json!({"type": "output_text", "annotations": [], "logprobs": [], "text": text})
}

fn said(text: &Text) -> String {
    text.pieces().map(|piece| piece.text.as_ref()).collect()
}
