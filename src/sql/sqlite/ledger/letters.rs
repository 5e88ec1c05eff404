//! Dead letters.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::super::super::rows::Columns;
use super::super::{Database, unavailable};
use crate::domain::units::UnixMillis;
use crate::ports::{DeadLetter, DeadLetterId, DeadLetters, Unavailable};

pub(super) async fn bury(
    connection: &mut SqliteConnection,
    letters: &[DeadLetter],
) -> Result<(), sqlx::Error> {
    for letter in letters {
        sqlx::query(
            "INSERT INTO dead_letters (id, received_at, reason, message) VALUES (?, ?, ?, ?) \
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(letter.id.as_slice())
        .bind(letter.received_at.0)
        .bind(&letter.reason)
        .bind(&letter.message)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn forget(
    connection: &mut SqliteConnection,
    ids: &[DeadLetterId],
) -> Result<(), sqlx::Error> {
    for id in ids {
        sqlx::query("DELETE FROM dead_letters WHERE id = ?")
            .bind(id.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

#[async_trait]
impl DeadLetters for Database {
    async fn dead_letters(
        &self,
        after: Option<(UnixMillis, DeadLetterId)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        let (time, id) = after.map_or((i64::MIN, [0; 32]), |(time, id)| (time.0, id));
        sqlx::query(
            "SELECT * FROM dead_letters WHERE (received_at, id) > (?, ?) ORDER BY received_at, id LIMIT ?",
        )
        .bind(time)
        .bind(id.as_slice())
        .bind(i64::from(limit))
        .try_map(|row: SqliteRow| Columns(&row).dead_letter())
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)
    }
}
