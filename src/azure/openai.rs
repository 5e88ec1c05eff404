//! The backends: Azure OpenAI resources, over HTTP.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use reqwest::redirect::Policy;
use secrecy::{ExposeSecret as _, SecretString};

use super::cloud;
use super::entra::{TokenFailure, Tokens};
use crate::config::catalog::{Auth, Backend, Catalog};
use crate::config::live::Live;
use crate::config::settings::Cloud;
use crate::ports::{BackendBody, BackendFailure, BackendReply, Backends, Call};

/// A backend that is not reached in this time will not be: another one is asked.
const CONNECT: Duration = Duration::from_secs(5);
/// Azure's load balancers forget an idle connection after four minutes.
const POOL_IDLE: Duration = Duration::from_secs(90);
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Azure OpenAI resources, reached with one pool of connections.
#[derive(Clone, Debug)]
pub struct Resources {
    client: reqwest::Client,
    sign_in: SignIn,
}

/// What signing in to a backend takes.
#[derive(Clone, Debug)]
pub struct SignIn {
    pub tokens: Tokens,
    /// Whose audience tokens have where a backend does not name its own.
    pub cloud: Cloud,
    /// Has the keys that Key Vault keeps.
    pub config: Arc<Live>,
}

impl Resources {
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new(sign_in: SignIn) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            // Bytes go through as they come: nothing is unpacked, nothing is followed.
            .redirect(Policy::none())
            // Whether a backend is asked again is decided where all backends are known; and a client
            // that may ask again copies each request first.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { client, sign_in })
    }
}

#[async_trait]
impl Backends for Resources {
    async fn send(&self, call: Call<'_>) -> Result<BackendReply, BackendFailure> {
        let Call { backend, path_and_query, mut headers, body } = call;
        self.sign_in.put(backend, &mut headers).await?;
        let url =
            backend.endpoint.join(path_and_query).map_err(|error| BackendFailure::BrokeOff(error.into()))?;
        let sent = self.client.post(url).headers(headers).body(body).send().await;
        let (parts, body) = http::Response::<reqwest::Body>::from(sent.map_err(failure)?).into_parts();
        Ok(BackendReply { status: parts.status, headers: parts.headers, body: metered(body) })
    }

    async fn renew_sign_in(&self, backend: &Backend) -> bool {
        match &backend.auth {
            Auth::Entra { audience } => {
                self.sign_in.tokens.renew(&self.sign_in.scope(audience.as_deref())).await
            }
            Auth::ApiKeySecret(_) => {
                // It may have been changed in the vault, and will be there for the requests to come.
                self.sign_in.config.call_for_a_look();
                false
            }
            Auth::ApiKey(_) | Auth::None => false,
        }
    }

    async fn prepare(&self, catalog: &Catalog) {
        let scope = |backend: &Arc<Backend>| match &backend.auth {
            Auth::Entra { audience } => Some(self.sign_in.scope(audience.as_deref())),
            Auth::ApiKey(_) | Auth::ApiKeySecret(_) | Auth::None => None,
        };
        for scope in catalog.backends.iter().filter_map(scope).collect::<BTreeSet<_>>() {
            if let Err(failure) = self.sign_in.tokens.token(&scope).await {
                tracing::error!(token.scope = %scope, "there is no token for {scope} yet: {failure}");
            }
        }
    }
}

impl SignIn {
    fn scope(&self, audience: Option<&str>) -> String {
        cloud::scope(self.cloud, audience)
    }

    async fn put(&self, backend: &Backend, headers: &mut HeaderMap) -> Result<(), BackendFailure> {
        match &backend.auth {
            Auth::None => {}
            Auth::ApiKey(key) => {
                headers.insert(API_KEY, header(key)?);
            }
            Auth::ApiKeySecret(name) => {
                let key = self.config.secret(name).ok_or_else(|| no_secret(name))?;
                headers.insert(API_KEY, header(&key)?);
            }
            Auth::Entra { audience } => {
                let token = self.tokens.token(&self.scope(audience.as_deref())).await.map_err(no_token)?;
                headers.insert(AUTHORIZATION, token.bearer());
            }
        }
        Ok(())
    }
}

fn metered(body: reqwest::Body) -> BackendBody {
    body.map_err(failure).boxed_unsync()
}

fn header(key: &SecretString) -> Result<HeaderValue, BackendFailure> {
    let mut value = HeaderValue::try_from(key.expose_secret()).map_err(|_| {
        BackendFailure::CannotSignIn("its key has characters that no header may have".to_owned())
    })?;
    value.set_sensitive(true);
    Ok(value)
}

fn no_secret(name: &str) -> BackendFailure {
    BackendFailure::CannotSignIn(format!(
        "its key was not got from Key Vault: the secret `{name}` (the log says why; if it is not there, write it \
         with `az keyvault secret set --name {name}`)"
    ))
}

fn no_token(failure: TokenFailure) -> BackendFailure {
    match failure {
        TokenFailure::Refused(text) => BackendFailure::CannotSignIn(text.to_string()),
        TokenFailure::Passing(_) => BackendFailure::NoToken(failure.into()),
    }
}

fn failure(error: reqwest::Error) -> BackendFailure {
    if error.is_connect() {
        BackendFailure::NoConnection(error.without_url().into())
    } else {
        BackendFailure::BrokeOff(error.without_url().into())
    }
}
