//! Delivered bytes → usage events, and what cannot be read.
//!
//! The Functions host writes a batch in five shapes, by the trigger's cardinality and data type, most
//! of them JSON inside a JSON string. All are taken, so that a change of the binding loses nothing.
//! Nothing here fails: an unreadable message would be unreadable next time too, and an error makes
//! the host deliver the whole batch again, for ever.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::domain::units::UnixMillis;
use crate::domain::usage::UsageEvent;
use crate::ports::{DeadLetter, DeadLetterId};

mod arriving;
mod unescape;

use arriving::{Arriving, Found};

/// How deep a message may lie in lists and strings: one list and two strings is the most that the
/// host wraps it in. A message that goes on for ever must not take the stack, and with it the process
/// and the whole batch, each time that it is delivered.
const MAX_WRAPS: usize = 6;
/// As much of an unreadable message as is kept.
const MAX_KEPT_BYTES: usize = 64 * 1024;

/// A batch, read.
#[derive(Debug, Default)]
pub struct Decoded {
    pub events: Vec<UsageEvent>,
    pub dead_letters: Vec<DeadLetter>,
}

/// A delivery that is being read, piece by piece as it comes.
pub struct Delivery {
    arriving: Arriving,
    decoded: Decoded,
    now: UnixMillis,
}

impl Delivery {
    pub fn new(now: UnixMillis) -> Self {
        Self { arriving: Arriving::new(), decoded: Decoded::default(), now }
    }

    /// Takes the next piece of a trigger's request body in.
    pub fn take_in(&mut self, piece: &[u8]) {
        let (decoded, now) = (&mut self.decoded, self.now);
        self.arriving.take_in(piece, &mut |found| decoded.find(&found, now));
    }

    /// How many messages were read since they were taken out.
    pub fn len(&self) -> usize {
        self.decoded.events.len() + self.decoded.dead_letters.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes out what was read until now.
    pub fn read(&mut self) -> Decoded {
        std::mem::take(&mut self.decoded)
    }

    /// What was read last, when nothing more comes.
    pub fn end(mut self) -> Decoded {
        let (decoded, now) = (&mut self.decoded, self.now);
        if let Some((head, id)) = self.arriving.end(&mut |found| decoded.find(&found, now)) {
            let head = String::from_utf8_lossy(&head);
            decoded.bury_as(id, &head, "not a batch of the Functions host".to_owned(), now);
        }
        self.decoded
    }
}

/// Reads a trigger's request body.
fn delivered(body: &[u8], now: UnixMillis) -> Decoded {
    let mut delivery = Delivery::new(now);
    delivery.take_in(body);
    delivery.end()
}

/// Reads a message that was kept as unreadable once more.
pub(super) fn kept(message: &str, now: UnixMillis) -> Decoded {
    let batch = delivered(message.as_bytes(), now);
    if batch.dead_letters.is_empty() && !batch.events.is_empty() {
        return batch;
    }
    let mut decoded = Decoded::default();
    decoded.take_in(message, MAX_WRAPS, now);
    decoded
}

impl Decoded {
    fn find(&mut self, found: &Found, now: UnixMillis) {
        match found {
            Found::Json(json) => self.take_in(&String::from_utf8_lossy(json), MAX_WRAPS - 2, now),
            Found::Text(text) => self.take_in_text(&String::from_utf8_lossy(text), MAX_WRAPS - 1, now),
        }
    }

    /// Takes a message or a list of them in, wrapped `wraps` times at the most.
    fn take_in(&mut self, json: &str, wraps: usize, now: UnixMillis) {
        let json = json.trim();
        let Some(wraps) = wraps.checked_sub(1) else {
            return self.bury(json, "wrapped in too many lists or strings".to_owned(), now);
        };
        if json.starts_with('"') {
            match serde_json::from_str::<String>(json) {
                Ok(text) => self.take_in_text(&text, wraps, now),
                Err(error) => self.bury(json, error.to_string(), now),
            }
        } else if json.starts_with('[') {
            match serde_json::from_str::<Vec<&RawValue>>(json) {
                Ok(items) => items.into_iter().for_each(|item| self.take_in(item.get(), wraps, now)),
                Err(error) => self.bury(json, error.to_string(), now),
            }
        } else {
            self.read(json, now);
        }
    }

    /// What was inside a string: JSON again, or a message's bytes in base64.
    fn take_in_text(&mut self, text: &str, wraps: usize, now: UnixMillis) {
        let is_json = text.trim_start().starts_with(['{', '[', '"']);
        let text = match STANDARD.decode(text.trim()) {
            Ok(bytes) if !is_json => Cow::from(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Cow::from(text),
        };
        if text.trim_start().starts_with(['[', '"']) {
            self.take_in(&text, wraps, now);
        } else {
            self.read(&text, now);
        }
    }

    fn read(&mut self, json: &str, now: UnixMillis) {
        match serde_json::from_str::<UsageEvent>(json) {
            Ok(event) if event.usage.is_plausible() => self.events.push(event),
            Ok(_) => self.bury(json, "its counts cannot be".to_owned(), now),
            // Another version's event may be readable to another version: its id is worth showing.
            Err(error) => self.bury(json, reason(json, &error), now),
        }
    }

    fn bury(&mut self, message: &str, reason: String, now: UnixMillis) {
        let id = digest(&SHA256, message.as_bytes());
        let id = id.as_ref().try_into().expect("an SHA-256 digest has 32 bytes");
        self.bury_as(id, message, reason, now);
    }

    fn bury_as(&mut self, id: DeadLetterId, message: &str, reason: String, now: UnixMillis) {
        let end = (0..=message.len().min(MAX_KEPT_BYTES)).rev().find(|end| message.is_char_boundary(*end));
        self.dead_letters.push(DeadLetter {
            id,
            received_at: now,
            reason,
            // PostgreSQL keeps no NUL in a text.
            message: message[..end.unwrap_or(0)].replace('\0', "\u{FFFD}"),
        });
    }
}

fn reason(json: &str, error: &serde_json::Error) -> String {
    match serde_json::from_str::<Value>(json) {
        Ok(_) => format!("not a usage event: {error}"),
        Err(error) => format!("not JSON: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

    fn event(number: u8) -> String {
        json!({
            "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-0000000000{number:02}"),
            "time": "2026-11-21T09:00:00.123Z", "subscription_id": "s", "product": "p",
            "operation": "chat.completions", "deployment": "d", "backend": "b", "status": 200,
            "outcome": "completed", "usage": {"source": "reported", "input_tokens": 1, "output_tokens": 2},
        })
        .to_string()
    }

    fn batch(events: &Value) -> Decoded {
        let body = json!({"Data": {"events": events}, "Metadata": {"RetryContext": {"RetryCount": 5}}});
        let body = body.to_string();
        let whole = delivered(body.as_bytes(), NOW);
        // However it is cut, it says the same.
        for piece_bytes in [1, 3, 7, 64] {
            let mut delivery = Delivery::new(NOW);
            body.as_bytes().chunks(piece_bytes).for_each(|piece| delivery.take_in(piece));
            let cut = delivery.end();
            assert_eq!((&cut.events, &cut.dead_letters), (&whole.events, &whole.dead_letters));
        }
        whole
    }

    #[test]
    fn every_shape_of_the_host_is_read() {
        let base64 = |text: String| STANDARD.encode(text);
        let (one, two) = (event(1), event(2));
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for (shape, events, count) in [
            ("many/string", json!(json!([one, two]).to_string()), 2),
            ("many/binary", json!(json!([base64(event(1)), base64(event(2))]).to_string()), 2),
            ("many/undefined", json!(json!([value(&one), value(&two)]).to_string()), 2),
            ("one/string", json!(json!(one).to_string()), 1),
            ("one/binary", json!(base64(event(1))), 1),
            ("nested object", value(&one), 1),
            ("an empty batch", json!("[]"), 0),
        ] {
            let decoded = batch(&events);
            assert_eq!((decoded.events.len(), decoded.dead_letters.len()), (count, 0), "{shape}");
        }
    }

    #[test]
    fn a_bad_message_costs_no_other() {
        let lie = event(3).replace("\"input_tokens\":1", "\"input_tokens\":99999999999");
        let messages = json!([event(1), "garbage", "{\"schema\":\"other\"}", "", lie, event(2)]);
        let decoded = batch(&json!(messages.to_string()));
        assert_eq!((decoded.events.len(), decoded.dead_letters.len()), (2, 4));
        assert!(decoded.dead_letters.iter().all(|letter| !letter.reason.is_empty()));
    }

    #[test]
    fn a_message_without_an_end_to_its_wrapping_costs_no_other() {
        let depth = 100_000;
        let endless = "[".repeat(depth) + &"]".repeat(depth);
        for shape in [json!(json!([event(1), endless]).to_string()), json!([event(1), endless])] {
            let decoded = batch(&shape);
            assert_eq!((decoded.events.len(), decoded.dead_letters.len()), (1, 1));
        }
    }

    #[test]
    fn what_is_no_batch_is_buried_whole() {
        for body in ["", "null", "{}", "{\"Data\":{}}", "[1]"] {
            let decoded = delivered(body.as_bytes(), NOW);
            assert_eq!((decoded.events.len(), decoded.dead_letters.len()), (0, 1), "{body}");
        }
    }

    #[test]
    fn the_same_message_is_the_same_dead_letter() {
        let id = || batch(&json!("[\"garbage\"]")).dead_letters[0].id;
        assert_eq!(id(), id());
    }
}
