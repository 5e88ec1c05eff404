//! What the model said, kept within bounds, for the case that nobody reports how much it was.

use crate::domain::tokens::Encoding;

/// Longer than the longest reply of any model there is (128,000 tokens). What comes after it is
/// counted in proportion.
const MAX_KEPT_BYTES: usize = 1024 * 1024;

/// The text of a reply: its beginning, and how long it was in all.
#[derive(Debug, Default)]
pub struct Said {
    kept: String,
    bytes: u64,
}

impl Said {
    pub fn push(&mut self, text: &str) {
        self.bytes += text.len() as u64;
        if self.kept.len() + text.len() <= MAX_KEPT_BYTES {
            self.kept.push_str(text);
        }
    }

    /// What was read is the beginning only: `seen` bytes of `all`. The rest is taken to be like it.
    #[must_use]
    pub fn stretched(self, seen: u64, all: u64) -> Self {
        let bytes = self.bytes.saturating_mul(all) / seen.max(1);
        Self { bytes: bytes.max(self.bytes), ..self }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Its tokens; for a reply longer than what is kept, in proportion to its length.
    pub fn tokens(&self, encoding: Encoding) -> u64 {
        let kept = self.kept.len() as u64;
        if kept == 0 {
            return 0;
        }
        let counted = encoding.count(&self.kept);
        if self.bytes == kept { counted } else { counted.saturating_mul(self.bytes) / kept }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_kept_is_counted_in_proportion() {
        let mut said = Said::default();
        said.push(&"one two three four five. ".repeat(100));
        let seen = said.tokens(Encoding::O200k);
        let all = said.stretched(1_000, 4_000).tokens(Encoding::O200k);
        assert_eq!(all, seen * 4);
    }

    #[test]
    fn a_reply_of_any_length_is_counted_in_bounded_memory() {
        let mut said = Said::default();
        let text = "The quick brown fox jumps over the lazy dog. ";
        let times = 50_000;
        for _ in 0..times {
            said.push(text);
        }
        assert!(said.kept.len() <= MAX_KEPT_BYTES);
        let expected = Encoding::O200k.count(&text.repeat(100)) * times / 100;
        let counted = said.tokens(Encoding::O200k);
        assert!(counted.abs_diff(expected) * 100 <= expected * 5, "{counted} for about {expected}");
    }
}
