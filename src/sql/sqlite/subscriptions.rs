//! The subscriptions that were issued, each change with its entry in the audit. The database itself
//! refuses to change or delete such an entry.

use async_trait::async_trait;
use sqlx::sqlite::{SqliteArguments, SqliteConnection};
use sqlx::{AssertSqlSafe, Row as _, Sqlite};

use super::super::rows::Columns;
use super::super::statements::{self, Statement, Value};
use super::super::unavailable;
use super::Database;
use crate::domain::audit::{Action, Author, Record};
use crate::domain::ids::SubscriptionId;
use crate::domain::key::KeyHash;
use crate::domain::subscription::{Change, Subscription};
use crate::domain::units::UnixMillis;
use crate::ports::{AuditQuery, Changed, Created, ListQuery, New, Once, Subscriptions, Unavailable};

#[async_trait]
impl Subscriptions for Database {
    async fn by_key(&self, key: &KeyHash) -> Result<Option<Subscription>, Unavailable> {
        sqlx::query(statements::BY_KEY.as_str())
            .bind(key.as_slice())
            .try_map(|row| Columns(&row).subscription())
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)
    }

    async fn find(&self, id: &SubscriptionId) -> Result<Option<Subscription>, Unavailable> {
        let found = async { find(&mut *self.readers.acquire().await?, id.as_str()).await };
        found.await.map_err(unavailable)
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Subscription>, Unavailable> {
        sql(&statements::list(query))
            .try_map(|row| Columns(&row).subscription())
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)
    }

    async fn create(&self, new: &New<'_>, author: &Author) -> Result<Created, Unavailable> {
        let created = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            if let Some(once) = new.once
                && let Some(created) = before(&mut transaction, once).await?
            {
                return Ok(created);
            }
            let taken = statements::is_taken(new);
            if sql(&taken).try_map(|row| row.try_get(0)).fetch_one(&mut *transaction).await? {
                return Ok(Created::Taken);
            }
            run(&mut transaction, &statements::insert(new.subscription, new.keys)?).await?;
            if let Some(once) = new.once {
                run(&mut transaction, &statements::forget_requests(once.forget_before)).await?;
                run(&mut transaction, &statements::remember(once, &new.subscription.id, author.at)).await?;
            }
            let record = Record::of(new.action, author, None, new.subscription);
            run(&mut transaction, &statements::record(&record)?).await?;
            transaction.commit().await?;
            Ok(Created::New)
        };
        created.await.map_err(unavailable)
    }

    async fn asked_before(&self, once: &Once) -> Result<Option<Created>, Unavailable> {
        let asked = async { before(&mut *self.readers.acquire().await?, once).await };
        asked.await.map_err(unavailable)
    }

    async fn forget_requests(&self, before: UnixMillis) -> Result<u64, Unavailable> {
        let forget = statements::forget_requests(before);
        sql(&forget).execute(&self.writer).await.map(|done| done.rows_affected()).map_err(unavailable)
    }

    async fn change(
        &self,
        id: &SubscriptionId,
        change: &Change,
        author: &Author,
    ) -> Result<Changed, Unavailable> {
        let changed = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let found = find(&mut transaction, id.as_str()).await?;
            let Some(before) = found else { return Ok(Changed::NotThere) };
            let Ok(after) = before.with(change) else { return Ok(Changed::HasEnded) };
            let hash = change.key();
            if after != before || hash.is_some() {
                run(&mut transaction, &statements::update(&after)?).await?;
                if let Some((slot, hash)) = hash {
                    run(&mut transaction, &statements::replace_key(id, slot, hash)).await?;
                }
                let record = Record::of(Action::of(change), author, Some(&before), &after);
                run(&mut transaction, &statements::record(&record)?).await?;
                transaction.commit().await?;
            }
            Ok(Changed::Done(Box::new(after)))
        };
        changed.await.map_err(unavailable)
    }

    async fn touch(&self, uses: &[(SubscriptionId, UnixMillis)]) -> Result<(), Unavailable> {
        let touched = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            for (id, at) in uses {
                let touch = sqlx::query(statements::TOUCH).bind(at.0).bind(id.as_str());
                touch.execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        touched.await.map_err(unavailable)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Record>, Unavailable> {
        sql(&statements::audit(query))
            .try_map(|row| Columns(&row).record())
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)
    }
}

fn sql(statement: &Statement) -> sqlx::query::Query<'_, Sqlite, SqliteArguments> {
    // Made of constants only; every value is bound.
    let query = sqlx::query(AssertSqlSafe(statement.sql.clone()));
    statement.values.iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text.as_deref()),
        Value::Int(number) => query.bind(*number),
        Value::Bytes(bytes) => query.bind(bytes.as_slice()),
    })
}

async fn run(connection: &mut SqliteConnection, statement: &Statement) -> Result<(), sqlx::Error> {
    sql(statement).execute(connection).await.map(drop)
}

async fn find(connection: &mut SqliteConnection, id: &str) -> Result<Option<Subscription>, sqlx::Error> {
    let find = sqlx::query(statements::FIND.as_str()).bind(id).try_map(|row| Columns(&row).subscription());
    find.fetch_optional(connection).await
}

/// What the same idempotency key made before, if it did.
async fn before(connection: &mut SqliteConnection, once: &Once) -> Result<Option<Created>, sqlx::Error> {
    let Some(asked) = sql(&statements::asked_before(once)).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    if asked.try_get::<&[u8], _>("request")? != once.request {
        return Ok(Some(Created::Conflict));
    }
    let made = find(connection, asked.try_get("subscription_id")?).await?;
    Ok(Some(Created::Before(Box::new(made.ok_or(sqlx::Error::RowNotFound)?))))
}
