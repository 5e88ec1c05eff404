//! Messages that are no usage events: looked at, and tried again once what was wrong is mended.

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::extract::{self, Admin};
use super::reports::invalid;
use super::respond::Refused;
use super::subscriptions::form::{self, page_of};
use crate::app::App;
use crate::domain::units::UnixMillis;
use crate::ports::{DeadLetter, DeadLetterId};

/// Thousands of ids.
const MAX_BODY_BYTES: usize = 1024 * 1024;
/// What is shown of a message: enough to see what it is.
const SHOWN_BYTES: usize = 2 * 1024;

/// Which page of the dead letters.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// `next` of the page before.
    #[serde(default)]
    cursor: Option<String>,
    /// Items in a page, 1 to 500; without it, 50.
    #[serde(default)]
    limit: Option<u32>,
    /// The Functions host's own key may stand in any query.
    #[serde(default, rename = "code")]
    #[schemars(skip)]
    _code: serde::de::IgnoredAny,
}

/// Which dead letters are to be tried again.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DeadLettersReplay")]
pub(super) struct Replay {
    /// Their ids; without it, all there are.
    #[serde(default)]
    ids: Option<Vec<Id>>,
}

/// A dead letter's id: 64 hexadecimal digits.
struct Id(DeadLetterId);

impl JsonSchema for Id {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DeadLetterId".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[0-9a-f]{64}$"})
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let id = unhex(&text).ok_or_else(|| serde::de::Error::custom("an id has 64 hexadecimal digits"))?;
        Ok(Self(id))
    }
}

/// `GET /reports/dead-letters`
pub(super) async fn list(
    State(app): State<App>,
    _: Admin,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Value>, Refused> {
    let Query(page) = page.map_err(|error| Refused::invalid(error.body_text(), None))?;
    let after = page.cursor.map(|cursor| behind(&cursor)).transpose()?;
    let limit = page_of(page.limit)?;
    // One more says whether there are more.
    let mut letters = app.ledger.dead_letters(after, limit + 1).await?;
    let has_more = letters.len() > limit as usize;
    letters.truncate(limit as usize);
    let last = letters.last().filter(|_| has_more);
    let next = last.map(|last| format!("{}-{}", last.received_at.0, hex(&last.id)));
    let items: Vec<_> = letters.iter().map(shown).collect();
    Ok(Json(json!({"items": items, "next": next})))
}

/// `POST /reports/dead-letters/replay`
pub(super) async fn replay(
    State(app): State<App>,
    Admin(actor): Admin,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refused> {
    let body = extract::body(&headers, body, MAX_BODY_BYTES).await?;
    let form: Replay = if body.is_empty() { Replay::default() } else { form::read(&body)? };
    let ids: Option<Vec<DeadLetterId>> = form.ids.map(|ids| ids.into_iter().map(|id| id.0).collect());
    let done = app.ledger.replay(ids.as_deref()).await?;
    if done.replayed > 0 {
        let events = done.new;
        tracing::info!(%actor, events, "{} dead letters were replayed, with {events} new events", done.replayed);
    }
    Ok(Json(json!({"replayed": done.replayed, "posted": done.new, "still_unreadable": done.unreadable})))
}

fn shown(letter: &DeadLetter) -> Value {
    let message = &letter.message;
    let end = (0..=message.len().min(SHOWN_BYTES)).rev().find(|end| message.is_char_boundary(*end));
    json!({
        "id": hex(&letter.id), "received_at": letter.received_at, "reason": letter.reason,
        "message": message[..end.unwrap_or(0)],
    })
}

/// A cursor is the time and the id of the last letter that was seen.
fn behind(cursor: &str) -> Result<(UnixMillis, DeadLetterId), Refused> {
    let parts =
        cursor.split_once('-').and_then(|(time, id)| Some((UnixMillis(time.parse().ok()?), unhex(id)?)));
    parts.ok_or_else(|| invalid("cursor", "must be `next` of the page before"))
}

fn hex(id: &DeadLetterId) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::new(), |mut text, byte| {
        // Writing into a text does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<DeadLetterId> {
    let is_hex = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let mut id = DeadLetterId::default();
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2).filter(|_| is_hex)?, 16).ok()?;
    }
    Some(id)
}
