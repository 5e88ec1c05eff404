//! How one request is to be treated, and the words that say so.
//!
//! Words are separated by commas, in the header `x-simulate` for one request, in `--always` or in
//! `PUT /simulator/always` for all of them; the header's come on top. `status=429,retry-after-ms=200`
//! is such a sentence. [`HELP`] lists them. An unknown word is refused: a test that believes in a
//! fault which never happens is worse than none.

use std::str::FromStr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::refusal;

/// The words, as `tollgate simulate --help` prints them.
pub(super) const HELP: &str = "\
Words for --always, for PUT /simulator/always and for the header x-simulate of a single request,
separated by commas:
  ttft-ms=N              milliseconds before the answer begins
  tokens-per-second=N    speed from then on; 0: as fast as possible
  tokens-per-chunk=N     tokens in one event of a stream
  reply-tokens=N         length of the reply
  cached-tokens=N        prompt tokens reported as cached
  context-tokens=N       the longest prompt that the model takes
  no-usage               the reply says nothing of usage, even if asked
  no-done                a stream ends without `data: [DONE]` (of responses: without its last event)
  filtered-after=N       the content filter ends the reply after N tokens: `finish_reason` is
                         `content_filter`
  malformed-after=N      after N events of a stream, one whose JSON breaks off in its middle
  chunk-bytes=N          a stream is sent in HTTP chunks of N bytes, wherever that cuts its events
  refuse-stream-options  `stream_options` is an unknown argument
  status=N               refuse with this status and Azure's body for it
  error=NAME             refuse with this body: bad-key, no-token, permission-denied,
                         key-auth-disabled, public-access-disabled, virtual-network,
                         resource-not-found, deployment-not-found, content-filter,
                         stream-options, timeout, throttled, server-error, unavailable
  retry-after=S, retry-after-ms=MS, reset-requests=S, reset-tokens=S, misspelt-reset-requests=S,
  misspelt-reset-tokens=S
                         headers of that refusal: retry-after, retry-after-ms,
                         x-ratelimit-reset-*, x-rate-limit-reset-*; any text, as -1 and 0 occur
  no-retry-after         none of them (a 429 otherwise has retry-after and retry-after-ms)
  refuse, reset          close the connection without an answer, before or after reading the request
  cut, cut-after=N       break the connection: a stream after N events (cut: 3), a whole reply in
                         its middle (N = 0: after the headers)
  stall, stall-after=N   say nothing more and keep the connection open: at once, or where cut-after
                         would break it
  healthy                forget all faults said before";

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Closed before the request was read.
    Refuse,
    /// Closed after the request was read.
    Reset,
    /// Not even headers.
    Stall,
    StallAfter(u64),
    CutAfter(u64),
    Status(u16),
    Named(refusal::Name),
}

/// How one request is to be treated.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Behaviour {
    pub(super) time_to_first_token: Duration,
    /// 0: as fast as possible.
    pub(super) tokens_per_second: f64,
    pub(super) tokens_per_chunk: usize,
    pub(super) reply_tokens: usize,
    pub(super) cached_tokens: u64,
    pub(super) context_tokens: Option<u64>,
    pub(super) chunk_bytes: Option<usize>,
    pub(super) refuses_stream_options: bool,
    pub(super) reports_usage: bool,
    pub(super) says_done: bool,
    /// Tokens after which the filter ends the reply.
    pub(super) filtered_after: Option<usize>,
    /// Events after which one comes that is no JSON.
    pub(super) malformed_after: Option<u64>,
    pub(super) fault: Option<Fault>,
    /// What a refusal says of when to come back; `None` leaves that to the refusal.
    pub(super) retry: Option<Vec<(HeaderName, HeaderValue)>>,
}

/// A word that is not one of ours.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unclear {
    #[error("`{0}` is no word of x-simulate: see `tollgate simulate --help`")]
    Word(String),
    #[error("`{0}` wants another value in x-simulate: see `tollgate simulate --help`")]
    Value(String),
}

impl Behaviour {
    /// Takes over what these words ask for.
    pub(super) fn listen(&mut self, words: &str) -> Result<(), Unclear> {
        words.split(',').map(str::trim).filter(|word| !word.is_empty()).try_for_each(|word| {
            match word.split_once('=') {
                Some((name, value)) => self.set(word, name.trim(), value.trim()),
                None => self.flag(word),
            }
        })
    }

    fn flag(&mut self, word: &str) -> Result<(), Unclear> {
        match word {
            "no-usage" => self.reports_usage = false,
            "no-done" => self.says_done = false,
            "refuse-stream-options" => self.refuses_stream_options = true,
            "no-retry-after" => self.retry = Some(Vec::new()),
            "refuse" => self.fault = Some(Fault::Refuse),
            "reset" => self.fault = Some(Fault::Reset),
            "stall" => self.fault = Some(Fault::Stall),
            "cut" => self.fault = Some(Fault::CutAfter(3)),
            "healthy" => {
                self.fault = None;
                self.retry = None;
                self.filtered_after = None;
                self.malformed_after = None;
            }
            _ => return Err(Unclear::Word(word.to_owned())),
        }
        Ok(())
    }

    fn set(&mut self, word: &str, name: &str, value: &str) -> Result<(), Unclear> {
        match name {
            "ttft-ms" => self.time_to_first_token = Duration::from_millis(number(word, value)?),
            "tokens-per-second" => self.tokens_per_second = rate(word, value)?,
            "tokens-per-chunk" => self.tokens_per_chunk = at_least_one(word, value)?,
            "reply-tokens" => self.reply_tokens = number(word, value)?,
            "cached-tokens" => self.cached_tokens = number(word, value)?,
            "context-tokens" => self.context_tokens = Some(number(word, value)?),
            "chunk-bytes" => self.chunk_bytes = Some(at_least_one(word, value)?),
            "filtered-after" => self.filtered_after = Some(number(word, value)?),
            "malformed-after" => self.malformed_after = Some(number(word, value)?),
            "status" => self.fault = Some(Fault::Status(status(word, value)?)),
            "error" => self.fault = Some(Fault::Named(named(word, value)?)),
            "cut-after" => self.fault = Some(Fault::CutAfter(number(word, value)?)),
            "stall-after" => self.fault = Some(Fault::StallAfter(number(word, value)?)),
            _ => return self.retry_header(word, name, value),
        }
        Ok(())
    }

    fn retry_header(&mut self, word: &str, name: &str, value: &str) -> Result<(), Unclear> {
        let header = match name {
            "retry-after" => "retry-after",
            "retry-after-ms" => "retry-after-ms",
            "reset-requests" => "x-ratelimit-reset-requests",
            "reset-tokens" => "x-ratelimit-reset-tokens",
            "misspelt-reset-requests" => "x-rate-limit-reset-requests",
            "misspelt-reset-tokens" => "x-rate-limit-reset-tokens",
            _ => return Err(Unclear::Word(word.to_owned())),
        };
        let value = HeaderValue::from_str(value).map_err(|_| Unclear::Value(word.to_owned()))?;
        self.retry.get_or_insert_default().push((HeaderName::from_static(header), value));
        Ok(())
    }
}

fn number<T: FromStr>(word: &str, value: &str) -> Result<T, Unclear> {
    value.parse().map_err(|_| Unclear::Value(word.to_owned()))
}

fn at_least_one(word: &str, value: &str) -> Result<usize, Unclear> {
    match number(word, value)? {
        0 => Err(Unclear::Value(word.to_owned())),
        some => Ok(some),
    }
}

/// Slower than a token in a day is no speed.
fn rate(word: &str, value: &str) -> Result<f64, Unclear> {
    speed(value).map_err(|_| Unclear::Value(word.to_owned()))
}

/// Tokens per second: 0, or what is neither endless nor hopeless.
pub(super) fn speed(value: &str) -> Result<f64, String> {
    match value.parse::<f64>() {
        Ok(rate) if rate == 0.0 || (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("0, or a number of at least 0.001".to_owned()),
    }
}

fn status(word: &str, value: &str) -> Result<u16, Unclear> {
    match number(word, value)? {
        status @ 400..=599 => Ok(status),
        _ => Err(Unclear::Value(word.to_owned())),
    }
}

fn named(word: &str, value: &str) -> Result<refusal::Name, Unclear> {
    refusal::Name::of(value).ok_or_else(|| Unclear::Value(word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::Knobs;

    fn told(words: &str) -> Result<Behaviour, Unclear> {
        let mut behaviour = Knobs::default().behaviour();
        behaviour.listen(words).map(|()| behaviour)
    }

    #[test]
    fn words_change_what_they_name() {
        let told = told("status=429, retry-after-ms=200,ttft-ms=50,tokens-per-second=20").unwrap();
        assert_eq!(told.fault, Some(Fault::Status(429)));
        assert_eq!(told.time_to_first_token, Duration::from_millis(50));
        assert!((told.tokens_per_second - 20.0).abs() < f64::EPSILON);
        let retry = told.retry.unwrap();
        assert_eq!(retry.len(), 1);
        assert_eq!(retry[0].0, "retry-after-ms");
        assert_eq!(retry[0].1, "200");
    }

    #[test]
    fn later_words_win_and_healthy_forgets_faults() {
        assert_eq!(told("cut,stall").unwrap().fault, Some(Fault::Stall));
        assert_eq!(told("status=500,retry-after=1,healthy").unwrap(), told("").unwrap());
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        for word in ["statsu=429", "nonsense", "retry-later=1"] {
            assert_eq!(told(word), Err(Unclear::Word(word.to_owned())));
        }
        for word in
            ["status=200", "status=x", "tokens-per-chunk=0", "tokens-per-second=-1", "error=unheard-of"]
        {
            assert_eq!(told(word), Err(Unclear::Value(word.to_owned())));
        }
    }
}
