//! The last request as it was received, for tests of what a gateway sends on.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::request::Parts;
use serde_json::{Map, Value, json};

/// Longer bodies are kept up to here.
const MAX_BODY_BYTES: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(super) struct Last(Mutex<Option<(Parts, Bytes, usize)>>);

impl Last {
    pub(super) fn keep(&self, parts: Parts, body: &Bytes) {
        // A slice of a large body would keep all of it in memory.
        let kept = if body.len() > MAX_BODY_BYTES {
            Bytes::copy_from_slice(&body[..MAX_BODY_BYTES])
        } else {
            body.clone()
        };
        let before = {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            last.replace((parts, kept, body.len()))
        };
        drop(before);
    }

    /// `headers` gives each name's values as a list, for a header may come twice.
    pub(super) fn to_json(&self) -> Value {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((parts, body, body_bytes)) = &*last else {
            return Value::Null;
        };
        let mut headers = Map::new();
        for name in parts.headers.keys() {
            let values = parts.headers.get_all(name).iter();
            let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()).into());
            headers.insert(name.to_string(), Value::Array(values.collect()));
        }
        json!({
            "method": parts.method.as_str(), "path": parts.uri.path(), "query": parts.uri.query(),
            "headers": headers, "body": String::from_utf8_lossy(body), "body_bytes": body_bytes,
        })
    }
}
