//! New rows that are still to be sent to where logs are kept.

use async_trait::async_trait;
use sqlx::Connection as _;

use super::super::super::rows::Columns;
use super::super::{Database, unavailable};
use super::ratings;
use crate::domain::ids::RequestId;
use crate::domain::units::UnixMillis;
use crate::ports::{Entry, Outbox, Unavailable};

#[async_trait]
impl Outbox for Database {
    async fn claim(&self, now: UnixMillis, until: UnixMillis, limit: u32) -> Result<Vec<Entry>, Unavailable> {
        let claimed = async {
            let mut connection = self.writer.acquire().await?;
            let rows = sqlx::query(
                "UPDATE usage_events SET shipping = ?1 WHERE id IN (\
                 SELECT id FROM usage_events WHERE shipping IS NOT NULL AND shipping <= ?2 \
                 ORDER BY time LIMIT ?3) RETURNING *",
            )
            .bind(until.0)
            .bind(now.0)
            .bind(i64::from(limit))
            .fetch_all(&mut *connection)
            .await?;
            let rates = ratings::found(&self.rates, &mut connection, &rows, "rate").await?;
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
            .fetch_one(&self.readers)
            .await
            .map(|count| u64::try_from(count).unwrap_or(0))
            .map_err(unavailable)
    }
}

impl Database {
    async fn mark(&self, ids: &[RequestId], shipping: Option<i64>) -> Result<(), Unavailable> {
        let marked = async {
            let mut connection = self.writer.acquire().await?;
            let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
            for id in ids {
                sqlx::query("UPDATE usage_events SET shipping = ? WHERE id = ? AND shipping IS NOT NULL")
                    .bind(shipping)
                    .bind(id.0.as_bytes().as_slice())
                    .execute(&mut *transaction)
                    .await?;
            }
            transaction.commit().await
        };
        marked.await.map_err(unavailable)
    }
}
