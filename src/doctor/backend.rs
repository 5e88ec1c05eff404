//! One backend: is it found, reached and signed in to, and has it what it should have?
//!
//! From the outside in, and no further than the first thing that is in the way: what lies behind it
//! would only fail for the same reason.

use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use super::configuration::Configured;
use super::identity::Tokens;
use super::{Doctor, Report};
use crate::config::catalog::{Auth, Backend, is_loopback};
use crate::domain::diagnosis::{Context, SignIn};

mod asking;
mod connection;
mod deployments;
mod keys;
mod name;

const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// What was found before any backend was looked at.
pub(super) struct Found<'a> {
    pub(super) doctor: &'a Doctor<'a>,
    pub(super) configured: &'a Configured,
    pub(super) tokens: &'a Tokens,
}

/// A backend under examination.
struct Patient<'a> {
    found: &'a Found<'a>,
    backend: &'a Backend,
    host: &'a str,
    report: Report,
}

pub(super) async fn examine(found: &Found<'_>, backend: &Backend, report: Report) {
    let Some(host) = backend.endpoint.host_str() else { return };
    let patient = Patient { found, backend, host, report };
    if !is_loopback(host) && !name::is_right(&patient) {
        return;
    }
    let Some(addresses) = name::resolves(&patient).await else { return };
    if !connection::opens(&patient, &addresses).await {
        return;
    }
    let Some(credential) = patient.credential() else { return };
    if deployments::are_there(&patient, &credential).await && matches!(backend.auth, Auth::Entra { .. }) {
        keys::are_refused(&patient).await;
    }
}

/// What a request carries to sign in.
struct Credential {
    headers: HeaderMap,
    kind: SignIn,
    /// What must not be told, whoever repeats it.
    secret: Option<SecretString>,
}

impl Credential {
    fn none() -> Self {
        Self { headers: HeaderMap::new(), kind: SignIn::Nothing, secret: None }
    }

    /// `None` where the secret has characters that no header may have.
    fn key(key: &SecretString) -> Option<Self> {
        let value = HeaderValue::try_from(key.expose_secret()).ok()?;
        Some(Self::with(API_KEY, value, SignIn::Key, key))
    }

    fn token(token: &SecretString) -> Option<Self> {
        let value = HeaderValue::try_from(format!("Bearer {}", token.expose_secret())).ok()?;
        Some(Self::with(AUTHORIZATION, value, SignIn::Token, token))
    }

    fn with(name: HeaderName, mut value: HeaderValue, kind: SignIn, secret: &SecretString) -> Self {
        value.set_sensitive(true);
        let headers = HeaderMap::from_iter([(name, value)]);
        Self { headers, kind, secret: Some(secret.clone()) }
    }

    /// What somebody said, without the credential that it was shown.
    fn taken_out_of(&self, said: &str) -> String {
        match self.secret.as_ref().map(secrecy::ExposeSecret::expose_secret) {
            Some(secret) if !secret.is_empty() => said.replace(secret, "…"),
            _ => said.to_owned(),
        }
    }
}

impl Patient<'_> {
    /// How to sign in; `None` when there is nothing to do it with, which was told.
    fn credential(&self) -> Option<Credential> {
        let found = match &self.backend.auth {
            Auth::None => return Some(Credential::none()),
            Auth::ApiKey(key) => Some(key),
            Auth::ApiKeySecret(name) => self.found.configured.keys.get(name),
            Auth::Entra { .. } => self.found.tokens.of(self.backend),
        };
        let Some(secret) = found else {
            self.report.warn(
                "not_examined",
                "there is nothing to sign in with, so its deployments were not looked at",
                "mend what was found before, and ask again",
            );
            return None;
        };
        let credential = match &self.backend.auth {
            Auth::Entra { .. } => Credential::token(secret),
            _ => Credential::key(secret),
        };
        if credential.is_none() {
            self.report.fault(
                "credential_unusable",
                "its key or token has characters that no header may have",
                "write the key anew, without spaces or line breaks around it",
            );
        }
        credential
    }

    fn context<'c>(&'c self, deployment: Option<&'c str>) -> Context<'c> {
        Context {
            backend: self.backend.name.as_str(),
            host: self.host,
            deployment,
            principal: self.found.tokens.principal.as_deref(),
        }
    }
}
