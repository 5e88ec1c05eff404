//! Key Vault's secrets: the challenge, the versions, and the ways in which it does not answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawQuery, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use super::serve;

/// How a vault answers whoever has proved itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Says {
    Status(u16),
    /// 403, with this inner code.
    Forbidden(&'static str),
    /// 429, with so many seconds.
    Throttled(u64),
    Garbage,
    Hangs,
}

#[derive(Default)]
struct Book {
    values: BTreeMap<String, Vec<String>>,
    says: Option<Says>,
    /// Tokens that are not taken any more.
    refused: Vec<String>,
    complaints: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct Vault {
    pub(crate) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    hanging: Arc<Notify>,
    _stop: Arc<DropGuard>,
}

#[derive(Clone)]
struct Shared {
    book: Arc<Mutex<Book>>,
    hanging: Arc<Notify>,
}

impl Vault {
    pub(crate) async fn start() -> Self {
        let (book, hanging) = (Arc::new(Mutex::new(Book::default())), Arc::new(Notify::new()));
        let shared = Shared { book: book.clone(), hanging: hanging.clone() };
        let (address, stop) = serve(Router::new().fallback(secret).with_state(shared)).await;
        Self { address, book, hanging, _stop: Arc::new(stop) }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a new version.
    pub(crate) fn set(&self, name: &str, value: impl Into<String>) {
        self.book.lock().unwrap().values.entry(name.to_owned()).or_default().push(value.into());
    }

    pub(crate) fn says(&self, says: Option<Says>) {
        self.book.lock().unwrap().says = says;
    }

    pub(crate) fn refuse(&self, token: String) {
        self.book.lock().unwrap().refused.push(token);
    }

    /// Resolves when somebody waits for an answer that does not come.
    pub(crate) async fn hangs(&self) {
        self.hanging.notified().await;
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.book.lock().unwrap().complaints.clone()
    }
}

async fn secret(
    State(shared): State<Shared>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    request: Request,
) -> Response {
    let says = {
        let mut book = shared.book.lock().unwrap();
        match answer(&mut book, request.uri().path(), &query.unwrap_or_default(), &headers) {
            Ok(answer) => return answer,
            Err(says) => says,
        }
    };
    match says {
        Says::Status(status) => refusal(status, "Unexpected", None, "An error occurred."),
        Says::Forbidden(inner) => refusal(
            403,
            "Forbidden",
            Some(inner),
            "Caller is not authorized to perform action on resource.\r\nCaller: appid=0",
        ),
        Says::Throttled(seconds) => {
            let after = [("retry-after", seconds.to_string())];
            (after, refusal(429, "Throttled", None, "Request was not processed.")).into_response()
        }
        Says::Garbage => "{\"value\": \"half of a sec".into_response(),
        Says::Hangs => {
            shared.hanging.notify_one();
            std::future::pending().await
        }
    }
}

/// The answer, or how the vault does not answer whoever may ask.
fn answer(book: &mut Book, path: &str, query: &str, headers: &HeaderMap) -> Result<Response, Says> {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let is_good = |token: &str| {
        token.starts_with("token-")
            && token.ends_with("-for-https://vault.azure.net")
            && !book.refused.iter().any(|refused| refused == token)
    };
    if !token.is_some_and(is_good) {
        let challenge = "Bearer authorization=\"https://login.microsoftonline.com/7b795fb9-09d3-42f4-a494\", \
                         resource=\"https://vault.azure.net\"";
        let refusal = refusal(401, "Unauthorized", None, "AKV10000: Request is missing a Bearer token.");
        return Ok(([("www-authenticate", challenge)], refusal).into_response());
    }
    if let Some(says) = book.says {
        return Err(says);
    }
    let Some(name) = path.strip_prefix("/secrets/").map(|rest| rest.trim_end_matches('/')) else {
        book.complaints.push(path.to_owned());
        return Ok(refusal(400, "BadParameter", None, "The request URI is not supported."));
    };
    if !query.starts_with("api-version=7") && !query.starts_with("api-version=20") {
        book.complaints.push(query.to_owned());
        return Ok(refusal(400, "BadParameter", None, "The api-version is not supported."));
    }
    let Some(versions) = book.values.get(name) else {
        let message = "A secret with (name/id) was not found in this key vault.";
        return Ok(refusal(404, "SecretNotFound", None, message));
    };
    let id = format!("https://contoso.vault.azure.net/secrets/{name}/{:032x}", versions.len());
    let attributes = json!({"enabled": true, "created": 1, "updated": 1, "recoveryLevel": "Recoverable"});
    Ok(axum::Json(json!({"value": versions.last(), "id": id, "attributes": attributes})).into_response())
}

fn refusal(status: u16, code: &str, inner: Option<&str>, message: &str) -> Response {
    let mut error = json!({"code": code, "message": message});
    if let Some(inner) = inner {
        error["innererror"] = json!({"code": inner});
    }
    (StatusCode::from_u16(status).unwrap(), axum::Json(json!({"error": error}))).into_response()
}
