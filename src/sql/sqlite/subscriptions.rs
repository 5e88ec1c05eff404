//! The subscriptions that were issued, each change with its entry in the audit.

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::{Database, audit, unavailable};
use crate::domain::audit::{Action, Author, Record};
use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::key::KeyHash;
use crate::domain::subscription::{Change, Slot, State, Subscription};
use crate::domain::units::UnixMillis;
use crate::ports::{
    AuditQuery, Changed, Created, KeyHashes, ListQuery, New, Once, Subscriptions, Unavailable,
};

#[async_trait]
impl Subscriptions for Database {
    async fn by_key(&self, key: &KeyHash) -> Result<Option<Subscription>, Unavailable> {
        sqlx::query("SELECT * FROM subscriptions WHERE primary_hash = ?1 OR secondary_hash = ?1")
            .bind(key.as_slice())
            .try_map(|row| read(&row))
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)
    }

    async fn find(&self, id: &SubscriptionId) -> Result<Option<Subscription>, Unavailable> {
        sqlx::query("SELECT * FROM subscriptions WHERE id = ?")
            .bind(id.as_str())
            .try_map(|row| read(&row))
            .fetch_optional(&self.readers)
            .await
            .map_err(unavailable)
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Subscription>, Unavailable> {
        selection(query).build().try_map(|row| read(&row)).fetch_all(&self.readers).await.map_err(unavailable)
    }

    async fn create(&self, new: &New<'_>, author: &Author) -> Result<Created, Unavailable> {
        let created = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            if let Some(once) = new.once
                && let Some(created) = before(&mut transaction, once).await?
            {
                return Ok(created);
            }
            if is_taken(&mut transaction, new).await? {
                return Ok(Created::Taken);
            }
            insert(&mut transaction, new.subscription, new.keys).await?;
            if let Some(once) = new.once {
                remember(&mut transaction, once, &new.subscription.id, author.at).await?;
            }
            let record = Record::of(new.action, author, None, new.subscription);
            audit::keep(&mut transaction, &record).await?;
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
        let forgotten = sqlx::query("DELETE FROM idempotency_keys WHERE used_at < ?")
            .bind(before.0)
            .execute(&self.writer)
            .await;
        forgotten.map(|done| done.rows_affected()).map_err(unavailable)
    }

    async fn change(
        &self,
        id: &SubscriptionId,
        change: &Change,
        author: &Author,
    ) -> Result<Changed, Unavailable> {
        let changed = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            let found = sqlx::query("SELECT * FROM subscriptions WHERE id = ?")
                .bind(id.as_str())
                .try_map(|row| read(&row))
                .fetch_optional(&mut *transaction)
                .await?;
            let Some(before) = found else { return Ok(Changed::NotThere) };
            let Ok(after) = before.with(change) else { return Ok(Changed::HasEnded) };
            let hash = match change {
                Change::Key { slot, hash, .. } => Some((*slot, hash)),
                Change::Fields(_) | Change::End => None,
            };
            if after != before || hash.is_some() {
                update(&mut transaction, &after).await?;
                if let Some((slot, hash)) = hash {
                    replace_key(&mut transaction, id, slot, hash).await?;
                }
                let record = Record::of(Action::of(change), author, Some(&before), &after);
                audit::keep(&mut transaction, &record).await?;
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
                sqlx::query(
                    "UPDATE subscriptions SET last_used_at = ?1 \
                     WHERE id = ?2 AND (last_used_at IS NULL OR last_used_at < ?1)",
                )
                .bind(at.0)
                .bind(id.as_str())
                .execute(&mut *transaction)
                .await?;
            }
            transaction.commit().await
        };
        touched.await.map_err(unavailable)
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Record>, Unavailable> {
        audit::select(&self.readers, query).await.map_err(unavailable)
    }
}

fn selection(query: &ListQuery) -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::new("SELECT * FROM subscriptions WHERE id > ");
    select.push_bind(query.after.as_ref().map_or(String::new(), |after| after.as_str().to_owned()));
    match query.state {
        Some(state) => select.push(" AND state = ").push_bind(state.word()),
        None => select.push(" AND state <> ").push_bind(State::Ended.word()),
    };
    if let Some(product) = &query.product {
        select.push(" AND product = ").push_bind(product.as_str().to_owned());
    }
    if let Some(owner) = &query.owner {
        select.push(" AND owner = ").push_bind(owner.clone());
    }
    select.push(" ORDER BY id LIMIT ").push_bind(i64::from(query.limit));
    select
}

/// What the same idempotency key made before, if it did.
async fn before(connection: &mut SqliteConnection, once: &Once) -> Result<Option<Created>, sqlx::Error> {
    let found =
        sqlx::query("SELECT request, subscription_id FROM idempotency_keys WHERE key = ? AND used_at >= ?")
            .bind(once.key.as_slice())
            .bind(once.forget_before.0)
            .fetch_optional(&mut *connection)
            .await?;
    let Some(found) = found else { return Ok(None) };
    if found.try_get::<&[u8], _>("request")? != once.request {
        return Ok(Some(Created::Conflict));
    }
    let subscription = sqlx::query("SELECT * FROM subscriptions WHERE id = ?")
        .bind(found.try_get::<&str, _>("subscription_id")?)
        .try_map(|row| read(&row))
        .fetch_one(connection)
        .await?;
    Ok(Some(Created::Before(Box::new(subscription))))
}

async fn remember(
    connection: &mut SqliteConnection,
    once: &Once,
    id: &SubscriptionId,
    at: UnixMillis,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM idempotency_keys WHERE used_at < ?")
        .bind(once.forget_before.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO idempotency_keys (key, request, subscription_id, used_at) VALUES (?, ?, ?, ?)")
        .bind(once.key.as_slice())
        .bind(once.request.as_slice())
        .bind(id.as_str())
        .bind(at.0)
        .execute(connection)
        .await
        .map(drop)
}

/// Whether another has its id or one of its keys. Keys that were made here never meet; those that come
/// from elsewhere may.
async fn is_taken(connection: &mut SqliteConnection, new: &New<'_>) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM subscriptions WHERE id = ?1 OR primary_hash = ?2 \
         OR secondary_hash = ?2 OR primary_hash = ?3 OR secondary_hash = ?3)",
    )
    .bind(new.subscription.id.as_str())
    .bind(new.keys.primary.as_slice())
    .bind(new.keys.secondary.as_slice())
    .fetch_one(connection)
    .await
}

async fn insert(
    connection: &mut SqliteConnection,
    subscription: &Subscription,
    keys: &KeyHashes,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO subscriptions (id, name, product, state, owner, cost_center, limits, notes, tags, \
         created_at, expires_at, last_used_at, primary_hint, secondary_hint, primary_hash, secondary_hash) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(subscription.id.as_str())
    .bind(&subscription.name)
    .bind(subscription.product.as_str())
    .bind(subscription.state.word())
    .bind(&subscription.owner)
    .bind(&subscription.cost_center)
    .bind(written(&subscription.limits)?)
    .bind(&subscription.notes)
    .bind(written(&subscription.tags)?)
    .bind(subscription.created_at.0)
    .bind(subscription.expires_at.map(|at| at.0))
    .bind(subscription.last_used_at.map(|at| at.0))
    .bind(&subscription.primary_key_hint)
    .bind(&subscription.secondary_key_hint)
    .bind(keys.primary.as_slice())
    .bind(keys.secondary.as_slice())
    .execute(connection)
    .await
    .map(drop)
}

/// Every field that a change may change, but the keys.
async fn update(connection: &mut SqliteConnection, after: &Subscription) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE subscriptions SET name = ?, product = ?, state = ?, owner = ?, cost_center = ?, limits = ?, \
         notes = ?, tags = ?, expires_at = ?, primary_hint = ?, secondary_hint = ? WHERE id = ?",
    )
    .bind(&after.name)
    .bind(after.product.as_str())
    .bind(after.state.word())
    .bind(&after.owner)
    .bind(&after.cost_center)
    .bind(written(&after.limits)?)
    .bind(&after.notes)
    .bind(written(&after.tags)?)
    .bind(after.expires_at.map(|at| at.0))
    .bind(&after.primary_key_hint)
    .bind(&after.secondary_key_hint)
    .bind(after.id.as_str())
    .execute(connection)
    .await
    .map(drop)
}

async fn replace_key(
    connection: &mut SqliteConnection,
    id: &SubscriptionId,
    slot: Slot,
    hash: &KeyHash,
) -> Result<(), sqlx::Error> {
    let statement = match slot {
        Slot::Primary => "UPDATE subscriptions SET primary_hash = ? WHERE id = ?",
        Slot::Secondary => "UPDATE subscriptions SET secondary_hash = ? WHERE id = ?",
    };
    sqlx::query(statement).bind(hash.as_slice()).bind(id.as_str()).execute(connection).await.map(drop)
}

pub(super) fn written(value: &impl Serialize) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}

pub(super) fn json<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, sqlx::Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

pub(super) fn name(row: &SqliteRow, column: &str) -> Result<Name, sqlx::Error> {
    Name::new(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn read(row: &SqliteRow) -> Result<Subscription, sqlx::Error> {
    let state: &str = row.try_get("state")?;
    let state =
        State::of_word(state).ok_or_else(|| sqlx::Error::Decode(format!("`{state}` is no state").into()))?;
    let moment = |column: &str| row.try_get::<Option<i64>, _>(column).map(|millis| millis.map(UnixMillis));
    Ok(Subscription {
        id: name(row, "id")?,
        name: row.try_get("name")?,
        product: name(row, "product")?,
        state,
        owner: row.try_get("owner")?,
        cost_center: row.try_get("cost_center")?,
        limits: json(row, "limits")?,
        notes: row.try_get("notes")?,
        tags: json(row, "tags")?,
        created_at: UnixMillis(row.try_get("created_at")?),
        expires_at: moment("expires_at")?,
        last_used_at: moment("last_used_at")?,
        primary_key_hint: row.try_get("primary_hint")?,
        secondary_key_hint: row.try_get("secondary_hint")?,
    })
}
