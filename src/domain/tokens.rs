//! How many tokens is this text?
//!
//! The vocabularies take tens of megabytes once they are loaded, so each is loaded when it is first
//! asked for: a gateway whose backends report their usage never pays for them.

use tiktoken_rs::CoreBPE;

/// The byte-pair encoding that a model counts in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// GPT-4, GPT-3.5 and the embedding models.
    Cl100k,
    /// GPT-4o and everything after it.
    O200k,
}

impl Encoding {
    /// The encoding of a model or deployment of this name; a name that tells nothing is taken for
    /// a recent model.
    pub fn of(model: &str) -> Self {
        let model = model.to_ascii_lowercase();
        let is_old = ["gpt-4-", "gpt-35", "gpt-3.5", "text-embedding", "davinci", "babbage"];
        if model == "gpt-4" || is_old.iter().any(|name| model.starts_with(name)) {
            Self::Cl100k
        } else {
            Self::O200k
        }
    }

    /// The number of tokens in `text`. The first call for an encoding loads its vocabulary.
    pub fn count(self, text: &str) -> u64 {
        self.vocabulary().encode_ordinary(text).len() as u64
    }

    /// The tokens of `text`, as the pieces of text they stand for. A piece that is not whole UTF-8
    /// (an emoji may be several tokens) is joined with the next ones until it is.
    pub fn pieces(self, text: &str) -> Vec<String> {
        let vocabulary = self.vocabulary();
        let mut pieces = Vec::new();
        let mut open = Vec::new();
        for token in vocabulary.encode_ordinary(text) {
            open.extend(vocabulary.decode_bytes(&[token]).expect("a vocabulary knows its own tokens"));
            if let Ok(piece) = std::str::from_utf8(&open) {
                pieces.push(piece.to_owned());
                open.clear();
            }
        }
        pieces
    }

    fn vocabulary(self) -> &'static CoreBPE {
        match self {
            Self::Cl100k => tiktoken_rs::cl100k_base_singleton(),
            Self::O200k => tiktoken_rs::o200k_base_singleton(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_published_encodings() {
        for (encoding, text, tokens) in [
            (Encoding::O200k, "Hello, world!", 4),
            (Encoding::Cl100k, "Hello, world!", 4),
            (Encoding::O200k, "", 0),
            (Encoding::Cl100k, "tiktoken is great!", 6),
            (Encoding::O200k, "tiktoken is great!", 6),
        ] {
            assert_eq!(encoding.count(text), tokens, "{text} in {encoding:?}");
        }
    }

    #[test]
    fn models_count_in_their_own_encoding() {
        for (model, encoding) in [
            ("gpt-4o-mini", Encoding::O200k),
            ("gpt-4.1", Encoding::O200k),
            ("gpt-4", Encoding::Cl100k),
            ("gpt-4-turbo", Encoding::Cl100k),
            ("gpt-35-turbo", Encoding::Cl100k),
            ("text-embedding-3-small", Encoding::Cl100k),
            ("my-deployment", Encoding::O200k),
        ] {
            assert_eq!(Encoding::of(model), encoding, "{model}");
        }
    }

    #[test]
    fn pieces_put_together_are_the_text() {
        let text = "Grüße 👩‍🚀 from the gateway\n";
        assert_eq!(Encoding::O200k.pieces(text).concat(), text);
    }
}
