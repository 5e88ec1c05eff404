//! The endpoint of App Service that gives an app the tokens of its managed identity: version 2019-08-01 of
//! [its protocol](https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference).

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::DropGuard;

use super::serve;

const SECRET: &str = "the-endpoints-own-secret";

/// What it does with the next question, instead of giving a token.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Says {
    Status(u16),
    Garbage,
    /// A token that has expired.
    Stale,
    /// The token before, as an endpoint does that keeps tokens.
    TheSame,
}

#[derive(Default)]
struct Book {
    next: VecDeque<Says>,
    /// Once `next` is at its end.
    always: Option<Says>,
    issued: usize,
    /// The resources that were asked for, well or badly.
    asked: Vec<String>,
    /// What was wrong with a question.
    complaints: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct IdentityEndpoint {
    pub(crate) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    _stop: Arc<DropGuard>,
}

#[derive(Clone)]
struct Shared {
    book: Arc<Mutex<Book>>,
    /// The user-assigned identity; `None`: only a system-assigned one.
    client_id: Option<&'static str>,
}

impl IdentityEndpoint {
    pub(crate) async fn start(client_id: Option<&'static str>) -> Self {
        let book = Arc::new(Mutex::new(Book::default()));
        let shared = Shared { book: book.clone(), client_id };
        let (address, stop) = serve(Router::new().route("/msi/token", get(token)).with_state(shared)).await;
        Self { address, book, _stop: Arc::new(stop) }
    }

    /// The settings that App Service gives its app.
    pub(crate) fn settings(&self) -> [(&'static str, String); 2] {
        [
            ("IDENTITY_ENDPOINT", format!("http://{}/msi/token", self.address)),
            ("IDENTITY_HEADER", SECRET.to_owned()),
        ]
    }

    pub(crate) fn next(&self, says: impl IntoIterator<Item = Says>) {
        self.book.lock().unwrap().next.extend(says);
    }

    pub(crate) fn always(&self, says: Option<Says>) {
        self.book.lock().unwrap().always = says;
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.book.lock().unwrap().asked.clone()
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.book.lock().unwrap().complaints.clone()
    }
}

/// The nth token for a resource, as the fakes know it.
pub(crate) fn token_for(resource: &str, number: usize) -> String {
    format!("token-{number}-for-{resource}")
}

async fn token(State(shared): State<Shared>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&query.unwrap_or_default()).unwrap();
    let mut book = shared.book.lock().unwrap();
    let (status, message) = match fault(&pairs, &headers, shared.client_id) {
        None => (StatusCode::OK, ""),
        Some(fault) => fault,
    };
    let resource = pairs.iter().find(|(name, _)| name == "resource").map_or("", |(_, value)| value);
    book.asked.push(resource.to_owned());
    if status != StatusCode::OK {
        book.complaints.push(format!("{message} {pairs:?}"));
        return refusal(status, message);
    }
    let says = book.next.pop_front().or(book.always);
    let number = match says {
        Some(Says::Status(status)) => {
            return refusal(StatusCode::from_u16(status).unwrap(), "An unexpected error occurred.");
        }
        Some(Says::Garbage) => return "<html>a proxy's own page</html>".into_response(),
        Some(Says::TheSame) => book.issued,
        Some(Says::Stale) | None => {
            book.issued += 1;
            book.issued
        }
    };
    let life_s = if matches!(says, Some(Says::Stale)) { -60 } else { 24 * 3_600 };
    let expires_on = OffsetDateTime::now_utc().unix_timestamp() + life_s;
    axum::Json(json!({
        "access_token": token_for(resource, number),
        // A string of seconds, whatever the name of its type elsewhere.
        "expires_on": expires_on.to_string(),
        "resource": resource,
        "token_type": "Bearer",
        "client_id": shared.client_id.unwrap_or("5e29463d-71da-4fe0-8e69-999b57db23b0"),
    }))
    .into_response()
}

/// What is wrong with a question, as App Service answers it.
fn fault(
    pairs: &[(String, String)],
    headers: &HeaderMap,
    client_id: Option<&str>,
) -> Option<(StatusCode, &'static str)> {
    let bad = |message| Some((StatusCode::BAD_REQUEST, message));
    let given: BTreeMap<&str, &str> =
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    if headers.get("x-identity-header").is_none_or(|header| header != SECRET) {
        return Some((StatusCode::UNAUTHORIZED, "The X-IDENTITY-HEADER is missing or wrong."));
    }
    if given.len() != pairs.len() {
        return bad("A parameter stands twice.");
    }
    if given.get("api-version") != Some(&"2019-08-01") {
        return bad("The api-version is not supported.");
    }
    let known = ["api-version", "resource", "client_id", "principal_id", "object_id", "mi_res_id"];
    if given.keys().any(|name| !known.contains(name)) {
        return bad("A parameter is not known.");
    }
    match given.get("resource") {
        None | Some(&"") => return bad("The resource is missing."),
        Some(resource) if resource.ends_with("/.default") => return bad("That is a scope, no resource."),
        Some(_) => {}
    }
    match (given.get("client_id").copied(), client_id) {
        (Some(asked), Some(own)) if asked == own => None,
        (None, None) => None,
        (None, Some(_)) => bad("Unable to load the proper Managed Identity."),
        (Some(_), _) => bad("No User Assigned or Delegated Managed Identity found for specified ClientId."),
    }
}

fn refusal(status: StatusCode, message: &str) -> Response {
    let body = json!({"statusCode": status.as_u16(), "message": message, "correlationId": "0"});
    (status, axum::Json(body)).into_response()
}
