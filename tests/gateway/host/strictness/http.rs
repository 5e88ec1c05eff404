//! The two ways of HTTP, and the envelope: what passes, what is lost, what is cut.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tollgate::cli::package;

use super::super::app::{App, Mode, Settings};
use super::super::front::{ACTIVITY_TIMEOUT, FUNCTION_KEY, Host};
use super::super::process::State;
use super::Fake;

/// A host in this mode before a handler of ours, with one function that wants a key.
async fn host(mode: Mode, state: watch::Receiver<State>, activity_timeout: Duration) -> Host {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("binary"), "#!/bin/sh\n").unwrap();
    package::stage(&scratch.path().join("binary"), scratch.path()).unwrap();
    let root = scratch.path().join("functionapp");
    let keyed =
        fs::read_to_string(root.join("healthz/function.json")).unwrap().replace("anonymous", "function");
    fs::write(root.join("healthz/function.json"), keyed).unwrap();
    let mut settings: Settings = [("USAGE_EVENTHUB_NAME", "x"), ("UsageEventHub", "x")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let off = |key: &str| (format!("AzureFunctionsJobHost__customHandler__{key}"), "false".to_owned());
    match mode {
        Mode::Proxying => {}
        Mode::Forwarding => settings.extend([off("enableProxyingHttpRequest")]),
        Mode::Envelope => {
            settings.extend([off("enableProxyingHttpRequest"), off("enableForwardingHttpRequest")]);
        }
    }
    let app = App::load(&root, &settings).unwrap();
    assert_eq!(app.mode, mode);
    Host::serve(Arc::new(app), state, activity_timeout).await
}

/// Tells what reached it.
async fn echo(request: Request) -> axum::Json<Value> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let headers =
        parts.headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
    axum::Json(json!({
        "method": parts.method.as_str(),
        "target": parts.uri.to_string(),
        "headers": Value::Object(headers.collect()),
        "body": String::from_utf8_lossy(&body[..body.len().min(1000)]),
        "body_bytes": body.len(),
    }))
}

async fn echoing(mode: Mode) -> (Fake, Host) {
    let fake = Fake::start(Router::new().fallback(any(echo)).layer(DefaultBodyLimit::disable())).await;
    let host = host(mode, fake.state.clone(), ACTIVITY_TIMEOUT).await;
    (fake, host)
}

async fn json_of(request: reqwest::RequestBuilder) -> Value {
    request.send().await.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn the_proxy_passes_the_target_and_sets_its_own_headers() {
    let (_fake, host) = echoing(Mode::Proxying).await;
    let request = reqwest::Client::new()
        .post(host.url("/openai/a%2Fb/c?x=1&x=2&y=%20"))
        .header("x-forwarded-for", "1.2.3.4")
        .header("forwarded", "for=1.2.3.4")
        .header("x-ms-invocation-id", "forged")
        .header("te", "trailers")
        .header("connection", "x-mine")
        .header("x-mine", "1")
        .header("content-encoding", "identity")
        .body("hello");
    let seen = json_of(request).await;
    assert_eq!(seen["target"], "/openai/a%2Fb/c?x=1&x=2&y=%20");
    assert_eq!(seen["body"], "hello");
    let headers = &seen["headers"];
    assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
    assert_eq!(headers["x-forwarded-host"], host.address.to_string());
    assert_ne!(headers["host"], host.address.to_string());
    assert_ne!(headers["x-ms-invocation-id"], "forged");
    assert_eq!(headers["x-ms-invocation-id"], headers["x-azure-functions-invocationid"]);
    assert_eq!(headers["content-encoding"], "identity");
    for gone in ["forwarded", "te", "connection", "x-mine"] {
        assert!(headers[gone].is_null(), "{gone} in {headers}");
    }
}

#[tokio::test]
async fn forwarding_rebuilds_the_request() {
    let (_fake, host) = echoing(Mode::Forwarding).await;
    let request = reqwest::Client::builder()
        .user_agent("curl/8")
        .build()
        .unwrap()
        .post(host.url("/v1/a?x=1&y=2&x=3"))
        .header("content-encoding", "identity")
        .body("hello");
    let seen = json_of(request).await;
    assert_eq!(seen["target"], "/v1/a?x=1%2C3&y=2");
    assert_eq!(seen["body"], "hello");
    let headers = &seen["headers"];
    assert_eq!(headers["host"], host.address.to_string());
    assert!(headers["user-agent"].as_str().unwrap().starts_with("curl/8 Azure-Functions-Host/"), "{headers}");
    for absent in ["content-encoding", "x-forwarded-host", "x-ms-invocation-id"] {
        assert!(headers[absent].is_null(), "{absent} in {headers}");
    }
}

#[tokio::test]
async fn a_chunked_body_streams_through_the_proxy_and_fails_in_forwarding() {
    let chunked =
        || reqwest::Body::wrap_stream(futures_util::stream::iter([Ok::<_, std::io::Error>("hel"), Ok("lo")]));
    let (_fake, host) = echoing(Mode::Proxying).await;
    let client = reqwest::Client::new();
    assert_eq!(json_of(client.post(host.url("/v1/a")).body(chunked())).await["body"], "hello");
    let (_fake, host) = echoing(Mode::Forwarding).await;
    let refused = client.post(host.url("/v1/a")).body(chunked()).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
    assert!(refused.text().await.unwrap().contains("Transfer-Encoding: chunked"));
}

#[tokio::test]
async fn an_envelope_carries_http_as_json() {
    let router = Router::new().route(
        "/v1",
        any(|body: String| async move {
            let envelope: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(envelope["Data"]["req"]["Method"], "POST");
            axum::Json(
                json!({"Outputs": {"res": {"statusCode": "418", "body": envelope["Data"]["req"]["Body"]}}}),
            )
        }),
    );
    let fake = Fake::start(router).await;
    let host = host(Mode::Envelope, fake.state.clone(), ACTIVITY_TIMEOUT).await;
    let response = reqwest::Client::new().post(host.url("/v1/a")).body("tea").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.text().await.unwrap(), "tea");
}

#[tokio::test]
async fn keys_routes_and_sizes_are_the_hosts_matter() {
    let (_fake, host) = echoing(Mode::Proxying).await;
    let client = reqwest::Client::new();
    let code = format!("/healthz?code={FUNCTION_KEY}");
    for (path, status) in [
        ("/healthz", 401),
        (code.as_str(), 200),
        ("/admin/host/status", 401),
        ("/runtime/webhooks/x", 401),
        ("/token-accounting", 404),
        ("/nowhere", 404),
        ("/", 200),
        ("/openapi.json", 200),
    ] {
        let response = client.get(host.url(path)).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{path}");
        if status == 401 {
            assert_eq!(response.text().await.unwrap(), "", "{path}");
        }
    }
    let keyed = client.get(host.url("/healthz")).header("x-functions-key", FUNCTION_KEY);
    assert_eq!(json_of(keyed).await["headers"]["x-functions-key"], FUNCTION_KEY);
    let large = client.post(host.url("/v1/a")).body(vec![b'x'; 104_857_601]).send().await;
    // The host may cut the connection while the body is still being written.
    assert!(large.is_err() || large.unwrap().status() == StatusCode::PAYLOAD_TOO_LARGE);
}

/// Streams what it is sent, and tells when its caller has gone.
async fn streaming() -> (Fake, mpsc::Sender<&'static str>, oneshot::Receiver<()>) {
    struct Gone(Option<oneshot::Sender<()>>);
    impl Drop for Gone {
        fn drop(&mut self) {
            let _ = self.0.take().expect("dropped once").send(());
        }
    }
    let (sender, receiver) = mpsc::channel(1);
    let (gone, has_gone) = oneshot::channel();
    let source = Arc::new(std::sync::Mutex::new(Some((receiver, Gone(Some(gone))))));
    let router = Router::new().fallback(any(move || {
        let source = source.lock().unwrap().take().expect("asked once");
        async move {
            let pieces = futures_util::stream::unfold(source, |(mut receiver, gone)| async move {
                receiver.recv().await.map(|piece| (Ok::<_, std::io::Error>(piece), (receiver, gone)))
            });
            Response::new(Body::from_stream(pieces))
        }
    }));
    (Fake::start(router).await, sender, has_gone)
}

#[tokio::test]
async fn the_proxy_streams_and_a_client_that_leaves_is_heard_of() {
    let (fake, sender, has_gone) = streaming().await;
    let host = host(Mode::Proxying, fake.state.clone(), ACTIVITY_TIMEOUT).await;
    let asked = reqwest::Client::new().get(host.url("/v1/a")).send();
    sender.send("one").await.unwrap();
    let mut pieces = asked.await.unwrap().bytes_stream();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "one");
    sender.send("two").await.unwrap();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "two");
    drop(pieces);
    tokio::time::timeout(Duration::from_secs(1), has_gone).await.unwrap().unwrap();
}

#[tokio::test]
async fn forwarding_waits_for_the_end_and_never_tells_that_the_client_left() {
    let (fake, sender, mut has_gone) = streaming().await;
    let host = host(Mode::Forwarding, fake.state.clone(), ACTIVITY_TIMEOUT).await;
    sender.send("one").await.unwrap();
    let asked = reqwest::Client::new().get(host.url("/v1/a")).send();
    let impatient = tokio::time::timeout(Duration::from_millis(100), asked).await;
    assert!(impatient.is_err(), "a byte came out before the end");
    sender.send("two").await.unwrap();
    assert!(has_gone.try_recv().is_err(), "the handler was told");
}

#[tokio::test]
async fn a_silence_past_the_limit_is_cut() {
    let (fake, sender, has_gone) = streaming().await;
    let host = host(Mode::Proxying, fake.state.clone(), Duration::from_millis(50)).await;
    let asked = reqwest::Client::new().get(host.url("/v1/a")).send();
    sender.send("one").await.unwrap();
    let mut pieces = asked.await.unwrap().bytes_stream();
    assert_eq!(pieces.next().await.unwrap().unwrap(), "one");
    assert!(pieces.next().await.unwrap().is_err());
    has_gone.await.unwrap();
}

/// Resets the first connections, then answers.
async fn resetting(
    resets: usize,
) -> (watch::Receiver<State>, watch::Sender<State>, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(AtomicUsize::new(0));
    let (counted, mut tasks) = (heads.clone(), JoinSet::new());
    tasks.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut buffer = [0; 4096];
            let _ = stream.read(&mut buffer).await.unwrap();
            if counted.fetch_add(1, Ordering::Relaxed) >= resets {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            }
        }
    });
    let (sender, state) = watch::channel(State::Ready { port, pid: 0 });
    (state, sender, heads, tasks)
}

#[tokio::test]
async fn what_has_no_body_is_sent_again_and_what_has_one_is_not() {
    let client = reqwest::Client::new();
    let (state, _sender, heads, _tasks) = resetting(2).await;
    let front = host(Mode::Proxying, state, ACTIVITY_TIMEOUT).await;
    let response = client.get(front.url("/v1/a")).send().await.unwrap();
    assert_eq!((response.status().as_u16(), heads.load(Ordering::Relaxed)), (200, 3));

    let (state, _sender, heads, _tasks) = resetting(1).await;
    let front = host(Mode::Proxying, state, ACTIVITY_TIMEOUT).await;
    let response = client.post(front.url("/v1/a")).body("x").send().await.unwrap();
    assert_eq!((response.status().as_u16(), heads.load(Ordering::Relaxed)), (500, 1));
}
