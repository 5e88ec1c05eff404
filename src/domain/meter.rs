//! How many tokens is this reply, read as it passes?
//!
//! A reply is never held back to be read: a [`whole::Meter`] looks at the bytes of a JSON body as
//! they go by, a [`stream::Meter`] at the events of a stream. Both find the backend's own count; what
//! they keep of the text is bounded, and only for the case that no count comes.

use serde::Deserialize;

use said::Said;

use super::usage::{Source, Usage};

mod quick;
mod responses;
pub mod said;
pub mod stream;
pub mod whole;

/// The `usage` object of a reply, in the names of Chat Completions or in those of Responses; some
/// backends write both.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Reported {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<PromptDetails>,
    output_tokens_details: Option<CompletionDetails>,
}

#[derive(Debug, Deserialize)]
#[expect(clippy::struct_field_names, reason = "the names of the protocol")]
struct PromptDetails {
    #[serde(default)]
    cached_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
    #[serde(default, alias = "cache_creation_tokens")]
    cache_write_tokens: Option<u64>,
}

#[derive(Debug, Deserialize)]
struct CompletionDetails {
    #[serde(default)]
    reasoning_tokens: Option<u64>,
    #[serde(default)]
    audio_tokens: Option<u64>,
}

/// What a whole reply said, read from as much of it as came: it may break off anywhere.
pub fn said_in(reply: &[u8]) -> Said {
    let mut said = Said::default();
    quick::said(reply, &mut said);
    said
}

/// Reads a `usage` object. `None` when it is not one, or says what cannot be: a count that is a lie
/// or a fault must not reach the ledger.
fn read_usage(json: &[u8]) -> Option<Usage> {
    let reported: Reported = serde_json::from_slice(json).ok()?;
    let input_details = reported.prompt_tokens_details.or(reported.input_tokens_details);
    let output_details = reported.completion_tokens_details.or(reported.output_tokens_details);
    let of_input =
        |count: fn(&PromptDetails) -> Option<u64>| input_details.as_ref().and_then(count).unwrap_or(0);
    let of_output =
        |count: fn(&CompletionDetails) -> Option<u64>| output_details.as_ref().and_then(count).unwrap_or(0);
    let usage = Usage {
        source: Source::Reported,
        input_tokens: reported.prompt_tokens.or(reported.input_tokens)?,
        cached_input_tokens: of_input(|details| details.cached_tokens),
        output_tokens: reported.completion_tokens.or(reported.output_tokens).unwrap_or(0),
        reasoning_tokens: of_output(|details| details.reasoning_tokens),
        audio_input_tokens: of_input(|details| details.audio_tokens),
        audio_output_tokens: of_output(|details| details.audio_tokens),
        cache_write_tokens: of_input(|details| details.cache_write_tokens),
        images: 0,
    };
    usage.is_plausible().then_some(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_and_what_is_written_to_the_cache_are_told_apart() {
        let json = r#"{"prompt_tokens":9,"completion_tokens":7,
            "prompt_tokens_details":{"cached_tokens":1,"audio_tokens":2,"cache_write_tokens":3},
            "completion_tokens_details":{"reasoning_tokens":1,"audio_tokens":5}}"#;
        let usage = read_usage(json.as_bytes()).unwrap();
        let counts = (usage.audio_input_tokens, usage.cache_write_tokens, usage.audio_output_tokens);
        assert_eq!(counts, (2, 3, 5));
        assert_eq!(read_usage(json.replace("_tokens\":5", "_tokens\":8").as_bytes()), None);
    }

    #[test]
    fn usage_is_read_in_every_shape_and_a_lie_in_none() {
        let counts = |json: &str| {
            read_usage(json.as_bytes())
                .map(|u| [u.input_tokens, u.cached_input_tokens, u.output_tokens, u.reasoning_tokens])
        };
        for (json, expected) in [
            (
                r#"{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46,
                    "prompt_tokens_details":{"cached_tokens":4,"audio_tokens":0},
                    "completion_tokens_details":{"reasoning_tokens":30}}"#,
                Some([12, 4, 34, 30]),
            ),
            (r#"{"prompt_tokens":8,"total_tokens":8}"#, Some([8, 0, 0, 0])),
            (
                r#"{"input_tokens":1,"output_tokens":2,"input_tokens_details":{"cached_tokens":1}}"#,
                Some([1, 1, 2, 0]),
            ),
            (r#"{"prompt_tokens":1,"completion_tokens":2,"prompt_tokens_details":null}"#, Some([1, 0, 2, 0])),
            (
                r#"{"prompt_tokens":3,"completion_tokens":4,"input_tokens":3,"output_tokens":4}"#,
                Some([3, 0, 4, 0]),
            ),
            (r#"{"prompt_tokens":-1,"completion_tokens":2}"#, None),
            (r#"{"prompt_tokens":"1","completion_tokens":2}"#, None),
            (r#"{"prompt_tokens":99999999999,"completion_tokens":2}"#, None),
            (r#"{"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":2}}"#, None),
            ("{}", None),
            ("7", None),
        ] {
            assert_eq!(counts(json), expected, "{json}");
        }
    }
}
