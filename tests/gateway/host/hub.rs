//! An event hub and the trigger that reads it: one batch per partition at a time, partitions at once,
//! and a checkpoint that does not ask whether the function succeeded.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::{Request, Response};
use serde_json::Value;
use tokio::sync::watch;

use super::app::App;
use super::client::{Body, BoxError, Client};
use super::front::HOST_VERSION;
use super::function::{Retry, Shape, Trigger};
use super::process::State;
use super::wire::{Attempts, Delivery, Event, Extension, RECENT};

/// The events of a hub, and how far its reader has come.
#[derive(Debug)]
pub(super) struct Hub {
    partitions: Vec<Mutex<Partition>>,
}

#[derive(Debug, Default)]
struct Partition {
    events: Vec<Event>,
    checkpoint: usize,
}

impl Hub {
    pub(super) fn new(partitions: usize) -> Self {
        Self { partitions: (0..partitions).map(|_| Mutex::default()).collect() }
    }

    pub(super) fn publish(&self, partition: usize, body: impl Into<Vec<u8>>) {
        let mut partition = self.partitions[partition].lock().unwrap();
        let sequence = partition.events.len() as u64;
        partition.events.push(Event { body: body.into(), sequence });
    }

    pub(super) fn checkpoint(&self, partition: usize) -> usize {
        self.partitions[partition].lock().unwrap().checkpoint
    }

    /// As another owner does who reads again from an older checkpoint: everything comes twice.
    pub(super) fn rewind(&self, partition: usize, checkpoint: usize) {
        self.partitions[partition].lock().unwrap().checkpoint = checkpoint;
    }

    fn next(&self, partition: usize, most: usize) -> Vec<Event> {
        let partition = self.partitions[partition].lock().unwrap();
        partition.events[partition.checkpoint..].iter().take(most).cloned().collect()
    }

    fn advance(&self, partition: usize, events: usize) {
        self.partitions[partition].lock().unwrap().checkpoint += events;
    }
}

/// The host's listener for one function. Dropping what it returns is the death of the instance.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) function: String,
    pub(super) binding: String,
    pub(super) shape: Shape,
    pub(super) retry: Option<Retry>,
    pub(super) max_batch: usize,
    pub(super) extension: Extension,
    handler: watch::Receiver<State>,
    client: Client,
}

/// Why an invocation failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer from the handler: {0}")]
    NoAnswer(String),
    #[error("the handler answered {0}")]
    Status(u16),
    #[error("the answer's media type is {0:?}, and only JSON is read")]
    MediaType(Option<String>),
    #[error("the answer is not a JSON object: {0}")]
    NotAnObject(String),
    /// The host would wait until functionTimeout, with the partition blocked, and then kill the handler.
    #[error("the answer is {0}, on which the host hangs until functionTimeout")]
    Hangs(&'static str),
}

impl Listener {
    pub(super) fn new(app: &App, function: &str, handler: watch::Receiver<State>) -> Self {
        let Trigger::EventHub { name, shape, retry } = &app.function(function).trigger else {
            panic!("`{function}` is not triggered by an event hub");
        };
        Self {
            function: function.to_owned(),
            binding: name.clone(),
            shape: *shape,
            retry: *retry,
            max_batch: if matches!(shape, Shape::OneString | Shape::OneBinary) {
                1
            } else {
                app.max_event_batch
            },
            extension: RECENT,
            handler,
            client: Client::new(),
        }
    }

    /// The same policy with its pauses cut to almost nothing, so that no test waits for minutes.
    pub(super) fn without_pauses(mut self) -> Self {
        if let Some(retry) = &mut self.retry {
            (retry.shortest, retry.longest) = (Duration::from_millis(5), Duration::from_millis(20));
        }
        self
    }

    /// Reads every partition to its end, all at once.
    pub(super) async fn drain(&self, hub: &Hub) {
        join_all((0..hub.partitions.len()).map(|partition| self.drain_one(hub, partition))).await;
    }

    async fn drain_one(&self, hub: &Hub, partition: usize) {
        loop {
            let events = hub.next(partition, self.max_batch);
            if events.is_empty() {
                return;
            }
            // Nobody asks how it went: a batch that failed for good is checkpointed, and lost.
            let _ = self.execute(partition, &events).await;
            hub.advance(partition, events.len());
        }
    }

    /// One batch, with the attempts that its retry policy grants.
    async fn execute(&self, partition: usize, events: &[Event]) -> Result<Value, Failure> {
        let mut failures = 0;
        loop {
            let attempts = self.retry.map(|retry| Attempts { failures, max: retry.max });
            let failure = match self.invoke(partition, events, attempts).await {
                Err(failure @ Failure::Hangs(_)) => panic!("{failure}"),
                Err(failure) => failure,
                answered => return answered,
            };
            let Some(retry) = self.retry else { return Err(failure) };
            if retry.max.is_some_and(|max| failures >= max) {
                return Err(failure);
            }
            failures += 1;
            tokio::time::sleep(retry.pause(failures)).await;
        }
    }

    /// One POST to the handler, judged as the host judges it.
    pub(super) async fn invoke(
        &self,
        partition: usize,
        events: &[Event],
        attempts: Option<Attempts>,
    ) -> Result<Value, Failure> {
        let delivery = Delivery {
            function: &self.function,
            binding: &self.binding,
            shape: self.shape,
            partition,
            events,
            extension: self.extension,
            attempts,
        };
        let no_answer = |error: BoxError| Failure::NoAnswer(error.to_string());
        let ended = || Failure::NoAnswer("it has ended".to_owned());
        let port = port(&self.handler).await.ok_or_else(ended)?;
        let request = request(port, &self.function, &delivery.body()).map_err(no_answer)?;
        let response = self.client.send(request).await.map_err(|error| no_answer(error.into()))?;
        judge(response).await
    }
}

/// During a restart an invocation waits.
pub(super) async fn port(handler: &watch::Receiver<State>) -> Option<u16> {
    let mut state = handler.clone();
    match *state.wait_for(|state| *state != State::Starting).await.ok()? {
        State::Ready { port, .. } => Some(port),
        _ => None,
    }
}

/// A trigger's call, in pieces and without a length, as the host sends it.
pub(super) fn request(port: u16, function: &str, body: &Value) -> Result<Request<Body>, BoxError> {
    let bytes = Bytes::from(body.to_string());
    let pieces: Vec<_> =
        bytes.chunks(64 * 1024).map(|piece| Ok(Frame::data(bytes.slice_ref(piece)))).collect();
    let request = Request::post(format!("http://127.0.0.1:{port}/{function}"))
        .header("host", format!("127.0.0.1:{port}"))
        .header("user-agent", format!("Azure-Functions-Host/{HOST_VERSION}"))
        .header(CONTENT_TYPE, "application/json; charset=utf-8")
        .header("x-azure-functions-hostversion", HOST_VERSION)
        .header("x-azure-functions-invocationid", uuid::Uuid::now_v7().to_string())
        .body(StreamBody::new(futures_util::stream::iter(pieces)).boxed_unsync())?;
    Ok(request)
}

pub(super) async fn judge(response: Response<Incoming>) -> Result<Value, Failure> {
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() {
        return Err(Failure::Status(parts.status.as_u16()));
    }
    let bytes = body.collect().await.map_err(|error| Failure::NoAnswer(error.to_string()))?.to_bytes();
    if parts.status.as_u16() == 204 || bytes.is_empty() {
        return Err(Failure::Hangs("empty"));
    }
    let media = parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = media.and_then(|media| media.split(';').next()).map(str::trim);
    if !matches!(kind, Some("application/json" | "text/json")) {
        return Err(Failure::MediaType(media.map(str::to_owned)));
    }
    match serde_json::from_slice(&bytes) {
        Ok(Value::Null) => Err(Failure::Hangs("null")),
        Ok(answer @ Value::Object(_)) if has_known_members(&answer) => Ok(answer),
        _ => Err(Failure::NotAnObject(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

/// `Outputs` is an object and `Logs` a list of strings, where they are there at all.
fn has_known_members(answer: &Value) -> bool {
    let outputs = &answer["Outputs"];
    let logs = &answer["Logs"];
    (outputs.is_null() || outputs.is_object())
        && (logs.is_null() || logs.as_array().is_some_and(|logs| logs.iter().all(Value::is_string)))
}
