//! The usage in a whole JSON reply, found as its bytes pass.

use memchr::memchr2;

use super::read_usage;
use crate::domain::usage::Usage;

/// A `usage` object has a few hundred bytes; one that is longer is not one.
const MAX_VALUE_BYTES: usize = 4 * 1024;
/// `usage` and `model` are shorter; a longer key is none of them.
const MAX_KEY_BYTES: usize = 8;

/// A scanner for JSON of any length in constant memory: it follows strings and nesting, and takes
/// the members `usage` and `model` of one object out.
#[derive(Debug)]
pub struct Meter {
    /// How deep the members lie that are looked at: 1 in the outermost object.
    level: u32,
    shape: Shape,
    depth: u32,
    in_string: bool,
    escaped: bool,
    /// Inside of an object at that level, before a member's colon.
    awaits_key: bool,
    key: Vec<u8>,
    member: Member,
    value: Vec<u8>,
    usage: Option<Usage>,
    model: Option<String>,
    id: Option<String>,
}

/// What the object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Reply,
    /// It is kept under its id.
    Response,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new(1, Shape::Reply)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Member {
    #[default]
    Other,
    Usage,
    Model,
    Id,
}

impl Meter {
    fn new(level: u32, shape: Shape) -> Self {
        Self {
            level,
            shape,
            depth: 0,
            in_string: false,
            escaped: false,
            awaits_key: false,
            key: Vec::new(),
            member: Member::Other,
            value: Vec::new(),
            usage: None,
            model: None,
            id: None,
        }
    }

    /// Of a response, which is kept under its `id`.
    pub fn of_response() -> Self {
        Self::new(1, Shape::Response)
    }

    /// Of a response that is a member of what passes.
    pub(super) fn of_member() -> Self {
        Self::new(2, Shape::Response)
    }

    /// Looks at the next bytes of the reply.
    pub fn pass(&mut self, bytes: &[u8]) {
        let mut at = 0;
        while at < bytes.len() {
            if self.in_string {
                at = self.pass_string(bytes, at);
            } else if self.skips() {
                at = self.skip(bytes, at);
            } else {
                self.pass_mark(bytes[at]);
                at += 1;
            }
        }
    }

    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    pub fn model(&self) -> Option<&str> {
        self.model.as_deref()
    }

    /// The `id`, where that is looked for; once.
    pub fn take_id(&mut self) -> Option<String> {
        self.id.take()
    }

    /// Whether what passes is neither a key nor a value that is wanted.
    fn skips(&self) -> bool {
        !self.awaits_key && self.member == Member::Other
    }

    /// Follows the nesting from `at` to the next string, or to where a key may come.
    fn skip(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'"' => {
                    self.in_string = true;
                    return at;
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.depth == self.level && *byte == b'{' {
                        self.awaits_key = true;
                        return at;
                    }
                }
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                b',' if self.depth == self.level => {
                    self.awaits_key = true;
                    return at;
                }
                _ => {}
            }
        }
        at
    }

    /// Follows a string from `at` to where it or the bytes end; answers with the next position.
    fn pass_string(&mut self, bytes: &[u8], at: usize) -> usize {
        if self.escaped {
            self.escaped = false;
            self.keep(&bytes[at..=at]);
            return at + 1;
        }
        let Some(mark) = memchr2(b'"', b'\\', &bytes[at..]) else {
            self.keep(&bytes[at..]);
            return bytes.len();
        };
        let end = at + mark;
        if bytes[end] == b'\\' {
            self.escaped = true;
            self.keep(&bytes[at..=end]);
        } else {
            self.in_string = false;
            self.keep(&bytes[at..=end]);
        }
        end + 1
    }

    fn pass_mark(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.in_string = true;
                if self.awaits_key {
                    self.key.clear();
                }
                self.keep(b"\"");
            }
            b'{' | b'[' => {
                self.keep(&[byte]);
                self.depth += 1;
                self.awaits_key = self.depth == self.level && byte == b'{';
            }
            b'}' | b']' => {
                if self.depth == self.level {
                    self.end_member();
                }
                self.depth = self.depth.saturating_sub(1);
                self.keep(&[byte]);
            }
            b':' if self.awaits_key => {
                self.awaits_key = false;
                self.member = match self.key.as_slice() {
                    b"\"usage\"" => Member::Usage,
                    b"\"model\"" => Member::Model,
                    b"\"id\"" if self.shape == Shape::Response => Member::Id,
                    _ => Member::Other,
                };
            }
            b',' if self.depth == self.level => {
                self.end_member();
                self.awaits_key = true;
            }
            // Space around a key is not part of it.
            _ if self.awaits_key => {}
            _ => self.keep(&[byte]),
        }
    }

    /// Keeps bytes of a key or of a value that is wanted.
    fn keep(&mut self, bytes: &[u8]) {
        if self.awaits_key {
            let room = MAX_KEY_BYTES.saturating_sub(self.key.len());
            self.key.extend_from_slice(&bytes[..bytes.len().min(room)]);
        } else if self.member != Member::Other {
            let room = MAX_VALUE_BYTES.saturating_sub(self.value.len());
            self.value.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }

    fn end_member(&mut self) {
        match self.member {
            Member::Other => {}
            Member::Usage => self.usage = read_usage(&self.value).or(self.usage),
            Member::Id => self.id = serde_json::from_slice(&self.value).ok().or(self.id.take()),
            Member::Model => self.model = serde_json::from_slice(&self.value).ok().or(self.model.take()),
        }
        self.member = Member::Other;
        self.value.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{ "id": "chatcmpl-1", "choices":[{"index":0,"usage":{"prompt_tokens":99},
        "message":{"role":"assistant","content":"say \"usage\":{\"prompt_tokens\":7} and } \\"}}],
        "model" : "gpt-4o-mini-2024-07-18" ,"usage" : {"prompt_tokens":12,"completion_tokens":34,
        "prompt_tokens_details":{"cached_tokens":4}},"system_fingerprint":null}"#;

    fn metered(cut: usize) -> Meter {
        let mut meter = Meter::default();
        REPLY.as_bytes().chunks(cut).for_each(|bytes| meter.pass(bytes));
        meter
    }

    #[test]
    fn usage_is_found_however_the_reply_is_cut() {
        for cut in [1, 2, 3, 7, 64, REPLY.len()] {
            let meter = metered(cut);
            let usage = meter.usage().unwrap_or_else(|| panic!("cut every {cut} bytes"));
            assert_eq!([usage.input_tokens, usage.cached_input_tokens, usage.output_tokens], [12, 4, 34]);
            assert_eq!(meter.model(), Some("gpt-4o-mini-2024-07-18"));
        }
    }

    #[test]
    fn a_response_is_found_under_its_id_and_as_a_member_too() {
        let response = r#"{"id":"resp_1","model":"gpt-4o","output":[{"id":"msg_1","usage":{"input_tokens":7}}],
            "metadata":{"id":"mine","model":"none"},"usage":{"input_tokens":3,"output_tokens":4}}"#;
        let member = format!(
            r#"{{"id":"no","type":"response.completed","list":[1,2],"response":{response},"usage":null}}"#
        );
        for (mut meter, json) in [(Meter::of_response(), response), (Meter::of_member(), &member)] {
            json.as_bytes().chunks(3).for_each(|bytes| meter.pass(bytes));
            assert_eq!(meter.usage().map(|usage| usage.output_tokens), Some(4), "{json}");
            assert_eq!((meter.model(), meter.id.as_deref()), (Some("gpt-4o"), Some("resp_1")), "{json}");
        }
    }

    #[test]
    fn what_is_not_a_reply_has_no_usage() {
        for body in
            ["", "[]", "<html>", r#"{"usage":"#, r#"{"usage":null}"#, r#"["usage",{"usage":1}]"#, "}}}}"]
        {
            let mut meter = Meter::default();
            meter.pass(body.as_bytes());
            assert_eq!(meter.usage(), None, "{body}");
        }
    }

    #[test]
    fn a_reply_of_any_size_is_read_in_constant_memory() {
        let mut meter = Meter::default();
        meter.pass(br#"{"data":[""#);
        (0..10_000).for_each(|_| meter.pass(&[b'x'; 1024]));
        meter.pass(br#""],"model":""#);
        (0..1_000).for_each(|_| meter.pass(&[b'y'; 1024]));
        meter.pass(br#"","usage":{"prompt_tokens":5}}"#);
        assert_eq!(meter.usage().map(|usage| usage.input_tokens), Some(5));
        assert!(meter.value.capacity() <= 2 * MAX_VALUE_BYTES);
    }
}
