//! Responses: counted like everything else, and asked for where they are kept.

use std::sync::{Arc, Mutex};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::Duration;
use tokio_util::sync::DropGuard;
use tollgate::domain::usage::{Outcome, Source, UsageEvent};
use tollgate::ports::{Receipt, UsageSink};
use tollgate::simulator::Knobs;

use crate::support::{Answer, TestGateway, ask, configuration, resource};

const V1: &str = "/openai/v1/responses";
const DATED: &str = "/openai/responses?api-version=2025-04-01-preview";

fn hello(more: &Value) -> Value {
    let mut body = json!({"model": "gpt-4o-mini", "input": "Say hello.", "max_output_tokens": 12});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// A gateway, and whoever calls it.
struct Caller<'a> {
    gateway: &'a TestGateway,
    key: String,
}

impl<'a> Caller<'a> {
    fn of(gateway: &'a TestGateway) -> Self {
        Self { gateway, key: gateway.key.clone() }
    }

    async fn with_product(gateway: &'a TestGateway, product: &str) -> Self {
        let key = gateway.issue(&json!({"name": "another", "product": product})).await;
        Self { gateway, key }
    }

    async fn send(&self, method: &str, path: &str, body: Option<String>, behaviour: &str) -> Answer {
        let headers = [("api-key", self.key.as_str()), ("x-simulate", behaviour)];
        self.gateway.send(method, path, &headers, body).await
    }

    async fn post(&self, body: &Value, behaviour: &str) -> Answer {
        self.send("POST", V1, Some(body.to_string()), behaviour).await
    }

    /// The id of a new response, and the backend that made it.
    async fn make(&self, more: &Value) -> (String, String) {
        let answer = self.post(&hello(more), "").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        (id_in(&answer.body), answer.header("x-tollgate-backend").to_owned())
    }

    async fn item(&self, method: &str, id: &str, below: &str) -> Answer {
        self.send(method, &format!("{V1}/{id}{below}"), None, "").await
    }
}

/// The id of a response, in a whole reply or in a stream.
fn id_in(body: &str) -> String {
    let at = body.find("\"resp_").expect("a response has an id") + 1;
    body[at..].split('"').next().unwrap().to_owned()
}

fn backend(name: &str, address: std::net::SocketAddr, priority: u32) -> Value {
    json!({"name": name, "endpoint": format!("http://{address}"), "auth": {"kind": "none"}, "priority": priority})
}

/// A gateway before two resources of the same priority.
async fn before_two() -> (TestGateway, [DropGuard; 2], [std::net::SocketAddr; 2]) {
    let ((one, stop_one), (two, stop_two)) =
        (resource(Knobs::default()).await, resource(Knobs::default()).await);
    let mut configuration = configuration(one);
    configuration["backends"] = json!([backend("one", one, 1), backend("two", two, 1)]);
    (TestGateway::with(one, &configuration).await, [stop_one, stop_two], [one, two])
}

/// Keeps every event that it hands on.
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

#[tokio::test]
async fn every_response_is_counted_as_the_backend_counted_it() {
    let gateway =
        TestGateway::before(Knobs { cached_tokens: 2, tokens_per_chunk: 3, ..Knobs::default() }).await;
    let caller = Caller::of(&gateway);
    let paths = [(V1, V1), ("/v1/responses", V1), (DATED, "/openai/responses")];
    for (path, at_backend) in paths {
        for stream in [false, true] {
            for (model, behaviour) in [("gpt-4o-mini", ""), ("o4-mini", "chunk-bytes=7")] {
                let body = hello(&json!({"model": model, "stream": stream, "max_output_tokens": 200}));
                let answer = caller.send("POST", path, Some(body.to_string()), behaviour).await;
                assert_eq!(answer.status, 200, "{}", answer.body);
                let received = gateway.received().await;
                assert_eq!(received["body"], body.to_string(), "nothing is asked for in addition");
                assert_eq!(received["path"], at_backend);
            }
        }
    }
    let (total, counts) = (gateway.total(12).await, gateway.counts().await);
    assert_eq!(total["estimated_requests"], 0, "{total}");
    for (sum, count) in [
        ("input_tokens", "prompt_tokens"),
        ("output_tokens", "completion_tokens"),
        ("cached_input_tokens", "cached_tokens"),
        ("reasoning_tokens", "reasoning_tokens"),
    ] {
        assert_eq!(total[sum], counts[count], "{sum}");
        assert_ne!(total[sum], 0, "{sum}");
    }
}

#[tokio::test]
async fn what_nobody_reports_is_counted_to_the_token() {
    let gateway = TestGateway::start().await;
    let caller = Caller::of(&gateway);
    for (stream, behaviour) in
        [(false, "no-usage"), (true, "no-usage"), (true, "no-done"), (true, "no-done,chunk-bytes=5")]
    {
        assert_eq!(caller.post(&hello(&json!({"stream": stream})), behaviour).await.status, 200);
    }
    let (total, counts) = (gateway.total(4).await, gateway.counts().await);
    assert_eq!(total["estimated_requests"], 4, "{total}");
    assert_eq!(total["input_tokens"], counts["prompt_tokens"]);
    assert_eq!(total["output_tokens"], counts["completion_tokens"]);
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_and_is_known_all_the_same() {
    let gateway = TestGateway::start().await;
    let caller = Caller::of(&gateway);
    let answer = caller.post(&hello(&json!({"stream": true})), "cut-after=7").await;
    let end = answer.body.rsplit("\n\n").nth(1).unwrap();
    assert!(end.starts_with("data: {\"error\":{\"code\":\"backend_failed\""), "{}", answer.body);
    assert!(!answer.body.contains("response.incomplete") && !answer.body.contains("response.completed"));
    assert_eq!(caller.item("GET", &id_in(&answer.body), "").await.status, 200);
    assert_eq!(gateway.total(2).await["output_tokens"], 3);
}

/// Says that an event is safe when it is told to.
struct SlowHub(Arc<Semaphore>);

impl UsageSink for SlowHub {
    fn record(&self, _event: UsageEvent) -> Receipt {
        let acknowledged = Arc::clone(&self.0);
        Box::pin(async move {
            acknowledged.acquire().await.unwrap().forget();
            Ok(())
        })
    }
}

#[tokio::test]
async fn only_the_last_event_waits_until_the_usage_is_safe() {
    let gateway = TestGateway::start().await;
    let acknowledged = Arc::new(Semaphore::new(0));
    let address = gateway.serve_with(Arc::new(SlowHub(Arc::clone(&acknowledged)))).await;
    let body = hello(&json!({"stream": true})).to_string();
    let request = gateway.client.post(format!("http://{address}{V1}")).header("api-key", &gateway.key);
    let mut pieces = request.body(body).send().await.unwrap().bytes_stream();
    let mut seen = String::new();
    while let Ok(Some(piece)) = tokio::time::timeout(Duration::from_millis(300), pieces.next()).await {
        seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
    }
    assert!(seen.ends_with("}\n\n") && seen.contains("response.output_item.done"), "{seen}");
    assert!(!seen.contains("event: response.incomplete"), "{seen}");
    acknowledged.add_permits(1);
    let mut end = String::new();
    while let Some(piece) = pieces.next().await {
        end.push_str(&String::from_utf8_lossy(&piece.unwrap()));
    }
    assert!(end.starts_with("event: response.incomplete\n") && end.ends_with("}\n\n"), "{end}");
}

#[tokio::test]
async fn requests_for_a_response_go_where_it_is_kept_and_use_no_tokens() {
    let (mut gateway, _stops, _) = before_two().await;
    let copies = Arc::new(Copies { to: Arc::clone(&gateway.app.proxy.usage), kept: Mutex::default() });
    gateway.address = gateway.serve_with(Arc::clone(&copies) as Arc<dyn UsageSink>).await;
    let caller = Caller::of(&gateway);
    let mut makers = std::collections::BTreeSet::new();
    for stream in [false, true, false, true, false, false] {
        let (id, maker) = caller.make(&json!({"stream": stream})).await;
        let next = caller.post(&hello(&json!({"previous_response_id": id})), "").await;
        let items = caller.item("GET", &id, "/input_items").await;
        let read = caller.item("GET", &id, "").await;
        let cancelled = caller.item("POST", &id, "/cancel").await;
        let deleted = caller.item("DELETE", &id, "").await;
        let gone = caller.item("GET", &id, "").await;
        for (answer, status) in
            [(&next, 200), (&items, 200), (&read, 200), (&cancelled, 400), (&deleted, 200), (&gone, 404)]
        {
            assert_eq!(answer.status, status, "{}", answer.body);
            assert_eq!(answer.header("x-tollgate-backend"), maker);
            assert_eq!(answer.header("x-tollgate-attempts"), "1");
        }
        assert_eq!(id_in(&read.body), id);
        makers.insert(maker);
    }
    assert_eq!(makers.len(), 2, "both were asked for new ones");
    let events = copies.kept.lock().unwrap();
    assert_eq!(events.len(), 6 * 7);
    for event in events.iter() {
        let is_of_item = event.operation != "responses";
        assert_eq!(event.usage.source == Source::None, is_of_item, "{event:?}");
        assert_eq!((event.usage.input_tokens == 0, event.outcome), (is_of_item, Outcome::Completed));
        assert_eq!(event.deployment.as_str(), "gpt-4o-mini");
    }
    let operations: std::collections::BTreeSet<_> =
        events.iter().map(|event| event.operation.as_ref()).collect();
    let expected =
        ["responses", "responses.cancel", "responses.delete", "responses.get", "responses.input_items"];
    assert_eq!(operations.into_iter().collect::<Vec<_>>(), expected);
}

#[tokio::test]
async fn a_request_without_a_body_goes_on_without_one() {
    let gateway = TestGateway::start().await;
    let caller = Caller::of(&gateway);
    let (id, _) = caller.make(&json!({})).await;
    for (method, below, length) in
        [("GET", "?include[]=a&code=secret", None), ("POST", "/cancel", Some("0")), ("DELETE", "", None)]
    {
        caller.item(method, &id, below).await;
        let received = gateway.received().await;
        assert_eq!((&received["method"], &received["body_bytes"]), (&json!(method), &json!(0)));
        assert_eq!(received["headers"]["transfer-encoding"], Value::Null, "{received}");
        assert_eq!(received["headers"]["content-length"][0].as_str(), length, "{received}");
        assert!(!received.to_string().contains("secret") && received["headers"]["api-key"].is_null());
    }
}

#[tokio::test]
async fn what_a_busy_or_broken_backend_keeps_is_asked_of_no_other() {
    let (gateway, stops, [one, two]) = before_two().await;
    let caller = Caller::of(&gateway);
    let (id, maker) = caller.make(&json!({})).await;
    let (home, other) = if maker == "one" { (one, two) } else { (two, one) };
    let always = format!("http://{home}/simulator/always");
    let counts = format!("http://{other}/simulator/counts");
    let tell = async |words: &str| {
        ask(&gateway.client, "PUT", &always, &[], Some(words.to_owned())).await;
    };
    tell("status=500").await;
    let failed = caller.item("GET", &id, "").await;
    assert_eq!((failed.status, failed.code().as_str()), (503, "no_backend_available"), "{}", failed.body);
    tell("status=429,retry-after=7").await;
    let next = hello(&json!({"previous_response_id": id}));
    for _ in 0..2 {
        let busy = caller.post(&next, "").await;
        assert_eq!((busy.status, busy.code().as_str()), (429, "backends_throttled"), "{}", busy.body);
        assert_eq!(busy.header("retry-after"), "7");
    }
    assert_eq!(ask(&gateway.client, "GET", &counts, &[], None).await.json()["total"]["requests"], 0);
    // Others are served meanwhile, and it is still there when its backend is.
    assert_ne!(caller.make(&json!({})).await.1, maker);
    drop(stops);
}

#[tokio::test]
async fn what_is_another_subscriptions_is_not_there() {
    let gateway = TestGateway::start().await;
    let owner = Caller::of(&gateway);
    let thief = Caller::with_product(&gateway, "standard").await;
    for stream in [false, true] {
        let (id, _) = owner.make(&json!({"stream": stream})).await;
        let before = gateway.counts().await["requests"].clone();
        for (method, below) in [("GET", ""), ("GET", "/input_items"), ("POST", "/cancel"), ("DELETE", "")] {
            let refused = thief.item(method, &id, below).await;
            assert_eq!(refused.status, 404, "{}", refused.body);
            let missing = thief.item(method, "resp_none", below).await;
            let message = |answer: &Answer| answer.json()["error"]["message"].clone();
            assert_eq!(message(&refused), message(&missing).as_str().unwrap().replace("resp_none", &id));
        }
        let refused = thief.post(&hello(&json!({"previous_response_id": id})), "").await;
        assert_eq!((refused.status, refused.code().as_str()), (400, "previous_response_not_found"));
        let missing = thief.post(&hello(&json!({"previous_response_id": "resp_none"})), "").await;
        assert_eq!(refused.json()["error"]["param"], missing.json()["error"]["param"]);
        // None of it reached the backend but what asked for nobody's.
        assert_eq!(gateway.counts().await["requests"].as_u64(), before.as_u64().map(|before| before + 5));
        assert_eq!(owner.item("GET", &id, "").await.status, 200);
    }
}

#[tokio::test]
async fn what_is_not_known_here_is_looked_for_everywhere() {
    let (mut gateway, _stops, [one, two]) = before_two().await;
    let id = Caller::of(&gateway).make(&json!({})).await.0;
    // Another instance, to which every backend is as new as the response.
    for _ in 0..2 {
        gateway.address = gateway.serve_with(Arc::clone(&gateway.app.proxy.usage)).await;
        let caller = Caller::of(&gateway);
        let read = caller.item("GET", &id, "").await;
        assert_eq!((read.status, id_in(&read.body)), (200, id.clone()));
        let next = caller.post(&hello(&json!({"previous_response_id": id, "stream": true})), "").await;
        assert_eq!(next.status, 200, "{}", next.body);
        let missing = caller.item("GET", "resp_none", "").await;
        assert_eq!((missing.status, missing.header("x-tollgate-attempts")), (404, "2"));
        let direct = format!("http://{one}{V1}/resp_none");
        assert_eq!(missing.body, ask(&gateway.client, "GET", &direct, &[], None).await.body);
        let lost = caller.post(&hello(&json!({"previous_response_id": "resp_none"})), "").await;
        assert_eq!((lost.status, lost.code().as_str()), (400, "previous_response_not_found"));
        assert_eq!(lost.header("x-tollgate-attempts"), "2");
        // It is not known to be missing while one of them does not say so.
        let always = format!("http://{two}/simulator/always");
        ask(&gateway.client, "PUT", &always, &[], Some("status=503".to_owned())).await;
        let unknown = caller.item("GET", "resp_none", "").await;
        assert_eq!((unknown.status, unknown.code().as_str()), (503, "no_backend_available"));
        ask(&gateway.client, "PUT", &always, &[], Some("healthy".to_owned())).await;
    }
}

#[tokio::test]
async fn what_cannot_be_served_rightly_is_refused() {
    let gateway = TestGateway::start().await;
    let caller = Caller::of(&gateway);
    let background = caller.post(&hello(&json!({"background": true})), "").await;
    assert_eq!((background.status, background.code().as_str()), (400, "invalid_request_error"));
    assert_eq!(background.json()["error"]["param"], "background");
    let narrow = Caller::with_product(&gateway, "narrow").await;
    let refused = narrow.post(&hello(&json!({})), "").await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "deployment_not_allowed"));
    for (method, path) in [
        ("GET", "/openai/v1/responses"),
        ("PUT", "/openai/v1/responses/resp_1"),
        ("GET", "/openai/v1/responses/resp_1%2f..%2f..%2fmodels"),
        ("GET", "/openai/v1/responses/resp_1/other"),
        ("GET", "/openai/v1/responses/"),
        ("POST", "/openai/deployments/gpt-4o-mini/responses?api-version=2025-04-01-preview"),
        ("POST", "/responses"),
    ] {
        assert_eq!(caller.send(method, path, None, "").await.status, 404, "{method} {path}");
    }
    assert_eq!(gateway.counts().await["requests"], 0);
}
