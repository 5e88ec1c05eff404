//! Secrets from Key Vault, with the gateway's own token.
//!
//! Never waits long, never tries again by itself, and keeps nothing: when to look, and what to do with what
//! was there before, is decided where the whole configuration is known.

use std::time::Duration;

use async_trait::async_trait;
use azure_core::error::ErrorKind;
use azure_core::http::headers::{HeaderName, Headers};
use azure_core::http::{ClientOptions, RetryOptions};
use azure_security_keyvault_secrets::{ResourceExt as _, SecretClient, SecretClientOptions};
use serde::Deserialize;
use url::Url;

use super::entra::{TokenFailure, Tokens};
use super::{cloud, transport};
use crate::config::catalog::is_loopback;
use crate::config::settings::Cloud;
use crate::ports::{Secret, SecretFailure, Secrets};

/// A vault that has not answered by then hangs.
const READ: Duration = Duration::from_secs(10);
const WHAT: &str = "Key Vault";
const RETRY_AFTER: HeaderName = HeaderName::from_static("retry-after");

/// One vault. The client learns once, by its first question, for whom tokens must be.
pub struct KeyVault {
    client: SecretClient,
    tokens: Tokens,
    in_cloud: Cloud,
    vault: Url,
}

impl KeyVault {
    /// # Errors
    /// When the vault's address is none: one from the settings is.
    pub fn new(
        vault: &Url,
        in_cloud: Cloud,
        tokens: Tokens,
        client: reqwest::Client,
    ) -> Result<Self, SecretFailure> {
        let options = SecretClientOptions {
            client_options: ClientOptions {
                transport: Some(transport::sdk(client, vault)),
                retry: RetryOptions::none(),
                ..ClientOptions::default()
            },
            // A token goes to nobody but the vault whose challenge asks for it. What stands in for one on
            // this machine cannot have its name.
            verify_challenge_resource: Some(!vault.host_str().is_some_and(is_loopback)),
            ..SecretClientOptions::default()
        };
        let credential = std::sync::Arc::new(tokens.clone());
        let client = SecretClient::new(transport::as_https(vault).as_str(), credential, Some(options));
        let client = client.map_err(|error| SecretFailure::Refused(transport::told(&error)))?;
        Ok(Self { client, tokens, in_cloud, vault: vault.clone() })
    }

    async fn ask(&self, name: &str) -> azure_core::Result<Secret> {
        let secret = self.client.get_secret(name, None).await?.into_model()?;
        let version = secret.resource_id().ok().and_then(|id| id.version);
        Ok(Secret { value: secret.value.unwrap_or_default().into(), version })
    }

    async fn ask_signed_in(&self, name: &str) -> azure_core::Result<Secret> {
        let asked = self.ask(name).await;
        let is_refused = asked.as_ref().is_err_and(|error| status(error) == Some(401));
        if is_refused && self.tokens.renew(cloud::facts(self.in_cloud).key_vault_scope).await {
            return self.ask(name).await;
        }
        asked
    }

    fn failure(&self, name: &str, error: &azure_core::Error) -> SecretFailure {
        if let Some(failure) = transport::find(error, |error| error.downcast_ref::<TokenFailure>().cloned()) {
            return match failure {
                TokenFailure::Refused(text) => SecretFailure::Refused(text.to_string()),
                TokenFailure::Passing(_) => unavailable(None, failure),
            };
        }
        let vault = self.vault.host_str().unwrap_or_default();
        let told = transport::told(error);
        match status(error) {
            Some(403) => SecretFailure::Refused(self.forbidden(vault, name, error)),
            Some(401) => SecretFailure::Refused(format!(
                "the vault {vault} does not take the gateway's token: the app's identity must be of the \
                 vault's own tenant. {told}"
            )),
            Some(408 | 429 | 500..) => unavailable(retry_after(error), told),
            Some(_) => SecretFailure::Refused(format!("the vault {vault} refuses to give `{name}`: {told}")),
            // The library does not sign in to whoever is no vault.
            None if matches!(error.kind(), ErrorKind::Other) && told.contains("challenge resource") => {
                SecretFailure::Refused(format!(
                    "TOLLGATE_KEY_VAULT_URL must be the vault's own name, such as https://contoso{}: {told}",
                    cloud::facts(self.in_cloud).key_vault_suffix
                ))
            }
            None => unavailable(None, told),
        }
    }

    fn forbidden(&self, vault: &str, name: &str, error: &azure_core::Error) -> String {
        let Complaint { code, message } = complaint(error);
        let message = transport::in_one_line(&message);
        match code.as_str() {
            "SecretDisabled" => format!(
                "the secret `{name}` of {vault} is disabled: `az keyvault secret set-attributes --vault-name \
                 {} --name {name} --enabled true`",
                vault.split('.').next().unwrap_or_default()
            ),
            "ForbiddenByFirewall" | "ForbiddenByConnection" => format!(
                "the vault {vault} keeps the gateway out: allow its subnet in the vault's network rules, or give \
                 the vault a private endpoint with the zone {}. {message}",
                cloud::facts(self.in_cloud).key_vault_zone
            ),
            _ => format!(
                "the gateway's identity may not read `{name}` of {vault}: give it the role Key Vault Secrets \
                 User there (`az role assignment create --role \"Key Vault Secrets User\" --assignee PRINCIPAL-ID \
                 --scope VAULT-RESOURCE-ID`; it takes some minutes to hold). {message}"
            ),
        }
    }
}

#[async_trait]
impl Secrets for KeyVault {
    async fn read(&self, name: &str) -> Result<Option<Secret>, SecretFailure> {
        match tokio::time::timeout(READ, self.ask_signed_in(name)).await {
            Ok(Ok(secret)) => Ok(Some(secret)),
            Ok(Err(error)) if status(&error) == Some(404) => Ok(None),
            Ok(Err(error)) => Err(self.failure(name, &error)),
            Err(_) => Err(unavailable(None, format!("no answer within {} s", READ.as_secs()))),
        }
    }
}

/// No vault is set, and one is wanted.
pub struct NoVault;

#[async_trait]
impl Secrets for NoVault {
    async fn read(&self, _name: &str) -> Result<Option<Secret>, SecretFailure> {
        Err(SecretFailure::Refused(
            "TOLLGATE_KEY_VAULT_URL is not set: name the vault that keeps it there, such as \
             https://contoso.vault.azure.net"
                .to_owned(),
        ))
    }
}

fn unavailable(
    retry_after: Option<Duration>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> SecretFailure {
    SecretFailure::Unavailable { what: WHAT, retry_after, source: source.into() }
}

fn status(error: &azure_core::Error) -> Option<u16> {
    transport::status(error).map(u16::from)
}

/// Whole seconds are what Key Vault writes.
fn retry_after(error: &azure_core::Error) -> Option<Duration> {
    let seconds = |headers: &Headers| headers.get_optional_str(&RETRY_AFTER)?.trim().parse().ok();
    transport::find(error, |error| match error.kind() {
        ErrorKind::HttpResponse { raw_response: Some(response), .. } => seconds(response.headers()),
        _ => None,
    })
    .map(Duration::from_secs)
}

/// What a refusal says: the inner code is the exact one.
#[derive(Default)]
struct Complaint {
    code: String,
    message: String,
}

fn complaint(error: &azure_core::Error) -> Complaint {
    #[derive(Deserialize)]
    struct Body {
        error: Outer,
    }
    #[derive(Deserialize)]
    struct Outer {
        #[serde(default)]
        message: String,
        innererror: Option<Inner>,
    }
    #[derive(Deserialize)]
    struct Inner {
        #[serde(default)]
        code: String,
    }
    let body = transport::find(error, |error| match error.kind() {
        ErrorKind::HttpResponse { raw_response: Some(response), .. } => {
            serde_json::from_slice::<Body>(response.body().as_ref()).ok()
        }
        _ => None,
    });
    body.map_or_else(Complaint::default, |Body { error }| Complaint {
        code: error.innererror.map(|inner| inner.code).unwrap_or_default(),
        message: error.message,
    })
}
