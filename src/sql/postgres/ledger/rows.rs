//! Usage events as rows: a batch is one statement, and so one way there and back.

use std::sync::LazyLock;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Encode, Postgres, Type};

use super::super::super::rows::SUMMED;
use super::KEYS;
use crate::ports::Entry;

/// Each column, and the type of its array.
const COLUMNS: [(&str, &str); 30] = [
    ("id", "UUID"),
    ("time", "BIGINT"),
    ("subscription_id", "TEXT"),
    ("product", "TEXT"),
    ("cost_center", "TEXT"),
    ("end_user", "TEXT"),
    ("operation", "TEXT"),
    ("deployment", "TEXT"),
    ("model", "TEXT"),
    ("api_version", "TEXT"),
    ("backend", "TEXT"),
    ("region", "TEXT"),
    ("attempts", "BIGINT"),
    ("status", "BIGINT"),
    ("stream", "BOOLEAN"),
    ("outcome", "TEXT"),
    ("source", "TEXT"),
    ("input_tokens", "BIGINT"),
    ("cached_input_tokens", "BIGINT"),
    ("output_tokens", "BIGINT"),
    ("reasoning_tokens", "BIGINT"),
    ("audio_input_tokens", "BIGINT"),
    ("audio_output_tokens", "BIGINT"),
    ("cache_write_tokens", "BIGINT"),
    ("images", "BIGINT"),
    ("duration_ms", "BIGINT"),
    ("first_byte_ms", "BIGINT"),
    ("is_provisioned", "BOOLEAN"),
    ("rate", "BYTEA"),
    ("shipping", "BIGINT"),
];

/// The columns of a row, as `entry` reads them.
pub(super) static NAMES: LazyLock<String> = LazyLock::new(|| COLUMNS.map(|(name, _)| name).join(", "));

/// Rows that are new, and what they add to the totals. A row that is there already adds nothing.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    let names = NAMES.as_str();
    let arrays: Vec<_> =
        (1..).zip(COLUMNS).map(|(number, (_, kind))| format!("${number}::{kind}[]")).collect();
    let arrays = arrays.join(", ");
    let (units, sums) = (SUMMED.join(", "), super::summed());
    let added = SUMMED.map(|column| format!("{column} = kept.{column} + excluded.{column}")).join(", ");
    let unit = "time / 3600000 AS hour, subscription_id, product, COALESCE(cost_center, '') AS cost_center, \
        deployment, COALESCE(model, '') AS model, backend, is_provisioned, COALESCE(rate, ''::BYTEA) AS rate, \
        1 AS requests, (input_tokens + output_tokens + images > 0)::INT AS used_requests, \
        (source = 'estimated')::INT AS estimated_requests, input_tokens, cached_input_tokens, output_tokens, \
        reasoning_tokens, audio_input_tokens, audio_output_tokens, cache_write_tokens, images";
    format!(
        "WITH new AS (INSERT INTO usage_events ({names}) SELECT * FROM UNNEST({arrays}) \
         ON CONFLICT DO NOTHING RETURNING {unit}), \
         totals AS (INSERT INTO usage_hours AS kept (hour, {KEYS}, {units}) \
         SELECT hour, {KEYS}, {sums} FROM new GROUP BY hour, {KEYS} ORDER BY hour, {KEYS} \
         ON CONFLICT (hour, {KEYS}) DO UPDATE SET {added}) \
         SELECT COUNT(*) FROM new"
    )
});

/// Counts are far below where this would matter: a plausible event has at most 10^9 tokens.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Inserts the rows that are not there yet, and says how many those were.
pub(super) async fn insert(
    connection: &mut PgConnection,
    entries: &[Entry],
    ship: bool,
) -> Result<u64, sqlx::Error> {
    if entries.is_empty() {
        return Ok(0);
    }
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_unstable_by_key(|entry| entry.event.id.0);
    // Made of constants only; every value is bound.
    let query = sqlx::query_scalar::<_, i64>(AssertSqlSafe(INSERT.as_str()));
    let new = bind(Batch { entries: &entries, query }, ship).query.fetch_one(connection).await?;
    u64::try_from(new).map_err(|error| sqlx::Error::Decode(error.into()))
}

type Query<'q> = sqlx::query::QueryScalar<'q, Postgres, i64, sqlx::postgres::PgArguments>;

struct Batch<'q> {
    entries: &'q [&'q Entry],
    query: Query<'q>,
}

impl<'q> Batch<'q> {
    /// Binds the next column of all rows.
    fn with<T>(self, value: impl Fn(&'q Entry) -> T) -> Self
    where
        Vec<T>: Encode<'q, Postgres> + Type<Postgres>,
        T: 'q,
    {
        let column: Vec<T> = self.entries.iter().map(|entry| value(entry)).collect();
        Self { query: self.query.bind(column), ..self }
    }
}

/// In the order of [`COLUMNS`].
fn bind(batch: Batch<'_>, ship: bool) -> Batch<'_> {
    batch
        .with(|entry| entry.event.id.0)
        .with(|entry| entry.event.time.0)
        .with(|entry| entry.event.subscription_id.as_str())
        .with(|entry| entry.event.product.as_str())
        .with(|entry| entry.event.cost_center.as_deref())
        .with(|entry| entry.event.end_user.as_deref())
        .with(|entry| entry.event.operation.as_ref())
        .with(|entry| entry.event.deployment.as_str())
        .with(|entry| entry.event.model.as_deref())
        .with(|entry| entry.event.api_version.as_deref())
        .with(|entry| entry.event.backend.as_str())
        .with(|entry| entry.event.region.as_deref())
        .with(|entry| i64::from(entry.event.attempts))
        .with(|entry| i64::from(entry.event.status))
        .with(|entry| entry.event.stream)
        .with(|entry| entry.event.outcome.name())
        .with(|entry| entry.event.usage.source.name())
        .with(|entry| signed(entry.event.usage.input_tokens))
        .with(|entry| signed(entry.event.usage.cached_input_tokens))
        .with(|entry| signed(entry.event.usage.output_tokens))
        .with(|entry| signed(entry.event.usage.reasoning_tokens))
        .with(|entry| signed(entry.event.usage.audio_input_tokens))
        .with(|entry| signed(entry.event.usage.audio_output_tokens))
        .with(|entry| signed(entry.event.usage.cache_write_tokens))
        .with(|entry| signed(entry.event.usage.images))
        .with(|entry| signed(entry.event.duration_ms))
        .with(|entry| entry.event.first_byte_ms.map(signed))
        .with(|entry| entry.is_provisioned)
        .with(|entry| entry.rate.as_ref().map(|rate| rate.id().0.to_vec()))
        .with(|_| ship.then_some(0_i64))
}
