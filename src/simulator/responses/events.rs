//! A response as the events of a stream: as it begins, each item of its output from its first piece to
//! its last, and the whole once more with its usage. There is no `[DONE]`.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::{Output, Response, part, said};
use crate::simulator::events::Event;
use crate::simulator::usage::Usage;
use crate::simulator::words::Text;

/// What is told next; the numbers are places in the output.
#[derive(Clone, Copy, Debug)]
enum Step {
    Status(&'static str),
    Added(usize),
    PartAdded(usize),
    /// From this token on.
    Speak(usize, usize),
    Said(usize),
    PartDone(usize),
    Done(usize),
    Last,
}

/// The events that are still to come.
#[derive(Debug)]
pub(in crate::simulator) struct Events {
    response: Response,
    tokens_per_chunk: usize,
    steps: VecDeque<Step>,
    ends: bool,
    sequence: u64,
}

impl Events {
    /// `ends`: whether it has its last event.
    pub(in crate::simulator) fn new(response: Response, tokens_per_chunk: usize, ends: bool) -> Self {
        let mut steps = VecDeque::from([Step::Status("created"), Step::Status("in_progress")]);
        for (place, output) in response.output.iter().enumerate() {
            steps.push_back(Step::Added(place));
            match output {
                Output::Reasoning(_) => {}
                Output::Message(..) => steps.extend([
                    Step::PartAdded(place),
                    Step::Speak(place, 0),
                    Step::Said(place),
                    Step::PartDone(place),
                ]),
                Output::Call(..) => steps.extend([Step::Speak(place, 0), Step::Said(place)]),
            }
            steps.push_back(Step::Done(place));
        }
        if ends {
            steps.push_back(Step::Last);
        }
        Self { response, tokens_per_chunk, steps, ends, sequence: 0 }
    }

    pub(in crate::simulator) fn usage(&self) -> Usage {
        self.response.usage
    }

    pub(in crate::simulator) fn includes_usage(&self) -> bool {
        self.response.reports_usage && self.ends
    }

    /// The next event; `None` after the last one.
    pub(in crate::simulator) fn next(&mut self) -> Option<Event> {
        loop {
            let step = self.steps.pop_front()?;
            if let Step::Speak(place, from) = step {
                let to = self.text(place).len().min(from + self.tokens_per_chunk);
                if from < to {
                    self.steps.push_front(Step::Speak(place, to));
                    return Some(self.delta(place, from, to));
                }
                continue;
            }
            return Some(self.told(step));
        }
    }

    fn text(&self, place: usize) -> &Text {
        match &self.response.output[place] {
            Output::Message(_, text) => text,
            Output::Call(_, call) => &call.arguments,
            Output::Reasoning(_) => unreachable!("thoughts are not told"),
        }
    }

    fn delta(&mut self, place: usize, from: usize, to: usize) -> Event {
        let text = self.text(place);
        let delta: String = (from..to).map(|at| text.piece(at).text.as_ref()).collect();
        let kind = match &self.response.output[place] {
            Output::Message(..) => "output_text.delta",
            _ => "function_call_arguments.delta",
        };
        let members = self.of_part(place, "delta", delta.into());
        self.event(kind, members, (to - from) as u64)
    }

    fn told(&mut self, step: Step) -> Event {
        let item = |value: Value, place: usize| vec![("output_index", place.into()), ("item", value)];
        match step {
            Step::Status(kind) => {
                let response = self.response.begun();
                self.with_response(kind, &response)
            }
            Step::Added(place) => {
                let output = &self.response.output[place];
                let tokens = if let Output::Call(_, call) = output { call.name_tokens } else { 0 };
                let begun = output.begun();
                self.event("output_item.added", item(begun, place), tokens)
            }
            Step::PartAdded(place) => {
                let members = self.of_part(place, "part", part(""));
                self.event("content_part.added", members, 0)
            }
            Step::Said(place) => {
                let text = said(self.text(place)).into();
                let (kind, name) = match &self.response.output[place] {
                    Output::Message(..) => ("output_text.done", "text"),
                    _ => ("function_call_arguments.done", "arguments"),
                };
                let members = self.of_part(place, name, text);
                self.event(kind, members, 0)
            }
            Step::PartDone(place) => {
                let members = self.of_part(place, "part", part(&said(self.text(place))));
                self.event("content_part.done", members, 0)
            }
            Step::Done(place) => {
                let whole = self.response.output[place].whole(self.response.status());
                self.event("output_item.done", item(whole, place), 0)
            }
            Step::Last | Step::Speak(..) => {
                let whole = self.response.whole();
                self.with_response(self.response.status(), &whole)
            }
        }
    }

    /// The members of an event about a part of an item.
    fn of_part(&self, place: usize, name: &'static str, value: Value) -> Vec<(&'static str, Value)> {
        let output = &self.response.output[place];
        let mut members = vec![("item_id", output.id().into()), ("output_index", place.into())];
        if let Output::Message(..) = output {
            members.push(("content_index", 0.into()));
        }
        members.push((name, value));
        if let (Output::Message(..), "delta" | "text") = (output, name) {
            members.push(("logprobs", json!([])));
        }
        members
    }

    fn with_response(&mut self, kind: &str, response: &[u8]) -> Event {
        self.write(kind, &[b",\"response\":", response].concat(), 0)
    }

    fn event(&mut self, kind: &str, members: Vec<(&'static str, Value)>, tokens: u64) -> Event {
        let mut written = Vec::new();
        for (name, value) in members {
            written.extend_from_slice(format!(",\"{name}\":{value}").as_bytes());
        }
        self.write(kind, &written, tokens)
    }

    fn write(&mut self, kind: &str, members: &[u8], tokens: u64) -> Event {
        let head = format!(
            "event: response.{kind}\ndata: {{\"type\":\"response.{kind}\",\"sequence_number\":{}",
            self.sequence
        );
        self.sequence += 1;
        Event { bytes: [head.as_bytes(), members, b"}\n\n"].concat().into(), tokens }
    }
}
