//! A backend that does what a test tells it, and remembers what reached it. A query that ends in
//! `answer=304` is answered so, without a body.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tollgate::server;

/// Pieces of text in a stream.
pub(super) const PIECES: usize = 20;
pub(super) const INPUT_TOKENS: u64 = 12;
pub(super) const OUTPUT_TOKENS: u64 = PIECES as u64;

/// One request, as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) target: String,
    pub(super) headers: HeaderMap,
    pub(super) body_bytes: usize,
}

pub(super) struct Backend {
    pub(super) address: SocketAddr,
    pub(super) seen: Arc<Mutex<Vec<Seen>>>,
    /// One permit for each piece of a stream.
    pub(super) gate: Arc<Semaphore>,
    /// How many streams are being read.
    pub(super) open: watch::Receiver<usize>,
    _server: JoinSet<()>,
}

#[derive(Clone)]
struct Told {
    seen: Arc<Mutex<Vec<Seen>>>,
    gate: Arc<Semaphore>,
    open: Arc<watch::Sender<usize>>,
}

impl Backend {
    /// Streams go as fast as they are read.
    pub(super) async fn start() -> Self {
        Self::with(1_000_000).await
    }

    /// Streams wait for a permit before each piece.
    pub(super) async fn gated() -> Self {
        Self::with(0).await
    }

    async fn with(permits: usize) -> Self {
        let listener = server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, open) = watch::channel(0);
        let told =
            Told { seen: Arc::default(), gate: Arc::new(Semaphore::new(permits)), open: Arc::new(sender) };
        let (seen, gate) = (told.seen.clone(), told.gate.clone());
        let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(told);
        let mut tasks = JoinSet::new();
        tasks.spawn(server::serve(listener, router, CancellationToken::new()));
        Self { address, seen, gate, open, _server: tasks }
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub(super) async fn until_open(&self, streams: usize) {
        self.open.clone().wait_for(|open| *open == streams).await.unwrap();
    }
}

async fn answer(State(told): State<Told>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let seen = Seen { target: parts.uri.to_string(), headers: parts.headers, body_bytes: body.len() };
    let wanted = seen.target.split_once("answer=").and_then(|(_, status)| status.parse().ok());
    told.seen.lock().unwrap().push(seen);
    if let Some(status) = wanted.and_then(|status| StatusCode::from_u16(status).ok()) {
        return (status, [("location", "/openai/elsewhere"), ("etag", "\"1\"")]).into_response();
    }
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    if asked["stream"] == true {
        streamed(told, asked["stream_options"]["include_usage"] == true)
    } else {
        whole()
    }
}

fn usage() -> Value {
    json!({"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS,
           "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS})
}

fn whole() -> Response {
    let message = json!({"role": "assistant", "content": "tick ".repeat(PIECES)});
    axum::Json(json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_770_000_000, "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage(),
    }))
    .into_response()
}

fn chunk(choices: &Value, usage: Option<Value>) -> String {
    let mut chunk = json!({"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_770_000_000,
                           "model": "gpt-4o-mini-2024-07-18", "choices": choices});
    if let Some(usage) = usage {
        chunk["usage"] = usage;
    }
    format!("data: {chunk}\n\n")
}

fn streamed(told: Told, asks_usage: bool) -> Response {
    let usage_so_far = asks_usage.then_some(Value::Null);
    let delta = |delta: Value, reason: Option<&str>| {
        chunk(&json!([{"index": 0, "delta": delta, "finish_reason": reason}]), usage_so_far.clone())
    };
    let mut chunks = vec![delta(json!({"role": "assistant", "content": ""}), None)];
    chunks.extend((0..PIECES).map(|piece| delta(json!({"content": format!("tick {piece} ")}), None)));
    chunks.push(delta(json!({}), Some("stop")));
    if asks_usage {
        chunks.push(chunk(&json!([]), Some(usage())));
    }
    chunks.push("data: [DONE]\n\n".to_owned());
    told.open.send_modify(|open| *open += 1);
    let state = (chunks.into_iter(), Reader(told.open), told.gate);
    let paced = stream::unfold(state, |(mut chunks, reader, gate)| async move {
        let chunk = chunks.next()?;
        if chunk.contains("tick") {
            gate.acquire().await.expect("the gate is never closed").forget();
        }
        Some((Ok::<_, std::io::Error>(chunk), (chunks, reader, gate)))
    });
    ([("content-type", "text/event-stream; charset=utf-8")], Body::from_stream(paced)).into_response()
}

/// Counts as one open stream until it is dropped.
struct Reader(Arc<watch::Sender<usize>>);

impl Drop for Reader {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}
