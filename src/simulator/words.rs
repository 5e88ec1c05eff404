//! What the simulated model says.
//!
//! Its stock text is made of words that are one token each in both encodings, so that a reply of any
//! length has a true count that nobody has to take: the vocabularies are never loaded for it.

use std::borrow::Cow;
use std::sync::LazyLock;

use super::dice::Dice;

const OPENINGS: [&str; 16] = [
    "The", "This", "That", "When", "With", "Each", "Every", "Some", "Most", "Here", "Then", "After",
    "Before", "While", "There", "All",
];
/// Most are English; the others keep a relay honest about bytes and characters.
const WORDS: [&str; 72] = [
    " system",
    " model",
    " request",
    " answer",
    " time",
    " value",
    " first",
    " second",
    " small",
    " large",
    " simple",
    " part",
    " point",
    " number",
    " list",
    " word",
    " line",
    " work",
    " water",
    " light",
    " house",
    " river",
    " city",
    " road",
    " table",
    " paper",
    " letter",
    " story",
    " music",
    " season",
    " morning",
    " winter",
    " summer",
    " people",
    " friend",
    " family",
    " world",
    " country",
    " market",
    " price",
    " result",
    " reason",
    " change",
    " order",
    " group",
    " field",
    " form",
    " name",
    " place",
    " room",
    " door",
    " hand",
    " voice",
    " picture",
    " question",
    " number",
    " is",
    " has",
    " and",
    " or",
    " of",
    " to",
    " from",
    " under",
    " between",
    " für",
    " más",
    " être",
    " для",
    " não",
    " это",
    " più",
];
const COMMA: &str = ",";
const STOP: &str = ".";
const PARAGRAPH: &str = ".\n\n";
/// How many paragraphs there are before the text begins again.
const PARAGRAPHS: usize = 64;

/// A piece of text that is said at once: mostly one token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) text: Cow<'static, str>,
    /// The same, as it stands between the quotes of a JSON string.
    pub(super) json: Cow<'static, str>,
}

impl Piece {
    fn stock(text: &'static str) -> Self {
        let json = if text == PARAGRAPH { ".\\n\\n" } else { text };
        Self { text: Cow::Borrowed(text), json: Cow::Borrowed(json) }
    }
}

impl From<String> for Piece {
    fn from(text: String) -> Self {
        let json = escaped(&text);
        Self { text: Cow::Owned(text), json: Cow::Owned(json) }
    }
}

/// `text` as it stands between the quotes of a JSON string.
pub(super) fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

struct Stock {
    pieces: Vec<Piece>,
    openings: Vec<usize>,
    stop: Piece,
}

static STOCK: LazyLock<Stock> = LazyLock::new(|| {
    let mut dice = Dice::new(0);
    let mut stock = Stock { pieces: Vec::new(), openings: Vec::new(), stop: Piece::stock(STOP) };
    for _ in 0..PARAGRAPHS {
        stock.openings.push(stock.pieces.len());
        let opening = OPENINGS[dice.below(OPENINGS.len())];
        stock.pieces.push(Piece::stock(opening));
        for place in 1..40 + dice.below(20) {
            let word = if place % 11 == 0 { COMMA } else { WORDS[dice.below(WORDS.len())] };
            stock.pieces.push(Piece::stock(word));
        }
        stock.pieces.push(Piece::stock(" answer"));
        stock.pieces.push(Piece::stock(PARAGRAPH));
    }
    stock
});

/// What is said, piece by piece.
#[derive(Clone, Debug)]
pub(super) enum Text {
    /// So many pieces of the stock text, from here on; with a full stop if it was not cut short.
    Stock {
        start: usize,
        len: usize,
        whole: bool,
    },
    Pieces(Vec<Piece>),
}

impl Text {
    /// A text of `len` tokens, another one for another seed.
    pub(super) fn stock(seed: u64, len: usize, whole: bool) -> Self {
        let openings = &STOCK.openings;
        let start = openings[Dice::new(seed).below(openings.len())];
        Self::Stock { start, len, whole }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stock { len, .. } => *len,
            Self::Pieces(pieces) => pieces.len(),
        }
    }

    /// The piece at `place`, which is under [`Self::len`].
    pub(super) fn piece(&self, place: usize) -> &Piece {
        match self {
            Self::Stock { start, len, whole } => {
                let stock = &*STOCK;
                let at = |place: usize| &stock.pieces[(start + place) % stock.pieces.len()];
                let ends = *whole && place + 1 == *len && place > 0;
                if ends && at(place - 1).text.ends_with(char::is_alphabetic) {
                    &stock.stop
                } else {
                    at(place)
                }
            }
            Self::Pieces(pieces) => &pieces[place],
        }
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        (0..self.len()).map(|place| self.piece(place))
    }

    /// Appends it as it stands between the quotes of a JSON string.
    pub(super) fn write_json(&self, to: &mut Vec<u8>) {
        for piece in self.pieces() {
            to.extend_from_slice(piece.json.as_bytes());
        }
    }

    /// The text up to the first of `stops`, if any of them occurs.
    pub(super) fn until(&self, stops: &[&str]) -> Option<Self> {
        let said: String = self.pieces().map(|piece| piece.text.as_ref()).collect();
        let end = stops.iter().filter_map(|stop| said.find(stop)).min()?;
        let mut pieces = Vec::new();
        let mut left = end;
        for piece in self.pieces() {
            if left == 0 {
                break;
            }
            let taken = piece.text.len().min(left);
            pieces.push(Piece::from(piece.text[..taken].to_owned()));
            left -= taken;
        }
        Some(Self::Pieces(pieces))
    }
}

/// A few words for a place that wants a short text.
pub(super) fn phrase(dice: &mut Dice, words: usize) -> String {
    let mut phrase = OPENINGS[dice.below(OPENINGS.len())].to_owned();
    for _ in 1..words {
        phrase.push_str(WORDS[dice.below(WORDS.len())]);
    }
    phrase
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::tokens::Encoding;

    fn said(text: &Text) -> String {
        text.pieces().map(|piece| piece.text.as_ref()).collect()
    }

    #[test]
    fn every_piece_is_one_token_in_both_encodings_alone_and_together() {
        for encoding in [Encoding::Cl100k, Encoding::O200k] {
            let pieces = OPENINGS.iter().chain(&WORDS).chain(&[COMMA, STOP, PARAGRAPH]);
            let torn: Vec<_> = pieces.filter(|piece| encoding.count(piece) != 1).collect();
            assert!(torn.is_empty(), "{torn:?} in {encoding:?}");
            for (seed, len) in [(1, 1), (2, 2), (3, 12), (4, 100), (5, 1000), (6, 4000)] {
                for whole in [true, false] {
                    let text = said(&Text::stock(seed, len, whole));
                    assert_eq!(encoding.count(&text), len as u64, "{text}");
                }
            }
        }
    }

    #[test]
    fn the_same_seed_says_the_same() {
        assert_eq!(said(&Text::stock(9, 50, true)), said(&Text::stock(9, 50, true)));
        assert_ne!(said(&Text::stock(9, 50, true)), said(&Text::stock(10, 50, true)));
    }

    #[test]
    fn a_stop_ends_the_text_before_it() {
        let text = Text::stock(9, 50, true);
        let whole = said(&text);
        let stop = &whole[20..25];
        let until = text.until(&["never said", stop]).unwrap();
        assert_eq!(said(&until), whole[..whole.find(stop).unwrap()]);
        assert!(text.until(&["never said"]).is_none());
    }

    #[test]
    fn json_is_what_a_json_writer_would_write() {
        let mut json = b"\"".to_vec();
        Text::stock(3, 200, true).write_json(&mut json);
        json.push(b'"');
        let read: String = serde_json::from_slice(&json).unwrap();
        assert_eq!(read, said(&Text::stock(3, 200, true)));
    }
}
