//! What can be known of a chunk or a reply without reading it as JSON.
//!
//! A key is looked for by its bytes. Inside of a string its quotes would be escaped, so what is found
//! is a key; only which object it belongs to is not known. That is enough to tell what was said, which
//! is only ever used for an estimate.

use std::sync::LazyLock;

use memchr::memchr2;
use memchr::memmem::Finder;

use super::said::Said;

/// The members in which a model says something.
static SPEAKING: LazyLock<[Finder<'static>; 5]> = LazyLock::new(|| {
    ["\"content\":", "\"text\":", "\"name\":", "\"arguments\":", "\"refusal\":"].map(Finder::new)
});

static USAGE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"usage\""));

static DELTA: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\"delta\":"));

/// Adds what the member `delta` says in an event of a Responses stream.
pub(super) fn delta(json: &[u8], said: &mut Said) {
    let Some(at) = DELTA.find(json) else { return };
    let rest = json[at + DELTA.needle().len()..].trim_ascii_start();
    if let Some(text) = rest.strip_prefix(b"\"") {
        tell(&text[..string_length(text)], said);
    }
}

/// Whether there may be a member `usage`.
pub(super) fn names_usage(json: &[u8]) -> bool {
    USAGE.find(json).is_some()
}

/// Adds what is said in a piece of JSON, which may break off anywhere.
pub(super) fn said(json: &[u8], said: &mut Said) {
    for member in SPEAKING.iter() {
        let mut rest = json;
        while let Some(at) = member.find(rest) {
            rest = rest[at + member.needle().len()..].trim_ascii_start();
            if let Some(text) = rest.strip_prefix(b"\"") {
                let length = string_length(text);
                tell(&text[..length], said);
                rest = &text[length..];
            }
        }
    }
}

/// How many bytes of `text` stand before the quote that ends the string, or before its break.
fn string_length(text: &[u8]) -> usize {
    let mut at = 0;
    while let Some(mark) = memchr2(b'"', b'\\', &text[at..]) {
        at += mark;
        if text[at] == b'"' {
            return at;
        }
        at = (at + 2).min(text.len());
    }
    text.len()
}

/// Tells a string's content. Half of a character or of an escape, where it breaks off, costs the last
/// few bytes and not the count.
fn tell(text: &[u8], said: &mut Said) {
    const LONGEST_ESCAPE: usize = "\\ud83d\\ude00".len();
    if !text.contains(&b'\\') {
        return match std::str::from_utf8(text) {
            Ok(text) => said.push(text),
            Err(error) => said.push(&String::from_utf8_lossy(&text[..error.valid_up_to()])),
        };
    }
    let whole = (0..=LONGEST_ESCAPE.min(text.len())).find_map(|less| {
        let quoted = [b"\"", &text[..text.len() - less], b"\""].concat();
        serde_json::from_slice::<String>(&quoted).ok()
    });
    said.push(&whole.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::meter::said_in;
    use crate::domain::tokens::Encoding;

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
    fn an_escaped_key_is_no_key() {
        let json = br#"{"x":"\"content\":\"no\"","content":"yes","y":{"usage":1}}"#;
        let mut told = Said::default();
        said(json, &mut told);
        assert_eq!(told.tokens(Encoding::O200k), 1);
        assert!(names_usage(json) && !names_usage(br#"{"x":"\"usage\""}"#));
    }
}
