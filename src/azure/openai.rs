//! The backends: Azure OpenAI resources, over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use http::header::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use reqwest::redirect::Policy;
use secrecy::ExposeSecret as _;

use crate::config::catalog::{Auth, Backend};
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
}

impl Resources {
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new() -> Result<Self, reqwest::Error> {
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
        Ok(Self { client })
    }
}

#[async_trait]
impl Backends for Resources {
    async fn send(&self, call: Call<'_>) -> Result<BackendReply, BackendFailure> {
        let Call { backend, path_and_query, mut headers, body } = call;
        if let Some(key) = api_key(backend)? {
            headers.insert(API_KEY, key);
        }
        let url =
            backend.endpoint.join(path_and_query).map_err(|error| BackendFailure::BrokeOff(error.into()))?;
        let sent = self.client.post(url).headers(headers).body(body).send().await;
        let (parts, body) = http::Response::<reqwest::Body>::from(sent.map_err(failure)?).into_parts();
        Ok(BackendReply { status: parts.status, headers: parts.headers, body: metered(body) })
    }

    async fn renew_sign_in(&self, _backend: &Backend) -> bool {
        false
    }
}

fn metered(body: reqwest::Body) -> BackendBody {
    body.map_err(failure).boxed_unsync()
}

fn api_key(backend: &Backend) -> Result<Option<HeaderValue>, BackendFailure> {
    match &backend.auth {
        Auth::None => Ok(None),
        Auth::ApiKey(key) => {
            let mut value = HeaderValue::try_from(key.expose_secret()).map_err(|_| {
                BackendFailure::CannotSignIn("its key has characters that no header may have".to_owned())
            })?;
            value.set_sensitive(true);
            Ok(Some(value))
        }
        Auth::Entra { .. } => Err(BackendFailure::CannotSignIn(
            "signing in with Entra is not in this version yet: use `auth.kind` `api_key` with a `value`"
                .to_owned(),
        )),
        Auth::ApiKeySecret(_) => Err(BackendFailure::CannotSignIn(
            "keys from Key Vault are not in this version yet: use `auth.kind` `api_key` with a `value`"
                .to_owned(),
        )),
    }
}

fn failure(error: reqwest::Error) -> BackendFailure {
    if error.is_connect() {
        BackendFailure::NoConnection(error.without_url().into())
    } else {
        BackendFailure::BrokeOff(error.without_url().into())
    }
}
