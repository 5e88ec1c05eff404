//! What is asked of the tables of subscriptions and their audit, in the SQL that both databases speak.
//!
//! Text and numbers of callers are values, never part of the SQL.

use std::sync::LazyLock;

use serde::Serialize;

use crate::domain::audit::Record;
use crate::domain::ids::SubscriptionId;
use crate::domain::key::KeyHash;
use crate::domain::subscription::{Slot, State, Subscription};
use crate::domain::units::UnixMillis;
use crate::ports::{AuditQuery, KeyHashes, ListQuery, New, Once};

/// A value to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(Option<String>),
    Int(Option<i64>),
    Bytes(Vec<u8>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(Some(text.to_owned()))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Some(text))
    }
}

impl From<Option<String>> for Value {
    fn from(text: Option<String>) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self::Int(Some(number.into()))
    }
}

impl From<UnixMillis> for Value {
    fn from(at: UnixMillis) -> Self {
        Self::Int(Some(at.0))
    }
}

impl From<Option<UnixMillis>> for Value {
    fn from(at: Option<UnixMillis>) -> Self {
        Self::Int(at.map(|at| at.0))
    }
}

/// SQL with its values: `$1` is the first.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) sql: String,
    pub(super) values: Vec<Value>,
}

impl Statement {
    fn of(sql: &str, values: impl IntoIterator<Item = Value>) -> Self {
        Self { sql: sql.to_owned(), values: values.into_iter().collect() }
    }

    /// Puts `sql` behind it, and the place of one more value behind that.
    fn push(&mut self, sql: &str, value: impl Into<Value>) {
        self.values.push(value.into());
        self.sql = format!("{}{sql}${}", self.sql, self.values.len());
    }
}

/// Named, and not `*`: a later version may add one while this one runs, and PostgreSQL refuses a prepared
/// statement whose columns have changed.
const COLUMNS: &str = "id, name, product, state, owner, cost_center, limits, notes, tags, created_at, \
    expires_at, last_used_at, primary_hint, secondary_hint";

pub(super) static BY_KEY: LazyLock<String> =
    LazyLock::new(|| format!("{} primary_hash = $1 OR secondary_hash = $1", select()));
pub(super) static FIND: LazyLock<String> = LazyLock::new(|| format!("{} id = $1", select()));
pub(super) static FIND_AND_LOCK: LazyLock<String> =
    LazyLock::new(|| format!("{} id = $1 FOR UPDATE", select()));
pub(super) const TOUCH: &str = "UPDATE subscriptions SET last_used_at = $1 \
    WHERE id = $2 AND (last_used_at IS NULL OR last_used_at < $1)";

fn select() -> String {
    format!("SELECT {COLUMNS} FROM subscriptions WHERE")
}

pub(super) fn list(query: &ListQuery) -> Statement {
    let mut list = Statement::of(&select(), []);
    list.push(" id > ", query.after.as_ref().map_or("", SubscriptionId::as_str));
    match query.state {
        Some(state) => list.push(" AND state = ", state.word()),
        None => list.push(" AND state <> ", State::Ended.word()),
    }
    if let Some(product) = &query.product {
        list.push(" AND product = ", product.as_str());
    }
    if let Some(owner) = &query.owner {
        list.push(" AND owner = ", owner.as_str());
    }
    list.push(" ORDER BY id LIMIT ", query.limit);
    list
}

/// The request and the subscription of an idempotency key.
pub(super) fn asked_before(once: &Once) -> Statement {
    Statement::of(
        "SELECT request, subscription_id FROM idempotency_keys WHERE key = $1 AND used_at >= $2",
        [once.key.as_slice().into(), once.forget_before.into()],
    )
}

pub(super) fn forget_requests(before: UnixMillis) -> Statement {
    Statement::of("DELETE FROM idempotency_keys WHERE used_at < $1", [before.into()])
}

pub(super) fn remember(once: &Once, id: &SubscriptionId, at: UnixMillis) -> Statement {
    Statement::of(
        "INSERT INTO idempotency_keys (key, request, subscription_id, used_at) VALUES ($1, $2, $3, $4)",
        [once.key.as_slice().into(), once.request.as_slice().into(), id.as_str().into(), at.into()],
    )
}

/// Whether another has its id or one of its keys. Keys that were made here never meet; those that come
/// from elsewhere may.
pub(super) fn is_taken(new: &New<'_>) -> Statement {
    Statement::of(
        "SELECT EXISTS (SELECT 1 FROM subscriptions WHERE id = $1 OR primary_hash = $2 \
         OR secondary_hash = $2 OR primary_hash = $3 OR secondary_hash = $3)",
        [
            new.subscription.id.as_str().into(),
            new.keys.primary.as_slice().into(),
            new.keys.secondary.as_slice().into(),
        ],
    )
}

pub(super) fn insert(subscription: &Subscription, keys: &KeyHashes) -> Result<Statement, sqlx::Error> {
    let sql = "INSERT INTO subscriptions (id, name, product, state, owner, cost_center, limits, notes, tags, \
        created_at, expires_at, last_used_at, primary_hint, secondary_hint, primary_hash, secondary_hash) \
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    Ok(Statement::of(
        sql,
        [
            subscription.id.as_str().into(),
            subscription.name.as_str().into(),
            subscription.product.as_str().into(),
            subscription.state.word().into(),
            subscription.owner.clone().into(),
            subscription.cost_center.clone().into(),
            json(&subscription.limits)?,
            subscription.notes.clone().into(),
            json(&subscription.tags)?,
            subscription.created_at.into(),
            subscription.expires_at.into(),
            subscription.last_used_at.into(),
            subscription.primary_key_hint.as_str().into(),
            subscription.secondary_key_hint.as_str().into(),
            keys.primary.as_slice().into(),
            keys.secondary.as_slice().into(),
        ],
    ))
}

/// Every field that a change may change, but the keys.
pub(super) fn update(after: &Subscription) -> Result<Statement, sqlx::Error> {
    let sql = "UPDATE subscriptions SET name = $1, product = $2, state = $3, owner = $4, cost_center = $5, \
        limits = $6, notes = $7, tags = $8, expires_at = $9, primary_hint = $10, secondary_hint = $11 \
        WHERE id = $12";
    Ok(Statement::of(
        sql,
        [
            after.name.as_str().into(),
            after.product.as_str().into(),
            after.state.word().into(),
            after.owner.clone().into(),
            after.cost_center.clone().into(),
            json(&after.limits)?,
            after.notes.clone().into(),
            json(&after.tags)?,
            after.expires_at.into(),
            after.primary_key_hint.as_str().into(),
            after.secondary_key_hint.as_str().into(),
            after.id.as_str().into(),
        ],
    ))
}

pub(super) fn replace_key(id: &SubscriptionId, slot: Slot, hash: &KeyHash) -> Statement {
    let sql = match slot {
        Slot::Primary => "UPDATE subscriptions SET primary_hash = $1 WHERE id = $2",
        Slot::Secondary => "UPDATE subscriptions SET secondary_hash = $1 WHERE id = $2",
    };
    Statement::of(sql, [hash.as_slice().into(), id.as_str().into()])
}

/// An entry of the audit, in the transaction of the change that it tells of.
pub(super) fn record(record: &Record) -> Result<Statement, sqlx::Error> {
    Ok(Statement::of(
        "INSERT INTO audit (id, time, actor, address, action, subscription_id, before_change, after_change) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        [
            record.id.as_bytes().as_slice().into(),
            record.at.into(),
            json(&record.actor)?,
            record.address.map(|address| address.to_string()).into(),
            record.action.word().into(),
            record.subscription_id.as_str().into(),
            json(&record.before)?,
            json(&record.after)?,
        ],
    ))
}

pub(super) fn audit(query: &AuditQuery) -> Statement {
    let mut select = Statement::of(
        "SELECT id, time, actor, address, action, subscription_id, before_change, after_change FROM audit \
         WHERE 1 = 1",
        [],
    );
    if let Some(subscription) = &query.subscription {
        select.push(" AND subscription_id = ", subscription.as_str());
    }
    if let Some(from) = query.from {
        select.push(" AND time >= ", from);
    }
    if let Some(to) = query.to {
        select.push(" AND time < ", to);
    }
    if let Some((time, id)) = query.behind {
        select.push(" AND (time, id) < (", time);
        select.push(", ", id.as_bytes().as_slice());
        select.sql.push(')');
    }
    select.push(" ORDER BY time DESC, id DESC LIMIT ", query.limit);
    select
}

fn json(value: &impl Serialize) -> Result<Value, sqlx::Error> {
    super::rows::written(value).map(Value::from)
}
