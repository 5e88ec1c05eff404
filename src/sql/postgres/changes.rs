//! What other instances changed: found by asking, sooner by listening.
//!
//! # Why asking finds every change
//! Each change leaves the number of its transaction in its row. A look reads, in one statement and so by one
//! snapshot, the rows whose number is not below the `xmin` of the look before. Whatever that look did not see was
//! then under way or not begun, and has a number of at least its `xmin`: the next look that sees it finds it.
//! Numbers in the order of commits, as sequences seem to give, would not do: a slow transaction commits behind one
//! with a higher number.
//!
//! Notifications only make a look come sooner: nothing depends on them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgListener;
use sqlx::{Executor as _, Row as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::rows::{Columns, decode};
use super::super::unavailable;
use super::Database;
use super::connections::{Connections, Lease, PROMPT, silent};
use crate::domain::ids::SubscriptionId;
use crate::ports::{Changes, Seen, Unavailable, with_causes};

/// As the trigger calls it.
const CHANNEL: &str = "tollgate_subscriptions";
/// More of them at once, and whatever is known is looked at anew.
const AT_ONCE: i64 = 10_000;
/// Before a listener that was cut is there again.
const AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));
/// How long a listener hears nothing before it is asked whether it still hears, and how long that takes.
const QUIET: Duration = Duration::from_mins(1);
const ANSWER: Duration = Duration::from_secs(10);

const LOOK: &str = "WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS seen) \
    SELECT pg_snapshot_xmin(now.seen)::TEXT AS xmin, kept.id, kept.changed_by::TEXT AS number \
    FROM now LEFT JOIN subscriptions AS kept \
    ON kept.changed_by >= $1::XID8 AND kept.changed_by < pg_snapshot_xmax(now.seen) LIMIT $2";

/// Finds changes.
#[derive(Debug)]
pub struct Listener {
    connections: Connections,
    heard: Arc<Notify>,
    /// The `xmin` of the last look.
    since: u64,
    /// Changes at or above it that were told already: a long transaction holds it back.
    told: HashMap<SubscriptionId, u64>,
    /// A look has failed: behind it there may be another server, which never saw the last changes.
    has_gap: bool,
}

impl Database {
    /// Finds what is changed from now on.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn changes(&self) -> Result<Listener, Unavailable> {
        let now = |mut connection: Lease| async move {
            let now = sqlx::query_scalar::<_, String>("SELECT pg_snapshot_xmin(pg_current_snapshot())::TEXT");
            number(&now.fetch_one(&mut *connection).await?)
        };
        let since = self.connections.again(PROMPT, now).await.map_err(unavailable)?;
        let heard = Arc::new(Notify::new());
        let connections = self.connections.clone();
        Ok(Listener { connections, heard, since, told: HashMap::new(), has_gap: false })
    }

    /// Listens for `listener` until `stop`.
    pub fn listen_for(
        &self,
        listener: &Listener,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + use<> {
        let (connections, heard) = (self.connections.clone(), Arc::clone(&listener.heard));
        async move { stop.run_until_cancelled(listen(&connections, &heard)).await.unwrap_or_default() }
    }
}

fn number(text: &str) -> Result<u64, sqlx::Error> {
    text.parse().map_err(decode)
}

/// Never ends. Says when it begins to fail and when it hears again, and nothing in between.
async fn listen(connections: &Connections, heard: &Notify) {
    let (first, longest) = AGAIN_AFTER;
    let mut pause = first;
    let mut is_failing = false;
    loop {
        let mut is_up = false;
        let cut = listen_once(connections, heard, &mut is_up).await;
        if is_up {
            pause = first;
            if std::mem::take(&mut is_failing) {
                tracing::info!("changes of other instances are heard of again");
            }
        }
        if let Err(error) = cut
            && !is_up
            && !std::mem::replace(&mut is_failing, true)
        {
            let error = with_causes(&error);
            tracing::warn!(%error, "changes of other instances are not heard of, and found by asking: {error}");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Listens on one connection until it is cut.
async fn listen_once(connections: &Connections, heard: &Notify, is_up: &mut bool) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(&connections.apart()).await?;
    listener.eager_reconnect(false);
    tokio::time::timeout(ANSWER, listener.listen(CHANNEL)).await.map_err(|_| silent(ANSWER))??;
    *is_up = true;
    loop {
        // Once at the beginning: for what was said before.
        heard.notify_one();
        if let Ok(said) = tokio::time::timeout(QUIET, listener.try_recv()).await {
            if said?.is_none() {
                return Ok(());
            }
        } else {
            // A connection that a firewall dropped is as quiet as one on which nothing is said.
            let asked = tokio::time::timeout(ANSWER, listener.execute("SELECT 1")).await;
            asked.map_err(|_| silent(ANSWER))??;
        }
    }
}

#[async_trait]
impl Changes for Listener {
    async fn heard(&mut self) {
        self.heard.notified().await;
    }

    async fn look(&mut self) -> Result<Seen, Unavailable> {
        let looked = self.look_for_changes().await;
        let had_gap = std::mem::replace(&mut self.has_gap, looked.is_err());
        let seen = looked.map_err(unavailable)?;
        Ok(if had_gap { Seen::Any } else { seen })
    }
}

impl Listener {
    async fn look_for_changes(&mut self) -> Result<Seen, sqlx::Error> {
        let since = self.since.to_string();
        let look = |mut connection: Lease| async move {
            sqlx::query(LOOK).bind(&since).bind(AT_ONCE).fetch_all(&mut *connection).await
        };
        let rows = self.connections.once(PROMPT, look).await?;
        let is_full = rows.len() >= usize::try_from(AT_ONCE).unwrap_or(usize::MAX);
        let mut xmin = self.since;
        let mut new = Vec::new();
        for row in &rows {
            xmin = number(row.try_get("xmin")?)?;
            if row.try_get::<Option<&str>, _>("id")?.is_none() {
                continue;
            }
            let (id, by) = (Columns(row).name("id")?, number(row.try_get("number")?)?);
            if self.told.insert(id.clone(), by) != Some(by) {
                new.push(id);
            }
        }
        // Numbers that go back are another server's.
        let is_other = xmin < self.since;
        self.since = xmin;
        self.told.retain(|_, by| *by >= xmin);
        Ok(if is_full || is_other { Seen::Any } else { Seen::These(new) })
    }
}
