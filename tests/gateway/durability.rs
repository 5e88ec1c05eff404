//! Usage is safe before a reply is complete, whatever happens next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Duration;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tollgate::domain::units::UnixMillis;
use tollgate::domain::usage::{Outcome, UsageEvent};
use tollgate::ports::{LedgerStore, Postings, Receipt, SumQuery, Sums, Unavailable, UsageSink};
use tollgate::simulator::Knobs;

use crate::support::{CHAT, Process, TestGateway, configuration, resource};

fn body(stream: bool) -> String {
    json!({"stream": stream, "messages": [{"role": "user", "content": "Say hello."}]}).to_string()
}

/// The reply's bytes, one piece at a time.
type Pieces = std::pin::Pin<Box<dyn futures_util::Stream<Item = reqwest::Result<Bytes>> + Send>>;

async fn open(address: std::net::SocketAddr, key: &str, stream: bool, behaviour: &str) -> Pieces {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{address}{CHAT}")).header("api-key", key);
    let response = request.header("x-simulate", behaviour).body(body(stream)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    Box::pin(response.bytes_stream())
}

#[tokio::test]
async fn killed_at_the_moment_of_done_nothing_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let (resource, _stop) = resource(Knobs::default()).await;
    let configuration = configuration(resource);
    let mut gateway = Process::serve(folder.path(), &configuration).await;
    let key = gateway.issue().await;
    let mut sent = 0;
    for round in 0..4 {
        let mut seen = String::new();
        let mut pieces = open(gateway.address, &key, round % 2 == 0, "reply-tokens=5").await;
        while let Some(piece) = pieces.next().await {
            seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
            if seen.contains("[DONE]") {
                break;
            }
        }
        gateway.kill();
        sent += 1;
        gateway = Process::serve(folder.path(), &configuration).await;
        let report = gateway.manage("GET", "/reports/usage", None).await.json();
        assert_eq!(report["total"]["requests"], sent, "after kill {sent}: {report}");
        assert_eq!(report["total"]["output_tokens"], sent * 5);
    }
}

#[tokio::test]
async fn a_stream_of_any_length_passes_in_constant_memory() {
    const EVENT_BYTES: usize = 60_000;
    const EVENTS: usize = 8_000; // 480 MB
    let listener = crate::support::listener().await;
    let resource = listener.local_addr().unwrap();
    let event =
        format!("data: {}\n\n", json!({"choices": [{"delta": {"content": "x".repeat(EVENT_BYTES)}}]}));
    let event = Bytes::from(event);
    let router = axum::Router::new().fallback(move || {
        let event = event.clone();
        let stream = (0..EVENTS).map(move |_| Ok::<_, std::io::Error>(event.clone()));
        let body = axum::body::Body::from_stream(futures_util::stream::iter(stream));
        async move { ([("content-type", "text/event-stream")], body) }
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio_util::task::TaskTracker::new().spawn(tollgate::server::serve(listener, router, stop));
    let folder = tempfile::tempdir().unwrap();
    let gateway = Process::serve(folder.path(), &configuration(resource)).await;
    let key = gateway.issue().await;
    let before = gateway.peak_bytes();
    let mut pieces = open(gateway.address, &key, true, "").await;
    let mut passed = 0;
    // Up to the last bytes: what comes then is counted with a vocabulary, which takes its own memory.
    while passed < EVENT_BYTES * (EVENTS - 10) {
        passed += pieces.next().await.expect("the stream goes on").unwrap().len();
    }
    let grown = gateway.peak_bytes() - before;
    assert!(grown < 24 * 1024 * 1024, "{grown} bytes more for a stream of {passed}");
}

/// A hub that acknowledges when it is told to.
struct SlowHub {
    acknowledged: Arc<Semaphore>,
    took: Arc<std::sync::Mutex<Vec<UsageEvent>>>,
}

impl UsageSink for SlowHub {
    fn record(&self, event: UsageEvent) -> Receipt {
        self.took.lock().unwrap().push(event);
        let acknowledged = Arc::clone(&self.acknowledged);
        Box::pin(async move {
            acknowledged.acquire().await.unwrap().forget();
            Ok(())
        })
    }
}

#[tokio::test]
async fn only_the_end_waits_for_the_hub() {
    let gateway = TestGateway::start().await;
    let (acknowledged, took) = (Arc::new(Semaphore::new(0)), Arc::default());
    let hub = SlowHub { acknowledged: Arc::clone(&acknowledged), took: Arc::clone(&took) };
    let address = gateway.serve_with(Arc::new(hub)).await;
    for (stream, behaviour) in [(true, ""), (true, "no-done"), (false, "")] {
        let direct = gateway.direct(&serde_json::from_str(&body(stream)).unwrap(), behaviour).await.body;
        let mut pieces = open(address, &gateway.key, stream, behaviour).await;
        let mut seen = String::new();
        // Everything but the end comes without an acknowledgement ...
        while let Ok(Some(piece)) = tokio::time::timeout(Duration::from_millis(300), pieces.next()).await {
            seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
        let held = direct.len() - seen.len();
        let expected = match (stream, behaviour) {
            (true, "") => "data: [DONE]\n\n".len(),
            (true, _) => 0,
            // A whole reply comes in one piece, which is its last.
            (false, _) => direct.len(),
        };
        assert_eq!(held, expected, "stream: {stream} {behaviour}: {seen}");
        // ... and the end comes with it.
        acknowledged.add_permits(1);
        while let Some(piece) = pieces.next().await {
            seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
        assert_eq!(seen.len(), direct.len());
    }
    assert_eq!(took.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn of_a_reply_of_unknown_length_one_byte_waits() {
    let listener = crate::support::listener().await;
    let backend = listener.local_addr().unwrap();
    let (first, last) = (r#"{"usage":{"prompt_tokens":3,"#, r#""completion_tokens":4}}"#);
    let go = Arc::new(Semaphore::new(0));
    let gone = Arc::clone(&go);
    let router = axum::Router::new().fallback(move || {
        let go = Arc::clone(&gone);
        let rest = async move {
            go.acquire().await.unwrap().forget();
            Ok::<_, std::io::Error>(last)
        };
        let stream = futures_util::stream::iter([Ok(first)]).chain(futures_util::stream::once(rest));
        async move { axum::body::Body::from_stream(stream) }
    });
    let stop = tokio_util::sync::CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    tokio_util::task::TaskTracker::new().spawn(tollgate::server::serve(listener, router, stop));
    let gateway = TestGateway::with(backend, &configuration(backend)).await;
    let mut pieces = open(gateway.address, &gateway.key, false, "").await;
    let mut seen = pieces.next().await.unwrap().unwrap().to_vec();
    assert_eq!(seen, &first.as_bytes()[..first.len() - 1]);
    go.add_permits(1);
    while let Some(piece) = pieces.next().await {
        seen.extend_from_slice(&piece.unwrap());
    }
    assert_eq!(seen, [first, last].concat().as_bytes());
    assert_eq!(gateway.total(1).await["output_tokens"], 4);
}

/// A backend that answers everything with `reply`.
async fn backend(reply: axum::routing::MethodRouter) -> (std::net::SocketAddr, DropGuard) {
    let listener = crate::support::listener().await;
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback_service(reply);
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(tollgate::server::serve(listener, router, stop.clone()));
    (address, stop.drop_guard())
}

#[tokio::test]
async fn a_reply_without_a_body_waits_for_the_hub_too_and_is_complete() {
    const STREAM: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n";
    for (reply, body) in [
        (axum::routing::any(async || http::StatusCode::NO_CONTENT), ""),
        (axum::routing::any(async || ""), ""),
        // A stream whose length is told, and that ends without `[DONE]`.
        (axum::routing::any(async || ([("content-type", "text/event-stream")], STREAM)), STREAM),
    ] {
        let (resource, _stop) = backend(reply).await;
        let gateway = TestGateway::with(resource, &configuration(resource)).await;
        let (acknowledged, took) = (Arc::new(Semaphore::new(0)), Arc::default());
        let hub = SlowHub { acknowledged: Arc::clone(&acknowledged), took: Arc::clone(&took) };
        let url = format!("http://{}{CHAT}", gateway.serve_with(Arc::new(hub)).await);
        let headers = [("api-key", gateway.key.as_str())];
        let answer = crate::support::ask(&gateway.client, "POST", &url, &headers, Some(self::body(true)));
        tokio::pin!(answer);
        let early = tokio::time::timeout(Duration::from_millis(200), answer.as_mut()).await;
        assert!(early.is_err(), "the reply was complete before its event was safe");
        acknowledged.add_permits(1);
        assert_eq!(answer.await.body, body);
        let took: Vec<UsageEvent> = took.lock().unwrap().clone();
        assert_eq!(took.iter().map(|event| event.outcome).collect::<Vec<_>>(), [Outcome::Completed]);
    }
}

/// A ledger that can be taken away.
struct Flaky {
    inner: Arc<dyn LedgerStore>,
    is_down: Arc<AtomicBool>,
}

#[async_trait::async_trait]
impl LedgerStore for Flaky {
    async fn post(&self, batch: &Postings) -> Result<u64, Unavailable> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Unavailable { what: "the database", source: "taken away".into() });
        }
        self.inner.post(batch).await
    }

    async fn sums(&self, query: &SumQuery) -> Result<Vec<Sums>, Unavailable> {
        self.inner.sums(query).await
    }

    async fn prepare(&self, now: UnixMillis) -> Result<(), Unavailable> {
        self.inner.prepare(now).await
    }
}

#[tokio::test]
async fn while_the_ledger_is_down_usage_waits_in_the_spool() {
    let gateway = TestGateway::start().await;
    let is_down = Arc::new(AtomicBool::new(true));
    let store = Flaky { inner: Arc::clone(&gateway.app.ledger.store), is_down: Arc::clone(&is_down) };
    let address = gateway.serve_posting_to(Arc::new(store)).await;
    for stream in [true, false] {
        let mut pieces = open(address, &gateway.key, stream, "reply-tokens=5").await;
        while let Some(piece) = pieces.next().await {
            piece.unwrap();
        }
    }
    assert_eq!(gateway.usage("").await["total"]["requests"], 0);
    // The host's batches are refused meanwhile, so that it brings them again.
    let batch = json!({"Data": {"events": "[\"garbage\"]"}, "Metadata": {}}).to_string();
    let host = [("user-agent", "Azure-Functions-Host/4.1"), ("x-azure-functions-invocationid", "1")];
    let url = format!("http://{address}/token-accounting");
    let answer = crate::support::ask(&gateway.client, "POST", &url, &host, Some(batch)).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "gateway_unavailable"));
    assert_eq!(answer.header("retry-after"), "1");
    is_down.store(false, Ordering::SeqCst);
    let total: Value = gateway.total(2).await;
    assert_eq!(total["output_tokens"], 10);
}

#[tokio::test]
async fn a_stream_that_ctrl_c_cuts_off_is_in_the_report() {
    let folder = tempfile::tempdir().unwrap();
    let (resource, _stop) = resource(Knobs::default()).await;
    let configuration = configuration(resource);
    let mut gateway = Process::serve(folder.path(), &configuration).await;
    let key = gateway.issue().await;
    let mut pieces = open(gateway.address, &key, true, "tokens-per-second=10").await;
    for _ in 0..4 {
        pieces.next().await.unwrap().unwrap();
    }
    assert_eq!(gateway.interrupt(), Some(0));
    let gateway = Process::serve(folder.path(), &configuration).await;
    let report = gateway.manage("GET", "/reports/usage", None).await.json();
    assert_eq!(report["total"]["requests"], 1, "{report}");
    assert_eq!(report["total"]["estimated_requests"], 1, "{report}");
}

#[tokio::test]
async fn processes_that_start_at_once_share_one_new_database() {
    use tollgate::sql::sqlite::Database;
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.db");
        let (one, two, three) =
            tokio::join!(Database::open(&file), Database::open(&file), Database::open(&file));
        for opened in [one, two, three] {
            assert!(opened.is_ok(), "{}", opened.unwrap_err());
        }
    }
}
