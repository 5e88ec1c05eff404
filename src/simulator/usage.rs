//! The tokens of one reply, and how a reply speaks of them.

use serde::Serialize;

/// `cached` are part of `prompt`, `reasoning` part of `completion`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Usage {
    #[serde(rename = "prompt_tokens")]
    pub(super) prompt: u64,
    #[serde(rename = "completion_tokens")]
    pub(super) completion: u64,
    #[serde(rename = "cached_tokens")]
    pub(super) cached: u64,
    #[serde(rename = "reasoning_tokens")]
    pub(super) reasoning: u64,
}

impl Usage {
    /// As chat completions report it.
    pub(super) fn detailed(&self) -> String {
        format!(
            r#"{{"completion_tokens":{},"completion_tokens_details":{{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":{},"rejected_prediction_tokens":0}},"prompt_tokens":{},"prompt_tokens_details":{{"audio_tokens":0,"cached_tokens":{}}},"total_tokens":{}}}"#,
            self.completion,
            self.reasoning,
            self.prompt,
            self.cached,
            self.prompt + self.completion
        )
    }

    /// As legacy completions report it.
    pub(super) fn plain(&self) -> String {
        format!(
            r#"{{"completion_tokens":{},"prompt_tokens":{},"total_tokens":{}}}"#,
            self.completion,
            self.prompt,
            self.prompt + self.completion
        )
    }
}
