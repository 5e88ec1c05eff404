//! The subscriptions that were issued.

use async_trait::async_trait;
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Database, unavailable};
use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::key::KeyHash;
use crate::domain::subscription::{State, Subscription};
use crate::domain::units::UnixMillis;
use crate::ports::{Created, KeyHashes, Once, Subscriptions, Unavailable};

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

    async fn list(
        &self,
        after: Option<&SubscriptionId>,
        limit: u32,
    ) -> Result<Vec<Subscription>, Unavailable> {
        // Ids begin with the time at which they were issued.
        sqlx::query("SELECT * FROM subscriptions WHERE id > ? ORDER BY id LIMIT ?")
            .bind(after.map_or("", SubscriptionId::as_str))
            .bind(limit)
            .try_map(|row| read(&row))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)
    }

    async fn create(
        &self,
        subscription: &Subscription,
        keys: &KeyHashes,
        once: Option<&Once>,
    ) -> Result<Created, Unavailable> {
        let created = async {
            let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
            if let Some(once) = once
                && let Some(created) = before(&mut transaction, once).await?
            {
                return Ok(created);
            }
            insert(&mut transaction, subscription, keys).await?;
            if let Some(once) = once {
                remember(&mut transaction, once, subscription).await?;
            }
            transaction.commit().await?;
            Ok(Created::New)
        };
        created.await.map_err(unavailable)
    }
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
    subscription: &Subscription,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM idempotency_keys WHERE used_at < ?")
        .bind(once.forget_before.0)
        .execute(&mut *connection)
        .await?;
    sqlx::query("INSERT INTO idempotency_keys (key, request, subscription_id, used_at) VALUES (?, ?, ?, ?)")
        .bind(once.key.as_slice())
        .bind(once.request.as_slice())
        .bind(subscription.id.as_str())
        .bind(subscription.created_at.0)
        .execute(connection)
        .await
        .map(drop)
}

async fn insert(
    connection: &mut SqliteConnection,
    subscription: &Subscription,
    keys: &KeyHashes,
) -> Result<(), sqlx::Error> {
    let limits =
        serde_json::to_string(&subscription.limits).map_err(|error| sqlx::Error::Encode(error.into()))?;
    sqlx::query(
        "INSERT INTO subscriptions (id, name, product, state, owner, cost_center, limits, created_at, \
         expires_at, primary_hash, secondary_hash, primary_hint, secondary_hint) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(subscription.id.as_str())
    .bind(&subscription.name)
    .bind(subscription.product.as_str())
    .bind(name_of(subscription.state))
    .bind(&subscription.owner)
    .bind(&subscription.cost_center)
    .bind(limits)
    .bind(subscription.created_at.0)
    .bind(subscription.expires_at.map(|at| at.0))
    .bind(keys.primary.as_slice())
    .bind(keys.secondary.as_slice())
    .bind(&subscription.primary_key_hint)
    .bind(&subscription.secondary_key_hint)
    .execute(connection)
    .await
    .map(drop)
}

fn name_of(state: State) -> &'static str {
    match state {
        State::Active => "active",
        State::Suspended => "suspended",
    }
}

fn read(row: &SqliteRow) -> Result<Subscription, sqlx::Error> {
    let name = |column: &str| -> Result<Name, sqlx::Error> {
        Name::new(row.try_get(column)?).map_err(|error| sqlx::Error::Decode(error.into()))
    };
    let state = match row.try_get("state")? {
        "active" => State::Active,
        "suspended" => State::Suspended,
        other => return Err(sqlx::Error::Decode(format!("`{other}` is no state").into())),
    };
    let limits: &str = row.try_get("limits")?;
    Ok(Subscription {
        id: name("id")?,
        name: row.try_get("name")?,
        product: name("product")?,
        state,
        owner: row.try_get("owner")?,
        cost_center: row.try_get("cost_center")?,
        limits: serde_json::from_str(limits).map_err(|error| sqlx::Error::Decode(error.into()))?,
        created_at: UnixMillis(row.try_get("created_at")?),
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(UnixMillis),
        primary_key_hint: row.try_get("primary_hint")?,
        secondary_key_hint: row.try_get("secondary_hint")?,
    })
}
