//! A usage event as a row.

use sqlx::Sqlite;
use sqlx::sqlite::SqliteArguments;

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
