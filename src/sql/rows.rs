//! Rows as both databases give them → what they stand for. A row that cannot be is an error.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{ColumnIndex, Database, Decode, Row, Type};
use time::Duration;
use time::macros::date;
use uuid::Uuid;

use super::rates::Found;
use crate::domain::audit::{Action, Record};
use crate::domain::ids::{Name, RequestId};
use crate::domain::price::{Counts, Rate, RateId};
use crate::domain::subscription::{State, Subscription};
use crate::domain::units::UnixMillis;
use crate::domain::usage::{Schema, Usage, UsageEvent};
use crate::ports::{DeadLetter, Entry, Rated, Sums};

/// What [`Columns::sums`] of a group reads, and [`Columns::rated`] behind its own.
pub(super) const SUMMED: [&str; 11] = [
    "requests",
    "used_requests",
    "estimated_requests",
    "input_tokens",
    "cached_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "audio_input_tokens",
    "audio_output_tokens",
    "cache_write_tokens",
    "images",
];

/// A type that columns of a database hold.
pub(super) trait Held<DB: Database>: for<'r> Decode<'r, DB> + Type<DB> {}
impl<DB: Database, T: for<'r> Decode<'r, DB> + Type<DB>> Held<DB> for T {}

pub(super) fn written(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

pub(super) fn decode(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

/// The columns of a row.
pub(super) struct Columns<'r, R>(pub(super) &'r R);

impl<R: Row> Columns<'_, R>
where
    usize: ColumnIndex<R>,
    for<'c> &'c str: ColumnIndex<R>,
    bool: Held<R::Database>,
    i64: Held<R::Database>,
    String: Held<R::Database>,
    Uuid: Held<R::Database>,
    Vec<u8>: Held<R::Database>,
{
    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, sqlx::Error> {
        serde_json::from_str(&self.0.try_get::<String, _>(column)?).map_err(decode)
    }

    pub(super) fn name(&self, column: &str) -> Result<Name, sqlx::Error> {
        Name::new(&self.0.try_get::<String, _>(column)?).map_err(decode)
    }

    fn moment(&self, column: &str) -> Result<Option<UnixMillis>, sqlx::Error> {
        Ok(self.0.try_get::<Option<i64>, _>(column)?.map(UnixMillis))
    }

    fn number<T>(&self, column: impl ColumnIndex<R>) -> Result<T, sqlx::Error>
    where
        T: TryFrom<i64, Error: std::error::Error + Send + Sync + 'static>,
    {
        T::try_from(self.0.try_get::<i64, _>(column)?).map_err(decode)
    }

    /// A variant, by the name that it has in the event.
    fn word<T: DeserializeOwned>(&self, column: &str) -> Result<T, sqlx::Error> {
        serde_json::from_value(self.0.try_get::<String, _>(column)?.into()).map_err(decode)
    }

    pub(super) fn subscription(&self) -> Result<Subscription, sqlx::Error> {
        let state: String = self.0.try_get("state")?;
        Ok(Subscription {
            id: self.name("id")?,
            name: self.0.try_get("name")?,
            product: self.name("product")?,
            state: State::of_word(&state).ok_or_else(|| decode(format!("`{state}` is no state")))?,
            owner: self.0.try_get("owner")?,
            cost_center: self.0.try_get("cost_center")?,
            limits: self.json("limits")?,
            notes: self.0.try_get("notes")?,
            tags: self.json("tags")?,
            created_at: UnixMillis(self.0.try_get("created_at")?),
            expires_at: self.moment("expires_at")?,
            last_used_at: self.moment("last_used_at")?,
            primary_key_hint: self.0.try_get("primary_hint")?,
            secondary_key_hint: self.0.try_get("secondary_hint")?,
        })
    }

    pub(super) fn record(&self) -> Result<Record, sqlx::Error> {
        let action: String = self.0.try_get("action")?;
        let address: Option<String> = self.0.try_get("address")?;
        let address = address
            .map(|address| address.parse().map_err(|_| decode(format!("`{address}` is no address"))))
            .transpose()?;
        Ok(Record {
            id: Uuid::from_slice(&self.0.try_get::<Vec<u8>, _>("id")?).map_err(decode)?,
            at: UnixMillis(self.0.try_get("time")?),
            actor: self.json("actor")?,
            address,
            action: Action::of_word(&action).ok_or_else(|| decode(format!("`{action}` is no action")))?,
            subscription_id: self.name("subscription_id")?,
            before: self.json("before_change")?,
            after: self.json("after_change")?,
        })
    }

    /// What a row's rate is known by; `None`: what it used has no price.
    pub(super) fn rate_id(&self, column: impl ColumnIndex<R>) -> Result<Option<RateId>, sqlx::Error> {
        let bytes: Option<Vec<u8>> = self.0.try_get(column)?;
        let id = bytes.filter(|bytes| !bytes.is_empty()).map(<[u8; 16]>::try_from).transpose();
        id.map(|id| id.map(RateId)).map_err(|_| decode("a rate's id has 16 bytes"))
    }

    fn rate(&self, column: impl ColumnIndex<R>, rates: &Found) -> Result<Option<Arc<Rate>>, sqlx::Error> {
        self.rate_id(column)?.map(|id| rates.get(id)).transpose()
    }

    /// The requests (all, those that used anything, those that were estimated) and the counts, from a column on.
    fn summed(&self, first: usize) -> Result<([u64; 3], Counts), sqlx::Error> {
        let count = |column: usize| self.number(first + column);
        let counts = Counts {
            input_tokens: count(3)?,
            cached_input_tokens: count(4)?,
            output_tokens: count(5)?,
            reasoning_tokens: count(6)?,
            audio_input_tokens: count(7)?,
            audio_output_tokens: count(8)?,
            cache_write_tokens: count(9)?,
            images: count(10)?,
        };
        Ok(([count(0)?, count(1)?, count(2)?], counts))
    }

    /// The sums of a group of so many members.
    pub(super) fn sums(&self, width: usize, rates: &Found) -> Result<Sums, sqlx::Error> {
        let group = (0..width).map(|column| self.0.try_get(column)).collect::<Result<_, _>>()?;
        let ([requests, used_requests, estimated_requests], counts) = self.summed(width + 2)?;
        let is_provisioned = self.0.try_get(width)?;
        let rate = self.rate(width + 1, rates)?;
        Ok(Sums { group, is_provisioned, rate, requests, used_requests, estimated_requests, counts })
    }

    /// What was posted on a day.
    pub(super) fn rated(&self, rates: &Found) -> Result<Rated, sqlx::Error> {
        let ([requests, _, _], counts) = self.summed(6)?;
        let day = date!(1970 - 01 - 01).checked_add(Duration::days(self.0.try_get(0)?));
        Ok(Rated {
            day: day.ok_or_else(|| decode("a day beyond the calendar"))?,
            deployment: self.0.try_get(1)?,
            model: self.0.try_get(2)?,
            backend: self.0.try_get(3)?,
            is_provisioned: self.0.try_get(4)?,
            rate: self.rate(5, rates)?,
            requests,
            counts,
        })
    }

    /// A row of the ledger.
    pub(super) fn entry(&self, rates: &Found) -> Result<Entry, sqlx::Error> {
        let event = UsageEvent {
            schema: Schema::V1,
            id: RequestId(self.0.try_get("id")?),
            time: UnixMillis(self.0.try_get("time")?),
            subscription_id: self.name("subscription_id")?,
            product: self.name("product")?,
            cost_center: self.0.try_get("cost_center")?,
            end_user: self.0.try_get("end_user")?,
            operation: self.0.try_get::<String, _>("operation")?.into(),
            deployment: self.name("deployment")?,
            model: self.0.try_get("model")?,
            api_version: self.0.try_get("api_version")?,
            backend: self.name("backend")?,
            region: self.0.try_get("region")?,
            attempts: self.number("attempts")?,
            status: self.number("status")?,
            stream: self.0.try_get("stream")?,
            outcome: self.word("outcome")?,
            usage: Usage {
                source: self.word("source")?,
                input_tokens: self.number("input_tokens")?,
                cached_input_tokens: self.number("cached_input_tokens")?,
                output_tokens: self.number("output_tokens")?,
                reasoning_tokens: self.number("reasoning_tokens")?,
                audio_input_tokens: self.number("audio_input_tokens")?,
                audio_output_tokens: self.number("audio_output_tokens")?,
                cache_write_tokens: self.number("cache_write_tokens")?,
                images: self.number("images")?,
            },
            duration_ms: self.number("duration_ms")?,
            first_byte_ms: self
                .0
                .try_get::<Option<i64>, _>("first_byte_ms")?
                .map(|millis| u64::try_from(millis).map_err(decode))
                .transpose()?,
        };
        let is_provisioned = self.0.try_get("is_provisioned")?;
        Ok(Entry { event, is_provisioned, rate: self.rate("rate", rates)? })
    }

    pub(super) fn dead_letter(&self) -> Result<DeadLetter, sqlx::Error> {
        let id: Vec<u8> = self.0.try_get("id")?;
        Ok(DeadLetter {
            id: id.try_into().map_err(|_| decode("a dead letter's id has 32 bytes"))?,
            received_at: UnixMillis(self.0.try_get("received_at")?),
            reason: self.0.try_get("reason")?,
            message: self.0.try_get("message")?,
        })
    }
}
