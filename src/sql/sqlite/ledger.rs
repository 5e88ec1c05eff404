//! The ledger's rows.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Connection as _, Row as _, Sqlite};

use super::{Database, unavailable};
use crate::ports::{DeadLetter, Entry, Group, LedgerStore, Postings, SumQuery, Sums, Unavailable};

const COLUMNS: usize = 24;
const INSERT: &str = "INSERT INTO usage_events (id, time, subscription_id, product, cost_center, end_user, \
    operation, deployment, model, api_version, backend, region, attempts, status, stream, outcome, source, \
    input_tokens, cached_input_tokens, output_tokens, reasoning_tokens, duration_ms, first_byte_ms, \
    is_provisioned) VALUES ";

/// What a price may depend on: rows that differ in it must not be summed before they are priced.
const PRICED_BY: &str = "deployment, model, backend, time / 86400000, is_provisioned";

/// Rows in one statement. Each size is prepared once and then kept, so this is also how many are.
const ROWS_A_STATEMENT: usize = 64;

/// The statement for each number of rows, from one on.
static STATEMENTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let row = format!("({})", ["?"; COLUMNS].join(","));
    let statement =
        |rows| format!("{INSERT}{} ON CONFLICT (id) DO NOTHING", vec![row.as_str(); rows].join(","));
    (1..=ROWS_A_STATEMENT).map(statement).collect()
});

#[async_trait]
impl LedgerStore for Database {
    async fn post(&self, batch: &Postings) -> Result<u64, Unavailable> {
        let mut connection = self.writer.acquire().await.map_err(unavailable)?;
        // One statement is a transaction of its own: the usual batch needs no more.
        if batch.dead_letters.is_empty() && batch.entries.len() <= ROWS_A_STATEMENT {
            return insert(&mut connection, &batch.entries).await.map_err(unavailable);
        }
        let posted = async {
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            let mut new = 0;
            for entries in batch.entries.chunks(ROWS_A_STATEMENT) {
                new += insert(&mut transaction, entries).await?;
            }
            for letter in &batch.dead_letters {
                bury(&mut transaction, letter).await?;
            }
            transaction.commit().await?;
            Ok(new)
        };
        posted.await.map_err(unavailable)
    }

    async fn sums(&self, query: &SumQuery) -> Result<Vec<Sums>, Unavailable> {
        let groups: Vec<_> =
            query.group_by.iter().map(|group| expression(*group)).chain([PRICED_BY]).collect();
        let groups = groups.join(", ");
        let sql = format!(
            "SELECT {groups}, COUNT(*), \
             SUM(input_tokens + output_tokens > 0), SUM(source = 'estimated'), SUM(input_tokens), SUM(cached_input_tokens), SUM(output_tokens), \
             SUM(reasoning_tokens) FROM usage_events WHERE time >= ? AND time < ? \
             GROUP BY {groups}"
        );
        let width = query.group_by.len();
        // Made of the constants below only.
        sqlx::query(AssertSqlSafe(sql))
            .bind(query.from.0)
            .bind(query.to.0)
            .try_map(|row| read(&row, width))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)
    }
}

fn expression(group: Group) -> &'static str {
    match group {
        Group::Subscription => "subscription_id",
        Group::Deployment => "deployment",
        Group::Backend => "backend",
        Group::Product => "product",
        Group::CostCenter => "cost_center",
        Group::Day => "strftime('%Y-%m-%d', time / 1000, 'unixepoch')",
        Group::Hour => "strftime('%Y-%m-%dT%H:00:00Z', time / 1000, 'unixepoch')",
    }
}

fn read(row: &SqliteRow, width: usize) -> Result<Sums, sqlx::Error> {
    let group = (0..width).map(|column| row.try_get(column)).collect::<Result<_, _>>()?;
    let count = |column: usize| -> Result<u64, sqlx::Error> {
        let count: i64 = row.try_get(width + column)?;
        u64::try_from(count).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    Ok(Sums {
        group,
        deployment: row.try_get(width)?,
        model: row.try_get(width + 1)?,
        backend: row.try_get(width + 2)?,
        day: row.try_get(width + 3)?,
        is_provisioned: row.try_get(width + 4)?,
        requests: count(5)?,
        used_requests: count(6)?,
        estimated_requests: count(7)?,
        input_tokens: count(8)?,
        cached_input_tokens: count(9)?,
        output_tokens: count(10)?,
        reasoning_tokens: count(11)?,
    })
}

/// Inserts the rows that are not there yet, and says how many those were.
async fn insert(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<u64, sqlx::Error> {
    if entries.is_empty() {
        return Ok(0);
    }
    let statement = STATEMENTS[entries.len() - 1].as_str();
    // Made of constants only; every value is bound.
    let query = entries.iter().fold(sqlx::query(AssertSqlSafe(statement)), bind);
    query.execute(connection).await.map(|done| done.rows_affected())
}

type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Counts are far below where this would matter: a plausible event has at most 10^9 tokens.
fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn bind<'q>(query: Query<'q>, entry: &'q Entry) -> Query<'q> {
    let Entry { event, is_provisioned } = entry;
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
}

async fn bury(connection: &mut SqliteConnection, letter: &DeadLetter) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO dead_letters (id, received_at, reason, message) VALUES (?, ?, ?, ?) \
         ON CONFLICT (id) DO NOTHING",
    )
    .bind(letter.id.as_slice())
    .bind(letter.received_at.0)
    .bind(&letter.reason)
    .bind(&letter.message)
    .execute(connection)
    .await
    .map(drop)
}
