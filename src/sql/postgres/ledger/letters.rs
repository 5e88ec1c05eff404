//! Dead letters.

use async_trait::async_trait;
use sqlx::postgres::{PgConnection, PgRow};

use super::super::super::rows::Columns;
use super::super::super::unavailable;
use super::super::Database;
use super::super::connections::{Lease, USUAL};
use crate::domain::units::UnixMillis;
use crate::ports::{DeadLetter, DeadLetterId, DeadLetters, Unavailable};

pub(super) async fn bury(connection: &mut PgConnection, letters: &[DeadLetter]) -> Result<(), sqlx::Error> {
    // PostgreSQL keeps no NUL in a text. The digest is of what came.
    let text = |text: &str| text.replace('\0', "\u{FFFD}");
    let mut letters: Vec<_> = letters.iter().collect();
    letters.sort_unstable_by_key(|letter| letter.id);
    sqlx::query(
        "INSERT INTO dead_letters (id, received_at, reason, message) \
         SELECT * FROM UNNEST($1::BYTEA[], $2::BIGINT[], $3::TEXT[], $4::TEXT[]) ON CONFLICT DO NOTHING",
    )
    .bind(letters.iter().map(|letter| letter.id.to_vec()).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| letter.received_at.0).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| text(&letter.reason)).collect::<Vec<_>>())
    .bind(letters.iter().map(|letter| text(&letter.message)).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn forget(connection: &mut PgConnection, ids: &[DeadLetterId]) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM dead_letters WHERE id = ANY($1)")
        .bind(ids.iter().map(|id| id.to_vec()).collect::<Vec<_>>())
        .execute(connection)
        .await
        .map(drop)
}

#[async_trait]
impl DeadLetters for Database {
    async fn dead_letters(
        &self,
        after: Option<(UnixMillis, DeadLetterId)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        let (time, id) = after.map_or((i64::MIN, [0; 32]), |(time, id)| (time.0, id));
        let select = |mut connection: Lease| async move {
            sqlx::query(
                "SELECT id, received_at, reason, message FROM dead_letters WHERE (received_at, id) > ($1, $2) \
                 ORDER BY received_at, id LIMIT $3",
            )
            .bind(time)
            .bind(id.as_slice())
            .bind(i64::from(limit))
            .try_map(|row: PgRow| Columns(&row).dead_letter())
            .fetch_all(&mut *connection)
            .await
        };
        self.connections.once(USUAL, select).await.map_err(unavailable)
    }
}
