//! The backends: Azure OpenAI resources, over HTTP.

use async_trait::async_trait;
use http::header::{HeaderName, HeaderValue};
use http_body_util::BodyExt as _;
use secrecy::ExposeSecret as _;

use crate::config::catalog::{Auth, Backend};
use crate::ports::{BackendBody, BackendFailure, BackendReply, Backends, Call};

mod connections;

use connections::{Busy, Connections};

const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Azure OpenAI resources, reached over pooled connections.
pub struct Resources {
    connections: Connections,
}

impl Resources {
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new() -> Result<Self, reqwest::Error> {
        Ok(Self { connections: Connections::new()? })
    }
}

#[async_trait]
impl Backends for Resources {
    async fn send(&self, call: Call<'_>) -> Result<BackendReply, BackendFailure> {
        let Call { backend, method, path_and_query, mut headers, body } = call;
        if let Some(key) = api_key(backend)? {
            headers.insert(API_KEY, key);
        }
        let url =
            backend.endpoint.join(path_and_query).map_err(|error| BackendFailure::BrokeOff(error.into()))?;
        let (client, busy) = self.connections.one_for(backend);
        let sent = client.request(method, url).headers(headers).body(body).send().await;
        let (parts, body) = http::Response::<reqwest::Body>::from(sent.map_err(failure)?).into_parts();
        Ok(BackendReply { status: parts.status, headers: parts.headers, body: until_over(body, busy) })
    }

    async fn renew_sign_in(&self, _backend: &Backend) -> bool {
        false
    }
}

fn until_over(body: reqwest::Body, busy: Busy) -> BackendBody {
    body.map_err(move |error| {
        // Held for as long as the body is.
        let _: &Busy = &busy;
        failure(error)
    })
    .boxed_unsync()
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
