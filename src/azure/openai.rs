//! The backends: Azure OpenAI resources, over HTTP.

use async_trait::async_trait;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method};
use http_body_util::BodyExt as _;

use crate::config::catalog::{Backend, Catalog};
use crate::ports::{BackendBody, BackendFailure, BackendReply, Backends, Call};

mod connections;
mod sign_in;

use connections::{Busy, Connections};
pub use sign_in::SignIn;

/// Azure OpenAI resources, reached over pooled connections.
pub struct Resources {
    connections: Connections,
    sign_in: SignIn,
}

impl Resources {
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new(sign_in: SignIn) -> Result<Self, reqwest::Error> {
        Ok(Self { connections: Connections::new()?, sign_in })
    }
}

#[async_trait]
impl Backends for Resources {
    async fn send(&self, call: Call<'_>) -> Result<BackendReply, BackendFailure> {
        let Call { backend, method, path_and_query, mut headers, patience, body } = call;
        self.sign_in.put(backend, &mut headers, patience).await?;
        if method == Method::POST && body.is_empty() {
            // The client leaves it out, and servers that want a length answer 411 (RFC 9110 §8.6).
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let url =
            backend.endpoint.join(path_and_query).map_err(|error| BackendFailure::BrokeOff(error.into()))?;
        let (client, busy) = self.connections.one_for(backend);
        let sent = client.request(method, url).headers(headers).body(body).send().await;
        let (parts, body) = http::Response::<reqwest::Body>::from(sent.map_err(failure)?).into_parts();
        Ok(BackendReply { status: parts.status, headers: parts.headers, body: until_over(body, busy) })
    }

    async fn renew_sign_in(&self, backend: &Backend) -> bool {
        self.sign_in.renew(backend).await
    }

    async fn prepare(&self, catalog: &Catalog) {
        self.sign_in.prepare(catalog).await;
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

fn failure(error: reqwest::Error) -> BackendFailure {
    if error.is_connect() {
        BackendFailure::NoConnection(error.without_url().into())
    } else {
        BackendFailure::BrokeOff(error.without_url().into())
    }
}
