//! The gateway configuration, and the secrets that it names: are they there, and good?

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::{ExposeSecret as _, SecretString};

use super::{Doctor, Report, Vault, bounded, identity, in_time};
use crate::config::Faults;
use crate::config::catalog::{Auth, Catalog};
use crate::ports::{Secret, SecretFailure, with_causes};

/// The role that reading a vault's secrets takes.
const ROLE: &str = "Key Vault Secrets User";

/// What the gateway would run with.
pub(super) struct Configured {
    pub(super) catalog: Catalog,
    /// Those of the named secrets that could be read.
    pub(super) keys: BTreeMap<String, SecretString>,
}

/// `None`: there is no good configuration, which was told.
pub(super) async fn examine(doctor: &Doctor<'_>, report: &Report) -> Option<Configured> {
    let told = report.about("configuration", None);
    let catalog = match (&doctor.settings.config_file, &doctor.vault) {
        (Some(file), _) => from_file(file, &told)?,
        (None, Some(vault)) => from_vault(doctor, vault, report).await?,
        (None, None) => {
            told.fault(
                "no_configuration",
                "neither TOLLGATE_CONFIG nor TOLLGATE_KEY_VAULT_URL is set",
                "`az functionapp config appsettings set --name APP --resource-group GROUP --settings \
                 TOLLGATE_KEY_VAULT_URL=https://VAULT.vault.azure.net`",
            );
            return None;
        }
    };
    let keys = keys(doctor, &catalog, report).await;
    Some(Configured { catalog, keys })
}

fn from_file(file: &Path, report: &Report) -> Option<Catalog> {
    let source = file.display().to_string();
    match std::fs::read_to_string(file) {
        Ok(text) => checked(Catalog::parse(&text, &source), &source, report),
        Err(error) => {
            report.fault(
                "configuration_unreadable",
                format!("{source} cannot be read: {error}"),
                "set TOLLGATE_CONFIG to the file's path, as seen from the app's folder",
            );
            None
        }
    }
}

async fn from_vault(doctor: &Doctor<'_>, vault: &Vault, report: &Report) -> Option<Catalog> {
    if !identity::is_there(doctor, &report.about("identity", None)).await {
        return None;
    }
    let name = &vault.config_secret;
    let value = read(doctor, vault, name, "--file gateway.json", report).await?;
    let source = format!("secret `{name}`");
    checked(
        Catalog::parse_secret(value.expose_secret(), &source),
        &source,
        &report.about("configuration", None),
    )
}

fn checked(parsed: Result<Catalog, Faults>, source: &str, report: &Report) -> Option<Catalog> {
    match parsed {
        Ok(catalog) => {
            let count = catalog.backends.len();
            let plural = if count == 1 { "" } else { "s" };
            report
                .ok("configuration_good", format!("{source} has no fault; it names {count} backend{plural}"));
            Some(catalog)
        }
        Err(faults) => {
            for fault in &faults.faults {
                let mend = "mend that place; `tollgate config check FILE` tells all faults at once";
                report.fault("configuration_faulty", format!("{source}: {fault}"), mend);
            }
            None
        }
    }
}

/// The keys that backends take from the vault.
async fn keys(doctor: &Doctor<'_>, catalog: &Catalog, report: &Report) -> BTreeMap<String, SecretString> {
    let mut keys = BTreeMap::new();
    for backend in &catalog.backends {
        let Auth::ApiKeySecret(name) = &backend.auth else { continue };
        if keys.contains_key(name) {
            continue;
        }
        let Some(vault) = &doctor.vault else {
            report.about("key vault", None).fault(
                "no_key_vault",
                format!(
                    "backend `{}` takes its key from the secret `{name}`, and no vault is set",
                    backend.name
                ),
                "set TOLLGATE_KEY_VAULT_URL, or sign in without a key: `\"auth\": {\"kind\": \"entra\"}`",
            );
            continue;
        };
        if let Some(value) = read(doctor, vault, name, "--value THE-RESOURCE'S-KEY", report).await {
            keys.insert(name.clone(), value);
        }
    }
    keys
}

/// Reads a secret; what hinders it is told. `how` is the rest of the command that would make it.
async fn read(
    doctor: &Doctor<'_>,
    vault: &Vault,
    name: &str,
    how: &str,
    report: &Report,
) -> Option<SecretString> {
    let host = vault.url.host_str().unwrap_or_default();
    let vault_name = host.split('.').next().unwrap_or_default();
    let report = report.about("key vault", None);
    match bounded(vault.secrets.read(name)).await {
        Some(Ok(Some(Secret { value, version }))) => {
            let version = version.map(|version| format!(" (version {version})")).unwrap_or_default();
            report.ok("secret_readable", format!("the secret `{name}` of {host} can be read{version}"));
            return Some(value);
        }
        Some(Ok(None)) => report.fault(
            "secret_missing",
            format!("{host} has no secret `{name}`"),
            format!("`az keyvault secret set --vault-name {vault_name} --name {name} {how}`"),
        ),
        Some(Err(SecretFailure::Refused(why))) => {
            let what = format!("{host} does not give the secret `{name}`");
            if why.contains(ROLE) {
                let principal = identity::principal(&*doctor.identity).await;
                let mend = format!(
                    "`az role assignment create --assignee {} --role \"{ROLE}\" --scope \"$(az keyvault show --name \
                     {vault_name} --query id -o tsv)\"`; a new role takes some minutes to hold",
                    principal.as_deref().unwrap_or("PRINCIPAL-ID")
                );
                report.fault("role_missing", what, mend);
            } else {
                report.fault("secret_refused", what, why);
            }
        }
        Some(Err(failure @ SecretFailure::Unavailable { .. })) => {
            unreachable(doctor, vault, &with_causes(&failure), &report).await;
        }
        None => unreachable(doctor, vault, "it did not answer in time", &report).await,
    }
    None
}

/// Says what the vault's name resolves to: where a firewall is in the way, that is what tells.
async fn unreachable(doctor: &Doctor<'_>, vault: &Vault, why: &str, report: &Report) {
    let host = vault.url.host_str().unwrap_or_default();
    let resolved = match in_time(doctor.resolver.addresses(host)).await {
        Some(Ok(addresses)) if !addresses.is_empty() => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            format!("the name resolves to {}", addresses.join(", "))
        }
        _ => "the name does not resolve".to_owned(),
    };
    report.fault(
        "key_vault_unreachable",
        format!("{host} cannot be read: {why}; {resolved}"),
        format!(
            "check the name in TOLLGATE_KEY_VAULT_URL (`az keyvault list --query \"[].properties.vaultUri\"`), and the \
             vault's network rules: let the app's subnet in, or give the vault a private endpoint and link the private \
             DNS zone `{}` to the app's virtual network",
            vault.zone
        ),
    );
}
