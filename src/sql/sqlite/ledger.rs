//! The ledger's rows and their hourly totals.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _};

use super::super::rows::{Columns, SUMMED};
use super::super::spans::Spans;
use super::{Database, unavailable};
use crate::domain::units::UnixMillis;
use crate::ports::{Entry, Group, LedgerStore, Postings, SumQuery, Sums, Unavailable};

mod letters;
mod outbox;
mod ratings;
mod rows;

/// Rows in one statement. Each size is prepared once and then kept, so this is also how many are.
const ROWS_A_STATEMENT: usize = 64;

/// The statement for each number of rows, from one on.
static STATEMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let row = format!("({})", ["?"; rows::COLUMNS].join(","));
    let statement = |count| {
        format!("{}{} ON CONFLICT (id) DO NOTHING", rows::INSERT, vec![row.as_str(); count].join(","))
    };
    (1..=ROWS_A_STATEMENT).map(statement).collect()
});

#[async_trait]
impl LedgerStore for Database {
    async fn post(&self, batch: &Postings) -> Result<u64, Unavailable> {
        let posted = async {
            let mut connection = self.writer.acquire().await?;
            let rates = batch.entries.iter().filter_map(|entry| entry.rate.as_ref());
            ratings::keep(&self.rates, &mut connection, rates).await?;
            // One statement is a transaction of its own: the usual batch needs no more.
            let is_usual = batch.dead_letters.is_empty() && batch.replayed.is_empty();
            if is_usual && batch.entries.len() <= ROWS_A_STATEMENT {
                return insert(&mut connection, &batch.entries, batch.ship).await;
            }
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut new = 0;
            for entries in batch.entries.chunks(ROWS_A_STATEMENT) {
                new += insert(&mut transaction, entries, batch.ship).await?;
            }
            letters::bury(&mut transaction, &batch.dead_letters).await?;
            letters::forget(&mut transaction, &batch.replayed).await?;
            transaction.commit().await?;
            Ok(new)
        };
        posted.await.map_err(unavailable)
    }

    async fn sums(&self, query: &SumQuery) -> Result<Vec<Sums>, Unavailable> {
        let groups: Vec<_> =
            query.group_by.iter().map(|group| expression(*group)).chain(["is_provisioned", "rate"]).collect();
        let groups = groups.join(", ");
        let sums = summed();
        let filter = if query.provisioned_only { " AND is_provisioned" } else { "" };
        let units = "subscription_id, product, cost_center, deployment, model, backend, is_provisioned, rate, \
            requests, used_requests, estimated_requests, input_tokens, cached_input_tokens, output_tokens, \
            reasoning_tokens, audio_input_tokens, audio_output_tokens, cache_write_tokens, images";
        let sql = format!(
            "SELECT {groups}, {sums} FROM (\
             SELECT hour, {units} FROM usage_hours WHERE hour >= ? AND hour < ?{filter} UNION ALL \
             SELECT hour, {units} FROM usage_units WHERE time >= ? AND time < ?{filter} UNION ALL \
             SELECT hour, {units} FROM usage_units WHERE time >= ? AND time < ?{filter}) GROUP BY {groups}"
        );
        let width = query.group_by.len();
        let spans = Spans::of(query.from, query.to);
        let selected = async {
            let mut connection = self.readers.acquire().await?;
            // Made of constants only.
            let rows = [spans.hours, spans.head, spans.tail]
                .into_iter()
                .fold(sqlx::query(AssertSqlSafe(sql)), |sql, (from, to)| sql.bind(from).bind(to))
                .fetch_all(&mut *connection)
                .await?;
            let rates = ratings::found(&self.rates, &mut connection, &rows, width + 1).await?;
            rows.iter().map(|row| Columns(row).sums(width, &rates)).collect::<Result<_, _>>()
        };
        selected.await.map_err(unavailable)
    }

    async fn prepare(&self, _now: UnixMillis) -> Result<(), Unavailable> {
        Ok(())
    }
}

fn expression(group: Group) -> &'static str {
    match group {
        Group::Subscription => "subscription_id",
        Group::Deployment => "deployment",
        Group::Model => "NULLIF(model, '')",
        Group::Backend => "backend",
        Group::Product => "product",
        Group::CostCenter => "NULLIF(cost_center, '')",
        Group::Day => "strftime('%Y-%m-%d', hour * 3600, 'unixepoch')",
        Group::Hour => "strftime('%Y-%m-%dT%H:00:00Z', hour * 3600, 'unixepoch')",
    }
}

fn summed() -> String {
    SUMMED.map(|column| format!("SUM({column})")).join(", ")
}

/// Inserts the rows that are not there yet, and says how many those were.
async fn insert(
    connection: &mut SqliteConnection,
    entries: &[Entry],
    ship: bool,
) -> Result<u64, sqlx::Error> {
    if entries.is_empty() {
        return Ok(0);
    }
    let statement = STATEMENTS[entries.len() - 1].as_str();
    // Made of constants only; every value is bound.
    let query = sqlx::query(AssertSqlSafe(statement));
    let query = entries.iter().fold(query, |query, entry| rows::bind(query, entry, ship));
    query.execute(connection).await.map(|done| done.rows_affected())
}
