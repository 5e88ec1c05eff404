//! How much was it, when nobody said? Counted from what was sent and what was said.

use super::api::Operation;
use super::meter::said::Said;
use super::prompt;
use super::tokens::Encoding;
use super::usage::{Source, Usage};

/// The usage of a request whose backend did not report it. Loads a vocabulary and counts whole texts:
/// not for a thread that others wait for.
pub fn usage(operation: Operation, encoding: Encoding, body: &[u8], said: &Said) -> Usage {
    let input = serde_json::from_slice(body).map_or(0, |body| match operation {
        Operation::ChatCompletions => prompt::chat_tokens(&body, encoding),
        Operation::Completions => prompt::completions_tokens(&body, encoding),
        Operation::Embeddings => prompt::embeddings_tokens(&body, encoding),
        Operation::Responses => prompt::responses_tokens(&body, encoding),
        Operation::ResponsesGet
        | Operation::ResponsesDelete
        | Operation::ResponsesCancel
        | Operation::ResponsesInputItems => 0,
    });
    Usage {
        source: Source::Estimated,
        input_tokens: input,
        output_tokens: said.tokens(encoding),
        ..Usage::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompt_and_reply_are_counted_apart() {
        let mut said = Said::default();
        said.push("Hello, world!");
        let body = br#"{"messages":[{"role":"user","content":"Hello, world!"}]}"#;
        let usage = usage(Operation::ChatCompletions, Encoding::O200k, body, &said);
        assert_eq!((usage.source, usage.output_tokens), (Source::Estimated, 4));
        assert!((8..=14).contains(&usage.input_tokens), "{usage:?}");
    }
}
