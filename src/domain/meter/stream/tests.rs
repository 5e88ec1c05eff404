use super::*;
use crate::domain::tokens::Encoding;

/// A chunk as a backend sends it when nobody asked for usage.
const FIRST: &str = r#"data: {"choices":[],"created":0,"id":"","model":"","prompt_filter_results":[]}"#;
const ROLE: &str =
    r#"data: {"choices":[{"delta":{"content":"","role":"assistant"},"index":0}],"model":"gpt-4o-mini"}"#;
const WORD: &str =
    r#"data: {"choices":[{"delta":{"content":"say \"usage\":null, ünd"},"index":0}],"model":"gpt-4o-mini"}"#;
const LAST: &str =
    r#"data: {"choices":[{"delta":{},"finish_reason":"stop","index":0}],"model":"gpt-4o-mini"}"#;
const USAGE: &str = r#"data: {"choices":[],"model":"gpt-4o-mini","usage":{"prompt_tokens":12,"completion_tokens":34,"total_tokens":46}}"#;
const DONE: &str = "data: [DONE]";

fn events(lines: &[&str], blank: &str) -> String {
    lines.join(blank) + blank
}

/// The same chunk when usage was asked for.
fn asked(line: &str) -> String {
    format!("{},\"usage\":null}}", line.strip_suffix('}').unwrap())
}

fn flat(pieces: VecDeque<Bytes>) -> Vec<u8> {
    pieces.into_iter().flatten().collect()
}

/// What goes out at once of one frame.
fn now(meter: &mut Meter, frame: &Bytes) -> Vec<u8> {
    let mut now = VecDeque::new();
    assert_eq!(meter.pass(frame.clone(), &mut now), None);
    flat(now)
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
    (String::from_utf8(flat(now)).unwrap(), String::from_utf8(end).unwrap())
}

#[test]
fn a_caller_that_did_not_ask_sees_what_it_would_have_seen() {
    for blank in ["\n\n", "\r\n\r\n"] {
        let plain = events(&[": comment", FIRST, ROLE, WORD, LAST], blank);
        let asked: Vec<_> = [FIRST, ROLE, WORD, LAST].map(asked).to_vec();
        let asked: Vec<_> = asked.iter().map(String::as_str).collect();
        let backend = events(&[&[": comment"], &asked[..], &[USAGE, DONE]].concat(), blank);
        for cut in (1..40).chain([97, 1_000, backend.len()]) {
            let mut meter = Meter::new(true);
            let (now, end) = pass(&mut meter, &backend, cut);
            assert_eq!(now, plain, "cut every {cut} bytes");
            assert_eq!(end, format!("{DONE}{blank}"), "cut every {cut} bytes");
            assert_eq!(meter.usage().map(|usage| usage.output_tokens), Some(34));
            assert_eq!(meter.model(), Some("gpt-4o-mini"));
        }
    }
}

#[test]
fn a_caller_that_asked_gets_the_backends_bytes() {
    let first = asked(FIRST);
    let backend = events(&[&first, ROLE, WORD, LAST, USAGE, DONE], "\n\n") + ": after the end\n\n";
    for cut in (1..40).chain([97, backend.len()]) {
        let mut meter = Meter::new(false);
        let (now, end) = pass(&mut meter, &backend, cut);
        assert_eq!(now + &end, backend, "cut every {cut} bytes");
        assert!(end.starts_with(DONE), "the end begins with `{DONE}`: {end}");
        assert_eq!(meter.usage().map(|usage| usage.input_tokens), Some(12));
    }
}

#[test]
fn nothing_but_the_end_is_held_where_nothing_is_taken_out() {
    let mut meter = Meter::new(false);
    let half = Bytes::from_static(b"data: {\"choices\":[{\"del");
    assert_eq!(now(&mut meter, &half), half);
    assert!(meter.is_mid_event());
    let rest = Bytes::from_static(b"ta\":{\"content\":\"hi\"}}]}\n\n");
    assert_eq!(now(&mut meter, &rest), rest);
    assert!(!meter.is_mid_event());
    assert_eq!(meter.take_said().tokens(Encoding::O200k), 1);
}

#[test]
fn an_end_without_its_blank_line_is_an_end() {
    for text in ["data: [DONE]", "data: [DONE]\n", "data:[DONE]\r\n"] {
        let (now, end) = pass(&mut Meter::new(true), text, 5);
        assert_eq!((now.as_str(), end.as_str()), ("", text));
    }
}

#[test]
fn the_usage_member_is_taken_out_wherever_it_stands() {
    for (with, without) in [
        (r#"{"a":1,"usage":null}"#, r#"{"a":1}"#),
        (r#"{"usage":null,"a":1}"#, r#"{"a":1}"#),
        (r#"{"a":1, "usage": null, "b":{"usage":null}}"#, r#"{"a":1, "b":{"usage":null}}"#),
        (r#"{ "usage" : null , "a":1}"#, r#"{"a":1}"#),
        (r#"{"usage":null}"#, r"{}"),
        (r#"{"a":"\"usage\":null"}"#, r#"{"a":"\"usage\":null"}"#),
    ] {
        let (now, _) = pass(&mut Meter::new(true), &format!("data: {with}\n\n"), 1_000);
        assert_eq!(now, format!("data: {without}\n\n"));
    }
}

#[test]
fn a_byte_order_mark_hides_nothing() {
    let backend = format!("\u{feff}{}", events(&[&asked(WORD), USAGE, DONE], "\n\n"));
    for cut in [1, 2, 5, 1_000] {
        let mut meter = Meter::new(true);
        let (now, _) = pass(&mut meter, &backend, cut);
        assert_eq!(now, format!("\u{feff}{WORD}\n\n"), "cut every {cut} bytes");
        assert!(meter.usage().is_some());
    }
}

#[test]
fn what_cannot_be_read_passes_as_it_is() {
    let odd = "data: {broken\n\nevent: ping\n\ndata: {\"error\":{\"code\":\"x\"}}\n\nnot an event";
    for (strips, cut) in [(true, 3), (false, 3), (true, 1_000), (false, 1_000)] {
        let (now, end) = pass(&mut Meter::new(strips), odd, cut);
        assert_eq!((now.as_str(), end.as_str()), (odd, ""));
    }
}

#[test]
fn an_endless_event_passes_in_constant_memory() {
    let frame = Bytes::from(vec![b'x'; 64 * 1024]);
    let mut meter = Meter::new(true);
    let mut passed = now(&mut meter, &Bytes::from_static(b"data: ")).len();
    for _ in 0..1_000 {
        passed += now(&mut meter, &frame).len();
        assert!(meter.open.len() <= MAX_EVENT_BYTES);
    }
    assert_eq!(passed, 6 + 1_000 * frame.len());
    // The stream is read again from the next event on.
    let (now, end) = pass(&mut meter, &events(&["", USAGE, DONE], "\n\n"), 1_000);
    assert_eq!((now.as_str(), end.as_str()), ("\n\n", "data: [DONE]\n\n"));
    assert!(meter.usage().is_some());
}

#[test]
fn tool_calls_and_refusals_are_said_too() {
    let mut meter = Meter::new(false);
    let chunk = r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0,"function":{"name":"look_up","arguments":"{\"a\":"}}],"refusal":"no"}},{"text":"and so"}]}"#;
    pass(&mut meter, &events(&[chunk], "\n\n"), 1_000);
    assert_eq!(meter.take_said().tokens(Encoding::O200k), Encoding::O200k.count("and solook_up{\"a\":no"));
}
