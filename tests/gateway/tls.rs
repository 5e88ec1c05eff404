//! A backend as it is in Azure: behind TLS, and speaking HTTP/2.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;

use crate::support::{Process, ask};

/// More than one connection takes.
const AT_ONCE: usize = 120;
const PATIENCE: Duration = Duration::from_secs(30);

/// What came to the backend.
struct Seen {
    connections: AtomicUsize,
    versions: Mutex<BTreeMap<String, usize>>,
    /// Requests so far. Each is answered when all of its wave are there.
    requests: watch::Sender<usize>,
    /// Up to which request the wave goes.
    wave: AtomicUsize,
}

impl Seen {
    async fn request(&self, version: http::Version) {
        *self.versions.lock().unwrap().entry(format!("{version:?}")).or_default() += 1;
        self.requests.send_modify(|requests| *requests += 1);
        let all = |requests: &usize| *requests >= self.wave.load(SeqCst);
        self.requests.subscribe().wait_for(all).await.unwrap();
    }
}

/// A server with a certificate of its own making; the certificate is written where `SSL_CERT_FILE` can
/// name it.
async fn backend(certificate: &Path, protocols: &[&[u8]]) -> (SocketAddr, Arc<Seen>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, made.cert.pem()).unwrap();
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], made.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, tasks) = (listener.local_addr().unwrap(), TaskTracker::new());
    let seen = Arc::new(Seen {
        connections: AtomicUsize::new(0),
        versions: Mutex::default(),
        requests: watch::Sender::new(0),
        wave: AtomicUsize::new(0),
    });
    let seeing = Arc::clone(&seen);
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            seeing.connections.fetch_add(1, SeqCst);
            let seeing = Arc::clone(&seeing);
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let seeing = Arc::clone(&seeing);
                async move {
                    seeing.request(request.version()).await;
                    Ok::<_, Infallible>(reply())
                }
            });
            tasks.spawn(async move {
                let io = TokioIo::new(stream);
                if io.inner().get_ref().1.alpn_protocol() == Some(b"h2") {
                    // What Azure's own front ends take.
                    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    let _ = server.max_concurrent_streams(100).serve_connection(io, service).await;
                } else {
                    let _ = hyper::server::conn::http1::Builder::new().serve_connection(io, service).await;
                }
            });
        }
    });
    (address, seen)
}

fn reply() -> http::Response<Full<Bytes>> {
    let body = json!({
        "model": "gpt-4o-mini-2024-07-18", "choices": [],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    });
    let reply = http::Response::builder().header("content-type", "application/json");
    reply.body(Full::from(body.to_string())).unwrap()
}

/// Asks in waves of so many at once; answers with the connections there were after each.
async fn asked_in_waves(protocols: &[&[u8]], waves: &[usize]) -> (Arc<Seen>, Vec<usize>) {
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("certificate.pem");
    let (address, seen) = backend(&certificate, protocols).await;
    let configuration = json!({
        "backends": [{"name": "tls", "endpoint": format!("https://localhost:{}", address.port()),
                      "auth": {"kind": "none"}}],
        "products": [{"name": "standard"}],
    });
    let trusted = [("SSL_CERT_FILE", certificate.to_str().unwrap())];
    let gateway = Process::serve_in(folder.path(), &configuration, &trusted).await;
    let key = gateway.issue().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/openai/v1/chat/completions", gateway.address);
    let body =
        json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}).to_string();
    let headers = [("api-key", key.as_str())];
    let mut connections = Vec::new();
    for wave in waves {
        seen.wave.fetch_add(*wave, SeqCst);
        let chats = (0..*wave).map(|_| ask(&client, "POST", &url, &headers, Some(body.clone())));
        let answers = tokio::time::timeout(PATIENCE, futures_util::future::join_all(chats)).await.unwrap();
        for answer in answers {
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        connections.push(seen.connections.load(SeqCst));
    }
    (seen, connections)
}

#[tokio::test]
async fn http2_is_spoken_and_no_request_waits_for_a_place_on_a_connection() {
    let (seen, connections) = asked_in_waves(&[b"h2", b"http/1.1"], &[1, 80, AT_ONCE]).await;
    assert_eq!(*seen.versions.lock().unwrap(), BTreeMap::from([("HTTP/2.0".to_owned(), 81 + AT_ONCE)]));
    assert_eq!(connections[..2], [1, 1]);
}

#[tokio::test]
async fn http1_is_spoken_to_those_who_do_not_offer_more() {
    let (seen, _) = asked_in_waves(&[b"http/1.1"], &[4]).await;
    assert_eq!(*seen.versions.lock().unwrap(), BTreeMap::from([("HTTP/1.1".to_owned(), 4)]));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_no_backend() {
    let folder = tempfile::tempdir().unwrap();
    let (address, seen) = backend(&folder.path().join("unused.pem"), &[b"h2"]).await;
    let configuration = json!({
        "backends": [{"name": "tls", "endpoint": format!("https://localhost:{}", address.port()),
                      "auth": {"kind": "none"}}],
        "products": [{"name": "standard"}],
    });
    let gateway = Process::serve(folder.path(), &configuration).await;
    let key = gateway.issue().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}/openai/v1/chat/completions", gateway.address);
    let body = json!({"model": "gpt-4o-mini", "messages": []}).to_string();
    let answer = ask(&client, "POST", &url, &[("api-key", key.as_str())], Some(body)).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"), "{}", answer.body);
    assert!(seen.versions.lock().unwrap().is_empty());
}
