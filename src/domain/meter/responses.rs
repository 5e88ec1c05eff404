//! The events of a Responses stream: which of them tells the usage, which names what is kept, and what
//! is said in the others.
//!
//! Each event has its kind in a line of its own, `event: response.output_text.delta`. The last one
//! (`response.completed`, `.incomplete` or `.failed`) repeats the whole response with its usage; there is no
//! `[DONE]`. Events are only looked at: nothing is ever taken out of such a stream.

use std::borrow::Cow;

use memchr::memchr;
use serde::Deserialize;

use super::said::Said;
use super::{quick, whole};
use crate::domain::usage::Usage;

/// How the last event of a stream begins, as far as it can be told from its first bytes.
const ENDS: [&[u8]; 6] = [
    b"event: response.completed",
    b"event: response.incomplete",
    b"event: response.failed",
    b"event:response.completed",
    b"event:response.incomplete",
    b"event:response.failed",
];

/// What an event is for the meter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Has the response as it begins: its id and its model.
    Begins,
    Says,
    /// An item of the output begins; the name of a called tool is said only here.
    Adds,
    Ends,
    Other,
}

impl Kind {
    fn named(name: &[u8]) -> Self {
        match name {
            b"response.created" | b"response.queued" | b"response.in_progress" => Self::Begins,
            b"response.output_item.added" => Self::Adds,
            b"response.completed" | b"response.incomplete" | b"response.failed" => Self::Ends,
            // Sound is not text.
            _ if name.ends_with(b"audio.delta") => Self::Other,
            _ if name.ends_with(b".delta") => Self::Says,
            _ => Self::Other,
        }
    }
}

/// What was read of one stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) id: Option<String>,
    pub(super) model: Option<String>,
    pub(super) usage: Option<Usage>,
    /// Reads the last event as it passes, where that is too long to be kept.
    long: Option<Box<whole::Meter>>,
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
}

impl Reader {
    /// Reads one event, whose data is `payload`. Answers whether it is the stream's last one.
    pub(super) fn read(&mut self, event: &[u8], payload: &[u8], said: &mut Said) -> bool {
        let kind = kind(event, payload);
        match kind {
            Kind::Begins if self.id.is_none() => self.read_response(payload),
            Kind::Says => quick::delta(payload, said),
            Kind::Adds => quick::said(payload, said),
            Kind::Ends => self.read_response(payload),
            Kind::Begins | Kind::Other => {}
        }
        kind == Kind::Ends
    }

    fn read_response(&mut self, payload: &[u8]) {
        let mut meter = whole::Meter::of_member();
        meter.pass(payload);
        self.take_over(&mut meter);
    }

    fn take_over(&mut self, meter: &mut whole::Meter) {
        self.usage = meter.usage().or(self.usage);
        if self.model.is_none() {
            self.model = meter.model().filter(|model| !model.is_empty()).map(str::to_owned);
        }
        if self.id.is_none() {
            self.id = meter.take_id();
        }
    }

    /// An event that is longer than what is kept begins with these bytes.
    pub(super) fn begin_long(&mut self, event: &[u8], payload: &[u8]) {
        if kind(event, payload) == Kind::Ends {
            let mut meter = whole::Meter::of_member();
            meter.pass(payload);
            self.long = Some(Box::new(meter));
        }
    }

    /// More of it.
    pub(super) fn pass_long(&mut self, bytes: &[u8]) {
        if let Some(meter) = &mut self.long {
            meter.pass(bytes);
        }
    }

    /// Its end. Answers whether it was the stream's last event.
    pub(super) fn end_long(&mut self) -> bool {
        let Some(mut meter) = self.long.take() else { return false };
        self.take_over(&mut meter);
        true
    }
}

/// Whether bytes without an end are, or may become, the last event: it waits then, so that it is seen
/// whole or not at all.
pub(super) fn may_become_end(open: &[u8]) -> bool {
    ENDS.iter().any(|end| open.starts_with(end) || end.starts_with(open))
}

fn kind(event: &[u8], payload: &[u8]) -> Kind {
    if let Some(named) = event.strip_prefix(b"event:") {
        let end = memchr(b'\n', named).unwrap_or(named.len());
        return Kind::named(named[..end].trim_ascii());
    }
    if payload.trim_ascii() == b"[DONE]" {
        return Kind::Ends;
    }
    // Azure writes the line; whoever does not has the same word in the data.
    match serde_json::from_slice::<Typed<'_>>(payload) {
        Ok(typed) => Kind::named(typed.r#type.as_bytes()),
        Err(_) => Kind::Other,
    }
}

#[cfg(test)]
mod tests;
