//! The subscriptions that were issued, each change with its entry in the audit. The database itself
//! refuses to change or delete such an entry, and tells the other instances of each change.

use async_trait::async_trait;
use sqlx::postgres::{PgArguments, PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Postgres, Row as _};

use super::super::rows::Columns;
use super::super::statements::{self, Statement, Value};
use super::super::unavailable;
use super::Database;
use super::connections::{Lease, PROMPT, USUAL};
use crate::domain::audit::{Action, Author, Record};
use crate::domain::ids::SubscriptionId;
use crate::domain::key::KeyHash;
use crate::domain::subscription::{Change, Subscription};
use crate::domain::units::UnixMillis;
use crate::ports::{AuditQuery, Changed, Created, ListQuery, New, Once, Subscriptions, Unavailable};

/// Held until the transaction ends by whoever creates one: that a key is nobody's yet, in neither slot, is
/// true until it is kept. Creations are few, and take a millisecond or two.
const ONE_CREATES: &str = "SELECT pg_advisory_xact_lock(3961842407)";

#[async_trait]
impl Subscriptions for Database {
    async fn by_key(&self, key: &KeyHash) -> Result<Option<Subscription>, Unavailable> {
        let look = |mut connection: Lease| async move {
            let query = sqlx::query(statements::BY_KEY.as_str()).bind(key.as_slice());
            query.try_map(|row: PgRow| Columns(&row).subscription()).fetch_optional(&mut *connection).await
        };
        self.connections.again(PROMPT, look).await.map_err(unavailable)
    }

    async fn find(&self, id: &SubscriptionId) -> Result<Option<Subscription>, Unavailable> {
        let look = |mut connection: Lease| async move {
            find(&mut connection, &statements::FIND, id.as_str()).await
        };
        self.connections.again(PROMPT, look).await.map_err(unavailable)
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Subscription>, Unavailable> {
        // PostgreSQL takes no NUL in a text, so that nobody's name has one.
        if query.owner.as_ref().is_some_and(|owner| owner.contains('\0')) {
            return Ok(Vec::new());
        }
        let list = &statements::list(query);
        let select = |mut connection: Lease| async move {
            sql(list).try_map(|row| Columns(&row).subscription()).fetch_all(&mut *connection).await
        };
        self.connections.again(USUAL, select).await.map_err(unavailable)
    }

    async fn create(&self, new: &New<'_>, author: &Author) -> Result<Created, Unavailable> {
        let create = |mut connection: Lease| async move {
            sqlx::query(ONE_CREATES).execute(&mut *connection).await?;
            if let Some(once) = new.once
                && let Some(created) = before(&mut connection, once).await?
            {
                return Ok(created);
            }
            let taken = statements::is_taken(new);
            if sql(&taken).try_map(|row| row.try_get(0)).fetch_one(&mut *connection).await? {
                return Ok(Created::Taken);
            }
            run(&mut connection, &statements::insert(new.subscription, new.keys)?).await?;
            if let Some(once) = new.once {
                run(&mut connection, &statements::forget_requests(once.forget_before)).await?;
                run(&mut connection, &statements::remember(once, &new.subscription.id, author.at)).await?;
            }
            let record = Record::of(new.action, author, None, new.subscription);
            run(&mut connection, &statements::record(&record)?).await?;
            Ok(Created::New)
        };
        self.connections.transaction(USUAL, create).await.map_err(unavailable)
    }

    async fn asked_before(&self, once: &Once) -> Result<Option<Created>, Unavailable> {
        let look = |mut connection: Lease| async move { before(&mut connection, once).await };
        self.connections.again(USUAL, look).await.map_err(unavailable)
    }

    async fn forget_requests(&self, before: UnixMillis) -> Result<u64, Unavailable> {
        let forget = &statements::forget_requests(before);
        let forget = |mut connection: Lease| async move { sql(forget).execute(&mut *connection).await };
        self.connections.once(USUAL, forget).await.map(|done| done.rows_affected()).map_err(unavailable)
    }

    async fn change(
        &self,
        id: &SubscriptionId,
        change: &Change,
        author: &Author,
    ) -> Result<Changed, Unavailable> {
        let change = |mut connection: Lease| async move {
            let found = find(&mut connection, &statements::FIND_AND_LOCK, id.as_str()).await?;
            let Some(before) = found else { return Ok(Changed::NotThere) };
            let Ok(after) = before.with(change) else { return Ok(Changed::HasEnded) };
            let hash = change.key();
            if after != before || hash.is_some() {
                run(&mut connection, &statements::update(&after)?).await?;
                if let Some((slot, hash)) = hash {
                    run(&mut connection, &statements::replace_key(id, slot, hash)).await?;
                }
                let record = Record::of(Action::of(change), author, Some(&before), &after);
                run(&mut connection, &statements::record(&record)?).await?;
            }
            Ok(Changed::Done(Box::new(after)))
        };
        self.connections.transaction(USUAL, change).await.map_err(unavailable)
    }

    async fn touch(&self, uses: &[(SubscriptionId, UnixMillis)]) -> Result<(), Unavailable> {
        // In the same order on every instance: two that write at once wait for each other in one direction.
        let mut uses: Vec<_> = uses.iter().map(|(id, at)| (id.as_str(), at.0)).collect();
        uses.sort_unstable();
        let (ids, times): (Vec<_>, Vec<_>) = uses.into_iter().unzip();
        let (ids, times) = (&ids, &times);
        let write = |mut connection: Lease| async move {
            sqlx::query(
                "WITH uses AS (SELECT * FROM UNNEST($1::TEXT[], $2::BIGINT[]) AS use (id, at)), \
             held AS (SELECT id FROM subscriptions WHERE id = ANY($1) ORDER BY id COLLATE \"C\" FOR UPDATE) \
             UPDATE subscriptions AS kept SET last_used_at = uses.at FROM uses JOIN held USING (id) \
             WHERE kept.id = uses.id AND (kept.last_used_at IS NULL OR kept.last_used_at < uses.at)",
            )
            .bind(ids)
            .bind(times)
            .execute(&mut *connection)
            .await
        };
        self.connections.again(USUAL, write).await.map(drop).map_err(unavailable)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Record>, Unavailable> {
        let audit = &statements::audit(query);
        let select = |mut connection: Lease| async move {
            sql(audit).try_map(|row| Columns(&row).record()).fetch_all(&mut *connection).await
        };
        self.connections.again(USUAL, select).await.map_err(unavailable)
    }
}

fn sql(statement: &Statement) -> sqlx::query::Query<'_, Postgres, PgArguments> {
    // Made of constants only; every value is bound.
    let query = sqlx::query(AssertSqlSafe(statement.sql.clone()));
    statement.values.iter().fold(query, |query, value| match value {
        Value::Text(text) => query.bind(text.as_deref()),
        Value::Int(number) => query.bind(*number),
        Value::Bytes(bytes) => query.bind(bytes.as_slice()),
    })
}

async fn run(connection: &mut PgConnection, statement: &Statement) -> Result<(), sqlx::Error> {
    sql(statement).execute(connection).await.map(drop)
}

async fn find(
    connection: &mut PgConnection,
    find: &'static str,
    id: &str,
) -> Result<Option<Subscription>, sqlx::Error> {
    let find = sqlx::query(find).bind(id).try_map(|row: PgRow| Columns(&row).subscription());
    find.fetch_optional(connection).await
}

/// What the same idempotency key made before, if it did.
async fn before(connection: &mut PgConnection, once: &Once) -> Result<Option<Created>, sqlx::Error> {
    let Some(asked) = sql(&statements::asked_before(once)).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    if asked.try_get::<&[u8], _>("request")? != once.request {
        return Ok(Some(Created::Conflict));
    }
    let made = find(connection, &statements::FIND, asked.try_get("subscription_id")?).await?;
    Ok(Some(Created::Before(Box::new(made.ok_or(sqlx::Error::RowNotFound)?))))
}
