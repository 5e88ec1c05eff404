//! An event hub's HTTPS interface, as strict as its description, and able to fail in every way that the real
//! one has: <https://learn.microsoft.com/rest/api/eventhub/send-batch-events>. What is published here is
//! what `host::hub` delivers to the function. No library speaks this interface, so nobody else's client
//! could judge it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::support::listener;

pub(crate) const HUB: &str = "usage";
const NAMESPACE: &str = "contoso.servicebus.windows.net";
const AUDIENCE: &str = "https://eventhubs.azure.net";

/// What it does with a batch that is well formed and signed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    Takes,
    Status(u16),
    /// A status, with so many seconds to wait.
    Later(u16, u64),
    /// Closes the connection without a word, and without the events.
    Cuts,
    /// Takes the events and closes the connection without a word.
    TakesAndCuts,
    /// Takes the events and breaks off in the middle of a refusal.
    TakesAndBreaksOff,
    /// Takes the events once the test allows it.
    Waits,
    /// Never answers.
    Hangs,
}

#[derive(Default)]
struct Book {
    next: VecDeque<Says>,
    always: Option<Says>,
    events: Vec<String>,
    batches: Vec<usize>,
    requests: usize,
    complaints: Vec<String>,
    /// Tokens that are not taken any more.
    refused: BTreeSet<String>,
    used: Vec<String>,
    max_bytes: Option<usize>,
}

#[derive(Clone)]
pub(crate) struct EventHub {
    pub(crate) address: SocketAddr,
    book: Arc<Mutex<Book>>,
    go: Arc<Semaphore>,
    _stop: Arc<DropGuard>,
}

type Answer = Response<BoxBody<Bytes, Broken>>;

/// Ends a connection where it stands.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Broken;

impl EventHub {
    pub(crate) async fn start() -> Self {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let guard = Arc::new(stop.clone().drop_guard());
        let hub = Self { address, book: Arc::default(), go: Arc::new(Semaphore::new(0)), _stop: guard };
        let (book, go) = (Arc::clone(&hub.book), Arc::clone(&hub.go));
        let accepting = async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (book, go) = (Arc::clone(&book), Arc::clone(&go));
                let service =
                    hyper::service::service_fn(move |request| receive(request, book.clone(), go.clone()));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                TaskTracker::new().spawn(async move { drop(connection.await) });
            }
        };
        TaskTracker::new().spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = accepting => {}
            }
        });
        hub
    }

    /// The settings of a gateway that publishes here.
    pub(crate) fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("UsageEventHub__fullyQualifiedNamespace", NAMESPACE.to_owned()),
            ("USAGE_EVENTHUB_NAME", HUB.to_owned()),
            ("TOLLGATE_EVENT_HUB_ENDPOINT", format!("http://{}", self.address)),
        ]
    }

    pub(crate) fn next(&self, says: impl IntoIterator<Item = Says>) {
        self.book.lock().unwrap().next.extend(says);
    }

    pub(crate) fn always(&self, says: Says) {
        self.book.lock().unwrap().always = Some(says);
    }

    pub(crate) fn takes_at_most(&self, max_bytes: Option<usize>) {
        self.book.lock().unwrap().max_bytes = max_bytes;
    }

    /// Whoever brings the newest token that was used from now on has an old one.
    pub(crate) fn refuse_the_newest_token(&self) {
        let mut book = self.book.lock().unwrap();
        let newest = book.used.last().cloned().expect("a token was used");
        book.refused.insert(newest);
    }

    /// Batches that wait are acknowledged, so many of them.
    pub(crate) fn acknowledge(&self, batches: usize) {
        self.go.add_permits(batches);
    }

    pub(crate) fn requests(&self) -> usize {
        self.book.lock().unwrap().requests
    }

    pub(crate) fn batches(&self) -> Vec<usize> {
        self.book.lock().unwrap().batches.clone()
    }

    /// Everything that was taken, as often as it came.
    pub(crate) fn events(&self) -> Vec<String> {
        self.book.lock().unwrap().events.clone()
    }

    /// At most so many of them, those behind the first `after`.
    pub(crate) fn events_from(&self, after: usize, count: usize) -> Vec<String> {
        let book = self.book.lock().unwrap();
        book.events.iter().skip(after).take(count).cloned().collect()
    }

    /// The same, each event once, by its id.
    pub(crate) fn distinct(&self) -> BTreeMap<String, Value> {
        let events = self.events();
        let read = events.iter().map(|event| serde_json::from_str::<Value>(event).unwrap());
        read.map(|event| (event["id"].as_str().unwrap().to_owned(), event)).collect()
    }

    pub(crate) fn complaints(&self) -> Vec<String> {
        self.book.lock().unwrap().complaints.clone()
    }

    /// Waits until so many different events are there.
    pub(crate) async fn until(&self, count: usize) {
        let there = async {
            while self.distinct().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let there = tokio::time::timeout(Duration::from_secs(40), there).await;
        assert!(there.is_ok(), "{} of {count} events came", self.distinct().len());
    }
}

async fn receive(
    request: Request<Incoming>,
    book: Arc<Mutex<Book>>,
    go: Arc<Semaphore>,
) -> Result<Answer, Broken> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Broken)?.to_bytes();
    let (says, events) = {
        let mut book = book.lock().unwrap();
        book.requests += 1;
        match judged(&mut book, &parts.method, &parts.uri, &parts.headers, &body) {
            Ok(events) => (book.next.pop_front().or(book.always).unwrap_or(Says::Takes), events),
            Err((status, detail)) => return Ok(refusal(status, detail)),
        }
    };
    let take = || {
        let mut book = book.lock().unwrap();
        book.batches.push(events.len());
        book.events.extend(events.clone());
    };
    match says {
        Says::Takes => take(),
        Says::Status(status) => return Ok(refusal(status, "The request was refused.")),
        Says::Later(status, seconds) => {
            let mut answer = refusal(status, "The server is busy.");
            answer.headers_mut().insert("retry-after", seconds.into());
            return Ok(answer);
        }
        Says::Cuts => return Err(Broken),
        Says::TakesAndCuts => {
            take();
            return Err(Broken);
        }
        Says::TakesAndBreaksOff => {
            take();
            let pieces = [Ok(Frame::data(Bytes::from_static(b"<Error>"))), Err(Broken)];
            let body = StreamBody::new(futures_util::stream::iter(pieces));
            let mut answer = Response::new(body.boxed());
            *answer.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            return Ok(answer);
        }
        Says::Waits => {
            go.acquire().await.unwrap().forget();
            take();
        }
        Says::Hangs => std::future::pending().await,
    }
    let mut created = Response::new(empty());
    *created.status_mut() = StatusCode::CREATED;
    Ok(created)
}

/// The events of a batch that is as it should be, from somebody who may send; else the refusal.
fn judged(
    book: &mut Book,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Vec<String>, (u16, &'static str)> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let token = header(AUTHORIZATION).strip_prefix("Bearer ").unwrap_or_default();
    let is_good = token.starts_with("token-") && token.ends_with(&format!("-for-{AUDIENCE}"));
    if !is_good {
        book.complaints.push("no token for this audience".to_owned());
    }
    if !is_good || book.refused.contains(token) {
        return Err((401, "Invalid authorization token signature."));
    }
    book.used.push(token.to_owned());
    if *method != Method::POST || uri.path() != format!("/{HUB}/messages") {
        book.complaints.push(format!("{method} {uri}"));
        return Err((404, "The requested resource does not exist."));
    }
    if book.max_bytes.is_some_and(|max| body.len() > max) || body.len() > 256 * 1024 {
        return Err((413, "The received message (delivery-id:0) is too large."));
    }
    let query: BTreeMap<String, String> =
        serde_urlencoded::from_str(uri.query().unwrap_or_default()).unwrap();
    let fault = if query.get("api-version").map(String::as_str) != Some("2014-01") {
        Some("the api-version")
    } else if query.get("timeout").is_some_and(|timeout| timeout.parse::<u64>().is_err()) {
        Some("the timeout")
    } else if header(CONTENT_TYPE) != "application/vnd.microsoft.servicebus.json" {
        Some("the content type")
    } else {
        None
    };
    match (fault, bodies(body)) {
        (None, Some(events)) => Ok(events),
        (fault, _) => {
            book.complaints.push(format!("{} is wrong: {uri}", fault.unwrap_or("the body")));
            Err((400, "The request is malformed."))
        }
    }
}

/// The body of each event, if all of them are such.
fn bodies(batch: &[u8]) -> Option<Vec<String>> {
    let items: Vec<BTreeMap<String, Value>> = serde_json::from_slice(batch).ok()?;
    let known = ["Body", "UserProperties", "BrokerProperties"];
    let body = |item: &BTreeMap<String, Value>| {
        let is_known = item.keys().all(|key| known.contains(&key.as_str()));
        item.get("Body")?.as_str().filter(|_| is_known).map(str::to_owned)
    };
    items.iter().map(body).collect::<Option<Vec<_>>>().filter(|events| !events.is_empty())
}

fn refusal(status: u16, detail: &str) -> Answer {
    let text = format!(
        "<Error><Code>{status}</Code><Detail>{detail} TrackingId:{}_G0, SystemTracker:{NAMESPACE}:{HUB}, \
         Timestamp:2026-11-21T09:00:00</Detail></Error>",
        uuid::Uuid::now_v7()
    );
    let mut answer = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
    *answer.status_mut() = StatusCode::from_u16(status).unwrap();
    answer
}

fn empty() -> BoxBody<Bytes, Broken> {
    Full::new(Bytes::new()).map_err(|never| match never {}).boxed()
}
