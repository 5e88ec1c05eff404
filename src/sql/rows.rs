//! Rows as both databases give them → what they stand for. A row that cannot be is an error.

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};
use uuid::Uuid;

use crate::domain::audit::{Action, Record};
use crate::domain::ids::Name;
use crate::domain::subscription::{State, Subscription};
use crate::domain::units::UnixMillis;

/// What the columns of both hold.
pub(super) trait Held<DB: Database>: for<'r> Decode<'r, DB> + Type<DB> {}
impl<DB: Database, T: for<'r> Decode<'r, DB> + Type<DB>> Held<DB> for T {}

pub(super) fn written(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

pub(super) fn decode(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

pub(super) fn json<T: DeserializeOwned, R: Row>(row: &R, column: &str) -> Result<T, sqlx::Error>
where
    for<'c> &'c str: ColumnIndex<R>,
    String: Held<R::Database>,
{
    serde_json::from_str(&row.try_get::<String, _>(column)?).map_err(decode)
}

pub(super) fn name<R: Row>(row: &R, column: &str) -> Result<Name, sqlx::Error>
where
    for<'c> &'c str: ColumnIndex<R>,
    String: Held<R::Database>,
{
    Name::new(&row.try_get::<String, _>(column)?).map_err(decode)
}

pub(super) fn subscription<R: Row>(row: &R) -> Result<Subscription, sqlx::Error>
where
    for<'c> &'c str: ColumnIndex<R>,
    String: Held<R::Database>,
    i64: Held<R::Database>,
{
    let state: String = row.try_get("state")?;
    let state = State::of_word(&state).ok_or_else(|| decode(format!("`{state}` is no state")))?;
    let moment = |column: &str| row.try_get::<Option<i64>, _>(column).map(|millis| millis.map(UnixMillis));
    Ok(Subscription {
        id: name(row, "id")?,
        name: row.try_get("name")?,
        product: name(row, "product")?,
        state,
        owner: row.try_get("owner")?,
        cost_center: row.try_get("cost_center")?,
        limits: json(row, "limits")?,
        notes: row.try_get("notes")?,
        tags: json(row, "tags")?,
        created_at: UnixMillis(row.try_get("created_at")?),
        expires_at: moment("expires_at")?,
        last_used_at: moment("last_used_at")?,
        primary_key_hint: row.try_get("primary_hint")?,
        secondary_key_hint: row.try_get("secondary_hint")?,
    })
}

pub(super) fn record<R: Row>(row: &R) -> Result<Record, sqlx::Error>
where
    for<'c> &'c str: ColumnIndex<R>,
    String: Held<R::Database>,
    i64: Held<R::Database>,
    Vec<u8>: Held<R::Database>,
{
    let action: String = row.try_get("action")?;
    let address: Option<String> = row.try_get("address")?;
    let address = address
        .map(|address| address.parse().map_err(|_| decode(format!("`{address}` is no address"))))
        .transpose()?;
    Ok(Record {
        id: Uuid::from_slice(&row.try_get::<Vec<u8>, _>("id")?).map_err(decode)?,
        at: UnixMillis(row.try_get("time")?),
        actor: json(row, "actor")?,
        address,
        action: Action::of_word(&action).ok_or_else(|| decode(format!("`{action}` is no action")))?,
        subscription_id: name(row, "subscription_id")?,
        before: json(row, "before_change")?,
        after: json(row, "after_change")?,
    })
}
