//! Everything at once: gateways and accounting are killed at any moment, batches come twice and in any order,
//! the hub, the database and Log Analytics fail in turns. Each token is in the ledger once.
//!
//! What a killed gateway had in hand breaks for its caller, who sees that it does: of those requests the
//! ledger may know or not. What was answered to its end must be there; and while gateways live, all that the
//! simulated resource counted is.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use sqlx::Row as _;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tollgate::simulator::Knobs;

use crate::azure::event_hub::{EventHub, Says};
use crate::azure::identity_endpoint::IdentityEndpoint;
use crate::azure::log_ingestion::{self, LogIngestion};
use crate::postgres::Fresh;
use crate::support::{Process, configuration, resource};

mod dice;
mod door;
mod load;
mod trigger;

use dice::Dice;
use door::Door;
use load::Load;
use trigger::Trigger;

/// Whatever was interrupted has come to its end by then.
const PATIENCE: Duration = Duration::from_mins(2);

/// A process that can be killed and started again, where it finds what it left.
struct Slot {
    process: Mutex<Process>,
    address: Mutex<SocketAddr>,
    folder: TempDir,
    configuration: Value,
    settings: Vec<(&'static str, String)>,
}

impl Slot {
    /// The key is one for all: they share a database.
    async fn start_with_key(configuration: &Value, settings: &[(&'static str, String)]) -> (Self, String) {
        let folder = tempfile::tempdir().unwrap();
        let process = Self::process(&folder, configuration, settings).await;
        let key = process.issue().await;
        let address = Mutex::new(process.address);
        let (configuration, settings) = (configuration.clone(), settings.to_vec());
        (Self { process: Mutex::new(process), address, folder, configuration, settings }, key)
    }

    async fn process(
        folder: &TempDir,
        configuration: &Value,
        settings: &[(&'static str, String)],
    ) -> Process {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::serve_in(folder.path(), configuration, &settings).await
    }

    fn address(&self) -> SocketAddr {
        *self.address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// SIGKILL, and another one on another port.
    async fn kill(&self) {
        self.process.lock().unwrap().kill();
        let process = Self::process(&self.folder, &self.configuration, &self.settings).await;
        *self.address.lock().unwrap() = process.address;
        *self.process.lock().unwrap() = process;
    }
}

/// The whole system.
struct System {
    resource: SocketAddr,
    hub: EventHub,
    logs: LogIngestion,
    database: Door,
    /// Past the door.
    pool: sqlx::PgPool,
    gateways: Vec<Slot>,
    accounting: Slot,
    client: reqwest::Client,
    key: String,
    _identity: IdentityEndpoint,
    _resource: DropGuard,
}

impl System {
    async fn start() -> Arc<Self> {
        let (resource, stop) = resource(Knobs::default()).await;
        let (hub, logs) = (EventHub::start().await, LogIngestion::start().await);
        let identity = IdentityEndpoint::start(None).await;
        let fresh = Fresh::make().await;
        let database = Door::to(fresh.address()).await;
        let settings: Vec<_> = [
            &identity.settings()[..],
            &hub.settings(),
            &logs.settings(),
            &[("TOLLGATE_DATABASE_URL", fresh.url_at(database.address))],
        ]
        .concat();
        let configuration = configuration(resource);
        let (accounting, key) = Slot::start_with_key(&configuration, &settings).await;
        let gateways = vec![
            Slot::start_with_key(&configuration, &settings).await.0,
            Slot::start_with_key(&configuration, &settings).await.0,
        ];
        Arc::new(Self {
            resource,
            hub,
            logs,
            database,
            pool: sqlx::PgPool::connect(&fresh.url).await.unwrap(),
            gateways,
            accounting,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            key,
            _identity: identity,
            _resource: stop,
        })
    }

    /// One thing after the other fails, for as long as this is not dropped.
    async fn fail_in_turns(self: Arc<Self>, mut dice: Dice) {
        loop {
            let fault = dice.below(8);
            match fault {
                0 => self.hub.always(Says::Status(503)),
                1 => self.hub.always(Says::TakesAndCuts),
                2 => self.hub.always(Says::Cuts),
                3 => self.hub.always(Says::TakesAndBreaksOff),
                4 => self.database.set_open(false),
                5 => self.logs.always(Some(log_ingestion::Says::Status(503))),
                6 => self.logs.always(Some(log_ingestion::Says::CutAfterTaking)),
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(300 + dice.roll() % 1_500)).await;
            self.mend();
            tokio::time::sleep(Duration::from_millis(dice.roll() % 1_000)).await;
        }
    }

    fn mend(&self) {
        self.hub.always(Says::Takes);
        self.database.set_open(true);
        self.logs.always(None);
    }

    /// Kills one of them every few seconds.
    async fn kill_at_random(self: Arc<Self>, stop: CancellationToken, mut dice: Dice, gateways_too: bool) {
        loop {
            let pause = tokio::time::sleep(Duration::from_millis(500 + dice.roll() % 2_500));
            // Not in between: who was killed must be started again.
            if stop.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let victims = if gateways_too { self.gateways.len() + 1 } else { 1 };
            match dice.below(victims) {
                0 => self.accounting.kill().await,
                gateway => self.gateways[gateway - 1].kill().await,
            }
        }
    }

    async fn rows(&self) -> BTreeMap<String, (i64, i64)> {
        let rows = sqlx::query("SELECT id::text, input_tokens, output_tokens FROM usage_events");
        let rows = rows.fetch_all(&self.pool).await.unwrap();
        let count = rows.len();
        let rows: BTreeMap<_, _> = rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect();
        assert_eq!(rows.len(), count, "no row twice");
        rows
    }

    async fn counted(&self) -> Value {
        let url = format!("http://{}/simulator/counts", self.resource);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["total"].clone()
    }

    /// Waits until nothing is on its way any more.
    async fn settle(&self, trigger: &Trigger) {
        let settled = async {
            loop {
                let mut is_ready = true;
                for gateway in &self.gateways {
                    let url = format!("http://{}/healthz", gateway.address());
                    let health = self.client.get(url).send().await.unwrap().text().await.unwrap();
                    is_ready &= health.contains("ready");
                }
                let published = self.hub.distinct().len();
                let is_delivered = trigger.delivered.load(Ordering::SeqCst) == self.hub.events().len();
                if is_ready
                    && is_delivered
                    && self.rows().await.len() == published
                    && self.logs.ids().len() == published
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let settled = tokio::time::timeout(PATIENCE, settled).await;
        let (published, rows) = (self.hub.distinct().len(), self.rows().await.len());
        let logged = self.logs.ids().len();
        assert!(settled.is_ok(), "{published} published, {rows} in the ledger, {logged} in Log Analytics");
    }

    /// The report, which reads the hourly totals.
    async fn reported(&self) -> (i64, i64, i64) {
        let url = format!("http://{}/reports/usage", self.accounting.address());
        let request = self.client.get(url).bearer_auth(crate::support::ADMIN_KEY);
        let report: Value =
            serde_json::from_str(&request.send().await.unwrap().text().await.unwrap()).unwrap();
        let total = |name: &str| report["total"][name].as_i64().unwrap();
        (total("requests"), total("input_tokens"), total("output_tokens"))
    }
}

/// As many requests as `TOLLGATE_TEST_CHAOS` says, by default few enough for every day.
fn requests() -> usize {
    #[expect(clippy::disallowed_methods, reason = "how long it takes is for whoever runs it to say")]
    let said = std::env::var("TOLLGATE_TEST_CHAOS").ok();
    said.map_or(3_000, |count| count.parse().expect("TOLLGATE_TEST_CHAOS is a number of requests"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: TOLLGATE_TEST_POSTGRES"]
async fn each_token_is_in_the_ledger_once_whatever_is_killed_repeated_or_down() {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let system = System::start().await;
    let trigger = Arc::new(Trigger::default());
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let tasks = TaskTracker::new();
    let background = |task| tasks.spawn(stop.clone().run_until_cancelled_owned(task));
    background(boxed(Arc::clone(&trigger).run(Arc::clone(&system), Dice(seed ^ 1))));
    background(boxed(Arc::clone(&trigger).timer(Arc::clone(&system))));
    let load = Arc::new(Load::default());

    // Gateways live: the resource's own books are the measure, to the token.
    worst(&system, &load, &trigger, (seed ^ 2, requests() / 2, false)).await;
    let (rows, counted) = (system.rows().await, system.counted().await);
    let sums = rows.values().fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    assert_eq!(rows.len() as u64, counted["requests"].as_u64().unwrap(), "seed {seed}: {counted}");
    let expected =
        (counted["prompt_tokens"].as_i64().unwrap(), counted["completion_tokens"].as_i64().unwrap());
    assert_eq!(sums, expected, "seed {seed}");
    let before = rows.len();

    // Gateways die as well: what was answered to its end is there, to the token.
    let broken_before = load.broken.load(Ordering::SeqCst);
    worst(&system, &load, &trigger, (seed ^ 3, requests() - requests() / 2, true)).await;
    let (rows, counted) = (system.rows().await, system.counted().await);
    let answered = load.answered.lock().unwrap().clone();
    for (id, tokens) in &answered {
        assert_eq!(rows.get(id), Some(tokens), "seed {seed}: {id}");
    }
    let asked = usize::try_from(counted["requests"].as_u64().unwrap()).unwrap();
    let broken = load.broken.load(Ordering::SeqCst) - broken_before;
    assert!(rows.len() <= asked && asked <= answered.len().max(before) + broken, "seed {seed}: {counted}");
    let logged: BTreeSet<_> = system.logs.ids().into_keys().collect();
    assert_eq!(logged, rows.keys().cloned().collect(), "seed {seed}");
    let sums = rows.values().fold((0, 0), |sum, row| (sum.0 + row.0, sum.1 + row.1));
    assert_eq!(
        system.reported().await,
        (i64::try_from(rows.len()).unwrap(), sums.0, sums.1),
        "seed {seed}: totals are the rows'"
    );
    assert_eq!((system.hub.complaints(), system.logs.complaints()), (vec![], vec![]));
    println!(
        "{} answered, {} broken, {} rows; {} events delivered again, {} batches failed",
        answered.len(),
        load.broken.load(Ordering::SeqCst),
        rows.len(),
        trigger.again.load(Ordering::SeqCst),
        trigger.failed.load(Ordering::SeqCst)
    );
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn boxed(task: impl Future<Output = ()> + Send + 'static) -> Task {
    Box::pin(task)
}

/// Requests while everything fails, and then peace until all of it has arrived.
async fn worst(
    system: &Arc<System>,
    load: &Arc<Load>,
    trigger: &Trigger,
    (seed, count, gateways_too): (u64, usize, bool),
) {
    trigger.is_calm.store(false, Ordering::SeqCst);
    {
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let failing = boxed(Arc::clone(system).fail_in_turns(Dice(seed)));
        let killing =
            tasks.spawn(Arc::clone(system).kill_at_random(stop.clone(), Dice(seed ^ 9), gateways_too));
        let failing = tasks.spawn(stop.clone().run_until_cancelled_owned(failing));
        load.run(system, count, seed).await;
        stop.cancel();
        killing.await.unwrap();
        failing.await.unwrap();
    }
    system.mend();
    trigger.is_calm.store(true, Ordering::SeqCst);
    system.settle(trigger).await;
}
