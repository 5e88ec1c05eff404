//! A request that has been read: what is asked, of which model, and how it is to be treated.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use super::behaviour::Behaviour;
use super::dice::{Ids, mix};
use super::refusal::Refusal;
use crate::domain::tokens::Encoding;

/// Longer replies than this, of all answers together, are only streamed.
const MAX_TOKENS_HELD: usize = 10_000_000;

/// The operations that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Operation {
    Chat,
    Completions,
    Embeddings,
    Responses,
}

impl Operation {
    pub(super) const ALL: [Self; 4] = [Self::Chat, Self::Completions, Self::Embeddings, Self::Responses];

    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Chat => "chat/completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
        }
    }

    /// Azure's name for it, as its 429s have it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "ChatCompletions_Create",
            Self::Completions => "Completions_Create",
            Self::Embeddings => "Embeddings_Create",
            Self::Responses => "Responses_Create",
        }
    }

    /// The members that are the prompt.
    fn prompt(self) -> &'static [&'static str] {
        match self {
            Self::Chat => &["messages", "tools", "functions"],
            Self::Completions => &["prompt"],
            Self::Embeddings => &["input"],
            Self::Responses => &["input", "instructions", "tools"],
        }
    }
}

#[derive(Debug)]
pub(super) struct Ask<'a> {
    pub(super) body: Value,
    pub(super) model: String,
    pub(super) encoding: Encoding,
    pub(super) behaviour: Behaviour,
    /// 0 until they have been counted.
    pub(super) prompt_tokens: u64,
    /// The same for the same prompt, whether it asks for a stream or not.
    pub(super) seed: u64,
    pub(super) ids: &'a Ids,
    /// Seconds since 1970.
    pub(super) now: u64,
}

impl Ask<'_> {
    pub(super) fn id(&self, prefix: &str) -> String {
        self.ids.prefixed(prefix, 29)
    }

    /// The most tokens that each of so many answers may have, so that memory is bounded: a stream's
    /// are made one by one, all others are held at once.
    pub(super) fn room(&self, answers: u64) -> usize {
        if self.body["stream"] == true && self.body["stop"].is_null() {
            return usize::MAX;
        }
        let answers = usize::try_from(answers).unwrap_or(usize::MAX);
        MAX_TOKENS_HELD / answers.max(1)
    }
}

/// A hash of the prompt and of the resource's own seed.
pub(super) fn seed(operation: Operation, body: &Value, seed: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    operation.hash(&mut hasher);
    for member in operation.prompt() {
        body[*member].hash(&mut hasher);
    }
    hasher.finish() ^ mix(seed)
}

/// A member that is true, false or not there.
pub(super) fn flag(body: &Value, name: &str) -> Result<bool, Refusal> {
    match &body[name] {
        Value::Null => Ok(false),
        Value::Bool(flag) => Ok(*flag),
        other => Err(Refusal::wrong_type(name, "a boolean", other)),
    }
}

/// A member that is a list or not there.
pub(super) fn list(body: &Value, name: &str) -> Result<(), Refusal> {
    match &body[name] {
        Value::Null | Value::Array(_) => Ok(()),
        other => Err(Refusal::wrong_type(name, "an array of objects", other)),
    }
}

/// A member that is a number from 1 to `most`, or not there.
pub(super) fn limit(body: &Value, name: &str, most: u64) -> Result<Option<u64>, Refusal> {
    match &body[name] {
        Value::Null => Ok(None),
        Value::Number(number) => match number.as_u64() {
            Some(value) if (1..=most).contains(&value) => Ok(Some(value)),
            _ => {
                let message = format!("Invalid value for '{name}': {number} is not in its range.");
                Err(Refusal::invalid_value(name, &message))
            }
        },
        other => Err(Refusal::wrong_type(name, "an integer", other)),
    }
}
