//! Body → Ask.
//!
//! Only what the gateway must know is looked at; the body goes on as the bytes that came, except
//! where a field must change, and then only that field's bytes change.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::kept::Home;
use super::{Incoming, Refusal};
use crate::domain::api::{Address, Operation};
use crate::domain::ids::{DeploymentName, ItemId};

/// The Functions host refuses more.
pub const MAX_BODY_BYTES: usize = 100 * 1024 * 1024;

/// Stands in events for the deployment of a kept item that this process did not see made.
pub(super) const UNKNOWN: &str = "unknown";

/// What the caller asks for.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) operation: Operation,
    /// [`UNKNOWN`] where only the one who keeps what is asked for could tell.
    pub(super) deployment: DeploymentName,
    pub(super) stream: bool,
    pub(super) body: Bytes,
    /// What a backend keeps and this request is about, or goes on from.
    pub(super) belongs_to: Option<ItemId>,
    /// Where that is kept, if this process knows.
    pub(super) home: Option<Arc<Home>>,
    /// The backend keeps its answer, so that requests for it can come.
    pub(super) is_kept: bool,
    /// Where the body names the deployment, in OpenAI's shape.
    model: Option<Range<usize>>,
    /// What to write where, to be told the usage of a stream whose caller did not ask for it.
    injection: Option<Edit>,
}

#[derive(Debug)]
struct Edit {
    place: Range<usize>,
    text: &'static str,
}

impl Ask {
    /// Whether usage must be asked for on the caller's behalf, and taken out of the reply again.
    pub(super) fn needs_injection(&self) -> bool {
        self.injection.is_some()
    }

    /// The body for a backend that calls the deployment `own_name`.
    pub(super) fn body_for(&self, own_name: &DeploymentName, injects: bool) -> Bytes {
        let model = self.model.clone().filter(|_| *own_name != self.deployment);
        let quoted = format!("\"{own_name}\"");
        let mut edits: Vec<(Range<usize>, &str)> = Vec::new();
        edits.extend(model.map(|place| (place, quoted.as_str())));
        let injection = self.injection.as_ref().filter(|_| injects);
        edits.extend(injection.map(|edit| (edit.place.clone(), edit.text)));
        if edits.is_empty() {
            return self.body.clone();
        }
        edits.sort_by_key(|(place, _)| place.start);
        let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
        let mut body = BytesMut::with_capacity(self.body.len() + added);
        let mut from = 0;
        for (place, text) in edits {
            body.extend_from_slice(&self.body[from..place.start]);
            body.extend_from_slice(text.as_bytes());
            from = place.end;
        }
        body.extend_from_slice(&self.body[from..]);
        body.freeze()
    }
}

/// The fields that are looked at, each where it stands.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Form<'a> {
    #[serde(borrow, deserialize_with = "present")]
    model: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    stream: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    stream_options: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    messages: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    prompt: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    n: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    previous_response_id: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    background: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    store: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct StreamOptions<'a> {
    #[serde(borrow, deserialize_with = "present")]
    include_usage: Option<&'a RawValue>,
}

/// Keeps `null` apart from absent.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn invalid(message: impl Into<String>, param: Option<&'static str>) -> Refusal {
    Refusal::Invalid { message: message.into(), param }
}

/// Reads a request's body.
///
/// # Errors
/// [`Refusal::Invalid`] for what no backend would serve either, so that none is asked in vain.
pub(super) fn ask(incoming: &Incoming) -> Result<Ask, Refusal> {
    let operation = incoming.address.operation();
    if let Address::Item(_, _, id) = &incoming.address {
        return Ok(of_item(operation, id, incoming.body.clone()));
    }
    let text = std::str::from_utf8(&incoming.body).map_err(|_| invalid("the body is not UTF-8", None))?;
    let form = form(text)?;
    check_types(&form, operation)?;
    let (deployment, model) = match &incoming.address {
        Address::Deployment(deployment, _) => (deployment.clone(), None),
        Address::Model(..) | Address::Item(..) => {
            let model = form.model.ok_or_else(|| invalid("`model` is missing", Some("model")))?;
            (deployment_named(model)?, Some(place_of(model, text)))
        }
    };
    let stream = operation.streams() && form.stream.is_some_and(|stream| stream.get() == "true");
    let injection =
        if stream && operation.must_be_asked_for_usage() { injection(&form, text)? } else { None };
    let responds = operation == Operation::Responses;
    let belongs_to = if responds { previous(&form)? } else { None };
    let is_kept = responds && form.store.is_none_or(|store| store.get() != "false");
    let body = incoming.body.clone();
    Ok(Ask { operation, deployment, stream, body, belongs_to, home: None, is_kept, model, injection })
}

/// A request for something that is kept. Whatever body it has is the backend's business.
fn of_item(operation: Operation, id: &ItemId, body: Bytes) -> Ask {
    Ask {
        operation,
        deployment: DeploymentName::new(UNKNOWN).expect("letters are a name"),
        stream: false,
        body,
        belongs_to: Some(id.clone()),
        home: None,
        is_kept: false,
        model: None,
        injection: None,
    }
}

/// The response that this one goes on from.
fn previous(form: &Form<'_>) -> Result<Option<ItemId>, Refusal> {
    const NAME: &str = "previous_response_id";
    let Some(id) = form.previous_response_id.filter(|id| id.get() != "null") else { return Ok(None) };
    let id: String = serde_json::from_str(id.get())
        .map_err(|_| invalid(format!("`{NAME}` must be a string"), Some(NAME)))?;
    ItemId::new(&id).map(Some).map_err(|error| invalid(format!("`{NAME}`: {error}"), Some(NAME)))
}

fn form(text: &str) -> Result<Form<'_>, Refusal> {
    if !text.trim_ascii_start().starts_with('{') {
        return Err(invalid("the body must be a JSON object", None));
    }
    // The error tells the place and never repeats the body.
    serde_json::from_str(text).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        match error.classify() {
            serde_json::error::Category::Data => {
                invalid(format!("the body has a field twice: {error}"), None)
            }
            _ => invalid(format!("the body is not JSON: line {line}, column {column}"), None),
        }
    })
}

/// The tokens of a response that is made in the background are told to whoever asks for it later, if
/// anybody does: they could not be counted before the caller has its answer.
const BACKGROUND: &str = "false: this gateway counts tokens before a reply is complete, and a response \
    that is made in the background would not be counted. Stream it instead";

/// A field's name, its value, what it must be, and whether it is.
type Check<'a> = (&'static str, Option<&'a RawValue>, &'static str, fn(&str) -> bool);

fn check_types(form: &Form<'_>, operation: Operation) -> Result<(), Refusal> {
    let checks: [Check<'_>; 10] = [
        ("model", form.model, "a string", |json| json.starts_with('"')),
        ("stream", form.stream, "true or false", |json| matches!(json, "true" | "false" | "null")),
        ("stream_options", form.stream_options, "an object", |json| json.starts_with('{') || json == "null"),
        ("messages", form.messages, "an array of objects", is_array_of_objects),
        ("prompt", form.prompt, "a string or an array", |json| {
            json.starts_with(['"', '[']) || json == "null"
        }),
        ("input", form.input, "a string or an array", |json| json.starts_with(['"', '[']) || json == "null"),
        ("max_tokens", form.max_tokens, "a whole number", is_whole_number_or_null),
        ("max_completion_tokens", form.max_completion_tokens, "a whole number", is_whole_number_or_null),
        ("n", form.n, "a whole number", is_whole_number_or_null),
        ("background", form.background, BACKGROUND, |json| matches!(json, "false" | "null")),
    ];
    for (name, value, form, holds) in checks {
        if !concerns(operation, name) {
            continue;
        }
        if value.is_some_and(|value| !holds(value.get())) {
            return Err(invalid(format!("`{name}` must be {form}"), Some(name)));
        }
    }
    let needed = match operation {
        Operation::ChatCompletions => ("messages", form.messages),
        Operation::Embeddings => ("input", form.input),
        _ => return Ok(()),
    };
    match needed {
        (name, None) => Err(invalid(format!("`{name}` is missing"), Some(name))),
        _ => Ok(()),
    }
}

/// Whether an operation has this field. What it does not have is the caller's own, whatever its type.
fn concerns(operation: Operation, field: &str) -> bool {
    match field {
        "model" => true,
        "messages" | "max_completion_tokens" => operation == Operation::ChatCompletions,
        "prompt" => operation == Operation::Completions,
        "input" => matches!(operation, Operation::Embeddings | Operation::Responses),
        "background" => operation == Operation::Responses,
        "stream" => operation.streams(),
        // Streams of Responses have other options.
        _ => operation.streams() && operation != Operation::Responses,
    }
}

fn is_array_of_objects(json: &str) -> bool {
    json.starts_with('[')
        && serde_json::from_str::<Vec<&RawValue>>(json)
            .is_ok_and(|items| items.iter().all(|item| item.get().starts_with('{')))
}

fn is_whole_number_or_null(json: &str) -> bool {
    json == "null" || json.parse::<u64>().is_ok()
}

fn deployment_named(model: &RawValue) -> Result<DeploymentName, Refusal> {
    let name: String =
        serde_json::from_str(model.get()).map_err(|_| invalid("`model` must be a string", Some("model")))?;
    // Said back to the caller, as far as a name goes.
    DeploymentName::new(&name).map_err(|_| Refusal::DeploymentNotFound(name.chars().take(128).collect()))
}

/// Where `value` stands in the text that it was read from.
fn place_of(value: &RawValue, text: &str) -> Range<usize> {
    let start = value.get().as_ptr() as usize - text.as_ptr() as usize;
    start..start + value.get().len()
}

/// What to write into the body, and where, so that the stream tells its usage; `None` when the
/// caller asked for that itself.
fn injection(form: &Form<'_>, text: &str) -> Result<Option<Edit>, Refusal> {
    const MEMBER: &str = "\"stream_options\":{\"include_usage\":true},";
    let Some(options) = form.stream_options else {
        // Behind the first brace: a body that streams has at least one member.
        let at = text.find('{').expect("the body is an object") + 1;
        return Ok(Some(Edit { place: at..at, text: MEMBER }));
    };
    let place = place_of(options, text);
    if options.get() == "null" {
        return Ok(Some(Edit { place, text: "{\"include_usage\":true}" }));
    }
    let given: StreamOptions<'_> = serde_json::from_str(options.get())
        .map_err(|_| invalid("`stream_options` has a field twice", Some("stream_options")))?;
    match given.include_usage {
        Some(value) if value.get() == "true" => Ok(None),
        Some(value) if matches!(value.get(), "false" | "null") => {
            Ok(Some(Edit { place: place_of(value, text), text: "true" }))
        }
        Some(_) => {
            Err(invalid("`stream_options.include_usage` must be true or false", Some("stream_options")))
        }
        None => {
            let at = place.start + 1;
            let is_empty = options.get()[1..].trim_ascii_start().starts_with('}');
            let text = if is_empty { "\"include_usage\":true" } else { "\"include_usage\":true," };
            Ok(Some(Edit { place: at..at, text }))
        }
    }
}

#[cfg(test)]
mod tests;
