//! The Logs Ingestion endpoint of a data collection rule, as strict as
//! [its documents](https://learn.microsoft.com/azure/azure-monitor/logs/logs-ingestion-api-overview), and stricter where the real one
//! says nothing: it complains of what would be cut or dropped without a word.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use flate2::read::GzDecoder;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use super::serve;

pub(crate) const RULE: &str = "dcr-000102030405060708090a0b0c0d0e0f";
pub(crate) const STREAM: &str = "Custom-TollgateUsage";
const AUDIENCE: &str = "https://monitor.azure.com";
/// Of a call, compressed and not.
const MAX_BYTES: usize = 1024 * 1024;
/// Of a value; what is longer is cut.
const MAX_FIELD_BYTES: usize = 64 * 1024;
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of a call that is as it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Says {
    Status(u16),
    /// This status, and to wait for so many seconds.
    Wait(u16, u64),
    /// The rows are taken, and the answer breaks off.
    CutAfterTaking,
    Hangs,
}

#[derive(Default)]
struct Book {
    next: VecDeque<Says>,
    /// Once `next` is at its end.
    always: Option<Says>,
    /// Rows with this text in them are refused, with the whole call.
    bad: Option<String>,
    /// Tokens that are not taken any more.
    refused: BTreeSet<String>,
    rows: Vec<Value>,
    /// The ids of the calls, and the bytes of their bodies before compression.
    calls: Vec<(String, usize)>,
    complaints: Vec<String>,
}

#[derive(Clone)]
pub(crate) struct LogIngestion {
    pub(crate) address: SocketAddr,
    shared: Shared,
    _stop: Arc<DropGuard>,
}

#[derive(Clone, Default)]
struct Shared {
    book: Arc<Mutex<Book>>,
    came: Arc<Notify>,
}

impl LogIngestion {
    pub(crate) async fn start() -> Self {
        let shared = Shared::default();
        let routes = Router::new()
            .route("/dataCollectionRules/{rule}/streams/{stream}", post(upload))
            .layer(DefaultBodyLimit::max(16 * MAX_BYTES));
        let (address, stop) = serve(routes.with_state(shared.clone())).await;
        Self { address, shared, _stop: Arc::new(stop) }
    }

    pub(crate) fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("TOLLGATE_LOGS_ENDPOINT", format!("http://{}", self.address)),
            ("TOLLGATE_LOGS_RULE_ID", RULE.to_owned()),
            ("TOLLGATE_LOGS_STREAM", STREAM.to_owned()),
        ]
    }

    pub(crate) fn next(&self, says: impl IntoIterator<Item = Says>) {
        self.shared.book.lock().unwrap().next.extend(says);
    }

    pub(crate) fn always(&self, says: Option<Says>) {
        self.shared.book.lock().unwrap().always = says;
    }

    pub(crate) fn refuse_rows_with(&self, text: &str) {
        self.shared.book.lock().unwrap().bad = Some(text.to_owned());
    }

    pub(crate) fn refuse_token(&self, token: String) {
        self.shared.book.lock().unwrap().refused.insert(token);
    }

    /// Every row that was taken, in order, as often as it came.
    pub(crate) fn rows(&self) -> Vec<Value> {
        self.shared.book.lock().unwrap().rows.clone()
    }

    /// How often each event came.
    pub(crate) fn ids(&self) -> BTreeMap<String, usize> {
        let mut ids = BTreeMap::new();
        for row in self.rows() {
            *ids.entry(row["EventId"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        ids
    }

    /// The ids of all calls, taken or not, and the bytes of their bodies before compression.
    pub(crate) fn calls(&self) -> Vec<(String, usize)> {
        self.shared.book.lock().unwrap().calls.clone()
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.shared.book.lock().unwrap().complaints.clone()
    }

    /// Resolves once so many different events were taken.
    pub(crate) async fn until(&self, events: usize) {
        let there = async {
            while self.ids().len() < events {
                // Not `notified`: whoever else waits would take the one wake-up.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, there).await;
        assert!(came.is_ok(), "{} of {events} events came, {:?}", self.ids().len(), self.complaints());
    }

    /// Resolves when another call has come, taken or not.
    pub(crate) async fn another_call(&self) {
        tokio::time::timeout(PATIENCE, self.shared.came.notified()).await.expect("a call comes");
    }
}

async fn upload(
    State(shared): State<Shared>,
    Path((rule, stream)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    shared.came.notify_one();
    let says = {
        let mut book = shared.book.lock().unwrap();
        let id = text(&headers, "x-ms-client-request-id").to_owned();
        let raw = plain(&headers, &body);
        book.calls.push((id, raw.as_ref().map_or(0, Vec::len)));
        match read(&mut book, (&rule, &stream, &query.unwrap_or_default()), &headers, (&body, raw)) {
            Err((status, code, message)) => {
                book.complaints.push(format!("{status} {code} {message}"));
                return refusal(status, code, &message);
            }
            Ok(rows) => {
                let says = book.next.pop_front().or(book.always);
                if matches!(says, None | Some(Says::CutAfterTaking)) {
                    let bad = book.bad.clone();
                    if bad.is_some_and(|bad| rows.iter().any(|row| row.to_string().contains(&bad))) {
                        return refusal(400, "InvalidPayload", "A record cannot be read.");
                    }
                    book.rows.extend(rows);
                }
                says
            }
        }
    };
    match says {
        None => StatusCode::NO_CONTENT.into_response(),
        Some(Says::Status(status)) => refusal(status, "OperationFailed", "As the test says."),
        Some(Says::Wait(status, seconds)) => {
            let after = [("retry-after", seconds.to_string())];
            (after, refusal(status, "RequestThrottled", "Try again later.")).into_response()
        }
        Some(Says::CutAfterTaking) => {
            let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
            Body::from_stream(broken).into_response()
        }
        Some(Says::Hangs) => std::future::pending().await,
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn plain(headers: &HeaderMap, body: &[u8]) -> Option<Vec<u8>> {
    match text(headers, "content-encoding") {
        "gzip" => {
            let mut plain = Vec::new();
            GzDecoder::new(body).read_to_end(&mut plain).ok()?;
            Some(plain)
        }
        "" => Some(body.to_vec()),
        _ => None,
    }
}

type Fault = (u16, &'static str, String);

/// The rows of a call, or what is wrong with it.
fn read(
    book: &mut Book,
    (rule, stream, query): (&str, &str, &str),
    headers: &HeaderMap,
    (sent, plain): (&[u8], Option<Vec<u8>>),
) -> Result<Vec<Value>, Fault> {
    let token = text(headers, "authorization").strip_prefix("Bearer ").unwrap_or_default();
    let is_ours = token.starts_with("token-") && token.ends_with(&format!("-for-{AUDIENCE}"));
    if !is_ours || book.refused.contains(token) {
        return Err((401, "AuthenticationTokenInvalid", "The token is not for this audience.".to_owned()));
    }
    if query != "api-version=2023-01-01" {
        return Err((400, "UnsupportedApiVersion", query.to_owned()));
    }
    if rule != RULE {
        return Err((404, "NotFound", format!("Data collection rule with immutable Id '{rule}' not found.")));
    }
    if stream != STREAM {
        return Err((400, "InvalidStream", format!("Stream {stream} is not in the rule.")));
    }
    if text(headers, "content-type").split(';').next() != Some("application/json") {
        return Err((415, "UnsupportedMediaType", text(headers, "content-type").to_owned()));
    }
    let Some(plain) = plain else {
        return Err((400, "InvalidContentEncoding", "It is no gzip.".to_owned()));
    };
    for bytes in [sent.len(), plain.len()] {
        if bytes > MAX_BYTES {
            let message =
                format!("Maximum allowed content length: {MAX_BYTES} bytes. Provided: {bytes} bytes.");
            return Err((413, "ContentLengthLimitExceeded", message));
        }
    }
    let Ok(Value::Array(rows)) = serde_json::from_slice(&plain) else {
        return Err((400, "InvalidPayload", "It is no JSON array.".to_owned()));
    };
    if rows.is_empty() || !rows.iter().all(Value::is_object) {
        return Err((400, "InvalidPayload", "It is no array of objects.".to_owned()));
    }
    for (name, value) in rows.iter().filter_map(Value::as_object).flatten() {
        if value.as_str().is_some_and(|text| text.len() > MAX_FIELD_BYTES) {
            book.complaints.push(format!("{name} has {} bytes and is cut", value.to_string().len()));
        }
    }
    Ok(rows)
}

fn refusal(status: u16, code: &str, message: &str) -> Response {
    let body = json!({"error": {"code": code, "message": message}});
    (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
}
