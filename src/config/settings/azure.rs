//! The settings that say where Azure is, and who the gateway is there.
//!
//! Never asks Azure anything: whether a vault or an identity exists is found out by whoever uses it.

use std::path::PathBuf;

use secrecy::SecretString;
use url::Url;

use super::Source;
use crate::config::Fault;
use crate::config::catalog::is_loopback;

/// Which of Azure's clouds. What follows from it stands in `azure::cloud`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cloud {
    #[default]
    Commercial,
    /// Azure Government.
    UsGov,
    /// Azure operated by 21Vianet.
    China,
}

impl Cloud {
    pub const ALL: [Self; 3] = [Self::Commercial, Self::UsGov, Self::China];

    /// How it is written in `TOLLGATE_CLOUD`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Commercial => "commercial",
            Self::UsGov => "usgov",
            Self::China => "china",
        }
    }
}

/// Who signs in to Azure.
#[derive(Clone, Debug)]
pub enum Identity {
    /// The app's managed identity, by the endpoint that App Service and Container Apps give it.
    Managed {
        endpoint: Url,
        /// Proves that the question comes from inside the app.
        header: SecretString,
        /// The user-assigned one; `None`: the system-assigned one.
        client_id: Option<String>,
    },
    /// A Kubernetes service account that Entra trusts.
    Workload { tenant_id: String, client_id: String, token_file: PathBuf },
    /// Whoever is signed in with Azure CLI, or with Azure Developer CLI.
    Developer,
}

/// The event hub that usage is published to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventHub {
    /// Scheme and host: the namespace's, or what stands in for it on this machine.
    pub endpoint: Url,
    /// The hub's own name in its namespace.
    pub name: String,
}

/// A stream of Log Analytics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logs {
    /// The rule's own endpoint, or a data collection endpoint's.
    pub endpoint: Url,
    /// The data collection rule's immutable id.
    pub rule_id: String,
    pub stream: String,
}

pub(super) fn cloud(source: &dyn Source, faults: &mut Vec<Fault>) -> Cloud {
    const NAME: &str = "TOLLGATE_CLOUD";
    let Some(word) = source.get(NAME) else { return Cloud::default() };
    Cloud::ALL.into_iter().find(|cloud| cloud.word() == word).unwrap_or_else(|| {
        faults.push(Fault::new(NAME, "must be commercial, usgov or china"));
        Cloud::default()
    })
}

/// The address of a service of Azure, or of what stands in for it on this machine: scheme and host.
pub(super) fn service_url(source: &dyn Source, name: &'static str, faults: &mut Vec<Fault>) -> Option<Url> {
    let text = source.get(name)?;
    let Some(url) = Url::parse(&text).ok().filter(Url::has_host) else {
        faults.push(Fault::new(name, "not a URL"));
        return None;
    };
    let is_local = url.host_str().is_some_and(is_loopback);
    if url.scheme() != "https" && !(url.scheme() == "http" && is_local) {
        faults.push(Fault::new(name, "must begin with https:// (http:// only on 127.0.0.1 or localhost)"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        faults.push(Fault::new(name, "ends after the host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        faults.push(Fault::new(name, "must not carry a user or a password"));
    }
    Some(url)
}

/// The hub's name alone is no fault: the trigger takes its namespace from a connection string as well,
/// as under `func start`, and then nothing is published.
pub(super) fn event_hub(source: &dyn Source, faults: &mut Vec<Fault>) -> Option<EventHub> {
    const NAMESPACE: &str = "UsageEventHub__fullyQualifiedNamespace";
    const NAME: &str = "USAGE_EVENTHUB_NAME";
    let namespace = source.get(NAMESPACE);
    let endpoint = service_url(source, "TOLLGATE_EVENT_HUB_ENDPOINT", faults);
    let is_host = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
    let url = match &namespace {
        None => endpoint,
        Some(host) if is_host(host) => {
            endpoint.or_else(|| Url::parse(&format!("https://{host}")).ok().filter(Url::has_host))
        }
        Some(_) => None,
    };
    if namespace.is_some() && url.is_none() {
        let message = "must be the namespace's host name alone, such as contoso.servicebus.windows.net";
        faults.push(Fault::new(NAMESPACE, message));
    }
    let name = source.get(NAME);
    if name.is_none() && (namespace.is_some() || url.is_some()) {
        faults.push(Fault::new(NAME, "is missing: the event hub's name, which goes with its namespace"));
    }
    let name = name?;
    // It becomes part of an address. Azure allows these: 1 to 256 of them, beginning with a letter or digit.
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if name.len() > 256 || name.starts_with('.') || !name.bytes().all(is_plain) {
        faults.push(Fault::new(
            NAME,
            "must be an event hub's name: up to 256 letters, digits, `-`, `_` and `.`",
        ));
    }
    Some(EventHub { endpoint: url?, name })
}

pub(super) fn config_secret(source: &dyn Source, faults: &mut Vec<Fault>) -> String {
    const NAME: &str = "TOLLGATE_CONFIG_SECRET";
    let name = source.get(NAME).unwrap_or_else(|| "tollgate-config".to_owned());
    if !crate::config::is_secret_name(&name) {
        faults.push(Fault::new(NAME, "must be a secret's name: 1 to 127 letters, digits and `-`"));
    }
    name
}

/// All three or none: one that was forgotten would be usage that nobody finds, without a word.
pub(super) fn logs(source: &dyn Source, faults: &mut Vec<Fault>) -> Option<Logs> {
    const NAMES: [&str; 3] = ["TOLLGATE_LOGS_ENDPOINT", "TOLLGATE_LOGS_RULE_ID", "TOLLGATE_LOGS_STREAM"];
    let [endpoint, rule_id, stream] = NAMES;
    let is_set = NAMES.map(|name| source.get(name).is_some());
    if is_set == [false; 3] {
        return None;
    }
    for (name, _) in NAMES.iter().zip(is_set).filter(|(_, is_set)| !is_set) {
        faults.push(Fault::new(*name, "is missing: Log Analytics takes all three TOLLGATE_LOGS_ settings"));
    }
    let mut checked = |name: &'static str, prefix: &str, takes: fn(u8) -> bool, wanted: &str| {
        let value = source.get(name)?;
        let rest = value.strip_prefix(prefix).filter(|rest| (1..=128).contains(&rest.len()));
        if rest.is_none_or(|rest| !rest.bytes().all(takes)) {
            faults.push(Fault::new(name, wanted.to_owned()));
        }
        Some(value)
    };
    let is_hex = |letter: u8| letter.is_ascii_hexdigit();
    let wanted = "must be the rule's immutable id: `dcr-` and hexadecimal digits";
    let rule_id = checked(rule_id, "dcr-", is_hex, wanted);
    let is_word = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'_' | b'-');
    let wanted = "must be the rule's stream: `Custom-` and a name, such as Custom-TollgateUsage";
    let stream = checked(stream, "Custom-", is_word, wanted);
    let endpoint = service_url(source, endpoint, faults);
    Some(Logs { endpoint: endpoint?, rule_id: rule_id?, stream: stream? })
}

/// In the order in which Azure's own libraries look: what the platform gives goes before a laptop's.
pub(super) fn identity(source: &dyn Source, faults: &mut Vec<Fault>) -> Identity {
    const ENDPOINT: &str = "IDENTITY_ENDPOINT";
    const FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";
    let client_id = source.get("AZURE_CLIENT_ID");
    // One without the other is another service's: Azure Arc sets the endpoint alone.
    if let (Some(endpoint), Some(header)) = (source.get(ENDPOINT), source.get("IDENTITY_HEADER")) {
        let is_http = |url: &Url| url.has_host() && matches!(url.scheme(), "http" | "https");
        if let Some(endpoint) = Url::parse(&endpoint).ok().filter(is_http) {
            return Identity::Managed { endpoint, header: header.into(), client_id };
        }
        faults.push(Fault::new(ENDPOINT, "not a URL: App Service sets it, leave it alone"));
        return Identity::Developer;
    }
    let Some(token_file) = source.get(FILE) else { return Identity::Developer };
    let mut needed = |name: &'static str| {
        source.get(name).unwrap_or_else(|| {
            faults.push(Fault::new(name, format!("is missing: {FILE} is set, and says nothing without it")));
            String::new()
        })
    };
    let (tenant_id, client_id) = (needed("AZURE_TENANT_ID"), needed("AZURE_CLIENT_ID"));
    Identity::Workload { tenant_id, client_id, token_file: token_file.into() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Settings;
    use super::*;

    fn read(values: &[(&'static str, &str)]) -> Result<Settings, crate::config::Faults> {
        let map: BTreeMap<_, _> = values.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        Settings::read(&map)
    }

    #[test]
    fn the_platforms_identity_goes_before_a_service_account_and_that_before_a_person() {
        let managed = [("IDENTITY_ENDPOINT", "http://169.254.1.1:8081/msi/token"), ("IDENTITY_HEADER", "x")];
        let workload = [
            ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token"),
            ("AZURE_TENANT_ID", "tenant"),
            ("AZURE_CLIENT_ID", "client"),
        ];
        let both = read(&[managed.as_slice(), &workload].concat()).unwrap().identity;
        assert!(matches!(both, Identity::Managed { client_id: Some(client), .. } if client == "client"));
        assert!(matches!(read(&workload).unwrap().identity, Identity::Workload { .. }));
        assert!(matches!(read(&managed[..1]).unwrap().identity, Identity::Developer));
        assert!(matches!(read(&[]).unwrap().identity, Identity::Developer));
    }

    #[test]
    fn a_service_account_without_tenant_or_client_is_a_fault() {
        let faults = read(&[("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")]).unwrap_err().to_string();
        assert!(faults.contains("AZURE_TENANT_ID: is missing"), "{faults}");
        assert!(faults.contains("AZURE_CLIENT_ID: is missing"), "{faults}");
    }

    #[test]
    fn log_analytics_takes_all_three_settings_or_none() {
        assert!(read(&[]).unwrap().logs.is_none());
        let good = [
            ("TOLLGATE_LOGS_ENDPOINT", "https://usage-abcd.westeurope-1.ingest.monitor.azure.com"),
            ("TOLLGATE_LOGS_RULE_ID", "dcr-000102030405060708090a0b0c0d0e0f"),
            ("TOLLGATE_LOGS_STREAM", "Custom-TollgateUsage"),
        ];
        let logs = read(&good).unwrap().logs.unwrap();
        assert_eq!(logs.rule_id, good[1].1);
        for missing in 0..3 {
            let mut two = good.to_vec();
            let (name, _) = two.remove(missing);
            let faults = read(&two).unwrap_err().to_string();
            assert!(faults.contains(&format!("{name}: is missing")), "{faults}");
        }
        for (at, bad) in [
            (0, "http://usage.ingest.monitor.azure.com"),
            (0, "https://usage.ingest.monitor.azure.com/dataCollectionRules"),
            (1, "/subscriptions/1/resourceGroups/g/providers/Microsoft.Insights/dataCollectionRules/r"),
            (1, "dcr-hush"),
            (2, "TollgateUsage_CL"),
            (2, "Custom-a/b"),
        ] {
            let mut one = good.to_vec();
            one[at].1 = bad;
            let faults = read(&one).unwrap_err().to_string();
            assert!(faults.contains(&format!("{}: ", good[at].0)) && !faults.contains(bad), "{faults}");
        }
    }

    #[test]
    fn plain_http_is_for_this_machine() {
        for url in ["https://contoso.vault.azure.net", "http://127.0.0.1:8080", "http://localhost:1/"] {
            assert!(read(&[("TOLLGATE_KEY_VAULT_URL", url)]).unwrap().key_vault.is_some(), "{url}");
        }
        for url in [
            "http://contoso.vault.azure.net",
            "ftp://localhost",
            "https://u:p@x.net",
            "https://x.net/secrets",
        ] {
            read(&[("TOLLGATE_KEY_VAULT_URL", url)]).expect_err(url);
        }
    }
}
