//! The way from the ledger to Log Analytics, with nothing of the gateway around it and time that a test sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate::azure::entra::{self, Tokens};
use tollgate::azure::log_analytics::LogAnalytics;
use tollgate::azure::transport;
use tollgate::config::settings::Settings;
use tollgate::domain::units::UnixMillis;
use tollgate::ledger::ship::Shipping;
use tollgate::ports::{Clock, Entry, LedgerStore as _, Outbox as _, Postings};
use tollgate::sql::sqlite::Database;

use crate::azure::identity_endpoint::IdentityEndpoint;
use crate::azure::log_ingestion::LogIngestion;

/// Stands still unless it is set forward.
#[derive(Default)]
pub(super) struct StoppedClock(Mutex<Duration>);

impl StoppedClock {
    pub(super) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for StoppedClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(1_790_000_000_000 + i64::try_from(self.elapsed().as_millis()).unwrap())
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

pub(super) struct Rig {
    pub(super) endpoint: LogIngestion,
    pub(super) clock: Arc<StoppedClock>,
    pub(super) database: Arc<Database>,
    sink: Arc<LogAnalytics>,
    _identity: IdentityEndpoint,
    folder: TempDir,
}

impl Rig {
    pub(super) async fn start() -> Self {
        let (endpoint, identity) = (LogIngestion::start().await, IdentityEndpoint::start(None).await);
        let folder = tempfile::tempdir().unwrap();
        let database = Arc::new(Database::open(&folder.path().join("ledger.db")).await.unwrap());
        let sink = Arc::new(sink(&endpoint, &identity, &[]));
        Self { endpoint, clock: Arc::default(), database, sink, _identity: identity, folder }
    }

    /// One process's way; each has its own idea of when the endpoint may be asked again.
    pub(super) fn shipping(&self) -> Shipping {
        self.shipping_until(CancellationToken::new())
    }

    pub(super) fn shipping_until(&self, stop: CancellationToken) -> Shipping {
        Shipping::new(self.database.clone(), self.sink.clone(), self.clock.clone(), stop)
    }

    /// The same by another connection, as another process has it.
    pub(super) async fn shipping_elsewhere(&self) -> Shipping {
        let database = Database::open(&self.folder.path().join("ledger.db")).await.unwrap();
        Shipping::new(Arc::new(database), self.sink.clone(), self.clock.clone(), CancellationToken::new())
    }

    /// Posts events with these numbers, to be sent on; answers with how many were new.
    pub(super) async fn post(&self, numbers: std::ops::Range<u64>, changes: &Value) -> u64 {
        let entries = numbers.map(|number| entry(number, changes)).collect();
        let postings = Postings { entries, ship: true, ..Postings::default() };
        self.database.post(&postings).await.unwrap()
    }

    pub(super) async fn waiting(&self) -> u64 {
        self.database.waiting().await.unwrap()
    }

    /// That these events, and no others, have come, each at least once; nothing of them was cut or dropped.
    pub(super) fn assert_came(&self, numbers: impl IntoIterator<Item = u64>) {
        let wanted: BTreeSet<_> = numbers.into_iter().map(id).collect();
        let came: BTreeSet<_> = self.endpoint.ids().into_keys().collect();
        assert!(came == wanted, "{} events came, and not {}", came.len(), wanted.len());
        assert_eq!(self.endpoint.complaints(), Vec::<String>::new());
    }
}

fn id(number: u64) -> String {
    format!("0192a000-0000-7000-8000-{number:012}")
}

fn entry(number: u64, changes: &Value) -> Entry {
    let mut event = json!({
        "schema": "tollgate.usage.v1", "id": id(number), "time": "2026-03-10T09:30:00.123Z",
        "subscription_id": "s1", "product": "standard", "operation": "chat.completions",
        "deployment": "gpt-4o-mini", "backend": "sim", "status": 200, "outcome": "completed",
        "usage": {"source": "reported", "input_tokens": 12, "output_tokens": 34},
    });
    event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Entry { event: serde_json::from_value(event).unwrap(), is_provisioned: false, rate: None }
}

/// The adapter, put together as the settings say.
pub(super) fn sink(
    endpoint: &LogIngestion,
    identity: &IdentityEndpoint,
    more: &[(&'static str, &str)],
) -> LogAnalytics {
    let mut values = BTreeMap::from(endpoint.settings());
    values.extend(identity.settings());
    values.extend(more.iter().map(|(name, value)| (*name, (*value).to_owned())));
    let settings = Settings::read(&values).unwrap();
    let client = transport::client().unwrap();
    let clock = Arc::new(tollgate::memory::SystemClock::start());
    let source = entra::source(&settings, client.clone());
    let tokens = Tokens::new(source, clock, TaskTracker::new(), CancellationToken::new());
    LogAnalytics::new(settings.logs.as_ref().unwrap(), settings.cloud, tokens, client)
}
