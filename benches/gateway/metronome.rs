//! A backend that writes into each chunk when it was sent.
//!
//! Client and backend share a clock here, so what a gateway adds to each chunk is known exactly, whatever
//! the timers of this machine do. A deployment's name says the pace: `every-5-ms`.
//!
//! It must never decide anything else: what a backend is like is the simulator's matter.

use std::cmp::Ordering;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use futures_util::stream;
use memchr::memmem;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::Result;

/// Content chunks of a stream.
pub(crate) const CHUNKS: u32 = 100;
/// Events of a stream as a client sees it that did not ask for usage: `[DONE]` is one too.
pub(crate) const EVENTS: usize = CHUNKS as usize + 1;

const MARK: &[u8] = br#""content":""#;

/// Listens until it is dropped.
pub(crate) struct Metronome {
    pub(crate) address: SocketAddr,
    /// What stamps count from.
    pub(crate) origin: Instant,
    _stop: DropGuard,
}

/// The name of the deployment that sends a chunk so often.
pub(crate) fn deployment(pace: Duration) -> String {
    format!("every-{}-ms", pace.as_millis())
}

impl Metronome {
    pub(crate) async fn start() -> Result<Self> {
        let listener = tollgate::server::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let address = listener.local_addr()?;
        let origin = Instant::now();
        let router = Router::new()
            .route("/openai/deployments/{deployment}/chat/completions", axum::routing::post(chat))
            .with_state(origin);
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(tollgate::server::serve(listener, router, stop.clone()));
        Ok(Self { address, origin, _stop: stop.drop_guard() })
    }
}

async fn chat(
    State(origin): State<Instant>,
    Path(deployment): Path<String>,
    request: Bytes,
) -> impl IntoResponse {
    let millis = deployment
        .strip_prefix("every-")
        .and_then(|rest| rest.strip_suffix("-ms")?.parse().ok())
        .expect("only this benchmark calls, with names that `deployment` made");
    let mut ticks = tokio::time::interval(Duration::from_millis(millis));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let usage_asked = memmem::find(&request, b"include_usage").is_some();
    let chunks = stream::unfold((ticks, 0), move |(mut ticks, sent)| async move {
        let chunk = match sent.cmp(&CHUNKS) {
            Ordering::Less => {
                ticks.tick().await;
                content_chunk(origin.elapsed(), usage_asked)
            }
            Ordering::Equal => end(usage_asked),
            Ordering::Greater => return None,
        };
        Some((Ok::<_, Infallible>(Bytes::from(chunk)), (ticks, sent + 1)))
    });
    let headers = [("content-type", "text/event-stream; charset=utf-8")];
    (headers, Body::from_stream(chunks))
}

fn content_chunk(sent: Duration, usage_asked: bool) -> String {
    let usage = if usage_asked { r#","usage":null"# } else { "" };
    format!(
        concat!(
            r#"data: {{"choices":[{{"content_filter_results":{{}},"delta":{{"content":"{:016}"}},"#,
            r#""finish_reason":null,"index":0,"logprobs":null}}],"created":1796000000,"#,
            r#""id":"chatcmpl-metronome","model":"gpt-4o-mini-2024-07-18","#,
            r#""object":"chat.completion.chunk","system_fingerprint":"fp_0000000000"{}}}"#,
            "\n\n"
        ),
        sent.as_nanos(),
        usage
    )
}

fn end(usage_asked: bool) -> String {
    let usage = concat!(
        r#"data: {"choices":[],"created":1796000000,"id":"chatcmpl-metronome","#,
        r#""model":"gpt-4o-mini-2024-07-18","object":"chat.completion.chunk","#,
        r#""system_fingerprint":"fp_0000000000","#,
        r#""usage":{"completion_tokens":100,"prompt_tokens":200,"total_tokens":300}}"#,
        "\n\n"
    );
    let usage = if usage_asked { usage } else { "" };
    format!("{usage}data: [DONE]\n\n")
}

/// A content chunk's two moments.
pub(crate) struct Stamp {
    pub(crate) sent: Instant,
    pub(crate) seen: Instant,
}

/// Reads the stamps of a stream while it comes in.
pub(crate) struct Reader {
    origin: Instant,
    read_bytes: usize,
    pub(crate) stamps: Vec<Stamp>,
}

impl Reader {
    pub(crate) fn new(origin: Instant) -> Self {
        Self { origin, read_bytes: 0, stamps: Vec::with_capacity(CHUNKS as usize) }
    }

    /// Takes note of the chunks in `body` that are whole and have not been read before.
    pub(crate) fn read(&mut self, body: &[u8], seen: Instant) {
        while let Some(bytes) = memmem::find(&body[self.read_bytes..], b"\n\n") {
            let event = &body[self.read_bytes..self.read_bytes + bytes];
            self.read_bytes += bytes + 2;
            if let Some(after_origin) = stamp(event) {
                let sent = self.origin + after_origin;
                self.stamps.push(Stamp { sent, seen });
            }
        }
    }
}

fn stamp(event: &[u8]) -> Option<Duration> {
    let digits = &event[memmem::find(event, MARK)? + MARK.len()..];
    let digits = &digits[..memchr::memchr(b'"', digits)?];
    let nanos = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(Duration::from_nanos(nanos))
}
