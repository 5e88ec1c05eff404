//! What the doctor asks by: the gateway's own adapters.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::WiringError;
use crate::azure::caller_tokens::{Endpoint, Place};
use crate::azure::entra::{self, Tokens};
use crate::azure::log_analytics::LogAnalytics;
use crate::azure::{cloud, event_hubs, transport};
use crate::config::settings::{self, DatabasePlace, PostgresPlace, Settings};
use crate::doctor::{
    Database, Doctor, EventHub, Hub, Identity, Logs, SigningKeys, SystemResolver, Unfit, Vault,
};
use crate::memory::SystemClock;
use crate::ports::{DatabasePasswords, Undelivered, with_causes};
use crate::sql::{postgres, sqlite};

/// What is renewed behind it ends with `stop`.
///
/// # Errors
/// When no HTTPS client can be made.
pub fn doctor(
    settings: &Settings,
    api_version: String,
    stop: CancellationToken,
) -> Result<Doctor<'_>, WiringError> {
    let client = transport::client()?;
    let clock = Arc::new(SystemClock::start());
    let tasks = TaskTracker::new();
    let database: Arc<dyn Database> = match &settings.database {
        DatabasePlace::Sqlite(file) => Arc::new(File(file.clone())),
        DatabasePlace::Postgres(place) => {
            let passwords = super::stores::passwords(settings, place, &tasks, &stop)?;
            Arc::new(Server { place: place.clone(), passwords })
        }
    };
    let tokens = Tokens::new(entra::source(settings, client.clone()), clock, tasks, stop);
    let vault = match &settings.key_vault {
        Some(url) => Some(Vault {
            url: url.clone(),
            config_secret: settings.config_secret.clone(),
            secrets: super::secrets(settings, tokens.clone(), client.clone())?,
            zone: cloud::facts(settings.cloud).key_vault_zone,
        }),
        None => None,
    };
    let event_hub = match &settings.event_hub {
        Some(hub) => Some(Hub {
            endpoint: hub.endpoint.clone(),
            name: hub.name.clone(),
            asked: Arc::new(Published(event_hubs::EventHub::new(hub, tokens.clone())?)),
            suffix: cloud::facts(settings.cloud).event_hubs_suffix,
            zone: cloud::facts(settings.cloud).event_hubs_zone,
        }),
        None => None,
    };
    let logs = settings.logs.as_ref().map(|logs| Logs {
        endpoint: logs.endpoint.clone(),
        rule_id: logs.rule_id.clone(),
        asked: Arc::new(LogAnalytics::new(logs, settings.cloud, tokens.clone(), client.clone())),
        suffix: cloud::facts(settings.cloud).logs_suffix,
    });
    let (identity, cloud) = (settings.identity.clone(), settings.cloud);
    let place = Place::new(settings.cloud, settings.entra_authority.as_ref());
    Ok(Doctor {
        settings,
        signing_keys: Arc::new(Keys(place.endpoint(client.clone()))),
        client,
        resolver: Arc::new(SystemResolver),
        database,
        identity: Arc::new(App { identity, cloud, tokens }),
        vault,
        event_hub,
        logs,
        api_version,
    })
}

/// The event hub, as the gateway knows it.
struct Published(event_hubs::EventHub);

#[async_trait]
impl EventHub for Published {
    async fn look(&self) -> Result<(), Undelivered> {
        self.0.look().await
    }
}

/// Entra's own list.
struct Keys(Endpoint);

#[async_trait]
impl SigningKeys for Keys {
    async fn count(&self, tenant: &str) -> Result<usize, String> {
        self.0.count(tenant).await
    }
}

/// A SQLite file.
struct File(PathBuf);

#[async_trait]
impl Database for File {
    async fn look(&self) -> Result<String, Unfit> {
        let file = self.0.display();
        match sqlite::is_there(&self.0).await {
            Ok(true) => Ok(format!("{file} can be opened")),
            Ok(false) => Ok(format!("{file} is not there yet: the first start makes it")),
            Err(error) => Err(Unfit {
                what: error.to_string(),
                mend: "set TOLLGATE_DATABASE_URL to one that can be used".to_owned(),
            }),
        }
    }
}

/// A PostgreSQL server.
struct Server {
    place: PostgresPlace,
    passwords: Option<Arc<dyn DatabasePasswords>>,
}

#[async_trait]
impl Database for Server {
    async fn look(&self) -> Result<String, Unfit> {
        let looked = postgres::examine(&self.place, self.passwords.as_deref()).await;
        looked.map_err(|(what, mend)| Unfit { what, mend })
    }
}

/// The gateway's own sign-in.
struct App {
    identity: settings::Identity,
    cloud: settings::Cloud,
    tokens: Tokens,
}

#[async_trait]
impl Identity for App {
    fn kind(&self) -> String {
        match &self.identity {
            settings::Identity::Managed { client_id: None, .. } => {
                "the system-assigned managed identity".to_owned()
            }
            settings::Identity::Managed { client_id: Some(id), .. } => {
                format!("the user-assigned managed identity {id}")
            }
            settings::Identity::Workload { client_id, .. } => format!("the workload identity {client_id}"),
            settings::Identity::Developer => "the developer's own sign-in".to_owned(),
        }
    }

    fn mend(&self) -> String {
        match &self.identity {
            settings::Identity::Managed { client_id: None, .. } => {
                "`az functionapp identity assign --name APP --resource-group GROUP`".to_owned()
            }
            settings::Identity::Managed { client_id: Some(_), .. } => {
                "`az functionapp identity assign --name APP --resource-group GROUP --identities IDENTITY-ID`, or set \
                 AZURE_CLIENT_ID to the client id of one that is assigned"
                    .to_owned()
            }
            settings::Identity::Workload { .. } => {
                "`az identity federated-credential list --identity-name IDENTITY --resource-group GROUP`: its issuer \
                 and subject must be the service account's"
                    .to_owned()
            }
            settings::Identity::Developer => "`az login`".to_owned(),
        }
    }

    fn audience(&self) -> String {
        let scope = cloud::facts(self.cloud).openai_scope;
        scope.strip_suffix("/.default").unwrap_or(scope).to_owned()
    }

    async fn token(&self, audience: &str) -> Result<SecretString, String> {
        let token = self.tokens.token(&cloud::scope(self.cloud, Some(audience))).await;
        let bearer = token.map_err(|failure| with_causes(&failure))?.bearer();
        let token = bearer.to_str().ok().and_then(|bearer| bearer.strip_prefix("Bearer "));
        token.map(SecretString::from).ok_or_else(|| "what came is no token".to_owned())
    }
}
