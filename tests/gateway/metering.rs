//! The report is what was used: to the token where the backend says so, closely where nobody does.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};
use tollgate::domain::usage::UsageEvent;
use tollgate::ports::{Receipt, UsageSink};

use crate::support::{CHAT, TestGateway};

fn ask(number: usize, stream: bool, asks: bool) -> Value {
    let words = "tell me a tale of the sea and of those who sail it ".repeat(1 + number % 5);
    let mut body = json!({"messages": [{"role": "user", "content": words}], "max_tokens": 20 + number % 40});
    if stream {
        body["stream"] = true.into();
    }
    if asks {
        body["stream_options"] = json!({"include_usage": true});
    }
    body
}

/// Sends a streamed request and hangs up after some pieces.
async fn hang_up(gateway: &TestGateway, body: &Value, pieces: usize) {
    let request = gateway.client.post(format!("http://{}{CHAT}", gateway.address));
    let request = request.header("api-key", &gateway.key).header("x-simulate", "tokens-per-second=10");
    let response = request.body(body.to_string()).send().await.unwrap();
    let mut stream = response.bytes_stream();
    for _ in 0..pieces {
        stream.next().await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_thousand_mixed_requests_add_up_though_each_event_comes_again() {
    let mut gateway = TestGateway::start().await;
    let copies = Arc::new(Copies { to: Arc::clone(&gateway.app.proxy.usage), kept: Mutex::default() });
    gateway.address = gateway.serve_with(Arc::clone(&copies) as Arc<dyn UsageSink>).await;
    let requests = futures_util::stream::iter(0..1_000).for_each_concurrent(32, |number| {
        let gateway = &gateway;
        async move {
            match number % 10 {
                0..=3 => assert_eq!(gateway.chat(&ask(number, false, false), "").await.status, 200),
                4 | 5 => assert_eq!(gateway.chat(&ask(number, true, true), "").await.status, 200),
                6 | 7 => assert_eq!(gateway.chat(&ask(number, true, false), "").await.status, 200),
                8 => hang_up(gateway, &ask(number, true, false), 10).await,
                _ => assert_eq!(gateway.chat(&ask(number, true, false), "cut-after=8").await.status, 200),
            }
        }
    });
    requests.await;
    let total = gateway.total(1_000).await;
    assert_eq!(total["estimated_requests"], 200, "{total}");
    let counts = gateway.counts().await;
    close(&total["input_tokens"], &counts["prompt_tokens"], 0.01);
    close(&total["output_tokens"], &counts["completion_tokens"], 0.05);
    let rows = ledger_rows(&gateway).await;
    let sum = |source: &str, column: usize| -> u64 {
        rows.iter().filter(|row| row.0 == source).map(|row| [row.1, row.2][column]).sum()
    };
    assert_eq!(sum("reported", 0), counts["reported"]["prompt_tokens"].as_u64().unwrap());
    assert_eq!(sum("reported", 1), counts["reported"]["completion_tokens"].as_u64().unwrap());
    close(&json!(sum("estimated", 0)), &counts["unreported"]["prompt_tokens"], 0.05);
    close(&json!(sum("estimated", 1)), &counts["unreported"]["completion_tokens"], 0.05);
    assert_eq!(rows.len(), 1_000);
    // Each event once more, by way of the host and its trigger.
    let events: Vec<_> =
        copies.kept.lock().unwrap().iter().map(|event| serde_json::to_string(event).unwrap()).collect();
    assert_eq!(events.len(), 1_000);
    for batch in events.chunks(100) {
        let host = [("user-agent", "Azure-Functions-Host/4.1"), ("x-azure-functions-invocationid", "1")];
        let body = json!({"Data": {"events": json!(batch).to_string()}, "Metadata": {}}).to_string();
        assert_eq!(gateway.send("POST", "/token-accounting", &host, Some(body)).await.status, 200);
    }
    assert_eq!(gateway.total(1_000).await, total);
    assert_eq!(ledger_rows(&gateway).await, rows);
}

/// Keeps a copy of each event that goes to the ledger.
struct Copies {
    to: Arc<dyn UsageSink>,
    kept: Mutex<Vec<UsageEvent>>,
}

impl UsageSink for Copies {
    fn record(&self, event: UsageEvent) -> Receipt {
        self.kept.lock().unwrap().push(event.clone());
        self.to.record(event)
    }
}

/// Source, input and output of each row.
async fn ledger_rows(gateway: &TestGateway) -> Vec<(String, u64, u64)> {
    let url = format!("sqlite://{}", gateway.folder().join("ledger.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT source, input_tokens, output_tokens FROM usage_events ORDER BY id")
            .fetch_all(&pool)
            .await
            .unwrap();
    rows.into_iter().map(|(s, i, o)| (s, i.try_into().unwrap(), o.try_into().unwrap())).collect()
}

fn close(ours: &Value, theirs: &Value, share: f64) {
    let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
    assert!((ours - theirs).abs() <= theirs * share, "{ours} here, {theirs} there");
}

#[tokio::test]
async fn a_caller_that_hangs_up_stops_the_backends_work_within_a_second() {
    let gateway = TestGateway::start().await;
    let slow = "tokens-per-second=5,reply-tokens=1000";
    for _ in 0..3 {
        let request = gateway.client.post(format!("http://{}{CHAT}", gateway.address));
        let request = request.header("api-key", &gateway.key).header("x-simulate", slow);
        let response = request.body(ask(1, true, false).to_string()).send().await.unwrap();
        drop(response);
    }
    let hung_up = Instant::now();
    while gateway.counts().await["cancelled"] != 3 {
        assert!(hung_up.elapsed() < Duration::from_secs(1), "{}", gateway.counts().await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let total = gateway.total(3).await;
    assert_eq!(total["estimated_requests"], 3);
}

#[tokio::test]
async fn a_caller_that_leaves_before_the_answer_is_accounted_for() {
    let gateway = TestGateway::start().await;
    let request = gateway.client.post(format!("http://{}{CHAT}", gateway.address));
    let request = request.header("api-key", &gateway.key).header("x-simulate", "ttft-ms=60000");
    let asked =
        request.body(ask(1, false, false).to_string()).timeout(Duration::from_millis(300)).send().await;
    assert!(asked.unwrap_err().is_timeout());
    let total = gateway.total(1).await;
    assert_eq!((&total["estimated_requests"], &total["output_tokens"]), (&json!(1), &json!(0)), "{total}");
    assert!(total["input_tokens"].as_u64().unwrap() > 10);
}

#[tokio::test]
async fn cached_and_reasoning_tokens_are_told_apart() {
    let gateway = TestGateway::start().await;
    let body = ask(4, true, false);
    let answer = gateway.chat(&body, "cached-tokens=16").await;
    assert_eq!(answer.status, 200);
    let total = gateway.total(1).await;
    let counts = gateway.counts().await;
    assert_eq!(total["cached_input_tokens"], counts["cached_tokens"], "{total} {counts}");
    assert!(total["cached_input_tokens"].as_u64().unwrap() > 0);
}
