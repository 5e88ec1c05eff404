use std::collections::VecDeque;

use bytes::Bytes;

use super::super::stream::Meter;
use crate::domain::tokens::Encoding;

const CREATED: &str = r#"{"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":"response","model":"gpt-4o-mini","output":[],"tools":[{"type":"function","name":"get_weather"}],"usage":null}}"#;
const ADDED: &str = r#"{"type":"response.output_item.added","sequence_number":1,"item":{"id":"fc_1","type":"function_call","name":"get_weather","arguments":""}}"#;
const ARGUMENTS: &str =
    r#"{"type":"response.function_call_arguments.delta","item_id":"fc_1","delta":"{\"a\":"}"#;
const DELTA: &str = r#"{"type":"response.output_text.delta","item_id":"msg_1","content_index":0,"delta":"Hello, \"world\"!","logprobs":[]}"#;
const AUDIO: &str = r#"{"type":"response.audio.delta","delta":"AAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#;
const TEXT_DONE: &str =
    r#"{"type":"response.output_text.done","text":"Hello, \"world\"!","usage":{"input_tokens":99}}"#;
const USAGE: &str = r#""usage":{"input_tokens":12,"input_tokens_details":{"cached_tokens":4},"output_tokens":34,"output_tokens_details":{"reasoning_tokens":30},"total_tokens":46}"#;

fn last(kind: &str, usage: &str) -> String {
    format!(
        r#"{{"type":"response.{kind}","sequence_number":9,"response":{{"id":"resp_1","model":"gpt-4o-mini","output":[{{"content":[{{"text":"Hello, \"world\"!"}}]}}],{usage}}}}}"#
    )
}

/// The events as Azure writes them: each with a line that names it.
fn named(events: &[&str]) -> String {
    let name = |data: &&str| {
        let name = data.split('"').nth(3).unwrap();
        format!("event: {name}\ndata: {data}\n\n")
    };
    events.iter().map(name).collect()
}

fn unnamed(events: &[&str]) -> String {
    let event = |data: &&str| format!("data: {data}\n\n");
    events.iter().map(event).collect()
}

/// Passes `text` through, cut every `cut` bytes: what went out at once, and what waited.
fn pass(meter: &mut Meter, text: &str, cut: usize) -> (String, String) {
    let (mut now, mut end) = (VecDeque::new(), Vec::new());
    for frame in text.as_bytes().chunks(cut) {
        let before = now.len();
        let ended = meter.pass(Bytes::copy_from_slice(frame), &mut now);
        assert!(now.len() == before || end.is_empty(), "bytes went out after the end");
        end.extend_from_slice(&ended.unwrap_or_default());
    }
    end.extend_from_slice(&meter.finish(&mut now).unwrap_or_default());
    let now: Vec<u8> = now.into_iter().flatten().collect();
    (String::from_utf8(now).unwrap(), String::from_utf8(end).unwrap())
}

const SAID: [&str; 6] = [CREATED, ADDED, ARGUMENTS, DELTA, AUDIO, TEXT_DONE];

#[test]
fn the_last_event_waits_whole_and_nothing_else_does() {
    for kind in ["completed", "incomplete", "failed"] {
        let (before, end) = (named(&SAID), named(&[&last(kind, USAGE)]));
        for cut in (1..40).chain([97, 1_000, 10_000]) {
            let mut meter = Meter::of_responses();
            let passed = pass(&mut meter, &format!("{before}{end}"), cut);
            assert_eq!(passed, (before.clone(), end.clone()), "cut every {cut} bytes");
            let usage = meter.usage().unwrap();
            let counts = [usage.input_tokens, usage.cached_input_tokens];
            assert_eq!((counts, usage.output_tokens, usage.reasoning_tokens), ([12, 4], 34, 30));
            assert_eq!((meter.model(), meter.id()), (Some("gpt-4o-mini"), Some("resp_1")));
        }
    }
}

#[test]
fn events_without_names_are_known_by_their_types() {
    let stream = unnamed(&[&SAID[..], &[&last("completed", USAGE)], &["[DONE]"]].concat());
    for cut in (1..40).chain([97, 10_000]) {
        let mut meter = Meter::of_responses();
        let (now, end) = pass(&mut meter, &stream, cut);
        assert_eq!(now.clone() + &end, stream, "cut every {cut} bytes");
        // Enough of it waits that no client can have seen the event.
        assert!(now.matches("\n\n").count() == SAID.len() && end.contains("\n\n"), "{end}");
        assert_eq!(meter.usage().map(|usage| usage.output_tokens), Some(34));
    }
}

#[test]
fn an_end_is_an_end_without_its_blank_line_too() {
    let stream = named(&[DELTA, &last("completed", USAGE)]);
    let mut meter = Meter::of_responses();
    let (_, end) = pass(&mut meter, stream.trim_end(), 50);
    assert!(end.starts_with("event: response.completed"), "{end}");
    assert!(meter.usage().is_some());
}

#[test]
fn what_is_said_is_counted_once_however_often_it_is_repeated() {
    let mut meter = Meter::of_responses();
    pass(&mut meter, &named(&[&SAID[..], &[&last("failed", r#""usage":null"#)]].concat()), 1_000);
    assert_eq!(meter.usage(), None);
    let said = Encoding::O200k.count("get_weather{\"a\":Hello, \"world\"!");
    assert_eq!(meter.take_said().tokens(Encoding::O200k), said);
}

#[test]
fn a_last_event_of_any_length_is_read_as_it_passes_and_its_end_waits() {
    let long = format!(r#""instructions":"{}",{USAGE}"#, "so \\\"long\\\" ".repeat(300_000));
    let stream = named(&[CREATED, DELTA, &last("completed", &long)]);
    assert!(stream.len() > 3 * 1024 * 1024);
    for cut in [4_093, 64 * 1024] {
        let mut meter = Meter::of_responses();
        let (now, end) = pass(&mut meter, &stream, cut);
        assert_eq!(now.len() + end.len(), stream.len());
        assert!(now + &end == stream && end.ends_with("\n\n"), "the bytes are the backend's");
        assert_eq!(meter.usage().map(|usage| usage.output_tokens), Some(34));
    }
}

#[test]
fn a_long_event_that_is_not_the_last_is_no_end() {
    let long = format!(r#"{{"type":"response.output_text.done","text":"{}"}}"#, "x".repeat(2 * 1024 * 1024));
    let (before, end) = (named(&[CREATED, &long, DELTA]), named(&[&last("completed", USAGE)]));
    let mut meter = Meter::of_responses();
    let passed = pass(&mut meter, &format!("{before}{end}"), 10_000);
    assert!(passed == (before, end));
}

#[test]
fn a_stream_that_breaks_off_has_an_id_and_no_usage() {
    let mut meter = Meter::of_responses();
    let mut now = VecDeque::new();
    let half = named(&[CREATED, DELTA]) + "event: response.output_text.delta\ndata: {\"type";
    assert_eq!(meter.pass(Bytes::from(half), &mut now), None);
    assert!(meter.is_mid_event() && meter.usage().is_none());
    assert_eq!(meter.id(), Some("resp_1"));
    assert_eq!(meter.take_said().tokens(Encoding::O200k), Encoding::O200k.count("Hello, \"world\"!"));
}
