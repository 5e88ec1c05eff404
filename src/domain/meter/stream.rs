//! The usage in a stream of server-sent events, found as they pass; and, where the gateway asked for
//! it and the caller did not, taken out again.
//!
//! Two promises hold for every way in which the network may cut the stream: a caller that asked for
//! usage gets exactly the backend's bytes, and one that did not gets exactly the bytes that the
//! backend would have sent had nobody asked. Only the end, from `data: [DONE]` on (in a stream of
//! Responses, from the last event on), is handed over apart: it waits until the usage is safe.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use memchr::memchr;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::said::Said;
use super::{quick, read_usage, responses};
use crate::domain::usage::Usage;

/// No chunk is this long. What is longer passes unread.
const MAX_EVENT_BYTES: usize = 1024 * 1024;

/// Reads one stream.
#[derive(Debug)]
pub struct Meter {
    /// The gateway asked for usage, the caller did not.
    strips: bool,
    /// The stream is one of Responses, whose events are other ones.
    responses: Option<Box<responses::Reader>>,
    /// The bytes of an event that has not ended: read again with what follows.
    open: BytesMut,
    /// How many of `open`'s bytes the caller has already been given.
    given: usize,
    /// How many of `open`'s bytes are known to hold no end of an event.
    searched: usize,
    /// An event outgrew the bound: it passes unread to its end.
    oversized: bool,
    ended: bool,
    usage: Option<Usage>,
    model: Option<String>,
    said: Said,
}

/// What to do with one event.
enum Fate {
    Keep,
    Drop,
    /// Without these bytes of it.
    Cut(Range<usize>),
    /// It is `[DONE]`, or what stands for it.
    End,
}

impl Meter {
    /// `strips`: usage was asked for by the gateway and must not reach the caller.
    pub fn new(strips: bool) -> Self {
        Self {
            strips,
            responses: None,
            open: BytesMut::new(),
            given: 0,
            searched: 0,
            oversized: false,
            ended: false,
            usage: None,
            model: None,
            said: Said::default(),
        }
    }

    /// Of a stream of Responses: it tells its usage unasked, and nothing is taken out of it.
    pub fn of_responses() -> Self {
        Self { responses: Some(Box::default()), ..Self::new(false) }
    }

    pub fn usage(&self) -> Option<Usage> {
        self.responses.as_ref().map_or(self.usage, |reader| reader.usage)
    }

    pub fn model(&self) -> Option<&str> {
        self.responses.as_ref().map_or(&self.model, |reader| &reader.model).as_deref()
    }

    /// What the response is kept under, as soon as it was told.
    pub fn id(&self) -> Option<&str> {
        self.responses.as_ref()?.id.as_deref()
    }

    /// What the model said, for counting; it is empty from then on.
    pub fn take_said(&mut self) -> Said {
        std::mem::take(&mut self.said)
    }

    /// Whether the caller was left in the middle of a line.
    pub fn is_mid_event(&self) -> bool {
        self.oversized || self.given > 0
    }

    /// Takes the next bytes of the stream. Those for the caller at once go to `now`; answers with
    /// those from the end on, for the caller once the usage is safe.
    pub fn pass(&mut self, frame: Bytes, now: &mut VecDeque<Bytes>) -> Option<Bytes> {
        if self.ended {
            return Some(frame);
        }
        if self.oversized
            && let Some(reader) = &mut self.responses
        {
            reader.pass_long(&frame);
        }
        // The usual case: nothing is open, and the bytes are whole events. Then nothing is copied.
        let (bytes, already) = if self.open.is_empty() {
            (frame, 0)
        } else {
            self.open.extend_from_slice(&frame);
            (self.open.split().freeze(), std::mem::take(&mut self.given))
        };
        let searched = std::mem::take(&mut self.searched);
        let mut out = Outgoing { bytes: &bytes, from: already, now };
        let mut at = 0;
        while let Some(end) = event_end(&bytes, at, searched) {
            let fate = if self.oversized { self.end_oversized() } else { self.read(&bytes[at..end]) };
            match fate {
                Fate::Keep => {}
                Fate::Drop => out.skip(at..end),
                Fate::Cut(range) => out.skip(at + range.start..at + range.end),
                Fate::End => {
                    self.ended = true;
                    out.skip(at..bytes.len());
                    return Some(bytes.slice(at.max(already)..));
                }
            }
            at = end;
        }
        let held = self.hold(&bytes, at, already);
        out.skip(held..bytes.len());
        None
    }

    /// The stream is over: what was still held, an event without its end, goes where [`Self::pass`]
    /// puts such bytes.
    pub fn finish(&mut self, now: &mut VecDeque<Bytes>) -> Option<Bytes> {
        let rest = self.open.split().freeze();
        let given = std::mem::take(&mut self.given);
        self.searched = 0;
        // A last event without its blank line is an end all the same.
        let fate = if self.oversized { self.end_oversized() } else { self.read(&rest) };
        let is_end = matches!(fate, Fate::End);
        let rest = rest.slice(given..);
        if is_end {
            self.ended = true;
            return Some(rest);
        }
        if !rest.is_empty() {
            now.push_back(rest);
        }
        None
    }

    /// Keeps what follows the last whole event for the next call. Answers up to where the bytes may
    /// go out now.
    fn hold(&mut self, bytes: &Bytes, at: usize, already: usize) -> usize {
        let open = &bytes[at..];
        if self.oversized || open.len() > MAX_EVENT_BYTES {
            if !self.oversized
                && let Some(reader) = &mut self.responses
            {
                reader.begin_long(open, payload(open).map_or(&[], |(payload, _)| payload));
            }
            self.oversized = true;
            // The last bytes may be the first half of the event's end.
            let tail = open.len().min(3);
            self.open.extend_from_slice(&open[open.len() - tail..]);
            self.given = tail;
            return bytes.len();
        }
        self.open.extend_from_slice(open);
        self.searched = open.len().saturating_sub(3);
        let may_become_end =
            if self.responses.is_some() { responses::may_become_end(open) } else { may_become_done(open) };
        let held = if self.strips || may_become_end { at.max(already) } else { bytes.len() };
        self.given = held - at;
        held
    }

    /// The end of an event that passed unread.
    fn end_oversized(&mut self) -> Fate {
        self.oversized = false;
        let was_last = self.responses.as_mut().is_some_and(|reader| reader.end_long());
        if was_last { Fate::End } else { Fate::Keep }
    }

    fn read(&mut self, event: &[u8]) -> Fate {
        let Some((payload, offset)) = payload(event) else { return Fate::Keep };
        if let Some(reader) = &mut self.responses {
            let is_last = reader.read(event, payload, &mut self.said);
            return if is_last { Fate::End } else { Fate::Keep };
        }
        let json = payload.trim_ascii_end();
        if json.trim_ascii_start() == b"[DONE]" {
            return Fate::End;
        }
        // Most chunks have a null usage as their last member, or none: what must be known of them is
        // known without reading them as JSON, which would cost more than all the rest.
        if self.model.is_some() {
            if json.ends_with(NULL_USAGE_LAST) {
                quick::said(json, &mut self.said);
                let end = offset + json.len() - 1;
                return if self.strips {
                    Fate::Cut(end + 1 - NULL_USAGE_LAST.len()..end)
                } else {
                    Fate::Keep
                };
            }
            if !quick::names_usage(json) {
                quick::said(json, &mut self.said);
                return Fate::Keep;
            }
        }
        self.read_whole(payload, offset)
    }

    fn read_whole(&mut self, payload: &[u8], offset: usize) -> Fate {
        let Ok(text) = std::str::from_utf8(payload) else { return Fate::Keep };
        let Ok(chunk) = serde_json::from_str::<Chunk<'_>>(text) else { return Fate::Keep };
        quick::said(payload, &mut self.said);
        if self.model.is_none() {
            self.model = chunk.model.filter(|model| !model.0.is_empty()).map(|model| model.0.into_owned());
        }
        let Some(usage) = chunk.usage.map(RawValue::get) else { return Fate::Keep };
        if usage == "null" {
            let value = usage.as_ptr() as usize - text.as_ptr() as usize;
            return match (self.strips, member_around(payload, value..value + usage.len())) {
                (true, Some(member)) => Fate::Cut(offset + member.start..offset + member.end),
                _ => Fate::Keep,
            };
        }
        self.usage = read_usage(usage.as_bytes()).or(self.usage);
        if self.strips && chunk.choices.is_empty() { Fate::Drop } else { Fate::Keep }
    }
}

/// How a chunk ends whose last member is a null usage. The brace closes the outermost object, so the
/// member is one of it; and no string can end so, for its closing quote would have to come.
const NULL_USAGE_LAST: &[u8] = b",\"usage\":null}";

/// The bytes that go out: the ones that came, less what is skipped. Nothing is copied.
struct Outgoing<'a> {
    bytes: &'a Bytes,
    /// So far all is given or skipped.
    from: usize,
    now: &'a mut VecDeque<Bytes>,
}

impl Outgoing<'_> {
    /// Gives what stands before the range, and not the range.
    fn skip(&mut self, range: Range<usize>) {
        if range.start > self.from {
            self.now.push_back(self.bytes.slice(self.from..range.start));
        }
        self.from = self.from.max(range.end);
    }
}

/// Where the event that begins at `at` ends: after its blank line. `searched`: so many bytes from
/// the start hold no end.
fn event_end(bytes: &[u8], at: usize, searched: usize) -> Option<usize> {
    let mut from = at.max(searched);
    while let Some(line) = memchr(b'\n', &bytes[from..]) {
        let next = from + line + 1;
        match bytes.get(next..) {
            Some([b'\n', ..]) => return Some(next + 1),
            Some([b'\r', b'\n', ..]) => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

/// The data of an event, and where in it that begins. OpenAI's events have one `data` line each.
fn payload(event: &[u8]) -> Option<(&[u8], usize)> {
    // A stream may begin with a byte order mark.
    let mut at = if event.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    while at < event.len() {
        let line_end = memchr(b'\n', &event[at..]).map_or(event.len(), |end| at + end);
        if let Some(data) = event[at..line_end].strip_prefix(b"data:") {
            return Some((data, at + b"data:".len()));
        }
        at = line_end + 1;
    }
    None
}

/// Whether bytes without an end may still turn out to be `data: [DONE]`: they wait then, twelve bytes
/// at the most.
fn may_become_done(open: &[u8]) -> bool {
    let open = open.trim_ascii_end();
    [&b"data: [DONE]"[..], b"data:[DONE]"].iter().any(|done| done.starts_with(open))
}

/// The whole member whose value stands at `value`: its key, and the comma that sets it apart.
fn member_around(json: &[u8], value: Range<usize>) -> Option<Range<usize>> {
    let before = json[..value.start].trim_ascii_end().strip_suffix(b":")?;
    let before = before.trim_ascii_end().strip_suffix(b"\"usage\"")?.trim_ascii_end();
    if let Some(before) = before.strip_suffix(b",") {
        return Some(before.len()..value.end);
    }
    // The first member: its comma, and the space after it, come behind it.
    let after = json[value.end..].trim_ascii_start();
    let end = match after.strip_prefix(b",") {
        Some(after) => json.len() - after.trim_ascii_start().len(),
        None => value.end,
    };
    Some(before.len()..end)
}

#[derive(Deserialize)]
struct Chunk<'a> {
    /// Only whether there are any.
    #[serde(default)]
    choices: Vec<serde::de::IgnoredAny>,
    #[serde(default, borrow)]
    model: Option<Text<'a>>,
    /// Raw, so that `null` is told from absent and its place is known.
    #[serde(default, borrow, deserialize_with = "present")]
    usage: Option<&'a RawValue>,
}

/// A string, borrowed where it has no escapes: `Option<Cow<str>>` alone would always copy.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
