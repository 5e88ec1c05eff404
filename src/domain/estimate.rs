//! How much was it, when nobody said? Counted from what was sent and what was said.

use memchr::memmem;

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
    });
    Usage {
        source: Source::Estimated,
        input_tokens: input,
        output_tokens: said.tokens(encoding),
        ..Usage::default()
    }
}

/// What a whole reply said, read from as much of it as came: it may break off anywhere.
pub fn said_in(reply: &[u8]) -> Said {
    let mut said = Said::default();
    for member in ["\"content\":", "\"text\":", "\"arguments\":", "\"refusal\":"] {
        for at in memmem::find_iter(reply, member) {
            let value = reply[at + member.len()..].trim_ascii_start();
            if let Some(text) = value.strip_prefix(b"\"") {
                said.push(&leading_string(text));
            }
        }
    }
    said
}

/// The string that `text` begins inside of, to its closing quote or to where the text breaks off.
fn leading_string(text: &[u8]) -> String {
    let mut end = 0;
    let mut whole = 0;
    while end < text.len() && text[end] != b'"' {
        let step = match text.get(end..end + 2) {
            Some(b"\\u") => 6,
            Some([b'\\', _]) => 2,
            _ => 1,
        };
        end += step;
        if end <= text.len() && !text[..end].ends_with(b"\\") {
            whole = end;
        }
    }
    let quoted = [b"\"", &text[..whole], b"\""].concat();
    // Half of a character or of an escape at the very end costs the last few bytes, not the count.
    (0..=12.min(whole))
        .find_map(|less| {
            let quoted = [&quoted[..quoted.len() - 1 - less], b"\""].concat();
            serde_json::from_slice(&quoted).ok()
        })
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_that_breaks_off_anywhere_is_counted_to_there() {
        let reply =
            r#"{"choices":[{"message":{"role":"assistant","content":"one \"two\" \ud83d\ude00 thr\\ee"}}]}"#;
        let whole = said_in(reply.as_bytes()).tokens(Encoding::O200k);
        assert_eq!(whole, Encoding::O200k.count("one \"two\" 😀 thr\\ee"));
        let mut last = 0;
        for cut in 0..reply.len() {
            let tokens = said_in(&reply.as_bytes()[..cut]).tokens(Encoding::O200k);
            assert!(tokens <= whole + 3, "{tokens} of {whole} tokens at {cut}");
            last = tokens;
        }
        assert_eq!(last, whole);
    }

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
