//! Embeddings: unit vectors that are the same for the same text.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::ask::{Ask, limit};
use super::dice::{Dice, mix};
use super::model;
use super::refusal::Refusal;
use super::words::escaped;

/// As many as Azure takes at once.
const MAX_INPUTS: usize = 2_048;
/// The longest vector that a request may ask for: of the largest model.
const MAX_DIMENSIONS: u64 = 3_072;

pub(super) fn check(ask: &Ask) -> Result<(), Refusal> {
    let input = &ask.body["input"];
    match input {
        Value::Null => return Err(Refusal::missing("input")),
        Value::String(_) | Value::Array(_) => {}
        other => return Err(Refusal::wrong_type("input", "a string or an array", other)),
    }
    let inputs = inputs(input);
    let is_empty = |input: &Value| match input {
        Value::String(text) => text.is_empty(),
        Value::Array(ids) => ids.is_empty() || !ids.iter().all(Value::is_u64),
        _ => true,
    };
    let all = std::slice::from_ref(input);
    let each = if inputs.is_empty() { all } else { inputs };
    if each.iter().any(is_empty) || each.len() > MAX_INPUTS {
        let message = "'$.input' is invalid. Please check the API reference: \
                       https://platform.openai.com/docs/api-reference.";
        return Err(Refusal::invalid(message, None, None));
    }
    match &ask.body["encoding_format"] {
        Value::Null => {}
        Value::String(format) if format == "float" || format == "base64" => {}
        other => {
            let message = format!("Invalid value for 'encoding_format': {other}.");
            return Err(Refusal::invalid_value("encoding_format", &message));
        }
    }
    limit(&ask.body, "dimensions", MAX_DIMENSIONS)?;
    Ok(())
}

/// The body of the reply.
pub(super) fn body(ask: &Ask, reports_usage: bool) -> Vec<u8> {
    let input = &ask.body["input"];
    let all = std::slice::from_ref(input);
    let inputs = match inputs(input) {
        [] => all,
        inputs => inputs,
    };
    let asked = ask.body["dimensions"].as_u64();
    let dimensions = asked.and_then(|dimensions| usize::try_from(dimensions).ok());
    let dimensions = dimensions.unwrap_or_else(|| model::dimensions(&ask.model));
    let is_base64 = ask.body["encoding_format"] == "base64";
    let mut body = Vec::with_capacity(256 + inputs.len() * dimensions * if is_base64 { 6 } else { 13 });
    body.extend_from_slice(br#"{"data":["#);
    for (index, input) in inputs.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend_from_slice(br#"{"embedding":"#);
        let vector = vector(input, dimensions);
        if is_base64 {
            write_base64(&vector, &mut body);
        } else {
            write_floats(&vector, &mut body);
        }
        body.extend_from_slice(format!(r#","index":{index},"object":"embedding"}}"#).as_bytes());
    }
    let model = escaped(&ask.model);
    body.extend_from_slice(format!(r#"],"model":"{model}","object":"list""#).as_bytes());
    if reports_usage {
        let tokens = ask.prompt_tokens;
        let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
        body.extend_from_slice(format!(r#","usage":{usage}"#).as_bytes());
    }
    body.push(b'}');
    body
}

/// The inputs of a list of them; empty where the whole is one input.
fn inputs(input: &Value) -> &[Value] {
    match input {
        Value::Array(items) if !items.iter().all(Value::is_u64) => items,
        _ => &[],
    }
}

fn vector(input: &Value, dimensions: usize) -> Vec<f32> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    input.hash(&mut hasher);
    let mut dice = Dice::new(mix(hasher.finish()));
    #[expect(clippy::cast_precision_loss, reason = "24 bits fit a float's mantissa")]
    let mut vector: Vec<f32> =
        (0..dimensions).map(|_| (dice.roll() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0).collect();
    let length = vector.iter().map(|part| part * part).sum::<f32>().sqrt();
    let length = if length > 0.0 { length } else { 1.0 };
    for part in &mut vector {
        *part /= length;
    }
    vector
}

fn write_base64(vector: &[f32], body: &mut Vec<u8>) {
    let bytes: Vec<u8> = vector.iter().flat_map(|part| part.to_le_bytes()).collect();
    body.push(b'"');
    body.extend_from_slice(STANDARD.encode(bytes).as_bytes());
    body.push(b'"');
}

fn write_floats(vector: &[f32], body: &mut Vec<u8>) {
    serde_json::to_writer(body, vector).expect("a list of finite numbers can be written to memory");
}
