//! The simulated Azure OpenAI resource keeps its promises.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tollgate::server;
use tollgate::simulator::{self, Knobs};
use tower::ServiceExt;

mod books;
mod faults;
mod refusals;
mod replies;
mod responses;
mod streams;

const CHAT: &str = "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21";
const V1_CHAT: &str = "/openai/v1/chat/completions";
const NO_HEADERS: &[(&str, &str)] = &[];

/// A resource that is asked without a connection.
struct Resource(Router);

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Resource {
    fn new(knobs: Knobs) -> Self {
        Self(simulator::router(knobs))
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        let (parts, body) = self.0.clone().oneshot(request).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer { status: parts.status, headers: parts.headers, body }
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, NO_HEADERS, &body.to_string()).await
    }

    /// Asks with words of `x-simulate`.
    async fn told(&self, words: &str, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("x-simulate", words)], &body.to_string()).await
    }

    async fn counts(&self) -> Value {
        self.send("GET", "/simulator/counts", NO_HEADERS, "").await.json()
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The data of each event.
    fn events(&self) -> Vec<String> {
        let text = std::str::from_utf8(&self.body).unwrap();
        let events = text.strip_suffix("\n\n").unwrap().split("\n\n");
        events.map(|event| event.strip_prefix("data: ").unwrap().to_owned()).collect()
    }

    /// The same without the last, which must be `[DONE]`.
    fn chunks(&self) -> Vec<Value> {
        let mut events = self.events();
        assert_eq!(events.pop().unwrap(), "[DONE]");
        events.iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    /// Status and error, with what a refusal tells of waiting.
    fn refusal(&self) -> String {
        let mut lines = vec![self.status.to_string()];
        for (name, value) in &self.headers {
            let name = name.as_str();
            if name.starts_with("retry-after") || name.contains("-reset-") || name == "policy-id" {
                lines.push(format!("{name}: {}", value.to_str().unwrap()));
            }
        }
        lines.push(String::from_utf8(self.body.to_vec()).unwrap());
        lines.join("\n")
    }
}

/// A resource behind a port, for what happens to connections.
struct Listening {
    address: SocketAddr,
    resource: Resource,
    _stop: DropGuard,
}

impl Listening {
    async fn new(knobs: Knobs) -> Self {
        let router = simulator::router(knobs);
        let listener = server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(server::serve(listener, router.clone(), stop.clone()));
        Self { address, resource: Resource(router), _stop: stop.drop_guard() }
    }

    /// A connection on which this request has been sent.
    async fn ask(&self, words: &str, body: &Value) -> TcpStream {
        let mut connection = TcpStream::connect(self.address).await.unwrap();
        let body = body.to_string();
        let head = format!(
            "POST {CHAT} HTTP/1.1\r\nhost: test\r\nx-simulate: {words}\r\nconnection: close\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        connection.write_all((head + &body).as_bytes()).await.unwrap();
        connection
    }

    /// All that comes until the connection is closed.
    async fn all(&self, words: &str, body: &Value) -> String {
        let mut connection = self.ask(words, body).await;
        let mut all = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(10), connection.read_to_end(&mut all));
        // A reset ends it as well as an orderly close.
        let _ = read.await.unwrap();
        String::from_utf8(all).unwrap()
    }

    async fn counts_once(&self, done: impl Fn(&Value) -> bool) -> Value {
        self.once("/simulator/counts", done).await
    }

    /// What the resource says of itself, once that is so: it is written by other tasks than ours.
    async fn once(&self, path: &str, done: impl Fn(&Value) -> bool) -> Value {
        let patience = Duration::from_secs(10);
        let counted = tokio::time::timeout(patience, async {
            loop {
                let told = self.resource.send("GET", path, NO_HEADERS, "").await.json();
                if done(&told) {
                    return told;
                }
                tokio::task::yield_now().await;
            }
        });
        counted.await.unwrap()
    }
}

/// Reads until `text` has come.
async fn read_until(connection: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    let mut buffer = [0; 4096];
    while !read.contains(text) {
        let length = connection.read(&mut buffer).await.unwrap();
        assert_ne!(length, 0, "closed before {text:?} came: {read}");
        read.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
    }
    read
}

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Hello, world!"}], "max_tokens": 5})
}

fn with(mut body: Value, more: &Value) -> Value {
    let members = more.as_object().unwrap().clone();
    body.as_object_mut().unwrap().extend(members);
    body
}

fn streamed(more: &Value) -> Value {
    with(with(hello(), &json!({"stream": true})), more)
}
