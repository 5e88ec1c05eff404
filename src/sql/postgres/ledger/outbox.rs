//! New rows that are still to be sent to where logs are kept.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::super::super::rows::Columns;
use super::super::super::unavailable;
use super::super::Database;
use super::super::again::once_more;
use super::super::connections::{Lease, USUAL};
use super::{ratings, rows};
use crate::domain::ids::RequestId;
use crate::domain::units::UnixMillis;
use crate::ports::{Entry, Outbox, Unavailable};

#[async_trait]
impl Outbox for Database {
    async fn claim(&self, now: UnixMillis, until: UnixMillis, limit: u32) -> Result<Vec<Entry>, Unavailable> {
        // Rows that somebody else is just taking are passed over.
        let sql = format!(
            "WITH mine AS MATERIALIZED (SELECT id AS claimed, time AS at FROM usage_events \
             WHERE shipping IS NOT NULL AND shipping <= $2 ORDER BY time LIMIT $3 FOR UPDATE SKIP LOCKED) \
             UPDATE usage_events SET shipping = $1 FROM mine WHERE id = claimed AND time = at RETURNING {}",
            rows::NAMES.as_str()
        );
        let claim = |mut connection: Lease| async move {
            // Made of constants only.
            let claim = sqlx::query(AssertSqlSafe(sql.as_str()));
            claim.bind(until.0).bind(now.0).bind(i64::from(limit)).fetch_all(&mut *connection).await
        };
        let claimed = async {
            let rows = self.connections.once(USUAL, claim).await?;
            let rates = ratings::found(self, &rows, "rate").await?;
            rows.iter().map(|row| Columns(row).entry(&rates)).collect::<Result<Vec<_>, _>>()
        };
        let mut claimed = claimed.await.map_err(unavailable)?;
        claimed.sort_by_key(|entry| entry.event.time);
        Ok(claimed)
    }

    async fn shipped(&self, ids: &[RequestId]) -> Result<(), Unavailable> {
        self.mark(ids, None).await
    }

    async fn release(&self, ids: &[RequestId]) -> Result<(), Unavailable> {
        self.mark(ids, Some(0)).await
    }

    async fn waiting(&self) -> Result<u64, Unavailable> {
        let count = |mut connection: Lease| async move {
            let count = "SELECT COUNT(*) FROM usage_events WHERE shipping IS NOT NULL";
            sqlx::query_scalar::<_, i64>(count).fetch_one(&mut *connection).await
        };
        let count = self.connections.once(USUAL, count).await.map_err(unavailable)?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

impl Database {
    async fn mark(&self, ids: &[RequestId], shipping: Option<i64>) -> Result<(), Unavailable> {
        let ids = &ids.iter().map(|id| id.0).collect::<Vec<_>>();
        let mark = |mut connection: Lease| async move {
            sqlx::query("UPDATE usage_events SET shipping = $1 WHERE id = ANY($2) AND shipping IS NOT NULL")
                .bind(shipping)
                .bind(ids)
                .execute(&mut *connection)
                .await
        };
        once_more(|| self.connections.once(USUAL, &mark)).await.map(drop).map_err(unavailable)
    }
}
