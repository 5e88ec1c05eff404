//! Asks everything that the gateway depends on, and says how to mend what is wrong.
//!
//! It asks as the gateway would, with the real settings, configuration and identity, from where the
//! gateway runs. It changes nothing, spends no tokens, and never tells a secret or a token. Each
//! question is bounded in time, so it always comes to an end.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use secrecy::SecretString;
use tokio::sync::mpsc::UnboundedSender;
use url::Url;

use crate::config::settings::Settings;
use crate::ports::{LogSink, Secrets, Undelivered};

mod backend;
mod callers;
mod configuration;
mod event_hub;
mod finding;
mod identity;
mod logs;
mod surroundings;

pub use finding::{Finding, Level, Subject};
pub use surroundings::settings;

/// Nothing that the gateway asks takes longer where all is well.
const PATIENCE: Duration = Duration::from_secs(10);
/// What the gateway itself bounds in time (tokens, secrets) is left to that, and ends by then at last.
const LONG_PATIENCE: Duration = Duration::from_secs(20);
/// A current one that is not a preview: <https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle>.
pub const API_VERSION: &str = "2024-10-21";

/// What the doctor examines, and by what means.
pub struct Doctor<'a> {
    pub settings: &'a Settings,
    /// Reaches backends as the gateway does: by no proxy, following nothing.
    pub client: reqwest::Client,
    pub resolver: Arc<dyn Resolver>,
    pub database: Arc<dyn Database>,
    pub identity: Arc<dyn Identity>,
    pub signing_keys: Arc<dyn SigningKeys>,
    /// `None`: no vault is set.
    pub vault: Option<Vault>,
    /// `None`: usage is published to none.
    pub event_hub: Option<Hub>,
    /// `None`: the ledger's rows are sent nowhere.
    pub logs: Option<Logs>,
    /// What backends are asked with.
    pub api_version: String,
}

/// The vault that the settings name.
pub struct Vault {
    pub url: Url,
    /// The name of the secret that is the configuration.
    pub config_secret: String,
    pub secrets: Arc<dyn Secrets>,
    /// The private DNS zone of vaults in this cloud.
    pub zone: &'static str,
}

/// The event hub that the settings name.
pub struct Hub {
    pub endpoint: Url,
    pub name: String,
    pub asked: Arc<dyn EventHub>,
    /// What names of namespaces end in in this cloud.
    pub suffix: &'static str,
    /// Their private DNS zone.
    pub zone: &'static str,
}

/// The stream of Log Analytics that the settings name.
pub struct Logs {
    pub endpoint: Url,
    pub rule_id: String,
    pub asked: Arc<dyn LogSink>,
    /// What names of endpoints end in in this cloud; behind `privatelink` it is their private DNS zone.
    pub suffix: &'static str,
}

/// An event hub, as the gateway publishes to it.
#[async_trait]
pub trait EventHub: Send + Sync {
    /// Whether it would take events, without sending any.
    ///
    /// # Errors
    /// What stands in the way.
    async fn look(&self) -> Result<(), Undelivered>;
}

/// Names to addresses.
#[async_trait]
pub trait Resolver: Send + Sync {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Where subscriptions and the ledger are kept.
#[async_trait]
pub trait Database: Send + Sync {
    /// Looks at it without making or changing it; what is said goes behind "the database".
    ///
    /// # Errors
    /// What is wrong, and what mends it.
    async fn look(&self) -> Result<String, Unfit>;
}

/// What is wrong with something, in words for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    pub what: String,
    pub mend: String,
}

/// Who the gateway is for Azure.
#[async_trait]
pub trait Identity: Send + Sync {
    /// What kind of credential is used, in words.
    fn kind(&self) -> String;
    /// What gives or mends a credential of this kind.
    fn mend(&self) -> String;
    /// The audience of backends that name none.
    fn audience(&self) -> String;
    /// A token for an audience.
    ///
    /// # Errors
    /// In words for the operator: what to mend, where that is known.
    async fn token(&self, audience: &str) -> Result<SecretString, String>;
}

/// What Entra publishes for callers' tokens to be judged by.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// How many keys a tenant has that can be used.
    ///
    /// # Errors
    /// In words for the operator.
    async fn count(&self, tenant: &str) -> Result<usize, String>;
}

/// The system's own resolver, which knows the private zones that are linked to the network.
#[derive(Clone, Copy, Debug)]
pub struct SystemResolver;

#[async_trait]
impl Resolver for SystemResolver {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut addresses: Vec<_> =
            tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect();
        addresses.sort_unstable();
        addresses.dedup();
        Ok(addresses)
    }
}

/// Where findings go, as they come.
#[derive(Clone, Debug)]
struct Report {
    subject: Subject,
    findings: UnboundedSender<Finding>,
}

impl Report {
    fn about(&self, kind: &'static str, name: Option<&str>) -> Self {
        let subject = Subject { kind, name: name.map(str::to_owned) };
        Self { subject, findings: self.findings.clone() }
    }

    fn ok(&self, code: &'static str, what: impl Into<String>) {
        self.tell(Level::Ok, code, what.into(), None);
    }

    fn warn(&self, code: &'static str, what: impl Into<String>, mend: impl Into<String>) {
        self.tell(Level::Warn, code, what.into(), Some(mend.into()));
    }

    fn fault(&self, code: &'static str, what: impl Into<String>, mend: impl Into<String>) {
        self.tell(Level::Fault, code, what.into(), Some(mend.into()));
    }

    fn tell(&self, level: Level, code: &'static str, what: String, mend: Option<String>) {
        let subject = self.subject.clone();
        // Nobody listens any more: then nobody needs to know.
        let _ = self.findings.send(Finding { level, subject, code, what, mend });
    }
}

impl Doctor<'_> {
    /// Asks everything. Findings come in order but for those of backends, which are asked side by side.
    pub async fn examine(&self, findings: UnboundedSender<Finding>) {
        let report = Report { subject: Subject { kind: "settings", name: None }, findings };
        surroundings::examine(self, &report).await;
        event_hub::examine(self, &report).await;
        logs::examine(self, &report).await;
        let Some(configured) = configuration::examine(self, &report).await else {
            return;
        };
        if let Some(callers) = &configured.catalog.callers {
            callers::examine(self, callers, &report).await;
        }
        let tokens = identity::examine(self, &configured.catalog, &report.about("identity", None)).await;
        let found = backend::Found { doctor: self, configured: &configured, tokens: &tokens };
        join_all(configured.catalog.backends.iter().map(|backend| {
            let report = report.about("backend", Some(backend.name.as_str()));
            backend::examine(&found, backend, report)
        }))
        .await;
    }
}

/// Bounds a question in time.
async fn in_time<T>(question: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(PATIENCE, question).await.ok()
}

/// The same for what has bounds of its own, and says more when it meets them.
async fn bounded<T>(question: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(LONG_PATIENCE, question).await.ok()
}
