//! Where values come from: the environment, or a map in a test. All of them are read here, once.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::{Fault, Faults};

mod azure;
mod database;

pub use azure::{Cloud, EventHub, Identity, Logs};
pub use database::{DatabasePlace, PostgresPlace, Tls};

/// Where a setting's value is looked up.
pub trait Source {
    /// The value under `name`; `None` when there is none, or an empty one.
    fn get(&self, name: &str) -> Option<String>;
    /// Whether there is a value under `name` that is no text.
    fn is_unreadable(&self, name: &str) -> bool;
}

/// The process's environment, which is where the Functions host puts the app's settings.
#[derive(Clone, Copy, Debug)]
pub struct Environment;

impl Source for Environment {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    fn get(&self, name: &str) -> Option<String> {
        std::env::var(name).ok().filter(|value| !value.is_empty())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
    fn is_unreadable(&self, name: &str) -> bool {
        matches!(std::env::var(name), Err(std::env::VarError::NotUnicode(_)))
    }
}

impl Source for BTreeMap<&str, String> {
    fn get(&self, name: &str) -> Option<String> {
        BTreeMap::get(self, name).cloned().filter(|value| !value.is_empty())
    }

    fn is_unreadable(&self, _name: &str) -> bool {
        false
    }
}

/// The settings, checked.
#[derive(Debug)]
pub struct Settings {
    /// The gateway configuration's file.
    pub config_file: Option<PathBuf>,
    /// Where subscriptions and the ledger are kept.
    pub database: DatabasePlace,
    /// Opens the management routes; without it only the app role `Tollgate.Admin` does.
    pub admin_key: Option<SecretString>,
    /// Keys the hashes of issued keys; without it one is made and kept in the database.
    pub key_pepper: Option<SecretString>,
    /// Writable.
    pub data_dir: PathBuf,
    /// The vault that the configuration is read from without a file, and the secrets that it names.
    pub key_vault: Option<Url>,
    /// The configuration's name there.
    pub config_secret: String,
    /// What login, audiences and suffixes follow from.
    pub cloud: Cloud,
    /// Where to sign in when that is not the cloud's own: for tests.
    pub entra_authority: Option<Url>,
    /// Who the gateway is when it signs in.
    pub identity: Identity,
    /// Where usage is published; `None`: it is posted to the ledger in this process.
    pub event_hub: Option<EventHub>,
    /// Where the ledger's rows are sent to as well; `None`: nowhere.
    pub logs: Option<Logs>,
    /// Where the Functions host expects the handler, on 127.0.0.1.
    pub handler_port: Option<u16>,
    /// Under App Service or Functions on Azure.
    pub is_on_azure: bool,
    /// Set, and without effect in this version.
    pub inactive: Vec<&'static str>,
}

/// Azure sets both for every app:
/// <https://learn.microsoft.com/azure/app-service/reference-app-settings>.
const MARKS_OF_AZURE: [&str; 2] = ["WEBSITE_INSTANCE_ID", "WEBSITE_SITE_NAME"];

/// Accepted so that an app's settings can be complete today; `serve` says that they do nothing yet.
const INACTIVE: [&str; 2] = ["TOLLGATE_REDIS_URL", "OTEL_EXPORTER_OTLP_ENDPOINT"];

const ACTIVE: [&str; 20] = [
    "TOLLGATE_CONFIG",
    "TOLLGATE_KEY_VAULT_URL",
    "TOLLGATE_CONFIG_SECRET",
    "TOLLGATE_CLOUD",
    "TOLLGATE_ENTRA_AUTHORITY",
    "AZURE_CLIENT_ID",
    "AZURE_TENANT_ID",
    "AZURE_FEDERATED_TOKEN_FILE",
    "IDENTITY_ENDPOINT",
    "IDENTITY_HEADER",
    "TOLLGATE_LOGS_ENDPOINT",
    "TOLLGATE_LOGS_RULE_ID",
    "TOLLGATE_LOGS_STREAM",
    "TOLLGATE_DATABASE_URL",
    "TOLLGATE_ADMIN_KEY",
    "TOLLGATE_KEY_PEPPER",
    "TOLLGATE_DATA_DIR",
    "UsageEventHub__fullyQualifiedNamespace",
    "USAGE_EVENTHUB_NAME",
    "TOLLGATE_EVENT_HUB_ENDPOINT",
];

/// Read by others than this file, and no better when they are not what they should be.
const OTHERS: [&str; 3] =
    ["FUNCTIONS_CUSTOMHANDLER_PORT", "RUST_LOG", "APPLICATIONINSIGHTS_CONNECTION_STRING"];

/// How an app setting begins that App Service could not replace by the secret it refers to.
const UNRESOLVED: &str = "@Microsoft.KeyVault(";

impl Settings {
    /// # Errors
    /// Every fault in the settings. Values are never repeated in them: they may be secrets.
    pub fn read(source: &dyn Source) -> Result<Self, Faults> {
        let mut faults = Vec::new();
        for name in ACTIVE.iter().chain(&INACTIVE).chain(&OTHERS) {
            // Taken for absent, it would be replaced by a default without a word.
            if source.is_unreadable(name) {
                faults.push(Fault::new(*name, "is not UTF-8"));
            }
            if source.get(name).is_some_and(|value| value.starts_with(UNRESOLVED)) {
                faults.push(Fault::new(
                    *name,
                    "is an unresolved Key Vault reference: check that the secret exists and that the app's \
                     identity has the role Key Vault Secrets User",
                ));
            }
        }
        let handler_port = handler_port(source, &mut faults);
        let data_dir = data_dir(source, handler_port.is_some());
        let key_vault = azure::service_url(source, "TOLLGATE_KEY_VAULT_URL", &mut faults);
        let config_secret = azure::config_secret(source, &mut faults);
        let cloud = azure::cloud(source, &mut faults);
        let entra_authority = azure::service_url(source, "TOLLGATE_ENTRA_AUTHORITY", &mut faults);
        let identity = azure::identity(source, &mut faults);
        let database = database::place(source, &data_dir, &identity, &mut faults);
        let event_hub = azure::event_hub(source, &mut faults);
        let logs = azure::logs(source, &mut faults);
        if !faults.is_empty() {
            return Err(Faults { source_name: "settings".to_owned(), faults });
        }
        Ok(Self {
            config_file: source.get("TOLLGATE_CONFIG").map(PathBuf::from),
            database,
            admin_key: source.get("TOLLGATE_ADMIN_KEY").map(SecretString::from),
            key_pepper: source.get("TOLLGATE_KEY_PEPPER").map(SecretString::from),
            data_dir,
            key_vault,
            config_secret,
            cloud,
            entra_authority,
            identity,
            event_hub,
            logs,
            handler_port,
            is_on_azure: MARKS_OF_AZURE.iter().all(|name| source.get(name).is_some()),
            inactive: INACTIVE.into_iter().filter(|name| source.get(name).is_some()).collect(),
        })
    }
}

fn handler_port(source: &dyn Source, faults: &mut Vec<Fault>) -> Option<u16> {
    const NAME: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";
    let text = source.get(NAME)?;
    let port = text.parse().ok();
    if port.is_none() {
        faults.push(Fault::new(NAME, "not a port"));
    }
    port
}

/// Under the host the app's own folder is read-only.
fn data_dir(source: &dyn Source, is_under_host: bool) -> PathBuf {
    match source.get("TOLLGATE_DATA_DIR") {
        Some(path) => path.into(),
        None if is_under_host => std::env::temp_dir().join("tollgate"),
        None => ".tollgate".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file(settings: &Settings) -> &Path {
        match &settings.database {
            DatabasePlace::Sqlite(file) => file,
            DatabasePlace::Postgres(place) => panic!("{place}"),
        }
    }

    fn read(values: &[(&'static str, &str)]) -> Result<Settings, Faults> {
        let map: BTreeMap<_, _> = values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Settings::read(&map)
    }

    #[test]
    fn under_the_host_data_lies_in_the_temporary_folder() {
        assert_eq!(file(&read(&[]).unwrap()), Path::new(".tollgate/tollgate.db"));
        let hosted = read(&[("FUNCTIONS_CUSTOMHANDLER_PORT", "40123")]).unwrap();
        assert_eq!(hosted.handler_port, Some(40_123));
        assert!(hosted.data_dir.starts_with(std::env::temp_dir()));
        let told =
            read(&[("TOLLGATE_DATA_DIR", "/data"), ("TOLLGATE_DATABASE_URL", "sqlite:///db/t.db")]).unwrap();
        assert_eq!((told.data_dir.as_path(), file(&told)), (Path::new("/data"), Path::new("/db/t.db")));
    }

    #[test]
    fn every_fault_is_named_and_no_value_is_repeated() {
        let faults = read(&[
            ("FUNCTIONS_CUSTOMHANDLER_PORT", "many"),
            ("TOLLGATE_ADMIN_KEY", "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/hush)"),
            ("TOLLGATE_KEY_PEPPER", "@Microsoft.KeyVault(hush)"),
            ("TOLLGATE_DATABASE_URL", "mysql://hush"),
            ("TOLLGATE_CLOUD", "hush"),
            ("TOLLGATE_KEY_VAULT_URL", "http://hush.vault.azure.net"),
            ("TOLLGATE_ENTRA_AUTHORITY", "hush"),
            ("TOLLGATE_CONFIG_SECRET", "../hush"),
            ("IDENTITY_ENDPOINT", "hush"),
            ("IDENTITY_HEADER", "hush"),
            ("UsageEventHub__fullyQualifiedNamespace", "Endpoint=sb://hush"),
            ("TOLLGATE_EVENT_HUB_ENDPOINT", "http://hush.servicebus.windows.net"),
            ("APPLICATIONINSIGHTS_CONNECTION_STRING", "@Microsoft.KeyVault(hush)"),
        ])
        .unwrap_err();
        let told = faults.to_string();
        for name in [
            "FUNCTIONS_CUSTOMHANDLER_PORT",
            "TOLLGATE_ADMIN_KEY: is an unresolved",
            "TOLLGATE_KEY_PEPPER",
            "TOLLGATE_DATABASE_URL",
            "TOLLGATE_CLOUD",
            "TOLLGATE_KEY_VAULT_URL: must begin with https://",
            "TOLLGATE_ENTRA_AUTHORITY: not a URL",
            "TOLLGATE_CONFIG_SECRET",
            "IDENTITY_ENDPOINT",
            "UsageEventHub__fullyQualifiedNamespace: must be the namespace's host name",
            "USAGE_EVENTHUB_NAME: is missing",
            "TOLLGATE_EVENT_HUB_ENDPOINT: must begin with https://",
            "APPLICATIONINSIGHTS_CONNECTION_STRING: is an unresolved",
        ] {
            assert!(told.contains(name), "{told}");
        }
        assert!(!told.contains("hush"), "{told}");
    }

    #[test]
    fn an_event_hub_is_a_namespace_and_a_name() {
        let (namespace, name, endpoint) =
            ("UsageEventHub__fullyQualifiedNamespace", "USAGE_EVENTHUB_NAME", "TOLLGATE_EVENT_HUB_ENDPOINT");
        let hub = |values: &[(&'static str, &str)]| {
            let hub = read(values).map(|settings| settings.event_hub);
            hub.map(|hub| hub.map(|hub| format!("{}{}", hub.endpoint, hub.name)))
        };
        let contoso = (namespace, "contoso.servicebus.windows.net");
        assert_eq!(hub(&[]).unwrap(), None);
        assert_eq!(
            hub(&[(name, "usage")]).unwrap(),
            None,
            "the trigger reads it with a connection string too"
        );
        let whole = "https://contoso.servicebus.windows.net/usage";
        assert_eq!(hub(&[contoso, (name, "usage")]).unwrap().as_deref(), Some(whole));
        let local = (endpoint, "http://127.0.0.1:9");
        assert_eq!(
            hub(&[contoso, (name, "usage"), local]).unwrap().as_deref(),
            Some("http://127.0.0.1:9/usage")
        );
        for values in [
            &[contoso][..],
            &[local],
            &[contoso, (name, "../usage")],
            &[(namespace, "https://contoso.servicebus.windows.net"), (name, "usage")],
        ] {
            assert_eq!(hub(values).unwrap_err().faults.len(), 1, "{values:?}");
        }
    }

    #[test]
    fn what_does_nothing_yet_is_told() {
        let settings = read(&[("TOLLGATE_REDIS_URL", "redis://localhost")]).unwrap();
        assert_eq!(settings.inactive, ["TOLLGATE_REDIS_URL"]);
    }
}
