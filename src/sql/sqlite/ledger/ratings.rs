//! Rates, and rating what was posted already anew.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ColumnIndex, Connection as _};
use time::Date;

use super::super::super::rates::{Found, Rates, rows_are_there};
use super::super::super::rows::{Columns, written};
use super::super::super::spans::HOUR_MILLIS;
use super::super::{Database, unavailable};
use crate::domain::price::Rate;
use crate::ports::{Rated, Ratings, Rerating, Unavailable};

const HOURS_A_DAY: i64 = 24;

const REBUILT: &str = "INSERT INTO usage_hours \
    SELECT hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate, ";
const REBUILT_FROM: &str = " FROM usage_units WHERE time >= ? AND time < ? \
    GROUP BY hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate";

/// Sees to it that these are in the database before rows name them.
pub(super) async fn keep(
    known: &Rates,
    connection: &mut SqliteConnection,
    rates: impl Iterator<Item = &Arc<Rate>>,
) -> Result<(), sqlx::Error> {
    let new = known.unknown(rates);
    for rate in &new {
        sqlx::query("INSERT INTO rates (id, terms) VALUES (?, ?) ON CONFLICT DO NOTHING")
            .bind(rate.id().0.to_vec())
            .bind(written(rate.terms())?)
            .execute(&mut *connection)
            .await?;
    }
    known.learn(new);
    Ok(())
}

/// All rates that these rows name.
pub(super) async fn found<C: ColumnIndex<SqliteRow> + Copy>(
    known: &Rates,
    connection: &mut SqliteConnection,
    rows: &[SqliteRow],
    column: C,
) -> Result<Found, sqlx::Error> {
    let ids = rows.iter().map(|row| Columns(row).rate_id(column)).collect::<Result<Vec<_>, _>>()?;
    if !known.knows(ids) {
        let read = |row: SqliteRow| Ok(Arc::new(Rate::new(Columns(&row).json("terms")?)));
        known.learn(sqlx::query("SELECT terms FROM rates").try_map(read).fetch_all(connection).await?);
    }
    Ok(known.found())
}

/// A row that the rate does not cover has none, as when it is posted.
const RERATE: &str = "UPDATE usage_events SET is_provisioned = ?2, rate = \
    CASE WHEN (input_tokens = 0 OR ?8) AND (output_tokens = 0 OR ?9) AND (images = 0 OR ?10) THEN ?1 END \
    WHERE time >= ?3 AND time < ?4 AND deployment = ?5 AND COALESCE(model, '') = ?6 AND backend = ?7 \
    AND (is_provisioned <> ?2 OR rate IS NOT \
    CASE WHEN (input_tokens = 0 OR ?8) AND (output_tokens = 0 OR ?9) AND (images = 0 OR ?10) THEN ?1 END)";
const COUNTED: &str = "SELECT (SELECT COALESCE(SUM(requests), 0) FROM usage_hours WHERE hour >= ?1 AND hour < ?2), \
    (SELECT COUNT(*) FROM usage_events WHERE time >= ?3 AND time < ?4)";

fn first_hour(day: Date) -> i64 {
    day.midnight().assume_utc().unix_timestamp() / 3_600
}

#[async_trait]
impl Ratings for Database {
    async fn rated(&self, from: Date, to: Date) -> Result<Vec<Rated>, Unavailable> {
        let sql = format!(
            "SELECT hour / 24, deployment, NULLIF(model, ''), backend, is_provisioned, rate, {} \
             FROM usage_hours WHERE hour >= ? AND hour < ? GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6",
            super::summed()
        );
        let selected = async {
            let mut connection = self.readers.acquire().await?;
            // Made of constants only.
            let query = sqlx::query(AssertSqlSafe(sql)).bind(first_hour(from)).bind(first_hour(to));
            let rows = query.fetch_all(&mut *connection).await?;
            let rates = found(&self.rates, &mut connection, &rows, 5_usize).await?;
            rows.iter().map(|row| Columns(row).rated(&rates)).collect::<Result<_, _>>()
        };
        selected.await.map_err(unavailable)
    }

    async fn rerate(&self, day: Date, changes: &[Rerating]) -> Result<u64, Unavailable> {
        let (from, to) = (first_hour(day), first_hour(day) + HOURS_A_DAY);
        let rerated = async {
            let mut connection = self.writer.acquire().await?;
            let rates = changes.iter().filter_map(|change| change.rate.as_ref());
            keep(&self.rates, &mut connection, rates).await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut rows = 0;
            for change in changes {
                let rate = change.rate.as_ref().map(|rate| rate.id().0.to_vec());
                let [input, output, images] = change.rate.as_ref().map_or([false; 3], |rate| rate.covered());
                let done = sqlx::query(RERATE)
                    .bind(rate)
                    .bind(change.is_provisioned)
                    .bind(from * HOUR_MILLIS)
                    .bind(to * HOUR_MILLIS)
                    .bind(&change.deployment)
                    .bind(change.model.as_deref().unwrap_or_default())
                    .bind(&change.backend)
                    .bind(input)
                    .bind(output)
                    .bind(images)
                    .execute(&mut *transaction)
                    .await?;
                rows += done.rows_affected();
            }
            let count: (i64, i64) = sqlx::query_as(COUNTED)
                .bind(from)
                .bind(to)
                .bind(from * HOUR_MILLIS)
                .bind(to * HOUR_MILLIS)
                .fetch_one(&mut *transaction)
                .await?;
            rows_are_there(count)?;
            sqlx::query("DELETE FROM usage_hours WHERE hour >= ? AND hour < ?")
                .bind(from)
                .bind(to)
                .execute(&mut *transaction)
                .await?;
            // Made of constants only.
            sqlx::query(AssertSqlSafe(format!("{REBUILT}{}{REBUILT_FROM}", super::summed())))
                .bind(from * HOUR_MILLIS)
                .bind(to * HOUR_MILLIS)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await?;
            Ok(rows)
        };
        rerated.await.map_err(unavailable)
    }
}
