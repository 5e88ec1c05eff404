//! What the proxy writes and the ledger reads: one event for each request that reached a backend.
//! Never a key, a prompt or a reply.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{DeploymentName, Name, RequestId, SubscriptionId};
use super::units::UnixMillis;

/// The event's form. A change that readers could misread takes a new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schema {
    #[serde(rename = "tollgate.usage.v1")]
    V1,
}

/// One request's usage. Readers ignore fields that they do not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageEvent {
    pub schema: Schema,
    /// Makes the event count once however often it is delivered.
    pub id: RequestId,
    /// When the request came in.
    pub time: UnixMillis,
    pub subscription_id: SubscriptionId,
    pub product: Name,
    #[serde(default)]
    pub cost_center: Option<String>,
    #[serde(default)]
    pub end_user: Option<String>,
    /// Such as `chat.completions`. Text, so that a ledger can post what a newer gateway proxied.
    pub operation: Cow<'static, str>,
    /// As the caller wrote it.
    pub deployment: DeploymentName,
    /// As the backend named it in its reply.
    #[serde(default)]
    pub model: Option<String>,
    #[serde(default)]
    pub api_version: Option<String>,
    pub backend: Name,
    #[serde(default)]
    pub region: Option<String>,
    /// Requests sent to backends.
    #[serde(default = "one")]
    pub attempts: u32,
    /// What the caller was answered.
    pub status: u16,
    #[serde(default)]
    pub stream: bool,
    pub outcome: Outcome,
    pub usage: Usage,
    #[serde(default)]
    pub duration_ms: u64,
    #[serde(default)]
    pub first_byte_ms: Option<u64>,
}

fn one() -> u32 {
    1
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Completed,
    ClientCancelled,
    BackendFailed,
}

impl Outcome {
    pub fn name(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientCancelled => "client_cancelled",
            Self::BackendFailed => "backend_failed",
        }
    }
}

/// Where the counts come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The backend said so.
    Reported,
    /// Counted here, from what was sent and said.
    Estimated,
    /// Nothing was used: the backend refused.
    #[default]
    None,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Self::Reported => "reported",
            Self::Estimated => "estimated",
            Self::None => "none",
        }
    }
}

/// Tokens by kind. Those that were cached, written to the cache or audio are part of the input, those of
/// reasoning or audio part of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub source: Source,
    pub input_tokens: u64,
    #[serde(default)]
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    #[serde(default)]
    pub reasoning_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub audio_input_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub audio_output_tokens: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    pub cache_write_tokens: u64,
    /// Made, not read. Counted where no tokens of output are: the others are paid for by those.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub images: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// No reply is this long. A count above it is a fault or a lie, and would end in the sums.
pub const MAX_TOKENS: u64 = 1_000_000_000;

impl Usage {
    /// The same, each token in one part at most, so that what sums cost is the sum of the costs. What is cached
    /// stays so; then comes what is written to the cache, then audio; reasoning goes before audio.
    #[must_use]
    pub fn told_apart(self) -> Self {
        let cached_input_tokens = self.cached_input_tokens.min(self.input_tokens);
        let uncached = self.input_tokens - cached_input_tokens;
        let cache_write_tokens = self.cache_write_tokens.min(uncached);
        let reasoning_tokens = self.reasoning_tokens.min(self.output_tokens);
        Self {
            cached_input_tokens,
            cache_write_tokens,
            audio_input_tokens: self.audio_input_tokens.min(uncached - cache_write_tokens),
            reasoning_tokens,
            audio_output_tokens: self.audio_output_tokens.min(self.output_tokens - reasoning_tokens),
            images: if self.output_tokens == 0 { self.images } else { 0 },
            ..self
        }
    }

    /// Whether the counts can be posted: bounded, and the parts no larger than their wholes.
    pub fn is_plausible(&self) -> bool {
        self.input_tokens <= MAX_TOKENS
            && self.output_tokens <= MAX_TOKENS
            && self.cached_input_tokens <= self.input_tokens
            && self.reasoning_tokens <= self.output_tokens
            && self.audio_input_tokens <= self.input_tokens
            && self.audio_output_tokens <= self.output_tokens
            && self.cache_write_tokens <= self.input_tokens
            && self.images <= MAX_TOKENS
    }
}

/// What becomes of new requests while usage cannot be made safe in the event hub.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnsafe {
    /// They are served, and their usage waits on this instance's disk.
    #[default]
    Spool,
    /// They are refused before a backend is asked.
    Refuse,
}

/// How it stands with usage events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// They arrive where they belong.
    #[default]
    Flowing,
    /// They do, and some still wait on the disk.
    Waiting,
    /// They do not: they go to the disk.
    Spooling,
    /// They do not, and the disk takes no more either.
    Full,
}

impl Standing {
    /// Whether a request may be begun whose usage must be made safe when it ends.
    pub fn allows(self, on_unsafe: OnUnsafe) -> bool {
        match self {
            Self::Flowing | Self::Waiting => true,
            Self::Spooling => on_unsafe == OnUnsafe::Spool,
            // Tokens that nobody would ever pay for are worse than a refusal.
            Self::Full => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"schema":"tollgate.usage.v1","id":"019200b2-0000-7000-8000-000000000001",
        "time":"2026-11-21T09:00:00.123Z","subscription_id":"s1","product":"standard","cost_center":null,
        "operation":"chat.completions","deployment":"gpt-4o-mini","backend":"eastus-ptu","status":200,
        "outcome":"completed","from_a_later_version":1,
        "usage":{"source":"reported","input_tokens":12,"output_tokens":34,"surprise":true}}"#;

    #[test]
    fn an_event_of_a_later_gateway_can_be_read() {
        let event: UsageEvent = serde_json::from_str(EVENT).unwrap();
        assert_eq!(event.usage.output_tokens, 34);
        assert_eq!(event.attempts, 1);
    }

    #[test]
    fn an_event_of_another_schema_is_not_guessed_at() {
        let event = EVENT.replace("usage.v1", "usage.v2");
        let error = serde_json::from_str::<UsageEvent>(&event).unwrap_err().to_string();
        assert!(error.contains("tollgate.usage.v2"), "{error}");
    }
}
