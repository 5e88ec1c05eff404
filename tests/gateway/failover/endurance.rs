//! Load before backends that are full, that fail at random, and that are killed and started.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate::server;
use tollgate::simulator::{self, Kind, Knobs};

use super::rig::{Rig, backend, hello};
use crate::support::{CHAT, TestGateway, configuration};

/// Until the first byte, while another backend can be asked: what a stall costs. Longer than anything else
/// takes, on a machine that runs other tests besides.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// What all simulated resources need to think, so that they are told apart by nothing else.
const THINKING_MS: u64 = 10;

/// What became of one request.
struct Reply {
    status: u16,
    /// It came to its proper end.
    is_whole: bool,
    id: String,
    backend: String,
    attempts: u64,
    /// From when it was due to be sent to the head of its answer.
    head: Duration,
}

/// Sends a request each `1 / per_second`, whether the ones before are answered or not; every other one
/// streamed. `midway` is done when the last one was sent.
async fn load<T>(
    gateway: &TestGateway,
    requests: u32,
    per_second: u32,
    midway: impl Future<Output = T>,
) -> (Vec<Reply>, T) {
    let (url, began) = (format!("http://{}{CHAT}", gateway.address), Instant::now());
    let tasks = TaskTracker::new();
    let mut asked = Vec::new();
    for number in 0..requests {
        let due = began + Duration::from_secs(1) * number / per_second;
        tokio::time::sleep_until(due).await;
        let (client, url, key) = (gateway.client.clone(), url.clone(), gateway.key.clone());
        asked.push(tasks.spawn(async move { one(&client, &url, &key, number % 2 == 0, due).await }));
    }
    let midway = midway.await;
    let replies = join_all(asked).await.into_iter().map(Result::unwrap).collect();
    (replies, midway)
}

async fn one(client: &Client, url: &str, key: &str, stream: bool, due: Instant) -> Reply {
    let request = client.post(url).header("api-key", key).body(hello(stream).to_string());
    let response = request.send().await.unwrap();
    let head = due.elapsed();
    let header = |name: &str| {
        let value = response.headers().get(name);
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    };
    let (id, backend) = (header("x-request-id"), header("x-tollgate-backend"));
    let (status, attempts) = (response.status().as_u16(), header("x-tollgate-attempts"));
    let body = response.text().await.unwrap_or_default();
    let is_whole = if stream {
        body.ends_with("data: [DONE]\n\n") && !body.contains("\"error\"")
    } else {
        serde_json::from_str::<Value>(&body).is_ok_and(|body| body["choices"].is_array())
    };
    Reply { status, is_whole, id, backend, attempts: attempts.parse().unwrap(), head }
}

/// Three backends: provisioned capacity for half of what comes, one that fails 30 % of the time, and, asked
/// last, one that does not. Nobody notices anything; every request is served once, counted once, billed once.
async fn endure(requests: u32, per_second: u32, is_alone: bool) {
    // Vocabularies are loaded at first use.
    let warm = TestGateway::start().await;
    assert_eq!(warm.chat(&hello(true), "").await.status, 200);
    let knobs = || Knobs { ttft_ms: THINKING_MS, reply_tokens: 20, ..Knobs::default() };
    let capacity = f64::from(per_second) / 2.0;
    let faults = vec![Kind::ServerError, Kind::Reset, Kind::Stall];
    let resources = vec![
        ("ptu", Knobs { requests_per_second: Some(capacity), ..knobs() }),
        ("flaky", Knobs { fault_share: 0.3, faults, ..knobs() }),
        ("paygo", knobs()),
    ];
    let rig = Rig::before(resources, |configuration| {
        let first_byte = FIRST_BYTE.as_secs_f64();
        configuration["timeouts"] = json!({"first_byte": first_byte, "stream_first_byte": first_byte});
    })
    .await;
    let (replies, used) = load(&rig.gateway, requests, per_second, rig.capacity("ptu")).await;
    // What the callers got: all of it.
    let failed: Vec<_> = replies.iter().filter(|reply| reply.status != 200 || !reply.is_whole).collect();
    let told: Vec<_> = failed.iter().map(|reply| (reply.status, reply.attempts, &reply.backend)).collect();
    assert!(failed.is_empty(), "{} of {requests} failed: {told:?}", failed.len());
    let ids: HashSet<_> = replies.iter().map(|reply| reply.id.as_str()).collect();
    assert_eq!(ids.len(), replies.len());
    // What the resources say that they served, and were asked; and what the ledger has.
    let total = rig.gateway.total(u64::from(requests)).await;
    assert_eq!(rig.events(u64::from(requests)).await.len(), replies.len());
    let (mut served, mut asked, mut tokens) = (0, 0, 0);
    let mut lines = Vec::new();
    for name in ["ptu", "flaky", "paygo"] {
        let books = rig.books(name).await;
        let number = |place: &str| books.pointer(place).and_then(Value::as_u64).unwrap_or(0);
        served += number("/reported/requests");
        asked += number("/requests");
        tokens += number("/reported/completion_tokens");
        assert_eq!(number("/cut"), 0, "{books}");
        let answered = replies.iter().filter(|reply| reply.backend == name).count() as u64;
        assert_eq!(number("/reported/requests"), answered, "{name}");
        assert_eq!(rig.report(name).await["in_flight"], 0, "{name}");
        lines.push(format!(
            "  {name}: asked {}, served {answered}, by status {}, no answer {}",
            number("/requests"),
            books["by_status"],
            number("/unanswered")
        ));
    }
    assert_eq!((served, total["output_tokens"].as_u64()), (u64::from(requests), Some(tokens)));
    assert_eq!(asked, replies.iter().map(|reply| reply.attempts).sum::<u64>());
    let (granted, unused) = (used["granted"].as_f64().unwrap(), used["unused"].as_f64().unwrap());
    let busy = granted / (granted + unused);
    println!("{requests} requests at {per_second}/s, provisioned capacity {:.2} % busy", busy * 100.0);
    println!("{}", lines.join("\n"));
    print_latencies(&replies);
    // Where other tests take the processor, requests come late, and capacity goes by unused.
    assert!(busy > 0.95 || !is_alone, "{used}");
}

/// Until the head of the answer; of those that met a stall, without the time that it was waited for.
fn print_latencies(replies: &[Reply]) {
    let mut by_attempts: BTreeMap<u64, Vec<Duration>> = BTreeMap::new();
    for reply in replies {
        let mut head = reply.head;
        while head >= FIRST_BYTE {
            head -= FIRST_BYTE;
        }
        by_attempts.entry(reply.attempts).or_default().push(head);
    }
    for (attempts, mut heads) in by_attempts {
        heads.sort_unstable();
        let at = |per_mille: usize| heads[(heads.len() - 1) * per_mille / 1000];
        println!(
            "  {attempts} attempts: {} requests, to the head p50 {:.1?} p90 {:.1?} p99 {:.1?} max {:.1?}",
            heads.len(),
            at(500),
            at(900),
            at(990),
            at(1000)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_requests_lose_nothing_to_backends_that_are_full_or_fail() {
    endure(1_000, 200, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs two minutes and the machine to itself"]
async fn twenty_thousand_requests_lose_nothing_to_backends_that_are_full_or_fail() {
    endure(20_000, 200, true).await;
}

/// A resource with threads of its own, so that it can be killed with all that it has in hand.
struct Killable {
    address: SocketAddr,
    /// Nobody else is given the port while it is down.
    _port: TcpSocket,
    runtime: Option<Runtime>,
}

impl Killable {
    fn new() -> Self {
        let port = TcpSocket::new_v4().unwrap();
        port.set_reuseaddr(true).unwrap();
        port.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = port.local_addr().unwrap();
        Self { address, _port: port, runtime: Some(Self::serving(address)) }
    }

    fn serving(address: SocketAddr) -> Runtime {
        let listener = std::net::TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let serving = async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let knobs = Knobs { ttft_ms: THINKING_MS, reply_tokens: 20, ..Knobs::default() };
            server::serve(listener, simulator::router(knobs), CancellationToken::new()).await;
        };
        TaskTracker::new().spawn_on(serving, runtime.handle());
        runtime
    }

    fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    fn restart(&mut self) {
        self.runtime = Some(Self::serving(self.address));
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Resolves at a moment when every request that came has been answered.
async fn nothing_in_hand(gateway: &TestGateway) {
    let catalog = gateway.app.proxy.config.catalog().unwrap();
    while gateway.app.proxy.pool.report(&catalog).iter().any(|backend| backend.in_flight > 0) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_and_starting_backends_costs_no_caller_anything_while_one_is_up() {
    const REQUESTS: u32 = 1_000;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut backends: Vec<_> = (0..3).map(|_| Killable::new()).collect();
    let mut configuration = configuration(any);
    let names = ["one", "two", "three"];
    let listed = names.iter().zip(&backends).map(|(name, resource)| backend(name, resource.address, 1));
    configuration["backends"] = listed.collect();
    let gateway = TestGateway::with(any, &configuration).await;
    let rolling = async {
        // One is down all the time, and two for a moment: never the one that is left.
        let pause = || tokio::time::sleep(Duration::from_millis(400));
        backends[0].kill();
        for turn in 0..6 {
            let (down, next) = (turn % 3, (turn + 1) % 3);
            // No request loses two backends to us: on a busy machine one can be in hand for that long.
            nothing_in_hand(&gateway).await;
            pause().await;
            backends[next].kill();
            pause().await;
            backends[down].restart();
        }
    };
    let ((replies, ()), ()) = tokio::join!(load(&gateway, REQUESTS, 200, async {}), rolling);
    for reply in &replies {
        assert!(reply.status == 200 && reply.is_whole, "{} after {} attempts", reply.status, reply.attempts);
    }
    let diverted = replies.iter().filter(|reply| reply.attempts > 1).count();
    println!("{REQUESTS} requests, {diverted} of them asked of more than one backend");
    let total = gateway.total(u64::from(REQUESTS)).await;
    assert_eq!(total["estimated_requests"], 0, "{total}");
}
