//! What a request to a backend is signed in with: a token of the gateway's own, or a key.
//!
//! Never says in a failure what it was signed in with.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};

use crate::azure::cloud;
use crate::azure::entra::{TokenFailure, Tokens};
use crate::config::catalog::{Auth, Backend, Catalog};
use crate::config::live::{Absent, Live};
use crate::config::settings::Cloud;
use crate::ports::BackendFailure;

const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// What signing in to a backend takes.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub tokens: Tokens,
    /// Whose audience tokens have where a backend does not name its own.
    pub cloud: Cloud,
    /// Has the keys that Key Vault keeps.
    pub config: Arc<Live>,
}

impl SignIn {
    fn scope(&self, audience: Option<&str>) -> String {
        cloud::scope(self.cloud, audience)
    }

    pub(super) async fn put(
        &self,
        backend: &Backend,
        headers: &mut HeaderMap,
        patience: Duration,
    ) -> Result<(), BackendFailure> {
        match &backend.auth {
            Auth::None => {}
            Auth::ApiKey(key) => {
                headers.insert(API_KEY, header(key)?);
            }
            Auth::ApiKeySecret(name) => {
                let key = self.config.secret(name).map_err(no_key)?;
                headers.insert(API_KEY, header(&key)?);
            }
            Auth::Entra { audience } => {
                let scope = self.scope(audience.as_deref());
                let token = tokio::time::timeout(patience, self.tokens.token(&scope)).await;
                let late =
                    |_| BackendFailure::NoToken(format!("none came in {} s", patience.as_secs()).into());
                let token = token.map_err(late)?.map_err(no_token)?;
                headers.insert(AUTHORIZATION, token.bearer());
            }
        }
        Ok(())
    }

    /// As the port says of `renew_sign_in`.
    pub(super) async fn renew(&self, backend: &Backend) -> bool {
        match &backend.auth {
            Auth::Entra { audience } => self.tokens.renew(&self.scope(audience.as_deref())).await,
            Auth::ApiKeySecret(_) => {
                // It may have been changed in the vault, and will be there for the requests to come.
                self.config.call_for_a_look();
                false
            }
            Auth::ApiKey(_) | Auth::None => false,
        }
    }

    /// As the port says of `prepare`.
    pub(super) async fn prepare(&self, catalog: &Catalog) {
        let scope = |backend: &Arc<Backend>| match &backend.auth {
            Auth::Entra { audience } => Some(self.scope(audience.as_deref())),
            Auth::ApiKey(_) | Auth::ApiKeySecret(_) | Auth::None => None,
        };
        for scope in catalog.backends.iter().filter_map(scope).collect::<BTreeSet<_>>() {
            if let Err(failure) = self.tokens.token(&scope).await {
                tracing::error!(token.scope = %scope, "there is no token for {scope} yet: {failure}");
            }
        }
    }
}

fn header(key: &SecretString) -> Result<HeaderValue, BackendFailure> {
    // Written with an editor, or by `--file`, it ends with the end of a line.
    let mut value = HeaderValue::try_from(key.expose_secret().trim()).map_err(|_| {
        BackendFailure::CannotSignIn("its key has characters that no header may have".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn no_key(absent: Absent) -> BackendFailure {
    match absent {
        Absent::Unread(why) => BackendFailure::NoToken(format!("its key was not read yet: {why}").into()),
        Absent::Refused(why) => BackendFailure::CannotSignIn(format!("its key cannot be had: {why}")),
    }
}

fn no_token(failure: TokenFailure) -> BackendFailure {
    match failure {
        TokenFailure::Refused(text) => BackendFailure::CannotSignIn(text.to_string()),
        TokenFailure::Passing(_) => BackendFailure::NoToken(failure.into()),
    }
}
