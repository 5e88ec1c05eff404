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
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::task::TaskTracker;

use crate::support::{Process, ask};

/// More than one connection takes.
const AT_ONCE: usize = 120;
const PATIENCE: Duration = Duration::from_secs(30);

/// What came to the backend.
#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    versions: Mutex<BTreeMap<String, usize>>,
}

/// A server with a certificate of its own making; the certificate is written where `SSL_CERT_FILE` can
/// name it. It answers once `together` requests are in hand.
async fn backend(certificate: &Path, protocols: &[&[u8]], together: usize) -> (SocketAddr, Arc<Seen>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(certificate, made.cert.pem()).unwrap();
    let mut tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], made.signing_key.serialize_der().try_into().unwrap())
        .unwrap();
    tls.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, seen, tasks) =
        (listener.local_addr().unwrap(), Arc::new(Seen::default()), TaskTracker::new());
    let (barrier, seeing) = (Arc::new(Barrier::new(together)), Arc::clone(&seen));
    tasks.clone().spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            seeing.connections.fetch_add(1, SeqCst);
            let (seeing, barrier) = (Arc::clone(&seeing), Arc::clone(&barrier));
            let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
                let (seeing, barrier) = (Arc::clone(&seeing), Arc::clone(&barrier));
                async move {
                    let version = format!("{:?}", request.version());
                    *seeing.versions.lock().unwrap().entry(version).or_default() += 1;
                    barrier.wait().await;
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

async fn asked_at_once(protocols: &[&[u8]], count: usize) -> Arc<Seen> {
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("certificate.pem");
    let (address, seen) = backend(&certificate, protocols, count).await;
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
    let mut made = 0;
    for wave in [1, 2] {
        let chats = (0..count).map(|_| ask(&client, "POST", &url, &headers, Some(body.clone())));
        let answers = tokio::time::timeout(PATIENCE, futures_util::future::join_all(chats)).await.unwrap();
        for answer in answers {
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        let before = std::mem::replace(&mut made, seen.connections.load(SeqCst));
        assert!(wave == 1 || made == before, "connections were not used again: {before}, then {made}");
    }
    seen
}

#[tokio::test]
async fn http2_is_spoken_and_no_request_waits_for_a_place_on_a_connection() {
    let seen = asked_at_once(&[b"h2", b"http/1.1"], AT_ONCE).await;
    assert_eq!(*seen.versions.lock().unwrap(), BTreeMap::from([("HTTP/2.0".to_owned(), 2 * AT_ONCE)]));
}

#[tokio::test]
async fn http1_is_spoken_to_those_who_do_not_offer_more() {
    let seen = asked_at_once(&[b"http/1.1"], 4).await;
    assert_eq!(*seen.versions.lock().unwrap(), BTreeMap::from([("HTTP/1.1".to_owned(), 8)]));
}

#[tokio::test]
async fn a_certificate_that_nobody_vouches_for_is_no_backend() {
    let folder = tempfile::tempdir().unwrap();
    let (address, seen) = backend(&folder.path().join("unused.pem"), &[b"h2"], 1).await;
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
