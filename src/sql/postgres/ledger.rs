//! The ledger's rows and their hourly totals.
//!
//! # Many instances that post at once
//! A batch is one statement: its rows in the order of their ids, then its totals in the order of their keys. So two
//! batches wait for each other in one direction only, and both come through.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use time::{Date, Month};

use super::super::rows::{Columns, SUMMED};
use super::super::spans::Spans;
use super::super::unavailable;
use super::Database;
use super::again::once_more;
use super::connections::{Lease, USUAL};
use crate::domain::units::UnixMillis;
use crate::ports::{Group, LedgerStore, Postings, SumQuery, Sums, Unavailable};

mod letters;
mod outbox;
mod ratings;
mod rows;

/// This one, and those for which there is room before they begin.
const MONTHS_AHEAD: usize = 3;

/// What the totals are grouped by, besides the hour.
const KEYS: &str = "subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate";

#[async_trait]
impl LedgerStore for Database {
    async fn post(&self, batch: &Postings) -> Result<u64, Unavailable> {
        let posted = async {
            ratings::keep(self, batch.entries.iter().filter_map(|entry| entry.rate.as_ref())).await?;
            once_more(|| self.post_batch(batch)).await
        };
        posted.await.map_err(unavailable)
    }

    async fn sums(&self, query: &SumQuery) -> Result<Vec<Sums>, Unavailable> {
        let groups: Vec<_> =
            query.group_by.iter().map(|group| expression(*group)).chain(["is_provisioned", "rate"]).collect();
        let groups = groups.join(", ");
        let (sums, units) = (summed(), SUMMED.join(", "));
        let filter = if query.provisioned_only { " AND is_provisioned" } else { "" };
        let sql = format!(
            "SELECT {groups}, {sums} FROM (\
             SELECT hour, {KEYS}, {units} FROM usage_hours WHERE hour >= $1 AND hour < $2{filter} UNION ALL \
             SELECT hour, {KEYS}, {units} FROM usage_units WHERE time >= $3 AND time < $4{filter} UNION ALL \
             SELECT hour, {KEYS}, {units} FROM usage_units WHERE time >= $5 AND time < $6{filter}) AS parts \
             GROUP BY {groups}"
        );
        let width = query.group_by.len();
        let spans = Spans::of(query.from, query.to);
        let select = |mut connection: Lease| async move {
            // Made of constants only.
            let query = sqlx::query(AssertSqlSafe(sql.as_str()));
            let spans = [spans.hours, spans.head, spans.tail].into_iter();
            let query = spans.fold(query, |query, (from, to)| query.bind(from).bind(to));
            query.fetch_all(&mut *connection).await
        };
        let selected = async {
            let rows = self.connections.once(USUAL, select).await?;
            let rates = ratings::found(self, &rows, width + 1).await?;
            rows.iter().map(|row| Columns(row).sums(width, &rates)).collect::<Result<_, _>>()
        };
        selected.await.map_err(unavailable)
    }

    async fn prepare(&self, now: UnixMillis) -> Result<(), Unavailable> {
        for month in months(now) {
            let month = month.as_str();
            let make = |mut connection: Lease| async move {
                let make = sqlx::query("SELECT usage_events_month($1::TEXT::DATE)").bind(month);
                make.execute(&mut *connection).await
            };
            once_more(|| self.connections.once(USUAL, &make)).await.map_err(unavailable)?;
        }
        Ok(())
    }
}

impl Database {
    async fn post_batch(&self, batch: &Postings) -> Result<u64, sqlx::Error> {
        // One statement is a transaction of its own: the usual batch needs no more, and may be sent again when its
        // connection turns out to be cut, since what was posted is not posted twice.
        if batch.dead_letters.is_empty() && batch.replayed.is_empty() {
            let insert = |mut connection: Lease| async move {
                rows::insert(&mut connection, &batch.entries, batch.ship).await
            };
            return self.connections.again(USUAL, insert).await;
        }
        let post = |mut connection: Lease| async move {
            let new = rows::insert(&mut connection, &batch.entries, batch.ship).await?;
            letters::bury(&mut connection, &batch.dead_letters).await?;
            letters::forget(&mut connection, &batch.replayed).await?;
            Ok(new)
        };
        self.connections.transaction(USUAL, post).await
    }
}

/// The first days of this month and of those ahead, as PostgreSQL reads them.
fn months(now: UnixMillis) -> Vec<String> {
    let today = now.to_datetime().date();
    let mut month = Date::from_calendar_date(today.year(), today.month(), 1).ok();
    let mut months = Vec::new();
    while let Some(first) = month.filter(|_| months.len() < MONTHS_AHEAD) {
        months.push(first.to_string());
        let year = first.year() + i32::from(first.month() == Month::December);
        month = Date::from_calendar_date(year, first.month().next(), 1).ok();
    }
    months
}

/// Sums of what [`SUMMED`] names; of 64-bit numbers PostgreSQL makes decimals.
fn summed() -> String {
    SUMMED.map(|column| format!("SUM({column})::BIGINT")).join(", ")
}

fn expression(group: Group) -> &'static str {
    match group {
        Group::Subscription => "subscription_id",
        Group::Deployment => "deployment",
        Group::Model => "NULLIF(model, '')",
        Group::Backend => "backend",
        Group::Product => "product",
        Group::CostCenter => "NULLIF(cost_center, '')",
        Group::Day => "to_char(to_timestamp(hour * 3600) AT TIME ZONE 'UTC', 'YYYY-MM-DD')",
        Group::Hour => {
            "to_char(to_timestamp(hour * 3600) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:00:00\"Z\"')"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_this_month_and_two_more() {
        let months = months(UnixMillis::parse("2026-11-21T09:00:00Z").unwrap());
        assert_eq!(months, ["2026-11-01", "2026-12-01", "2027-01-01"]);
    }
}
