//! A usage event as a row, and back.

use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row as _, Sqlite};
use uuid::Uuid;

use super::super::subscriptions::name;
use super::ratings::Found;
use crate::domain::ids::RequestId;
use crate::domain::units::UnixMillis;
use crate::domain::usage::{Schema, Usage, UsageEvent};
use crate::ports::Entry;

pub(super) const COLUMNS: usize = 30;
pub(super) const INSERT: &str = "INSERT INTO usage_events (id, time, subscription_id, product, cost_center, \
    end_user, operation, deployment, model, api_version, backend, region, attempts, status, stream, outcome, \
    source, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, duration_ms, first_byte_ms, \
    is_provisioned, audio_input_tokens, audio_output_tokens, cache_write_tokens, images, rate, shipping) VALUES ";

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Counts are far below where this would matter: a plausible event has at most 10^9 tokens.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

pub(super) fn bind<'q>(query: Query<'q>, entry: &'q Entry, ship: bool) -> Query<'q> {
    let Entry { event, is_provisioned, rate } = entry;
    query
        .bind(event.id.0.as_bytes().as_slice())
        .bind(event.time.0)
        .bind(event.subscription_id.as_str())
        .bind(event.product.as_str())
        .bind(event.cost_center.as_deref())
        .bind(event.end_user.as_deref())
        .bind(event.operation.as_ref())
        .bind(event.deployment.as_str())
        .bind(event.model.as_deref())
        .bind(event.api_version.as_deref())
        .bind(event.backend.as_str())
        .bind(event.region.as_deref())
        .bind(i64::from(event.attempts))
        .bind(i64::from(event.status))
        .bind(event.stream)
        .bind(event.outcome.name())
        .bind(event.usage.source.name())
        .bind(signed(event.usage.input_tokens))
        .bind(signed(event.usage.cached_input_tokens))
        .bind(signed(event.usage.output_tokens))
        .bind(signed(event.usage.reasoning_tokens))
        .bind(signed(event.duration_ms))
        .bind(event.first_byte_ms.map(signed))
        .bind(*is_provisioned)
        .bind(signed(event.usage.audio_input_tokens))
        .bind(signed(event.usage.audio_output_tokens))
        .bind(signed(event.usage.cache_write_tokens))
        .bind(signed(event.usage.images))
        .bind(rate.as_ref().map(|rate| rate.id().0.to_vec()))
        .bind(ship.then_some(0_i64))
}

pub(super) fn read(row: &SqliteRow, rates: &Found) -> Result<Entry, sqlx::Error> {
    let event = UsageEvent {
        schema: Schema::V1,
        id: RequestId(Uuid::from_slice(row.try_get("id")?).map_err(decode)?),
        time: UnixMillis(row.try_get("time")?),
        subscription_id: name(row, "subscription_id")?,
        product: name(row, "product")?,
        cost_center: row.try_get("cost_center")?,
        end_user: row.try_get("end_user")?,
        operation: row.try_get::<String, _>("operation")?.into(),
        deployment: name(row, "deployment")?,
        model: row.try_get("model")?,
        api_version: row.try_get("api_version")?,
        backend: name(row, "backend")?,
        region: row.try_get("region")?,
        attempts: number(row, "attempts")?,
        status: number(row, "status")?,
        stream: row.try_get("stream")?,
        outcome: word(row, "outcome")?,
        usage: Usage {
            source: word(row, "source")?,
            input_tokens: number(row, "input_tokens")?,
            cached_input_tokens: number(row, "cached_input_tokens")?,
            output_tokens: number(row, "output_tokens")?,
            reasoning_tokens: number(row, "reasoning_tokens")?,
            audio_input_tokens: number(row, "audio_input_tokens")?,
            audio_output_tokens: number(row, "audio_output_tokens")?,
            cache_write_tokens: number(row, "cache_write_tokens")?,
            images: number(row, "images")?,
        },
        duration_ms: number(row, "duration_ms")?,
        first_byte_ms: match row.try_get::<Option<i64>, _>("first_byte_ms")? {
            Some(_) => Some(number(row, "first_byte_ms")?),
            None => None,
        },
    };
    Ok(Entry { event, is_provisioned: row.try_get("is_provisioned")?, rate: rates.of(row, "rate")? })
}

fn decode(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> sqlx::Error {
    sqlx::Error::Decode(error.into())
}

fn number<T: TryFrom<i64, Error: std::error::Error + Send + Sync + 'static>>(
    row: &SqliteRow,
    column: &str,
) -> Result<T, sqlx::Error> {
    T::try_from(row.try_get(column)?).map_err(decode)
}

/// A variant, by the name that it has in the event.
fn word<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_value(row.try_get::<String, _>(column)?.into()).map_err(decode)
}
