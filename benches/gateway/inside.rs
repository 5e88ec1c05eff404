//! What one core does inside the process, with no connection in between: known callers told from others, and
//! events posted to a SQLite file.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use secrecy::ExposeSecret as _;
use serde_json::json;
use tollgate::domain::actor::Actor;
use tollgate::domain::audit::{Action, Author};
use tollgate::domain::ids::Name;
use tollgate::domain::key::{self, Hasher};
use tollgate::domain::subscription::Subscription;
use tollgate::domain::units::UnixMillis;
use tollgate::memory::SystemClock;
use tollgate::ports::{Entry, KeyHashes, LedgerStore as _, New, Postings, Subscriptions};
use tollgate::proxy::Keys;
use tollgate::sql::sqlite::Database;

use crate::Result;

const SUBSCRIPTIONS: usize = 1_000;
const CALLS: u32 = 50_000;
const EVENTS: u32 = 20_000;
const BATCH: u32 = 100;
const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

/// Rates a second.
pub(crate) struct Inside {
    authenticated: f64,
    posted: f64,
}

/// Takes some seconds.
pub(crate) async fn measure() -> Result<Inside> {
    let folder = tempfile::tempdir()?;
    let database = Arc::new(Database::open(&folder.path().join("bench.db")).await?);
    let authenticated = authenticated(Arc::clone(&database)).await?;
    Ok(Inside { authenticated, posted: posted(&database).await? })
}

async fn authenticated(database: Arc<Database>) -> Result<f64> {
    let hasher = Hasher::new(b"bench");
    let author = Author { actor: Actor::CommandLine, address: None, at: NOW };
    let mut keys = Vec::new();
    for number in 0..SUBSCRIPTIONS {
        let (primary, secondary) = (key::make()?, key::make()?);
        let subscription: Subscription = serde_json::from_value(json!({
            "id": format!("sub-{number}"), "name": "bench", "product": "standard", "state": "active", "owner": null,
            "cost_center": null, "limits": {}, "notes": null, "tags": {}, "created_at": "2026-01-01T00:00:00Z",
            "expires_at": null, "last_used_at": null, "primary_key_hint": "aaaa", "secondary_key_hint": "bbbb",
        }))?;
        let both = KeyHashes {
            primary: hasher.hash(primary.expose_secret()),
            secondary: hasher.hash(secondary.expose_secret()),
        };
        let new = New { subscription: &subscription, keys: &both, once: None, action: Action::Issued };
        database.create(&new, &author).await?;
        keys.push(primary.expose_secret().to_owned());
    }
    let known = Keys::new(hasher, database, Arc::new(SystemClock::start()));
    for key in &keys {
        known.caller(key, NOW).await?;
    }
    let began = Instant::now();
    for key in keys.iter().cycle().take(CALLS as usize) {
        black_box(known.caller(key, NOW).await?);
    }
    Ok(f64::from(CALLS) / began.elapsed().as_secs_f64())
}

async fn posted(database: &Database) -> Result<f64> {
    let mut batches = Vec::new();
    for batch in 0..EVENTS / BATCH {
        let mut postings = Postings::default();
        for number in 0..BATCH {
            let event = serde_json::from_value(json!({
                "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{:012}", batch * BATCH + number),
                "time": "2026-11-21T09:00:00.123Z", "subscription_id": Name::new(&format!("sub-{}", number % 20))?,
                "product": "standard", "cost_center": "4711", "operation": "chat.completions",
                "deployment": "gpt-4o-mini", "model": "gpt-4o-mini-2024-07-18", "backend": "eastus", "status": 200,
                "outcome": "completed", "usage": {"source": "reported", "input_tokens": 12, "output_tokens": 34},
            }))?;
            postings.entries.push(Entry { event, is_provisioned: false, rate: None });
        }
        batches.push(postings);
    }
    let began = Instant::now();
    for postings in &batches {
        database.post(postings).await?;
    }
    Ok(f64::from(EVENTS) / began.elapsed().as_secs_f64())
}

impl Inside {
    pub(crate) fn print(&self) {
        println!("\ninside the process, on one core");
        println!("  {:56}{:>12.0}", "known callers told from others, a second", self.authenticated);
        println!("  {:56}{:>12.0}", "events posted to SQLite in batches of 100, a second", self.posted);
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        json!({"authenticated_per_second": self.authenticated, "posted_to_sqlite_per_second": self.posted})
    }
}
