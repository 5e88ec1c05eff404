//! The identities that Azure's own library knows: a Kubernetes service account, and a person's command line.
//!
//! A credential is made anew for each question: kept, it would answer from a cache of its own, and block
//! everybody while it fails to renew.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::TokenCredential;
use azure_core::http::{ClientOptions, RetryOptions};
use azure_identity::{
    ClientAssertionCredentialOptions, DeveloperToolsCredential, DeveloperToolsCredentialOptions, Executor,
    WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use url::Url;

use super::source::Source;
use super::{Token, TokenFailure};
use crate::azure::{cloud, transport};
use crate::config::settings::Cloud;
use crate::domain::units::UnixMillis;

/// A service account's token, exchanged for one of Entra's.
pub(super) struct Workload {
    client: reqwest::Client,
    authority: Url,
    tenant_id: String,
    client_id: String,
    token_file: PathBuf,
}

impl Workload {
    /// `account` is the tenant, the client and the file with the service account's token.
    pub(super) fn new(
        client: reqwest::Client,
        in_cloud: Cloud,
        authority: Option<&Url>,
        account: (String, String, PathBuf),
    ) -> Self {
        let of_cloud = || Url::parse(cloud::facts(in_cloud).authority).expect("the table has URLs");
        let authority = authority.cloned().unwrap_or_else(of_cloud);
        let (tenant_id, client_id, token_file) = account;
        Self { client, authority, tenant_id, client_id, token_file }
    }
}

#[async_trait]
impl Source for Workload {
    async fn fetch(&self, scope: &str) -> Result<Token, TokenFailure> {
        let mut authority = CustomConfiguration::default();
        transport::as_https(&self.authority).as_str().clone_into(&mut authority.authority_host);
        let client_options = ClientOptions {
            transport: Some(transport::sdk(self.client.clone(), &self.authority)),
            // Whoever asks decides how often.
            retry: RetryOptions::none(),
            cloud: Some(Arc::new(CloudConfiguration::Custom(authority))),
            ..ClientOptions::default()
        };
        let options = WorkloadIdentityCredentialOptions {
            credential_options: ClientAssertionCredentialOptions { client_options },
            client_id: Some(self.client_id.clone()),
            tenant_id: Some(self.tenant_id.clone()),
            token_file_path: Some(self.token_file.clone()),
        };
        let credential = WorkloadIdentityCredential::new(Some(options)).map_err(|error| {
            TokenFailure::refused(format!(
                "the service account cannot be used: {} (AZURE_FEDERATED_TOKEN_FILE must name its token, \
                 AZURE_TENANT_ID a tenant)",
                transport::told(&error)
            ))
        })?;
        ask(&*credential, scope).await.map_err(|error| {
            let told = format!("Entra gives no token: {}", transport::told(&error));
            match transport::status(&error).map(u16::from) {
                Some(400..=407 | 409..=428) => TokenFailure::refused(format!(
                    "{told} (check AZURE_CLIENT_ID, AZURE_TENANT_ID and the federated credential: its issuer \
                     and subject must be the service account's)"
                )),
                _ => TokenFailure::passing(told),
            }
        })
    }
}

/// Whoever is signed in with `az`, or with `azd`.
#[derive(Default)]
pub(super) struct Developer {
    /// Runs the commands; `None`: as the library does.
    pub(super) executor: Option<Arc<dyn Executor>>,
}

#[async_trait]
impl Source for Developer {
    async fn fetch(&self, scope: &str) -> Result<Token, TokenFailure> {
        let options = DeveloperToolsCredentialOptions { executor: self.executor.clone() };
        let refused = |error: azure_core::Error| {
            TokenFailure::refused(format!(
                "nobody is signed in here: run `az login` (on Azure: give the app a managed identity, which \
                 sets IDENTITY_ENDPOINT). {}",
                transport::told(&error)
            ))
        };
        let credential = DeveloperToolsCredential::new(Some(options)).map_err(refused)?;
        ask(&*credential, scope).await.map_err(refused)
    }
}

async fn ask(credential: &dyn TokenCredential, scope: &str) -> azure_core::Result<Token> {
    let token = credential.get_token(&[scope], None).await?;
    let expires_at = UnixMillis::from_datetime(token.expires_on).unwrap_or(UnixMillis(0));
    Token::new(token.token.secret().to_owned().into(), expires_at)
        .map_err(|failure| azure_core::Error::new(azure_core::error::ErrorKind::DataConversion, failure))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{ExitStatus, Output};

    use super::*;

    /// A shell that knows one of the command lines, or none.
    #[derive(Debug)]
    struct Shell(Option<&'static str>);

    #[async_trait]
    impl Executor for Shell {
        async fn run(&self, _program: &OsStr, args: &[&OsStr]) -> std::io::Result<Output> {
            let line: String = args.iter().map(|arg| arg.to_string_lossy()).collect();
            let known = self.0.filter(|command| line.contains(command));
            let said = r#"{"accessToken": "of-a-person", "expires_on": 4102444800, "tokenType": "Bearer",
                           "token": "of-a-person", "expiresOn": "2100-01-01T00:00:00Z"}"#;
            Ok(Output {
                status: ExitStatus::from_raw(if known.is_some() { 0 } else { 127 << 8 }),
                stdout: known.map_or_else(Vec::new, |_| said.into()),
                stderr: Vec::new(),
            })
        }
    }

    async fn asked(shell: Shell) -> Result<String, TokenFailure> {
        let developer = Developer { executor: Some(Arc::new(shell)) };
        let token = developer.fetch("https://cognitiveservices.azure.com/.default").await?;
        Ok(token.bearer().to_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn on_a_laptop_whoever_is_signed_in_signs_in() {
        for command in ["az account get-access-token", "azd auth token"] {
            assert_eq!(asked(Shell(Some(command))).await.unwrap(), "Bearer of-a-person", "{command}");
        }
    }

    #[tokio::test]
    async fn who_is_not_signed_in_is_told_how() {
        let failure = asked(Shell(None)).await.unwrap_err();
        assert!(matches!(&failure, TokenFailure::Refused(text) if text.contains("az login")), "{failure}");
    }
}
