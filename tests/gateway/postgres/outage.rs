//! While the server is down, or says nothing: it is reached through a door of the test's own, which can be shut, and
//! which can swallow what goes through the connections that there are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::{Fresh, place};
use crate::ledger::HOST;
use crate::support::{ADMIN_KEY, Answer, CHAT, Process, TestGateway, ask, configuration, listener, resource};

const PATIENCE: Duration = Duration::from_secs(20);

/// What never comes back is found out by then, everywhere.
const SERVES_AGAIN_WITHIN: Duration = Duration::from_secs(30);

/// Passes connections on to the server while it is open; cuts them off when it is shut.
struct Door {
    address: SocketAddr,
    is_open: Arc<AtomicBool>,
    cut: Arc<std::sync::Mutex<CancellationToken>>,
    swallow: Arc<std::sync::Mutex<CancellationToken>>,
    _stop: DropGuard,
}

impl Door {
    async fn before(fresh: &Fresh, is_open: bool) -> Self {
        let server = place(&fresh.url);
        let server = (server.host, server.port);
        let (listener, stop) = (listener().await, CancellationToken::new());
        let address = listener.local_addr().unwrap();
        let is_open = Arc::new(AtomicBool::new(is_open));
        let cut = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let swallow = Arc::new(std::sync::Mutex::new(CancellationToken::new()));
        let (open, cutting, stopped) = (is_open.clone(), cut.clone(), stop.clone());
        let swallowing = swallow.clone();
        let tasks = TaskTracker::new();
        let passing = tasks.clone();
        tasks.spawn(stopped.run_until_cancelled_owned(async move {
            loop {
                let Ok((mut one, _)) = listener.accept().await else { continue };
                if !open.load(Ordering::SeqCst) {
                    continue;
                }
                let mut other = TcpStream::connect(&server).await.unwrap();
                let cut = cutting.lock().unwrap().clone();
                let swallow = swallowing.lock().unwrap().clone();
                passing.spawn(cut.run_until_cancelled_owned(async move {
                    let passing = tokio::io::copy_bidirectional(&mut one, &mut other);
                    if swallow.run_until_cancelled(passing).await.is_none() {
                        std::future::pending::<()>().await;
                    }
                }));
            }
        }));
        Self { address, is_open, cut, swallow, _stop: stop.drop_guard() }
    }

    fn shut(&self) {
        self.is_open.store(false, Ordering::SeqCst);
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    /// The connections that there are stay open, and nothing passes through them any more. New ones are as ever.
    fn swallow_what_is_open(&self) {
        std::mem::take(&mut *self.swallow.lock().unwrap()).cancel();
    }

    fn open(&self) {
        self.is_open.store(true, Ordering::SeqCst);
    }
}

/// A look for changes comes every 2 s.
const SEEN_WITHIN: Duration = Duration::from_millis(2_500);

fn chat() -> String {
    json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn while_it_is_down_the_known_call_on_the_unknown_get_503_and_so_does_management() {
    let fresh = Fresh::make().await;
    let door = Door::before(&fresh, true).await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let settings = [("TOLLGATE_DATABASE_URL", fresh.url_at(door.address))];
    let gateway = TestGateway::with_settings(address, &configuration(address), &settings).await;
    let body = json!({"name": "suspended", "product": "standard"});
    let suspended = gateway.manage("POST", "/subscriptions", Some(&body)).await.json();
    let (id, suspended) = (suspended["id"].as_str().unwrap(), suspended["primary_key"].as_str().unwrap());
    let patch = json!({"state": "suspended"});
    gateway.manage("PATCH", &format!("/subscriptions/{id}"), Some(&patch)).await;
    let unknown = gateway.issue(&body).await;
    let call = async |key: &str| gateway.send("POST", CHAT, &[("api-key", key)], Some(chat())).await;
    assert_eq!(call(&gateway.key).await.status, 200);
    assert_eq!(call(suspended).await.status, 401);
    // Until their own issue and change have been seen as changes: what changed since it was read is not known.
    tokio::time::sleep(SEEN_WITHIN).await;
    assert_eq!(call(&gateway.key).await.status, 200);
    assert_eq!(call(suspended).await.status, 401);
    door.shut();
    let until = tokio::time::Instant::now() + Duration::from_secs(7);
    let mut longest = Duration::ZERO;
    while tokio::time::Instant::now() < until {
        let began = tokio::time::Instant::now();
        assert_eq!(call(&gateway.key).await.status, 200);
        longest = longest.max(began.elapsed());
        assert_eq!(call(suspended).await.status, 401);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("the longest call of a known caller while the store was down: {longest:?}");
    let refused = call(&unknown).await;
    assert_eq!((refused.status, refused.code().as_str()), (503, "gateway_unavailable"), "{}", refused.body);
    assert_eq!(refused.header("retry-after"), "1");
    let managed = gateway.manage("POST", "/subscriptions", Some(&body)).await;
    assert_eq!(managed.status, 503, "{}", managed.body);
    door.open();
    let recovered = async {
        while call(&unknown).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, recovered).await.expect("it finds the server again");
    // Nothing of what was refused was kept.
    let listed = gateway.manage("GET", "/subscriptions", None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 3, "{listed}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn when_its_connections_fall_silent_known_callers_go_on_and_all_else_is_served_again_within_30_s() {
    let fresh = Fresh::make().await;
    let door = Door::before(&fresh, true).await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let settings = [("TOLLGATE_DATABASE_URL", fresh.url_at(door.address))];
    let gateway = TestGateway::with_settings(address, &configuration(address), &settings).await;
    let unknown = gateway.issue(&json!({"name": "unknown", "product": "standard"})).await;
    let call = async |key: &str| gateway.send("POST", CHAT, &[("api-key", key)], Some(chat())).await.status;
    let manage = async || gateway.manage("GET", "/subscriptions", None).await.status;
    let deliver = async || {
        let batch =
            json!({"Data": {"events": json!(["unreadable"]).to_string()}, "Metadata": {}}).to_string();
        gateway.send("POST", "/token-accounting", &HOST, Some(batch)).await.status
    };
    // All of its connections are in use.
    let known = gateway.key.as_str();
    for _ in 0..3 {
        let crowd = (manage(), manage(), manage(), manage(), deliver(), call(known));
        let crowd = tokio::join!(crowd.0, crowd.1, crowd.2, crowd.3, crowd.4, crowd.5);
        assert_eq!(crowd, (200, 200, 200, 200, 200, 200));
    }
    door.swallow_what_is_open();
    let began = tokio::time::Instant::now();
    let all_is_served = async {
        tokio::join!(async { until_ok(manage).await }, async { until_ok(deliver).await }, async {
            until_ok(async || call(&unknown).await).await;
        },)
    };
    let known_goes_on = async {
        loop {
            assert_eq!(call(known).await, 200);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let served = tokio::time::timeout(SERVES_AGAIN_WITHIN, async {
        tokio::select! {
            () = known_goes_on => unreachable!("it goes on for ever"),
            _ = all_is_served => {}
        }
    });
    served.await.expect("all is served again");
    println!("silent connections were found out within {:?}", began.elapsed());
    // Not one of them is left in the way.
    let crowd = tokio::join!(manage(), manage(), manage(), manage(), deliver(), call(&unknown));
    assert_eq!(crowd, (200, 200, 200, 200, 200, 200));
}

async fn until_ok(ask: impl AsyncFn() -> u16) {
    while ask().await != 200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn healthz_says_degraded_while_it_is_down_though_nobody_calls() {
    let fresh = Fresh::make().await;
    let door = Door::before(&fresh, true).await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let settings = [("TOLLGATE_DATABASE_URL", fresh.url_at(door.address))];
    let gateway = TestGateway::with_settings(address, &configuration(address), &settings).await;
    let gets = async |status: &str| {
        let asking = async {
            while gateway.send("GET", "/healthz", &[], None).await.json()["status"] != status {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let asked = tokio::time::timeout(PATIENCE, asking).await;
        asked.unwrap_or_else(|_| panic!("it never gets {status}"));
    };
    gets("ready").await;
    door.shut();
    gets("degraded").await;
    door.open();
    gets("ready").await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL"]
async fn serve_starts_while_it_is_down_says_so_and_serves_once_it_is_there() {
    let fresh = Fresh::make().await;
    let door = Door::before(&fresh, false).await;
    let (address, _stop) = resource(tollgate::simulator::Knobs::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let url = fresh.url_at(door.address);
    let more = [("TOLLGATE_DATABASE_URL", url.as_str())];
    let process = Process::serve_in(folder.path(), &configuration(address), &more).await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let bearer = format!("Bearer {ADMIN_KEY}");
    let headers = [("api-key", "tg_x"), ("authorization", bearer.as_str())];
    let send = async |method: &str, path: &str, body: Option<String>| -> Answer {
        ask(&client, method, &format!("http://{}{path}", process.address), &headers, body).await
    };
    assert_eq!(send("GET", "/", None).await.status, 200);
    assert_eq!(send("GET", "/healthz", None).await.json()["status"], "starting");
    for (method, path) in [("POST", CHAT), ("GET", "/subscriptions"), ("POST", "/token-accounting")] {
        let answer = send(method, path, Some(chat())).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "gateway_unavailable"), "{}", answer.body);
        assert_eq!(answer.header("retry-after"), "1");
    }
    door.open();
    let ready = async {
        while send("GET", "/healthz", None).await.json()["status"] != "ready" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, ready).await.expect("it gets ready");
    let key = process.issue().await;
    let url = format!("http://{}{CHAT}", process.address);
    let answer = ask(&client, "POST", &url, &[("api-key", &key)], Some(chat())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}
