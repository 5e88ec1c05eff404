//! The audit: entries are added in the transaction of the change that they tell of. The database itself
//! refuses to change or delete one.

use sqlx::sqlite::{SqliteConnection, SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row as _};
use uuid::Uuid;

use super::subscriptions::{json, name, written};
use crate::domain::audit::{Action, Record};
use crate::domain::units::UnixMillis;
use crate::ports::AuditQuery;

pub(super) async fn keep(connection: &mut SqliteConnection, record: &Record) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO audit (id, time, actor, address, action, subscription_id, before_change, after_change) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(record.id.as_bytes().as_slice())
    .bind(record.at.0)
    .bind(written(&record.actor)?)
    .bind(record.address.map(|address| address.to_string()))
    .bind(record.action.word())
    .bind(record.subscription_id.as_str())
    .bind(written(&record.before)?)
    .bind(written(&record.after)?)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn select(readers: &SqlitePool, query: &AuditQuery) -> Result<Vec<Record>, sqlx::Error> {
    let mut select = QueryBuilder::new("SELECT * FROM audit WHERE 1 = 1");
    if let Some(subscription) = &query.subscription {
        select.push(" AND subscription_id = ").push_bind(subscription.as_str().to_owned());
    }
    if let Some(from) = query.from {
        select.push(" AND time >= ").push_bind(from.0);
    }
    if let Some(to) = query.to {
        select.push(" AND time < ").push_bind(to.0);
    }
    if let Some((time, id)) = query.behind {
        select.push(" AND (time, id) < (").push_bind(time.0).push(", ");
        select.push_bind(id.as_bytes().to_vec()).push(")");
    }
    select.push(" ORDER BY time DESC, id DESC LIMIT ").push_bind(i64::from(query.limit));
    select.build().try_map(|row| read(&row)).fetch_all(readers).await
}

fn read(row: &SqliteRow) -> Result<Record, sqlx::Error> {
    let decode = |message: String| sqlx::Error::Decode(message.into());
    let action: &str = row.try_get("action")?;
    let address: Option<&str> = row.try_get("address")?;
    Ok(Record {
        id: Uuid::from_slice(row.try_get("id")?).map_err(|error| decode(error.to_string()))?,
        at: UnixMillis(row.try_get("time")?),
        actor: json(row, "actor")?,
        address: address
            .map(|address| address.parse().map_err(|_| decode(format!("`{address}` is no address"))))
            .transpose()?,
        action: Action::of_word(action).ok_or_else(|| decode(format!("`{action}` is no action")))?,
        subscription_id: name(row, "subscription_id")?,
        before: json(row, "before_change")?,
        after: json(row, "after_change")?,
    })
}
