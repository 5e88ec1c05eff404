//! A reply as one JSON body, with its members in Azure's order.

use super::reply::{CAUGHT, Call, Choice, FILTERED, FINGERPRINT, Reply, SAFE, Said, Shape, logprobs};
use super::words::escaped;

/// Writes the body; `reports_usage` is what a resource does that is not told otherwise.
pub(super) fn write(reply: &Reply, reports_usage: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(2048);
    body.extend_from_slice(br#"{"choices":["#);
    for (index, choice) in reply.choices.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        write_choice(reply, index, choice, &mut body);
    }
    let object = match reply.shape {
        Shape::Chat => "chat.completion",
        Shape::Completions => "text_completion",
    };
    push(
        &mut body,
        &format!(
            r#"],"created":{},"id":"{}","model":"{}","object":"{object}","prompt_filter_results":{},"system_fingerprint":"{FINGERPRINT}""#,
            reply.created,
            reply.id,
            escaped(&reply.model),
            reply.prompt_filter_results(),
        ),
    );
    if reports_usage {
        push(&mut body, &format!(r#","usage":{}"#, reply.usage_json()));
    }
    body.push(b'}');
    body
}

fn write_choice(reply: &Reply, index: usize, choice: &Choice, body: &mut Vec<u8>) {
    let filtered = match choice.said {
        Said::Text(_) if choice.finish == FILTERED => CAUGHT,
        Said::Text(_) => SAFE,
        Said::Calls(_) | Said::Function(_) => "{}",
    };
    let logprobs = match &choice.said {
        Said::Text(text) if reply.logprobs => logprobs(text, 0, text.len()),
        _ => "null".to_owned(),
    };
    push(
        body,
        &format!(
            r#"{{"content_filter_results":{filtered},"finish_reason":"{}","index":{index},"logprobs":{logprobs},"#,
            choice.finish
        ),
    );
    match (&choice.said, reply.shape) {
        (Said::Text(text), Shape::Completions) => {
            push(body, r#""text":""#);
            text.write_json(body);
            push(body, r#""}"#);
        }
        (said, _) => {
            write_message(said, body);
            body.push(b'}');
        }
    }
}

fn write_message(said: &Said, body: &mut Vec<u8>) {
    match said {
        Said::Text(text) => {
            push(body, r#""message":{"annotations":[],"content":""#);
            text.write_json(body);
            push(body, r#"","refusal":null,"role":"assistant"}"#);
        }
        Said::Calls(calls) => {
            push(
                body,
                r#""message":{"annotations":[],"content":null,"refusal":null,"role":"assistant","tool_calls":["#,
            );
            for (index, call) in calls.iter().enumerate() {
                if index > 0 {
                    body.push(b',');
                }
                push(body, r#"{"function":"#);
                write_function(call, body);
                push(body, &format!(r#","id":"{}","type":"function"}}"#, call.id));
            }
            push(body, "]}");
        }
        Said::Function(call) => {
            push(body, r#""message":{"annotations":[],"content":null,"function_call":"#);
            write_function(call, body);
            push(body, r#","refusal":null,"role":"assistant"}"#);
        }
    }
}

fn write_function(call: &Call, body: &mut Vec<u8>) {
    push(body, r#"{"arguments":""#);
    call.arguments.write_json(body);
    push(body, &format!(r#"","name":"{}"}}"#, escaped(&call.name)));
}

fn push(body: &mut Vec<u8>, text: &str) {
    body.extend_from_slice(text.as_bytes());
}
