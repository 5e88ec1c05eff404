//! The managed identity of an app, by the endpoint that App Service, Functions and Container Apps give it.
//!
//! The protocol is [App Service's](https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference),
//! version 2019-08-01. Azure's own library reads the endpoint from the environment by itself, keeps tokens
//! under one lock for all scopes, and swallows what the endpoint says of a missing identity; one question is less
//! than the way around that.

use async_trait::async_trait;
use http::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::source::Source;
use super::{Token, TokenFailure};
use crate::azure::transport;
use crate::domain::units::UnixMillis;

/// A token's answer is some kilobytes.
const MAX_BYTES: usize = 256 * 1024;

pub(super) struct Managed {
    pub(super) client: reqwest::Client,
    pub(super) endpoint: Url,
    pub(super) header: SecretString,
    /// Of a user-assigned identity.
    pub(super) client_id: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: SecretString,
    expires_on: Seconds,
}

/// App Service writes the seconds since 1970 into a string; others write a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(i64),
    Text(String),
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Complaint {
    message: String,
    error_description: String,
}

#[async_trait]
impl Source for Managed {
    async fn fetch(&self, scope: &str) -> Result<Token, TokenFailure> {
        let mut url = self.endpoint.clone();
        // This version speaks of resources, which are scopes without their end.
        let resource = scope.strip_suffix("/.default").unwrap_or(scope);
        url.query_pairs_mut().append_pair("api-version", "2019-08-01").append_pair("resource", resource);
        if let Some(client_id) = &self.client_id {
            url.query_pairs_mut().append_pair("client_id", client_id);
        }
        let mut proof = HeaderValue::try_from(self.header.expose_secret()).map_err(|_| {
            TokenFailure::refused("IDENTITY_HEADER has characters that no header may have: leave it alone")
        })?;
        proof.set_sensitive(true);
        let request = self.client.get(url).header("x-identity-header", proof);
        let answer = transport::whole(request, MAX_BYTES).await;
        let (status, body) = answer.map_err(|error| {
            TokenFailure::passing(format!("the identity endpoint gives no answer: {error}"))
        })?;
        if !status.is_success() {
            return Err(self.complaint(status.as_u16(), &body));
        }
        read(&body)
    }
}

impl Managed {
    fn complaint(&self, status: u16, body: &[u8]) -> TokenFailure {
        let said: Complaint = serde_json::from_slice(body).unwrap_or_default();
        let said = if said.message.is_empty() { said.error_description } else { said.message };
        let said = transport::in_one_line(&said);
        let told = format!("the identity endpoint answers {status}: {said}");
        match status {
            408 | 429 | 500.. => TokenFailure::passing(told),
            _ => TokenFailure::refused(match &self.client_id {
                Some(id) => format!(
                    "{told} (assign the identity with the client id {id}, which AZURE_CLIENT_ID names, to the \
                     app: `az functionapp identity assign --identities RESOURCE-ID`; or remove AZURE_CLIENT_ID \
                     to use the system-assigned one)"
                ),
                None => format!(
                    "{told} (give the app an identity: `az functionapp identity assign`; if it has a \
                     user-assigned one, name its client id in AZURE_CLIENT_ID)"
                ),
            }),
        }
    }
}

fn read(body: &[u8]) -> Result<Token, TokenFailure> {
    // Serde's complaint could repeat a part of the token.
    let garbage = || TokenFailure::passing("the identity endpoint's answer cannot be read");
    let answer: Answer = serde_json::from_slice(body).map_err(|_| garbage())?;
    let seconds = match answer.expires_on {
        Seconds::Number(seconds) => seconds,
        Seconds::Text(text) => text.trim().parse().map_err(|_| garbage())?,
    };
    Token::new(answer.access_token, UnixMillis(seconds.saturating_mul(1_000)))
}
