//! A delivery as it arrives: its messages are found one by one, and no more than one is ever in memory.
//!
//! The host puts them into `Data.events`: a list, or one message, and mostly as JSON in a string. What
//! stands around that is passed over, and a message of any size and form comes out as it is: reading it is
//! not done here.

use aws_lc_rs::digest::{Context, SHA256};

use super::{MAX_KEPT_BYTES, unescape::Unescape};

/// A message of the host has at most a megabyte, escaped twice. The rest of a longer one is passed over.
const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;
/// A member's name that could be one of ours.
const MAX_KEY_BYTES: usize = 16;

/// Something that was found in a delivery.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// JSON, from a list or alone, as it stands.
    Json(Vec<u8>),
    /// What was in a string, alone.
    Text(Vec<u8>),
}

/// Reads a delivery, wherever it is cut into pieces.
pub(super) struct Arriving {
    at: At,
    /// Of what comes before the events.
    around: Around,
    /// How the delivery begins, and a digest of all of it, while no events were found.
    head: Vec<u8>,
    digest: Context,
}

enum At {
    Before,
    InText(Unescape, Messages),
    InJson(Messages),
    Behind,
}

impl Arriving {
    pub(super) fn new() -> Self {
        Self { at: At::Before, around: Around::default(), head: Vec::new(), digest: Context::new(&SHA256) }
    }

    /// Takes the next piece in; what is whole by then goes to `found`.
    pub(super) fn take_in(&mut self, piece: &[u8], found: &mut impl FnMut(Found)) {
        if matches!(self.at, At::Before) {
            let room = MAX_KEPT_BYTES - self.head.len();
            self.head.extend_from_slice(&piece[..piece.len().min(room)]);
            self.digest.update(piece);
        }
        for byte in piece {
            self.next(*byte, found);
        }
    }

    fn next(&mut self, byte: u8, found: &mut impl FnMut(Found)) {
        match &mut self.at {
            At::Before => {
                if !self.around.are_events_at(byte) {
                    return;
                }
                self.head = Vec::new();
                if byte == b'"' {
                    self.at = At::InText(Unescape::default(), Messages::new(true));
                } else {
                    let mut messages = Messages::new(false);
                    messages.next(byte, found);
                    self.at = At::InJson(messages);
                }
            }
            At::InText(unescape, messages) => {
                if unescape.next(byte, |byte| _ = messages.next(byte, found)) {
                    self.end_of_text(found);
                }
            }
            At::InJson(messages) => {
                if messages.next(byte, found) {
                    self.at = At::Behind;
                }
            }
            At::Behind => {}
        }
    }

    fn end_of_text(&mut self, found: &mut impl FnMut(Found)) {
        if let At::InText(_, messages) = std::mem::replace(&mut self.at, At::Behind) {
            messages.end(found);
        }
    }

    /// Nothing more comes. `Some`: there were no events at all, but this beginning, and a digest of everything.
    pub(super) fn end(self, found: &mut impl FnMut(Found)) -> Option<(Vec<u8>, [u8; 32])> {
        match self.at {
            At::Before => {
                let digest = self.digest.finish();
                Some((self.head, digest.as_ref().try_into().expect("an SHA-256 digest has 32 bytes")))
            }
            At::InText(_, messages) | At::InJson(messages) => {
                messages.end(found);
                None
            }
            At::Behind => None,
        }
    }
}

/// Where a byte stands in a string, or outside of all.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Quoted {
    #[default]
    No,
    Inside,
    /// Behind a backslash.
    Escaped,
}

impl Quoted {
    /// Behind one more byte of a string.
    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Inside, b'"') => Self::No,
            (Self::Inside, b'\\') => Self::Escaped,
            _ => Self::Inside,
        }
    }
}

/// What stands around the events: just enough of JSON to find their place.
#[derive(Default)]
struct Around {
    depth: usize,
    is_in_data: bool,
    quoted: Quoted,
    /// The last string, which is a name when a colon follows it.
    key: Vec<u8>,
    is_value_next: bool,
}

impl Around {
    /// Whether the events begin with this byte.
    fn are_events_at(&mut self, byte: u8) -> bool {
        if self.quoted != Quoted::No {
            self.quoted = self.quoted.after(byte);
            // A name of ours with a backslash in it would only look like another one, which nobody writes.
            if self.quoted != Quoted::No && self.key.len() < MAX_KEY_BYTES {
                self.key.push(byte);
            }
            return false;
        }
        if byte.is_ascii_whitespace() {
            return false;
        }
        if std::mem::take(&mut self.is_value_next) {
            if self.depth == 2 && self.is_in_data && self.key == b"events" {
                return true;
            }
            self.is_in_data |= self.depth == 1 && self.key == b"Data" && byte == b'{';
        }
        match byte {
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                self.is_in_data &= self.depth > 1;
            }
            b':' => self.is_value_next = true,
            b'"' => {
                self.quoted = Quoted::Inside;
                self.key.clear();
            }
            _ => {}
        }
        false
    }
}

/// A list of messages, or one, byte by byte.
struct Messages {
    /// They were in a string, which ends them.
    is_text: bool,
    form: Form,
    depth: usize,
    quoted: Quoted,
    message: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Unknown,
    One,
    List,
    Over,
}

impl Messages {
    fn new(is_text: bool) -> Self {
        Self { is_text, form: Form::Unknown, depth: 0, quoted: Quoted::No, message: Vec::new() }
    }

    /// Takes the next byte in. True when that was the last.
    fn next(&mut self, byte: u8, found: &mut impl FnMut(Found)) -> bool {
        if self.form == Form::Unknown && !byte.is_ascii_whitespace() {
            if byte == b'[' {
                (self.form, self.depth) = (Form::List, 1);
                return false;
            }
            self.form = Form::One;
        }
        match (self.form, self.is_text) {
            (Form::Over, _) => {}
            // It ends with its string.
            (Form::Unknown | Form::One, true) => self.push(byte),
            _ => self.next_of_json(byte, found),
        }
        self.form == Form::Over
    }

    fn push(&mut self, byte: u8) {
        if self.message.len() < MAX_MESSAGE_BYTES {
            self.message.push(byte);
        }
    }

    fn next_of_json(&mut self, byte: u8, found: &mut impl FnMut(Found)) {
        if self.quoted != Quoted::No {
            self.quoted = self.quoted.after(byte);
            return self.push(byte);
        }
        let outermost = usize::from(self.form == Form::List);
        match byte {
            b',' if self.depth == outermost => {
                self.message_is_over(found);
                if self.form == Form::One {
                    self.form = Form::Over;
                }
                return;
            }
            b'}' | b']' if self.depth <= outermost => {
                self.message_is_over(found);
                self.form = Form::Over;
                return;
            }
            b'}' | b']' => self.depth -= 1,
            b'{' | b'[' => self.depth += 1,
            b'"' => self.quoted = Quoted::Inside,
            _ => {}
        }
        self.push(byte);
    }

    fn message_is_over(&mut self, found: &mut impl FnMut(Found)) {
        let message = std::mem::take(&mut self.message);
        if !message.trim_ascii().is_empty() {
            found(Found::Json(message));
        }
    }

    /// No more bytes come: what is there, whole or not, is a message.
    fn end(mut self, found: &mut impl FnMut(Found)) {
        match (self.form, self.is_text) {
            (Form::Over, _) => {}
            (Form::Unknown | Form::One, true) => found(Found::Text(self.message)),
            _ => self.message_is_over(found),
        }
    }
}
