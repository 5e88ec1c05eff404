//! New rows that are still to be sent to where logs are kept.

use async_trait::async_trait;
use sqlx::AssertSqlSafe;

use super::super::super::rows::Columns;
use super::super::super::unavailable;
use super::super::Database;
use super::super::again::once_more;
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
        let claimed = async {
            // Made of constants only.
            let rows = sqlx::query(AssertSqlSafe(sql))
                .bind(until.0)
                .bind(now.0)
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?;
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
        sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM usage_events WHERE shipping IS NOT NULL")
            .fetch_one(&self.pool)
            .await
            .map(|count| u64::try_from(count).unwrap_or(0))
            .map_err(unavailable)
    }
}

impl Database {
    async fn mark(&self, ids: &[RequestId], shipping: Option<i64>) -> Result<(), Unavailable> {
        let ids: Vec<_> = ids.iter().map(|id| id.0).collect();
        let mark = || {
            sqlx::query("UPDATE usage_events SET shipping = $1 WHERE id = ANY($2) AND shipping IS NOT NULL")
                .bind(shipping)
                .bind(&ids)
                .execute(&self.pool)
        };
        once_more(mark).await.map(drop).map_err(unavailable)
    }
}
