//! Usage goes to an event hub: acknowledged before a reply ends, and never lost whatever the hub does.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio_util::sync::DropGuard;
use tollgate::simulator::Knobs;

use crate::azure::event_hub::{EventHub, Says};
use crate::azure::identity_endpoint::IdentityEndpoint;
use crate::support::{Answer, CHAT, Process, TestGateway, ask, configuration, resource};

fn hello(stream: bool) -> Value {
    json!({"stream": stream, "messages": [{"role": "user", "content": "Say hello."}]})
}

/// A gateway that publishes to a hub of a test's own, with a managed identity's tokens.
struct Rig {
    gateway: TestGateway,
    hub: EventHub,
    identity: IdentityEndpoint,
    _resource: DropGuard,
}

impl Rig {
    async fn start() -> Self {
        Self::with(&json!({})).await
    }

    /// With more in its configuration.
    async fn with(more: &Value) -> Self {
        let (hub, identity) = (EventHub::start().await, IdentityEndpoint::start(None).await);
        let (address, stop) = resource(Knobs::default()).await;
        let mut configuration = configuration(address);
        for (name, value) in more.as_object().unwrap() {
            configuration[name] = value.clone();
        }
        let settings = [&identity.settings()[..], &hub.settings()].concat();
        let gateway = TestGateway::with_settings(address, &configuration, &settings).await;
        Self { gateway, hub, identity, _resource: stop }
    }

    async fn chat(&self) -> Answer {
        let answer = self.gateway.chat(&hello(false), "reply-tokens=5").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer
    }

    async fn health(&self) -> String {
        let answer = self.gateway.send("GET", "/healthz", &[], None).await;
        answer.json()["status"].as_str().unwrap().to_owned()
    }

    async fn until_healthy(&self) {
        while self.health().await != "ready" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Delivers all that the hub has, as the host's trigger does, and answers with the report's total.
    async fn delivered(&self) -> Value {
        let events = json!(self.hub.events()).to_string();
        let batch = json!({"Data": {"events": events}, "Metadata": {}}).to_string();
        let host = [("user-agent", "Azure-Functions-Host/4.1"), ("x-azure-functions-invocationid", "1")];
        let answer = self.gateway.send("POST", "/token-accounting", &host, Some(batch)).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        self.gateway.usage("").await["total"].clone()
    }

    fn spooled(&self, name: &str) -> usize {
        lines(&self.gateway.folder().join("spool").join(name))
    }

    fn is_content(&self) {
        assert_eq!((self.hub.complaints(), self.identity.complaints()), (vec![], vec![]));
    }
}

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap_or_default().lines().filter(|line| !line.is_empty()).count()
}

#[tokio::test]
async fn an_event_is_in_the_hub_when_its_reply_ends_and_in_the_ledger_when_it_is_delivered() {
    let rig = Rig::start().await;
    for _ in 0..3 {
        let answer = rig.chat().await;
        let id = answer.header("x-request-id").to_owned();
        assert_eq!(rig.hub.distinct()[&id]["usage"]["output_tokens"], 5);
    }
    assert_eq!(rig.gateway.usage("").await["total"]["requests"], 0, "nothing is posted in process");
    let total = rig.delivered().await;
    assert_eq!((&total["requests"], &total["output_tokens"]), (&json!(3), &json!(15)));
    assert_eq!((rig.hub.requests(), rig.health().await.as_str()), (3, "ready"));
    assert_eq!(rig.identity.asked(), ["https://eventhubs.azure.net"], "one token is enough");
    rig.is_content();
}

#[tokio::test]
async fn a_replys_end_waits_for_the_acknowledgement_and_its_beginning_does_not() {
    let rig = Rig::start().await;
    rig.hub.always(Says::Waits);
    for stream in [true, false] {
        let request = rig.gateway.client.post(format!("http://{}{CHAT}", rig.gateway.address));
        let request = request.header("api-key", &rig.gateway.key).body(hello(stream).to_string());
        let requests = rig.hub.requests();
        let mut pieces = request.send().await.unwrap().bytes_stream();
        let mut seen = String::new();
        // The hub has the batch in hand, and says nothing.
        while rig.hub.requests() == requests {
            let piece = tokio::time::timeout(Duration::from_millis(5), pieces.next()).await;
            if let Ok(Some(piece)) = piece {
                seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
            }
        }
        while let Ok(Some(piece)) = tokio::time::timeout(Duration::from_millis(100), pieces.next()).await {
            seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
        assert!(!seen.contains("[DONE]"), "{seen}");
        assert_eq!(seen.contains("\"content\""), stream, "all but the end comes without it: {seen}");
        rig.hub.acknowledge(1);
        while let Some(piece) = pieces.next().await {
            seen.push_str(&String::from_utf8_lossy(&piece.unwrap()));
        }
        assert!(if stream { seen.contains("[DONE]") } else { seen.ends_with('}') }, "{seen}");
    }
    assert_eq!((rig.hub.distinct().len(), rig.spooled("waiting.jsonl")), (2, 0));
}

#[tokio::test]
async fn whatever_the_hub_does_each_event_arrives_and_counts_once() {
    let rig = Rig::start().await;
    let faults = [
        Says::Status(500),
        Says::Cuts,
        Says::TakesAndCuts,
        Says::TakesAndBreaksOff,
        Says::Later(429, 1),
        Says::Later(503, 1),
        Says::Status(408),
        Says::Status(503),
    ];
    for fault in faults {
        rig.hub.next([fault, Says::Takes, fault, fault]);
        let chats = join_all((0..6).map(|_| rig.chat())).await;
        assert_eq!(chats.len(), 6);
        rig.until_healthy().await;
    }
    rig.hub.until(48).await;
    let total = rig.delivered().await;
    let counts = rig.gateway.counts().await;
    assert_eq!((&total["requests"], &total["output_tokens"]), (&json!(48), &json!(240)), "{counts}");
    assert!(rig.hub.events().len() > 48, "an event whose fate was unknown was sent again");
    rig.is_content();
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_without_anybody_noticing() {
    let rig = Rig::start().await;
    rig.chat().await;
    rig.hub.refuse_the_newest_token();
    rig.chat().await;
    assert_eq!((rig.hub.distinct().len(), rig.hub.requests()), (2, 3));
    assert_eq!((rig.identity.asked().len(), rig.spooled("waiting.jsonl")), (2, 0));
    // The next one is of no use either, and a new one is asked for once a minute only.
    rig.hub.refuse_the_newest_token();
    rig.chat().await;
    assert_eq!((rig.health().await.as_str(), rig.identity.asked().len()), ("degraded", 2));
    assert_eq!(rig.spooled("waiting.jsonl"), 1);
}

#[tokio::test]
async fn what_the_operator_must_mend_waits_in_the_spool_until_it_is() {
    let rig = Rig::start().await;
    for (round, status) in [403, 404, 400, 200].into_iter().enumerate() {
        rig.hub.always(Says::Status(status));
        rig.chat().await;
        assert_eq!(rig.health().await, "degraded", "{status}");
        assert_eq!(rig.hub.distinct().len(), round);
        rig.hub.always(Says::Takes);
        rig.hub.until(round + 1).await;
        rig.until_healthy().await;
    }
    let left = std::fs::read_dir(rig.gateway.folder().join("spool")).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["lock"], "what was sent is gone");
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_and_an_event_that_is_costs_no_other() {
    let rig = Rig::start().await;
    // Refused once, so that all of them lie in the spool and travel together.
    rig.hub.always(Says::Status(403));
    join_all((0..20).map(|_| rig.chat())).await;
    rig.hub.takes_at_most(Some(3_000));
    rig.hub.always(Says::Takes);
    rig.hub.until(20).await;
    rig.until_healthy().await;
    assert!(rig.hub.batches().iter().all(|events| *events <= 5), "{:?}", rig.hub.batches());
    rig.hub.takes_at_most(Some(100));
    rig.chat().await;
    assert_eq!((rig.spooled("rejected.jsonl"), rig.health().await.as_str()), (1, "ready"));
    rig.hub.takes_at_most(None);
    rig.chat().await;
    assert_eq!(rig.hub.distinct().len(), 21);
}

#[tokio::test]
async fn refusing_is_the_operators_choice_and_no_backend_is_asked_then() {
    for (choice, status) in [("spool", 200), ("refuse", 503)] {
        let rig = Rig::with(&json!({"on_usage_unsafe": choice})).await;
        rig.hub.always(Says::Status(403));
        // Nobody knew yet.
        rig.chat().await;
        let asked = rig.gateway.counts().await["requests"].clone();
        let answer = rig.gateway.chat(&hello(false), "").await;
        assert_eq!(answer.status, status, "{choice}: {}", answer.body);
        if choice == "refuse" {
            assert_eq!((answer.code().as_str(), answer.header("retry-after")), ("gateway_unavailable", "1"));
            assert_eq!(answer.header("x-tollgate-attempts"), "0");
            assert_eq!(rig.gateway.counts().await["requests"], asked);
        }
        rig.hub.always(Says::Takes);
        rig.until_healthy().await;
        rig.chat().await;
        assert_eq!(rig.hub.distinct().len(), if choice == "refuse" { 2 } else { 3 });
    }
}

#[tokio::test]
async fn a_hub_that_hangs_costs_one_reply_two_seconds_and_no_event() {
    let rig = Rig::start().await;
    rig.hub.always(Says::Hangs);
    rig.chat().await;
    let followed = tokio::time::timeout(Duration::from_millis(1_900), join_all((0..5).map(|_| rig.chat())));
    assert!(followed.await.is_ok(), "the replies that follow wait for it as well");
    assert_eq!(rig.spooled("waiting.jsonl"), 6);
    rig.hub.always(Says::Takes);
    rig.hub.until(6).await;
}

/// A gateway as a process of its own, that publishes to a hub.
struct Killed {
    folder: tempfile::TempDir,
    configuration: Value,
    hub: EventHub,
    identity: IdentityEndpoint,
    _resource: DropGuard,
}

impl Killed {
    async fn prepare() -> Self {
        let (address, stop) = resource(Knobs::default()).await;
        Self {
            folder: tempfile::tempdir().unwrap(),
            configuration: configuration(address),
            hub: EventHub::start().await,
            identity: IdentityEndpoint::start(None).await,
            _resource: stop,
        }
    }

    async fn start(&self) -> Process {
        let settings = [&self.identity.settings()[..], &self.hub.settings()].concat();
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        Process::serve_in(self.folder.path(), &self.configuration, &settings).await
    }

    async fn chat(process: &Process, key: &str) -> String {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://{}{CHAT}", process.address);
        let answer = ask(&client, "POST", &url, &[("api-key", key)], Some(hello(true).to_string())).await;
        assert!(answer.body.contains("[DONE]"), "{}", answer.body);
        answer.header("x-request-id").to_owned()
    }
}

#[tokio::test]
async fn killed_at_any_time_the_next_process_sends_what_lies_in_the_spool() {
    let rig = Killed::prepare().await;
    let mut process = rig.start().await;
    let key = process.issue().await;
    let mut ids = BTreeSet::new();
    for says in [Says::Status(503), Says::Cuts, Says::TakesAndCuts, Says::Hangs] {
        rig.hub.always(says);
        for _ in 0..3 {
            ids.insert(Killed::chat(&process, &key).await);
        }
        // It may be sending what lies in the spool just now: the hub answers while it dies.
        rig.hub.always(Says::TakesAndCuts);
        process.kill();
        process = rig.start().await;
    }
    rig.hub.always(Says::Takes);
    rig.hub.until(ids.len()).await;
    assert_eq!(rig.hub.distinct().into_keys().collect::<BTreeSet<_>>(), ids);
    assert_eq!(rig.hub.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn an_end_that_is_asked_for_leaves_nothing_in_memory() {
    let rig = Killed::prepare().await;
    let mut process = rig.start().await;
    let key = process.issue().await;
    Killed::chat(&process, &key).await;
    rig.hub.always(Says::Hangs);
    let url = format!("http://{}{CHAT}", process.address);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(url).header("api-key", &key).body(hello(true).to_string());
    let requests = rig.hub.requests();
    let mut pieces = request.send().await.unwrap().bytes_stream();
    while rig.hub.requests() == requests {
        let _ = tokio::time::timeout(Duration::from_millis(5), pieces.next()).await;
    }
    assert_eq!(process.interrupt(), Some(0));
    assert_eq!(lines(&rig.folder.path().join("spool").join("waiting.jsonl")), 1);
    rig.hub.always(Says::Takes);
    let _process = rig.start().await;
    rig.hub.until(2).await;
}
