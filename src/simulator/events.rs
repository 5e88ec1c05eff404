//! A reply as the events of a stream, in Azure's habits.
//!
//! The first event has no choices but the filter's verdict on the prompt; then each answer's role,
//! its pieces (of several answers in turns) and its reason to end; the usage, in an event without
//! choices, if it was asked for (all others then have `"usage":null`); and `[DONE]`. What is the same
//! in all events of a stream is written once, so that an event costs a few copies.

use bytes::Bytes;

use super::reply::{CAUGHT, Call, FILTERED, FINGERPRINT, Reply, SAFE, Said, Shape, logprobs};
use super::usage::Usage;
use super::words::{Text, escaped};

/// One event, and how many tokens it says.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) bytes: Bytes,
    pub(super) tokens: u64,
}

/// How the events are to be cut, and what they say beside the reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habits {
    pub(super) tokens_per_chunk: usize,
    pub(super) includes_usage: bool,
    pub(super) says_done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Filter,
    Role(usize),
    Speak,
    Finish(usize),
    Done,
    Over,
}

/// How far one answer has been said.
#[derive(Clone, Copy, Debug, Default)]
struct Cursor {
    call: usize,
    /// The call's name has been said.
    named: bool,
    piece: usize,
}

/// What stands beside that which is said, as JSON.
#[derive(Clone, Copy, Debug)]
struct Around<'a> {
    filtered: &'a str,
    finish: &'a str,
    logprobs: &'a str,
}

const PLAIN: Around = Around { filtered: "{}", finish: "null", logprobs: "null" };

/// The events that are still to come.
#[derive(Debug)]
pub(super) struct Events {
    reply: Reply,
    habits: Habits,
    /// What ends every event: the reply's identity.
    tail: String,
    step: Step,
    cursors: Vec<Cursor>,
    turn: usize,
}

impl Events {
    pub(super) fn new(reply: Reply, habits: Habits) -> Self {
        let object = match reply.shape {
            Shape::Chat => "chat.completion.chunk",
            Shape::Completions => "text_completion",
        };
        let usage = if habits.includes_usage { r#","usage":null"# } else { "" };
        let tail = format!(
            r#""created":{},"id":"{}","model":"{}","object":"{object}","system_fingerprint":"{FINGERPRINT}"{usage}}}"#,
            reply.created,
            reply.id,
            escaped(&reply.model)
        );
        Self {
            cursors: vec![Cursor::default(); reply.choices.len()],
            reply,
            habits,
            tail: tail + "\n\n",
            step: Step::Filter,
            turn: 0,
        }
    }

    pub(super) fn usage(&self) -> Usage {
        self.reply.usage
    }

    pub(super) fn includes_usage(&self) -> bool {
        self.habits.includes_usage
    }

    /// The next event; `None` after the last one.
    pub(super) fn next(&mut self) -> Option<Event> {
        loop {
            match self.step {
                Step::Filter => {
                    self.step = match self.reply.shape {
                        Shape::Chat => Step::Role(0),
                        Shape::Completions => Step::Speak,
                    };
                    return Some(silent(self.filter()));
                }
                Step::Role(index) if index < self.reply.choices.len() => {
                    self.step = Step::Role(index + 1);
                    return Some(silent(self.role(index)));
                }
                Step::Role(_) => self.step = Step::Speak,
                Step::Speak => match self.speak() {
                    Some(event) => return Some(event),
                    None => self.step = Step::Finish(0),
                },
                Step::Finish(index) if index < self.reply.choices.len() => {
                    self.step = Step::Finish(index + 1);
                    return Some(silent(self.finish(index)));
                }
                Step::Finish(_) if self.habits.includes_usage => {
                    self.step = Step::Done;
                    return Some(silent(self.say_usage()));
                }
                Step::Finish(_) => self.step = Step::Done,
                Step::Done => {
                    self.step = Step::Over;
                    if self.habits.says_done {
                        return Some(silent(b"data: [DONE]\n\n".to_vec()));
                    }
                }
                Step::Over => return None,
            }
        }
    }

    fn filter(&self) -> Vec<u8> {
        let usage = if self.habits.includes_usage { r#","usage":null"# } else { "" };
        let results = self.reply.prompt_filter_results();
        let model = escaped(&self.reply.model);
        format!(
            "data: {{\"choices\":[],\"created\":0,\"id\":\"\",\"model\":\"{model}\",\"object\":\"\",\
             \"prompt_filter_results\":{results}{usage}}}\n\n"
        )
        .into_bytes()
    }

    fn role(&self, index: usize) -> Vec<u8> {
        let content = match self.reply.choices[index].said {
            Said::Text(_) => r#""""#,
            Said::Calls(_) | Said::Function(_) => "null",
        };
        let delta = format!(r#"{{"content":{content},"refusal":null,"role":"assistant"}}"#);
        self.event(index, &PLAIN, |event| {
            push(event, r#""delta":"#);
            push(event, &delta);
        })
    }

    fn finish(&self, index: usize) -> Vec<u8> {
        let finish = self.reply.choices[index].finish;
        let reason = format!(r#""{finish}""#);
        let filtered = if finish == FILTERED { CAUGHT } else { PLAIN.filtered };
        let around = Around { finish: &reason, filtered, ..PLAIN };
        let said = match self.reply.shape {
            Shape::Chat => r#""delta":{}"#,
            Shape::Completions => r#""text":"""#,
        };
        self.event(index, &around, |event| push(event, said))
    }

    fn say_usage(&self) -> Vec<u8> {
        let tail = self.tail.strip_suffix("null}\n\n");
        let tail = tail.expect("usage is null in the tail where it is included");
        let usage = self.reply.usage_json();
        format!("data: {{\"choices\":[],{tail}{usage}}}\n\n").into_bytes()
    }

    /// The next piece of whichever answer's turn it is.
    fn speak(&mut self) -> Option<Event> {
        for _ in 0..self.reply.choices.len() {
            let index = self.turn;
            self.turn = (self.turn + 1) % self.reply.choices.len();
            let event = match &self.reply.choices[index].said {
                Said::Text(text) => self.say_text(index, text),
                Said::Calls(calls) => self.say_calls(index, calls),
                Said::Function(call) => self.say_function(index, call),
            };
            if let Some((event, cursor)) = event {
                self.cursors[index] = cursor;
                return Some(event);
            }
        }
        None
    }

    fn say_text(&self, index: usize, text: &Text) -> Option<(Event, Cursor)> {
        let cursor = self.cursors[index];
        let (from, to) = self.next_pieces(cursor, text)?;
        let opens = match self.reply.shape {
            Shape::Chat => r#""delta":{"content":""#,
            Shape::Completions => r#""text":""#,
        };
        let closes = match self.reply.shape {
            Shape::Chat => r#""}"#,
            Shape::Completions => r#"""#,
        };
        let logprobs = if self.reply.logprobs { logprobs(text, from, to) } else { "null".to_owned() };
        let around = Around { filtered: SAFE, logprobs: &logprobs, ..PLAIN };
        let bytes = self.event(index, &around, |event| {
            push(event, opens);
            write_pieces(text, from, to, event);
            push(event, closes);
        });
        Some((said(bytes, to - from), Cursor { piece: to, ..cursor }))
    }

    fn say_calls(&self, index: usize, calls: &[Call]) -> Option<(Event, Cursor)> {
        let mut cursor = self.cursors[index];
        let said_all = |call: &Call| cursor.named && cursor.piece >= call.arguments.len();
        if calls.get(cursor.call).is_some_and(said_all) {
            cursor = Cursor { call: cursor.call + 1, ..Cursor::default() };
        }
        let call = calls.get(cursor.call)?;
        if !cursor.named {
            let delta = format!(
                r#"{{"tool_calls":[{{"function":{{"arguments":"","name":"{}"}},"id":"{}","index":{},"type":"function"}}]}}"#,
                escaped(&call.name),
                call.id,
                cursor.call
            );
            cursor.named = true;
            return Some((self.name(index, call, &delta), cursor));
        }
        let (from, to) = self.next_pieces(cursor, &call.arguments)?;
        let bytes = self.event(index, &PLAIN, |event| {
            push(event, r#""delta":{"tool_calls":[{"function":{"arguments":""#);
            write_pieces(&call.arguments, from, to, event);
            push(event, &format!(r#""}},"index":{}}}]}}"#, cursor.call));
        });
        cursor.piece = to;
        Some((said(bytes, to - from), cursor))
    }

    fn say_function(&self, index: usize, call: &Call) -> Option<(Event, Cursor)> {
        let mut cursor = self.cursors[index];
        if !cursor.named {
            let name = escaped(&call.name);
            let delta = format!(r#"{{"function_call":{{"arguments":"","name":"{name}"}}}}"#);
            cursor.named = true;
            return Some((self.name(index, call, &delta), cursor));
        }
        let (from, to) = self.next_pieces(cursor, &call.arguments)?;
        let bytes = self.event(index, &PLAIN, |event| {
            push(event, r#""delta":{"function_call":{"arguments":""#);
            write_pieces(&call.arguments, from, to, event);
            push(event, r#""}}"#);
        });
        cursor.piece = to;
        Some((said(bytes, to - from), cursor))
    }

    fn next_pieces(&self, cursor: Cursor, text: &Text) -> Option<(usize, usize)> {
        let to = text.len().min(cursor.piece + self.habits.tokens_per_chunk);
        (cursor.piece < to).then_some((cursor.piece, to))
    }

    fn name(&self, index: usize, call: &Call, delta: &str) -> Event {
        let bytes = self.event(index, &PLAIN, |event| {
            push(event, r#""delta":"#);
            push(event, delta);
        });
        Event { bytes: bytes.into(), tokens: call.name_tokens }
    }

    /// An event with one choice; the members stand in Azure's order, which is the alphabet's.
    fn event(&self, index: usize, around: &Around, say: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut event = Vec::with_capacity(480 + around.logprobs.len() + self.tail.len());
        push(&mut event, r#"data: {"choices":[{"content_filter_results":"#);
        push(&mut event, around.filtered);
        event.push(b',');
        match self.reply.shape {
            Shape::Chat => {
                say(&mut event);
                event.push(b',');
                around.write(index, &mut event);
            }
            Shape::Completions => {
                around.write(index, &mut event);
                event.push(b',');
                say(&mut event);
            }
        }
        push(&mut event, "}],");
        push(&mut event, &self.tail);
        event
    }
}

impl Around<'_> {
    fn write(&self, index: usize, event: &mut Vec<u8>) {
        push(event, r#""finish_reason":"#);
        push(event, self.finish);
        push(event, r#","index":"#);
        push(event, &index.to_string());
        push(event, r#","logprobs":"#);
        push(event, self.logprobs);
    }
}

fn write_pieces(text: &Text, from: usize, to: usize, event: &mut Vec<u8>) {
    for place in from..to {
        push(event, &text.piece(place).json);
    }
}

fn said(bytes: Vec<u8>, tokens: usize) -> Event {
    Event { bytes: bytes.into(), tokens: tokens as u64 }
}

fn silent(bytes: Vec<u8>) -> Event {
    said(bytes, 0)
}

fn push(event: &mut Vec<u8>, text: &str) {
    event.extend_from_slice(text.as_bytes());
}
