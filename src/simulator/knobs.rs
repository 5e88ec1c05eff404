//! The flags that say what resource is simulated, and how it behaves.

use std::time::Duration;

use super::behaviour::{self, Behaviour, Unclear};

/// How the simulated resource behaves. Each has a flag of `tollgate simulate`.
#[derive(Clone, Debug, clap::Args)]
pub struct Knobs {
    /// The deployments that exist, separated by commas; without it any name is served
    #[arg(long, value_delimiter = ',')]
    pub deployments: Vec<String>,
    /// Ask for one of these keys, in `api-key` (on the v1 routes also as a bearer)
    #[arg(long, value_name = "KEY", value_delimiter = ',')]
    pub require_key: Vec<String>,
    /// Ask for a bearer token: for this one, or for any if none is given here
    #[arg(long, value_name = "TOKEN", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub require_bearer: Option<String>,
    /// Milliseconds before an answer begins
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub ttft_ms: u64,
    /// Speed of an answer from then on; 0: as fast as possible
    #[arg(long, value_name = "N", default_value = "0", value_parser = behaviour::speed)]
    pub tokens_per_second: f64,
    /// Tokens in one event of a stream
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    pub tokens_per_chunk: usize,
    /// Length of a reply that no limit in the request cuts short
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub reply_tokens: usize,
    /// Prompt tokens reported as cached, at most
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub cached_tokens: u64,
    /// The longest prompt taken, in tokens; without it, what the named model takes
    #[arg(long, value_name = "N")]
    pub context_tokens: Option<u64>,
    /// Tokens that a deployment grants each minute before it answers 429
    #[arg(long, value_name = "N")]
    pub tokens_per_minute: Option<u64>,
    /// Requests that a deployment grants each minute before it answers 429
    #[arg(long, value_name = "N")]
    pub requests_per_minute: Option<u64>,
    /// Requests a second that a deployment takes, as provisioned capacity does: one too many is answered
    /// with 429 and, in `retry-after-ms`, how soon the next one is taken; `GET /simulator/counts` has in
    /// `capacity` what was granted and what nobody used
    #[arg(long, value_name = "N", value_parser = rate)]
    pub requests_per_second: Option<f64>,
    /// A prompt with this word triggers the content filter (as `[[content-filter]]` always does)
    #[arg(long, value_name = "WORD")]
    pub content_filter: Option<String>,
    /// Treat `stream_options` as an unknown argument whatever the api-version
    #[arg(long)]
    pub refuse_stream_options: bool,
    /// The share of requests that fail, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = share)]
    pub fault_share: f64,
    /// How they fail, in equal shares
    #[arg(
        long,
        value_name = "KIND",
        value_delimiter = ',',
        default_values_t = Kind::ALL
    )]
    pub faults: Vec<Kind>,
    /// Chooses the failing requests and the words of the replies
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// The region in `x-ms-region`
    #[arg(long, default_value = "East US", value_parser = visible)]
    pub region: String,
    /// How every request is treated, in the words below
    #[arg(long, value_name = "WORDS", default_value = "", value_parser = words)]
    pub always: String,
}

/// A kind of fault that chance may choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    #[value(name = "500")]
    ServerError,
    #[value(name = "503")]
    Unavailable,
    #[value(name = "429")]
    Throttled,
    Reset,
    Stall,
    Cut,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::ServerError, Self::Unavailable, Self::Throttled, Self::Reset, Self::Stall, Self::Cut];
}

impl std::fmt::Display for Kind {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str(match self {
            Self::ServerError => "500",
            Self::Unavailable => "503",
            Self::Throttled => "429",
            Self::Reset => "reset",
            Self::Stall => "stall",
            Self::Cut => "cut",
        })
    }
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            deployments: Vec::new(),
            require_key: Vec::new(),
            require_bearer: None,
            ttft_ms: 0,
            tokens_per_second: 0.0,
            tokens_per_chunk: 1,
            reply_tokens: 64,
            cached_tokens: 0,
            context_tokens: None,
            tokens_per_minute: None,
            requests_per_minute: None,
            requests_per_second: None,
            content_filter: None,
            refuse_stream_options: false,
            fault_share: 0.0,
            faults: Kind::ALL.to_vec(),
            seed: 0,
            region: "East US".to_owned(),
            always: String::new(),
        }
    }
}

impl Knobs {
    /// How a request is treated that says nothing of its own.
    pub(super) fn behaviour(&self) -> Behaviour {
        Behaviour {
            time_to_first_token: Duration::from_millis(self.ttft_ms),
            tokens_per_second: self.tokens_per_second,
            tokens_per_chunk: self.tokens_per_chunk.max(1),
            reply_tokens: self.reply_tokens,
            cached_tokens: self.cached_tokens,
            context_tokens: self.context_tokens,
            chunk_bytes: None,
            refuses_stream_options: self.refuse_stream_options,
            reports_usage: true,
            says_done: true,
            filtered_after: None,
            malformed_after: None,
            fault: None,
            retry: None,
        }
    }

    /// The same, with the words of `always` on top.
    pub(super) fn told(&self, always: &str) -> Result<Behaviour, Unclear> {
        let mut behaviour = self.behaviour();
        behaviour.listen(always).map(|()| behaviour)
    }
}

fn at_least_one(value: &str) -> Result<usize, String> {
    match value.parse() {
        Ok(0) | Err(_) => Err("a whole number of at least 1".to_owned()),
        Ok(some) => Ok(some),
    }
}

fn rate(value: &str) -> Result<f64, String> {
    match behaviour::speed(value) {
        Ok(rate) if rate > 0.0 => Ok(rate),
        _ => Err("a number of at least 0.001".to_owned()),
    }
}

fn share(value: &str) -> Result<f64, String> {
    match value.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a number from 0 to 1".to_owned()),
    }
}

fn visible(value: &str) -> Result<String, String> {
    http::HeaderValue::from_str(value)
        .map(|_| value.to_owned())
        .map_err(|_| "text that a header can carry".to_owned())
}

fn words(value: &str) -> Result<String, Unclear> {
    Knobs::default().told(value).map(|_| value.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        knobs: Knobs,
    }

    fn parsed(line: &str) -> Result<Knobs, clap::Error> {
        Line::try_parse_from(std::iter::once("simulate").chain(line.split_whitespace()))
            .map(|line| line.knobs)
    }

    #[test]
    fn the_default_is_what_no_flags_give() {
        let (flags, default) = (parsed("").unwrap(), Knobs::default());
        assert_eq!(format!("{flags:?}"), format!("{default:?}"));
    }

    #[test]
    fn a_bearer_may_be_any_or_a_certain_one() {
        let bearer = |line| parsed(line).unwrap().require_bearer;
        assert_eq!(bearer("--require-bearer").as_deref(), Some(""));
        assert_eq!(bearer("--require-bearer=abc").as_deref(), Some("abc"));
    }

    #[test]
    fn faulty_flags_are_refused() {
        for line in [
            "--always statsu=1",
            "--fault-share 2",
            "--tokens-per-chunk 0",
            "--faults fire",
            "--tokens-per-second -1",
            "--requests-per-second 0",
        ] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
