//! The only file that knows which adapter serves which port.

use std::path::Path;
use std::sync::Arc;

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::app::App;
use crate::azure::caller_tokens::{EntraTokens, Place as EntraPlace};
use crate::azure::entra::{self, Tokens};
use crate::azure::event_hubs::{self, EventHub};
use crate::azure::key_vault::{KeyVault, NoVault};
use crate::azure::log_analytics::LogAnalytics;
use crate::azure::openai::{Resources, SignIn};
use crate::azure::transport;
use crate::config::live::Live;
use crate::config::settings::Settings;
use crate::issuing::Issuing;
use crate::ledger::Ledger;
use crate::ledger::ship::Shipping;
use crate::memory::SystemClock;
use crate::ports::{
    Backends, CallerTokens, Clock, Outbox, SecretFailure, Secrets, Subscriptions, Unavailable, UsageSink,
};
use crate::proxy::{Kept, Keys, Pool, Proxy, Room, SignedIn, Unasked, Uses};
use crate::publisher::{AtOnce, Publisher};
use crate::renewal::{Place, Renewal};
use crate::spool::Spool;
use crate::sql::OpenError;

pub mod doctor;
mod in_process;
mod stores;

pub use stores::{LedgerStores, Stores, passwords};

/// The gateway could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum WiringError {
    #[error(transparent)]
    Database(#[from] OpenError),
    #[error("the database cannot be used: {0}")]
    Store(#[from] Unavailable),
    #[error("no HTTPS client can be made: {0}")]
    Client(#[from] reqwest::Error),
    #[error("Key Vault cannot be asked: {0}")]
    Vault(#[from] SecretFailure),
}

impl WiringError {
    /// Whether it may be mended while the gateway waits: a server that cannot be reached, or that does not let it in
    /// yet. A file will not be there by itself.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Database(error) => matches!(error, OpenError::Server(..)),
            Self::Store(_) => true,
            Self::Client(_) | Self::Vault(_) => false,
        }
    }
}

/// The gateway, put together.
pub struct Wired {
    pub app: App,
    /// Work that goes on behind the requests: to be waited for at the end.
    pub tasks: TaskTracker,
}

/// Opens what the settings name, and gives each journey its ports. A `config` that holds nothing yet is
/// read from the vault; one that holds something stays, and its secrets are read from there.
///
/// # Errors
/// When something that is needed cannot be opened.
pub async fn wire(
    settings: &Settings,
    config: Arc<Live>,
    admin_key: Option<SecretString>,
) -> Result<Wired, WiringError> {
    wire_on(Stores::open(settings).await?, settings, config, admin_key)
}

/// The same, on stores that are open.
///
/// # Errors
/// When something else that is needed cannot be made.
pub fn wire_on(
    stores: Stores,
    settings: &Settings,
    config: Arc<Live>,
    admin_key: Option<SecretString>,
) -> Result<Wired, WiringError> {
    let Stores { subscriptions, ledger, changes, hasher, tasks, stop } = stores;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let client = transport::client()?;
    let source = entra::source(settings, client.clone());
    let tokens = Tokens::new(source, clock.clone(), tasks.clone(), stop.clone());
    let background = Background { clock: clock.clone(), tasks: tasks.clone(), stop: stop.clone() };
    let shipping = shipping(settings, ledger.outbox.clone(), &background, (&tokens, &client));
    let ledger = ledger_on(ledger, &config, &clock, &subscriptions, shipping);
    let usage = usage(settings, &tokens, &ledger, &tasks)?;
    let sign_in = SignIn { tokens: tokens.clone(), cloud: settings.cloud, config: config.clone() };
    let backends: Arc<dyn Backends> = Arc::new(Resources::new(sign_in)?);
    let callers = caller_tokens(settings, client.clone(), &clock, &tasks, &stop);
    let renewal = Renewal {
        config: config.clone(),
        clock: clock.clone(),
        secrets: secrets(settings, tokens, client)?,
        backends: backends.clone(),
        tasks: tasks.clone(),
        place: place(settings, &config),
    };
    tasks.spawn(renewal.keep_up(stop.clone()));
    let uses = Arc::new(Uses::default());
    tasks.spawn(uses.clone().keep_up(subscriptions.clone(), stop.clone()));
    let proxy = Proxy {
        config: config.clone(),
        clock: clock.clone(),
        keys: Keys::new(hasher.clone(), subscriptions.clone(), clock.clone()),
        signed_in: Arc::new(SignedIn::new(callers, subscriptions.clone(), clock.clone())),
        uses,
        backends,
        usage,
        unasked: Unasked::default(),
        kept: Kept::default(),
        tasks: tasks.clone(),
        pool: Pool::new(clock.clone()),
        room: Room::default(),
    };
    let proxy = Arc::new(proxy);
    if let Some(changes) = changes {
        tasks.spawn(proxy.clone().watch(changes, stop.clone()));
    }
    let issuing = Issuing { config, clock, hasher, store: subscriptions };
    let app = App {
        proxy,
        ledger,
        issuing: Arc::new(issuing),
        admin_key: admin_key.map(Arc::new),
        background: Arc::new(stop.drop_guard()),
    };
    if settings.handler_port.is_none() {
        tasks.spawn(app.upkeep().keep_up(background.stop));
    }
    Ok(Wired { app, tasks })
}

fn ledger_on(
    stores: LedgerStores,
    config: &Arc<Live>,
    clock: &Arc<dyn Clock>,
    subscriptions: &Arc<dyn Subscriptions>,
    shipping: Option<Arc<Shipping>>,
) -> Arc<Ledger> {
    let LedgerStores { store, letters, ratings, .. } = stores;
    let (config, clock, subscriptions) = (config.clone(), clock.clone(), subscriptions.clone());
    Arc::new(Ledger { config, clock, store, letters, ratings, subscriptions, shipping })
}

/// What work behind the requests needs.
struct Background {
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The way to Log Analytics, if the settings name one.
fn shipping(
    settings: &Settings,
    outbox: Arc<dyn Outbox>,
    background: &Background,
    (tokens, client): (&Tokens, &reqwest::Client),
) -> Option<Arc<Shipping>> {
    let logs = settings.logs.as_ref()?;
    let Background { clock, tasks, stop } = background;
    let sink = LogAnalytics::new(logs, settings.cloud, tokens.clone(), client.clone());
    let shipping = Shipping::new(outbox, Arc::new(sink), clock.clone(), stop.clone());
    let shipping = Arc::new(shipping);
    tasks.spawn(shipping.clone().keep_up());
    Some(shipping)
}

fn caller_tokens(
    settings: &Settings,
    client: reqwest::Client,
    clock: &Arc<dyn Clock>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Arc<dyn CallerTokens> {
    let place = EntraPlace::new(settings.cloud, settings.entra_authority.as_ref());
    let published = Arc::new(place.endpoint(client));
    Arc::new(EntraTokens::new(place, published, clock.clone(), tasks.clone(), stop.clone()))
}

fn secrets(
    settings: &Settings,
    tokens: Tokens,
    client: reqwest::Client,
) -> Result<Arc<dyn Secrets>, SecretFailure> {
    Ok(match &settings.key_vault {
        Some(vault) => Arc::new(KeyVault::new(vault, settings.cloud, tokens, client)?),
        None => Arc::new(NoVault),
    })
}

/// Where the configuration is read from; `None` when it is there already.
fn place(settings: &Settings, config: &Live) -> Option<Place> {
    if config.catalog().is_ok() {
        return None;
    }
    let secret = settings.config_secret.clone();
    let vault = settings.key_vault.as_ref().and_then(url::Url::host_str).unwrap_or("Key Vault");
    Some(Place { shown: format!("the secret `{secret}` of {vault}"), secret })
}

/// Usage goes to the event hub that the settings name, or to the ledger; what that does not take waits on
/// this machine.
fn usage(
    settings: &Settings,
    tokens: &Tokens,
    ledger: &Arc<Ledger>,
    tasks: &TaskTracker,
) -> Result<Arc<dyn UsageSink>, reqwest::Error> {
    let data_dir = &settings.data_dir;
    let Some(hub) = &settings.event_hub else {
        return Ok(usage_in_process(ledger.clone(), data_dir, tasks));
    };
    let hub = EventHub::new(hub, tokens.clone())?;
    tasks.spawn(hub.clone().prepare());
    let at_once = AtOnce { always: event_hubs::AT_ONCE, when_many_wait: event_hubs::MOST_AT_ONCE };
    Ok(Arc::new(Publisher::start(Arc::new(hub), at_once, Spool::new(data_dir), tasks)))
}

/// The event hub inside this process; what the ledger does not take waits under `data_dir`.
pub fn usage_in_process(ledger: Arc<Ledger>, data_dir: &Path, tasks: &TaskTracker) -> Arc<dyn UsageSink> {
    let destination = Arc::new(in_process::InProcess(ledger));
    let at_once = AtOnce { always: in_process::AT_ONCE, when_many_wait: in_process::AT_ONCE };
    Arc::new(Publisher::start(destination, at_once, Spool::new(data_dir), tasks))
}
