//! How Azure's services are reached: our client under Azure's libraries, and plain http on this machine.
//!
//! Never sends a credential in the clear anywhere else: only the very address that a setting names is
//! spoken to without TLS, and settings take such an address on this machine alone.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use azure_core::http::{AsyncRawResponse, HttpClient, Request, Transport};
use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use url::Url;

use crate::ports::with_causes;

const CONNECT: Duration = Duration::from_secs(5);
/// Azure's load balancers forget an idle connection after four minutes.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// What a service said, in a line of the log.
const MAX_CHARS: usize = 500;

/// The client for everything but the backends. It knows no proxy: an identity endpoint is on this machine.
///
/// # Errors
/// When the system's certificates cannot be read.
pub fn client() -> reqwest::Result<reqwest::Client> {
    reqwest::Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT)
        .pool_idle_timeout(POOL_IDLE)
        .build()
}

/// The transport of one of Azure's libraries, which takes nothing but https, to `target`.
pub(super) fn sdk(client: reqwest::Client, target: &Url) -> Transport {
    match target.scheme() {
        "http" => Transport::new(Arc::new(Plain { client, target: target.clone() })),
        _ => Transport::new(Arc::new(client)),
    }
}

/// The address under which a library is told of `target`.
pub(super) fn as_https(target: &Url) -> Url {
    let mut url = target.clone();
    // https to https, or http to https: both are allowed.
    let _ = url.set_scheme("https");
    url
}

/// Speaks plain http to one address, where the library believes it speaks https.
#[derive(Debug)]
struct Plain {
    client: reqwest::Client,
    target: Url,
}

#[async_trait]
impl HttpClient for Plain {
    async fn execute_request(&self, request: &Request) -> azure_core::Result<AsyncRawResponse> {
        let mut request = request.clone();
        let url = request.url_mut();
        if url.host() == self.target.host() {
            let _ = url.set_scheme(self.target.scheme());
            let _ = url.set_port(self.target.port());
        }
        self.client.execute_request(&request).await
    }
}

/// Sends a request and reads what comes back, `max_bytes` at most.
pub(super) async fn whole(
    request: reqwest::RequestBuilder,
    max_bytes: usize,
) -> Result<(StatusCode, Vec<u8>), String> {
    answer(request, max_bytes).await.map(|(status, _, body)| (status, body))
}

/// The same, with the headers.
pub(super) async fn answer(
    request: reqwest::RequestBuilder,
    max_bytes: usize,
) -> Result<(StatusCode, HeaderMap, Vec<u8>), String> {
    let told = |error: reqwest::Error| with_causes(&error.without_url());
    let mut response = request.send().await.map_err(told)?;
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(told)? {
        body.extend_from_slice(&piece);
        if body.len() > max_bytes {
            return Err("the answer is too long".to_owned());
        }
    }
    Ok((response.status(), std::mem::take(response.headers_mut()), body))
}

/// An error of Azure's libraries, with its causes, for the log.
pub(super) fn told(error: &azure_core::Error) -> String {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        // Its text repeats what it could not read, which may be a token.
        if cause.is::<serde_json::Error>() {
            return "the answer cannot be read".to_owned();
        }
        next = cause.source();
    }
    let text = with_causes(error);
    // Entra ends what it says with ids and the time: with them each failure would be a new one in the log.
    in_one_line(text.split("Trace ID:").next().unwrap_or_default())
}

/// The status behind an error of Azure's libraries, however deep it lies.
pub(super) fn status(error: &azure_core::Error) -> Option<azure_core::http::StatusCode> {
    find(error, azure_core::Error::http_status)
}

/// What `pick` finds first among an error of Azure's libraries and those that caused it.
pub(super) fn find<T>(
    error: &azure_core::Error,
    pick: impl Fn(&azure_core::Error) -> Option<T>,
) -> Option<T> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<azure_core::Error>().and_then(&pick) {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A service's text for the log, whose records are one line each.
pub(super) fn in_one_line(text: &str) -> String {
    let line = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_CHARS);
    line.collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use azure_core::error::{Error, ErrorKind};

    use super::*;

    #[test]
    fn the_same_failure_reads_the_same_and_repeats_nothing_that_came() {
        let entra = "AADSTS70021: No matching record found.\r\nTrace ID: 1\r\nTimestamp: 2026-11-21";
        let error = Error::with_message(ErrorKind::Credential, entra);
        assert_eq!(told(&error), "AADSTS70021: No matching record found.");
        let unreadable = serde_json::from_str::<u8>("\"hush\"").unwrap_err();
        let error = Error::with_error(ErrorKind::DataConversion, unreadable, "what came is wrong");
        assert_eq!(told(&error), "the answer cannot be read");
    }

    #[test]
    fn nobody_but_the_address_of_the_setting_is_spoken_to_in_the_clear() {
        let target = Url::parse("http://127.0.0.1:8080").unwrap();
        assert_eq!(as_https(&target).as_str(), "https://127.0.0.1:8080/");
        let secure = Url::parse("https://contoso.vault.azure.net").unwrap();
        assert_eq!(as_https(&secure), secure);
    }
}
