//! A gateway before several simulated resources, each told how to behave, by a clock that is set.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use std::time::Duration;

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio_util::sync::DropGuard;
use tollgate::domain::usage::UsageEvent;
use tollgate::ports::{Receipt, UsageSink};
use tollgate::simulator::Knobs;

use crate::support::{Answer, CHAT, SetClock, TestGateway, configuration, resource};

pub(super) struct Rig {
    pub(super) gateway: TestGateway,
    pub(super) clock: Arc<SetClock>,
    pub(super) backends: BTreeMap<String, Simulated>,
    events: Arc<Recorded>,
}

/// The ledger, with a copy of every event that it is given.
struct Recorded {
    sink: Arc<dyn UsageSink>,
    events: Mutex<Vec<UsageEvent>>,
}

impl UsageSink for Recorded {
    fn record(&self, event: UsageEvent) -> Receipt {
        self.events.lock().unwrap().push(event.clone());
        self.sink.record(event)
    }
}

pub(super) struct Simulated {
    pub(super) address: SocketAddr,
    _stop: DropGuard,
}

/// A backend of the configuration.
pub(super) fn backend(name: &str, address: SocketAddr, priority: u32) -> Value {
    json!({"name": name, "endpoint": format!("http://{address}"), "auth": {"kind": "none"}, "priority": priority})
}

pub(super) fn hello(stream: bool) -> Value {
    json!({"stream": stream, "messages": [{"role": "user", "content": "Say hello."}]})
}

impl Rig {
    /// Before backends of these names, the first asked first.
    pub(super) async fn of(names: &[&str]) -> Self {
        Self::with(names, |_| ()).await
    }

    /// The same, with changes to its configuration.
    pub(super) async fn with(names: &[&str], change: impl FnOnce(&mut Value)) -> Self {
        Self::before(names.iter().map(|name| (*name, Knobs::default())).collect(), change).await
    }

    pub(super) async fn before(knobs: Vec<(&str, Knobs)>, change: impl FnOnce(&mut Value)) -> Self {
        let mut backends = BTreeMap::new();
        let mut listed = Vec::new();
        for (priority, (name, knobs)) in (1..).zip(knobs) {
            let (address, stop) = resource(knobs).await;
            listed.push(backend(name, address, priority));
            backends.insert(name.to_owned(), Simulated { address, _stop: stop });
        }
        let any = backends.values().next().unwrap().address;
        let mut configuration = configuration(any);
        configuration["backends"] = Value::Array(listed);
        change(&mut configuration);
        let mut gateway = TestGateway::with(any, &configuration).await;
        let clock = SetClock::start();
        let sink = Arc::clone(&gateway.app.proxy.usage);
        let events = Arc::new(Recorded { sink, events: Mutex::default() });
        gateway.address = gateway.serve_by(&clock, Arc::clone(&events) as Arc<dyn UsageSink>).await;
        Self { gateway, clock, backends, events }
    }

    /// How this backend treats every request from now on.
    pub(super) async fn always(&self, backend: &str, words: &str) {
        let url = format!("http://{}/simulator/always", self.backends[backend].address);
        let told = self.gateway.client.put(url).body(words.to_owned()).send().await.unwrap();
        assert_eq!(told.status(), 204, "{words}");
    }

    /// Everything that a backend says when it is asked without a gateway, until it ends or breaks off.
    pub(super) async fn direct(&self, backend: &str, body: &Value) -> String {
        let url = format!("http://{}{CHAT}", self.backends[backend].address);
        let request = self.gateway.client.post(url).header("content-type", "application/json");
        let mut pieces = request.body(body.to_string()).send().await.unwrap().bytes_stream();
        let mut all = Vec::new();
        // One that stalls says no more than what came until then.
        let pause = Duration::from_millis(1_500);
        while let Ok(Some(Ok(piece))) = tokio::time::timeout(pause, pieces.next()).await {
            all.extend_from_slice(&piece);
        }
        String::from_utf8(all).unwrap()
    }

    pub(super) async fn chat(&self, stream: bool) -> Answer {
        self.gateway.chat(&hello(stream), "").await
    }

    /// Who answers a chat that is served.
    pub(super) async fn server(&self) -> String {
        let answer = self.chat(false).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.header("x-tollgate-backend").to_owned()
    }

    /// A backend's own books.
    pub(super) async fn books(&self, backend: &str) -> Value {
        self.counts(backend).await["total"].clone()
    }

    /// What became of a backend's provisioned capacity.
    pub(super) async fn capacity(&self, backend: &str) -> Value {
        self.counts(backend).await["capacity"].clone()
    }

    async fn counts(&self, backend: &str) -> Value {
        let url = format!("http://{}/simulator/counts", self.backends[backend].address);
        let answer = self.gateway.client.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    /// How often a backend was asked, by its own books.
    pub(super) async fn asked(&self, backend: &str) -> u64 {
        self.books(backend).await["requests"].as_u64().unwrap()
    }

    /// The usage events so far, once there are `count` of them: no more and no less.
    pub(super) async fn events(&self, count: u64) -> Vec<UsageEvent> {
        self.gateway.total(count).await;
        self.events.events.lock().unwrap().clone()
    }

    /// What the gateway reports of a backend.
    pub(super) async fn report(&self, backend: &str) -> Value {
        let report = self.gateway.manage("GET", "/reports/backends", None).await.json();
        let items = report["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == backend).unwrap().clone()
    }
}
