//! Rates, and rating what was posted already anew.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, ColumnIndex, Executor as _};
use time::Date;

use super::super::super::rates::{Found, rows_are_there};
use super::super::super::rows::{Columns, SUMMED, written};
use super::super::super::spans::HOUR_MILLIS;
use super::super::super::unavailable;
use super::super::Database;
use super::super::again::once_more;
use super::super::connections::{Lease, USUAL};
use super::{KEYS, summed};
use crate::domain::price::Rate;
use crate::ports::{Rated, Ratings, Rerating, Unavailable};

const HOURS_A_DAY: i64 = 24;
/// A day may have hundreds of thousands of rows.
const LONG: &str = "SET LOCAL statement_timeout = '5min'; SET LOCAL lock_timeout = '30s'; \
    SET LOCAL idle_in_transaction_session_timeout = '1min'";
/// All of it.
const RERATE: Duration = Duration::from_mins(5);
/// Whoever posts waits from here to the commit: the totals that are made anew have all rows then.
const NOBODY_POSTS: &str = "LOCK TABLE usage_hours IN SHARE ROW EXCLUSIVE MODE";

/// Sees to it that these are in the database before rows name them.
pub(super) async fn keep(
    database: &Database,
    rates: impl Iterator<Item = &Arc<Rate>>,
) -> Result<(), sqlx::Error> {
    let new = database.rates.unknown(rates);
    for rate in &new {
        let terms = &written(rate.terms())?;
        let insert = |mut connection: Lease| async move {
            sqlx::query("INSERT INTO rates (id, terms) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                .bind(rate.id().0.to_vec())
                .bind(terms)
                .execute(&mut *connection)
                .await
        };
        database.connections.again(USUAL, insert).await?;
    }
    database.rates.learn(new);
    Ok(())
}

/// All rates that these rows name.
pub(super) async fn found<C: ColumnIndex<PgRow> + Copy>(
    database: &Database,
    rows: &[PgRow],
    column: C,
) -> Result<Found, sqlx::Error> {
    let ids = rows.iter().map(|row| Columns(row).rate_id(column)).collect::<Result<Vec<_>, _>>()?;
    if !database.rates.knows(ids) {
        let select = |mut connection: Lease| async move {
            let read = |row: PgRow| Ok(Arc::new(Rate::new(Columns(&row).json("terms")?)));
            sqlx::query("SELECT terms FROM rates").try_map(read).fetch_all(&mut *connection).await
        };
        database.rates.learn(database.connections.once(USUAL, select).await?);
    }
    Ok(database.rates.found())
}

/// A row that the rate does not cover has none, as when it is posted.
const RERATED: &str = "UPDATE usage_events SET is_provisioned = $2, rate = \
    CASE WHEN (input_tokens = 0 OR $8) AND (output_tokens = 0 OR $9) AND (images = 0 OR $10) THEN $1::BYTEA END \
    WHERE time >= $3 AND time < $4 AND deployment = $5 AND COALESCE(model, '') = $6 AND backend = $7 \
    AND (is_provisioned <> $2 OR rate IS DISTINCT FROM \
    CASE WHEN (input_tokens = 0 OR $8) AND (output_tokens = 0 OR $9) AND (images = 0 OR $10) THEN $1::BYTEA END)";
const COUNTED: &str = "SELECT \
    (SELECT COALESCE(SUM(requests), 0)::BIGINT FROM usage_hours WHERE hour >= $1 AND hour < $2), \
    (SELECT COUNT(*) FROM usage_events WHERE time >= $3 AND time < $4)";

fn first_hour(day: Date) -> i64 {
    day.midnight().assume_utc().unix_timestamp() / 3_600
}

#[async_trait]
impl Ratings for Database {
    async fn rated(&self, from: Date, to: Date) -> Result<Vec<Rated>, Unavailable> {
        let sql = format!(
            "SELECT hour / 24, deployment, NULLIF(model, ''), backend, is_provisioned, rate, {} FROM usage_hours \
             WHERE hour >= $1 AND hour < $2 GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3 NULLS FIRST, 4, 5, 6",
            summed()
        );
        let select = |mut connection: Lease| async move {
            // Made of constants only.
            let query = sqlx::query(AssertSqlSafe(sql.as_str()));
            query.bind(first_hour(from)).bind(first_hour(to)).fetch_all(&mut *connection).await
        };
        let selected = async {
            let rows = self.connections.once(USUAL, select).await?;
            let rates = found(self, &rows, 5_usize).await?;
            rows.iter().map(|row| Columns(row).rated(&rates)).collect::<Result<_, _>>()
        };
        selected.await.map_err(unavailable)
    }

    async fn rerate(&self, day: Date, changes: &[Rerating]) -> Result<u64, Unavailable> {
        let hours = (first_hour(day), first_hour(day) + HOURS_A_DAY);
        let rerated = async {
            keep(self, changes.iter().filter_map(|change| change.rate.as_ref())).await?;
            once_more(|| self.rerate_hours(hours, changes)).await
        };
        rerated.await.map_err(unavailable)
    }
}

impl Database {
    async fn rerate_hours(&self, hours: (i64, i64), changes: &[Rerating]) -> Result<u64, sqlx::Error> {
        let rerate = |mut connection: Lease| async move {
            connection.execute(LONG).await?;
            // Most of it while others post; then what they have posted meanwhile.
            let mut rows = rerate_rows(&mut connection, hours, changes).await?;
            connection.execute(NOBODY_POSTS).await?;
            rows += rerate_rows(&mut connection, hours, changes).await?;
            add_up(&mut connection, hours).await?;
            Ok(rows)
        };
        self.connections.transaction(RERATE, rerate).await
    }
}

async fn rerate_rows(
    connection: &mut PgConnection,
    (from, to): (i64, i64),
    changes: &[Rerating],
) -> Result<u64, sqlx::Error> {
    let mut rows = 0;
    for change in changes {
        let [input, output, images] = change.rate.as_ref().map_or([false; 3], |rate| rate.covered());
        let done = sqlx::query(RERATED)
            .bind(change.rate.as_ref().map(|rate| rate.id().0.to_vec()))
            .bind(change.is_provisioned)
            .bind(from * HOUR_MILLIS)
            .bind(to * HOUR_MILLIS)
            .bind(&change.deployment)
            .bind(change.model.as_deref().unwrap_or_default())
            .bind(&change.backend)
            .bind(input)
            .bind(output)
            .bind(images)
            .execute(&mut *connection)
            .await?;
        rows += done.rows_affected();
    }
    Ok(rows)
}

/// Makes the totals of some hours anew, from their rows.
async fn add_up(connection: &mut PgConnection, (from, to): (i64, i64)) -> Result<(), sqlx::Error> {
    let count: (i64, i64) = sqlx::query_as(COUNTED)
        .bind(from)
        .bind(to)
        .bind(from * HOUR_MILLIS)
        .bind(to * HOUR_MILLIS)
        .fetch_one(&mut *connection)
        .await?;
    rows_are_there(count)?;
    let delete = sqlx::query("DELETE FROM usage_hours WHERE hour >= $1 AND hour < $2").bind(from).bind(to);
    delete.execute(&mut *connection).await?;
    let sql = format!(
        "INSERT INTO usage_hours (hour, {KEYS}, {}) SELECT hour, {KEYS}, {} FROM usage_units \
         WHERE time >= $1 AND time < $2 GROUP BY hour, {KEYS}",
        SUMMED.join(", "),
        summed()
    );
    // Made of constants only.
    let insert = sqlx::query(AssertSqlSafe(sql)).bind(from * HOUR_MILLIS).bind(to * HOUR_MILLIS);
    insert.execute(connection).await.map(drop)
}
