//! Rates, and rating what was posted already anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, ColumnIndex, Connection as _, Row as _};
use time::{Date, Duration};

use super::super::super::spans::HOUR_MILLIS;
use super::super::subscriptions::{json, written};
use super::super::{Database, unavailable};
use crate::domain::price::{Counts, Rate, RateId, Terms};
use crate::ports::{Rated, Ratings, Rerating, Unavailable};

const HOURS_A_DAY: i64 = 24;

/// What [`sums`] reads.
pub(super) const SUMS: &str = "SUM(requests), SUM(used_requests), SUM(estimated_requests), SUM(input_tokens), \
    SUM(cached_input_tokens), SUM(output_tokens), SUM(reasoning_tokens), SUM(audio_input_tokens), \
    SUM(audio_output_tokens), SUM(cache_write_tokens), SUM(images)";

const REBUILT: &str = "INSERT INTO usage_hours \
    SELECT hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate, ";
const REBUILT_FROM: &str = " FROM usage_units WHERE time >= ? AND time < ? \
    GROUP BY hour, subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate";

/// The requests (all, those that used anything, those that were estimated) and the counts of a row of sums.
pub(super) fn sums(row: &SqliteRow, first: usize) -> Result<([u64; 3], Counts), sqlx::Error> {
    let count = |column: usize| -> Result<u64, sqlx::Error> {
        let count: i64 = row.try_get(first + column)?;
        u64::try_from(count).map_err(|error| sqlx::Error::Decode(error.into()))
    };
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

/// The rates that are known to be in the database. There are as many as there were ever prices, and they
/// are never changed.
#[derive(Clone, Debug, Default)]
pub(in crate::sql::sqlite) struct Rates(Arc<Mutex<HashMap<RateId, Arc<Rate>>>>);

/// Rates by what rows name.
pub(super) struct Found(HashMap<RateId, Arc<Rate>>);

impl Found {
    /// The rate that a row names; `None`: what it used has no price.
    pub(super) fn of(
        &self,
        row: &SqliteRow,
        column: impl ColumnIndex<SqliteRow>,
    ) -> Result<Option<Arc<Rate>>, sqlx::Error> {
        let Some(id) = id(row, column)? else { return Ok(None) };
        self.0.get(&id).cloned().map(Some).ok_or_else(|| sqlx::Error::Decode("a rate is missing".into()))
    }
}

fn id(row: &SqliteRow, column: impl ColumnIndex<SqliteRow>) -> Result<Option<RateId>, sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    let bytes = bytes.filter(|bytes| !bytes.is_empty());
    let id = bytes.map(<[u8; 16]>::try_from).transpose();
    id.map(|id| id.map(RateId)).map_err(|error| sqlx::Error::Decode(error.into()))
}

impl Rates {
    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<RateId, Arc<Rate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that these are in the database before rows name them.
    pub(super) async fn keep(
        &self,
        connection: &mut SqliteConnection,
        rates: impl Iterator<Item = &Arc<Rate>>,
    ) -> Result<(), sqlx::Error> {
        let new: HashMap<RateId, Arc<Rate>> = {
            let known = self.known();
            rates
                .map(|rate| (rate.id(), Arc::clone(rate)))
                .filter(|(id, _)| !known.contains_key(id))
                .collect()
        };
        for (id, rate) in new {
            sqlx::query("INSERT INTO rates (id, terms) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(id.0.as_slice())
                .bind(written(rate.terms())?)
                .execute(&mut *connection)
                .await?;
            self.known().insert(id, rate);
        }
        Ok(())
    }

    /// All rates that these rows name.
    pub(super) async fn all_of<C: ColumnIndex<SqliteRow> + Copy>(
        &self,
        connection: &mut SqliteConnection,
        rows: &[SqliteRow],
        column: C,
    ) -> Result<Found, sqlx::Error> {
        let mut is_complete = true;
        for row in rows {
            is_complete &= id(row, column)?.is_none_or(|id| self.known().contains_key(&id));
        }
        if !is_complete {
            let read = |row: SqliteRow| json::<Terms>(&row, "terms").map(|terms| Arc::new(Rate::new(terms)));
            let rates = sqlx::query("SELECT terms FROM rates").try_map(read).fetch_all(connection).await?;
            self.known().extend(rates.into_iter().map(|rate| (rate.id(), rate)));
        }
        Ok(Found(self.known().clone()))
    }
}

fn first_hour(day: Date) -> i64 {
    day.midnight().assume_utc().unix_timestamp() / 3_600
}

#[async_trait]
impl Ratings for Database {
    async fn rated(&self, from: Date, to: Date) -> Result<Vec<Rated>, Unavailable> {
        let sql = format!(
            "SELECT hour / 24, deployment, NULLIF(model, ''), backend, is_provisioned, rate, {SUMS} \
             FROM usage_hours WHERE hour >= ? AND hour < ? GROUP BY 1, 2, 3, 4, 5, 6 ORDER BY 1, 2, 3, 4, 5, 6"
        );
        let selected = async {
            let mut connection = self.readers.acquire().await?;
            // Made of constants only.
            let query = sqlx::query(AssertSqlSafe(sql)).bind(first_hour(from)).bind(first_hour(to));
            let rows = query.fetch_all(&mut *connection).await?;
            let rates = self.rates.all_of(&mut connection, &rows, 5).await?;
            rows.iter().map(|row| read(row, &rates)).collect::<Result<_, _>>()
        };
        selected.await.map_err(unavailable)
    }

    async fn rerate(&self, day: Date, changes: &[Rerating]) -> Result<u64, Unavailable> {
        let (from, to) = (first_hour(day), first_hour(day) + HOURS_A_DAY);
        let rerated = async {
            let mut connection = self.writer.acquire().await?;
            self.rates
                .keep(&mut connection, changes.iter().filter_map(|change| change.rate.as_ref()))
                .await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut rows = 0;
            for change in changes {
                let rate = change.rate.as_ref().map(|rate| rate.id().0.to_vec());
                let done = sqlx::query(
                    "UPDATE usage_events SET rate = ?1, is_provisioned = ?2 WHERE time >= ?3 AND time < ?4 \
                     AND deployment = ?5 AND COALESCE(model, '') = ?6 AND backend = ?7 \
                     AND (rate IS NOT ?1 OR is_provisioned <> ?2)",
                )
                .bind(rate)
                .bind(change.is_provisioned)
                .bind(from * HOUR_MILLIS)
                .bind(to * HOUR_MILLIS)
                .bind(&change.deployment)
                .bind(change.model.as_deref().unwrap_or_default())
                .bind(&change.backend)
                .execute(&mut *transaction)
                .await?;
                rows += done.rows_affected();
            }
            sqlx::query("DELETE FROM usage_hours WHERE hour >= ? AND hour < ?")
                .bind(from)
                .bind(to)
                .execute(&mut *transaction)
                .await?;
            // Made of constants only.
            sqlx::query(AssertSqlSafe(format!("{REBUILT}{SUMS}{REBUILT_FROM}")))
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

fn read(row: &SqliteRow, rates: &Found) -> Result<Rated, sqlx::Error> {
    let ([requests, _, _], counts) = sums(row, 6)?;
    let day = time::macros::date!(1970 - 01 - 01).checked_add(Duration::days(row.try_get(0)?));
    Ok(Rated {
        day: day.ok_or_else(|| sqlx::Error::Decode("a day beyond the calendar".into()))?,
        deployment: row.try_get(1)?,
        model: row.try_get(2)?,
        backend: row.try_get(3)?,
        is_provisioned: row.try_get(4)?,
        rate: rates.of(row, 5)?,
        requests,
        counts,
    })
}
