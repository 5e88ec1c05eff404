//! What a model says in answer, before it is written down whole or in events.

use super::usage::Usage;
use super::words::Text;

/// A call of a tool that the model asks for.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) name_tokens: u64,
    pub(super) arguments: Text,
}

impl Call {
    fn tokens(&self) -> u64 {
        self.name_tokens + self.arguments.len() as u64
    }
}

#[derive(Clone, Debug)]
pub(super) enum Said {
    Text(Text),
    Calls(Vec<Call>),
    /// What calls were before there were tools.
    Function(Call),
}

impl Said {
    /// What is said in all, in tokens.
    pub(super) fn tokens(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Calls(calls) => calls.iter().map(Call::tokens).sum(),
            Self::Function(call) => call.tokens(),
        }
    }
}

/// One of the `n` answers.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) said: Said,
    pub(super) finish: &'static str,
}

/// Which API's words are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Chat,
    Completions,
}

/// A reply, ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) shape: Shape,
    pub(super) id: String,
    pub(super) model: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) choices: Vec<Choice>,
    pub(super) usage: Usage,
    pub(super) logprobs: bool,
    /// Prompts that were filtered: more than one where a legacy request has a list.
    pub(super) prompts: usize,
}

pub(super) const FINGERPRINT: &str = "fp_b705f0c291";
/// The reason to end of an answer that the content filter ended.
pub(super) const FILTERED: &str = "content_filter";
/// What the filter says of where it ended an answer.
pub(super) const CAUGHT: &str = r#"{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":true,"severity":"high"}}"#;
pub(super) const SAFE: &str = r#"{"hate":{"filtered":false,"severity":"safe"},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}"#;
const PROMPT_SAFE: &str = r#"{"hate":{"filtered":false,"severity":"safe"},"jailbreak":{"detected":false,"filtered":false},"self_harm":{"filtered":false,"severity":"safe"},"sexual":{"filtered":false,"severity":"safe"},"violence":{"filtered":false,"severity":"safe"}}"#;

impl Reply {
    /// `[{"prompt_index":0,"content_filter_results":{…}}]`
    pub(super) fn prompt_filter_results(&self) -> String {
        let results: Vec<_> = (0..self.prompts)
            .map(|index| format!(r#"{{"prompt_index":{index},"content_filter_results":{PROMPT_SAFE}}}"#))
            .collect();
        format!("[{}]", results.join(","))
    }

    pub(super) fn usage_json(&self) -> String {
        match self.shape {
            Shape::Chat => self.usage.detailed(),
            Shape::Completions => self.usage.plain(),
        }
    }
}

/// The `logprobs` of these tokens.
pub(super) fn logprobs(text: &Text, from: usize, to: usize) -> String {
    let tokens: Vec<_> = (from..to)
        .map(|place| {
            let piece = text.piece(place);
            let bytes: Vec<_> = piece.text.bytes().map(|byte| byte.to_string()).collect();
            format!(
                r#"{{"bytes":[{}],"logprob":-0.{:03},"token":"{}","top_logprobs":[]}}"#,
                bytes.join(","),
                1 + place % 500,
                piece.json
            )
        })
        .collect();
    format!(r#"{{"content":[{}],"refusal":null}}"#, tokens.join(","))
}
