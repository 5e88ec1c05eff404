//! A gateway before several simulated resources, each told how to behave, by a clock that is set.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::DropGuard;
use tollgate::simulator::Knobs;

use crate::support::{Answer, SetClock, TestGateway, configuration, resource};

pub(super) struct Rig {
    pub(super) gateway: TestGateway,
    pub(super) clock: Arc<SetClock>,
    pub(super) backends: BTreeMap<String, Simulated>,
}

pub(super) struct Simulated {
    pub(super) address: SocketAddr,
    stop: Option<DropGuard>,
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
            backends.insert(name.to_owned(), Simulated { address, stop: Some(stop) });
        }
        let any = backends.values().next().unwrap().address;
        let mut configuration = configuration(any);
        configuration["backends"] = Value::Array(listed);
        change(&mut configuration);
        let mut gateway = TestGateway::with(any, &configuration).await;
        let clock = SetClock::start();
        gateway.address = gateway.serve_by(&clock).await;
        Self { gateway, clock, backends }
    }

    /// How this backend treats every request from now on.
    pub(super) async fn always(&self, backend: &str, words: &str) {
        let url = format!("http://{}/simulator/always", self.backends[backend].address);
        let told = self.gateway.client.put(url).body(words.to_owned()).send().await.unwrap();
        assert_eq!(told.status(), 204, "{words}");
    }

    pub(super) async fn stop(&mut self, backend: &str) {
        self.backends.get_mut(backend).unwrap().stop = None;
        let address = self.backends[backend].address;
        // Its listener is gone once nobody is let in any more.
        while tokio::net::TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
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
        let url = format!("http://{}/simulator/counts", self.backends[backend].address);
        let answer = self.gateway.client.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["total"].clone()
    }

    /// How often a backend was asked, by its own books.
    pub(super) async fn asked(&self, backend: &str) -> u64 {
        self.books(backend).await["requests"].as_u64().unwrap()
    }

    /// What the gateway reports of a backend.
    pub(super) async fn report(&self, backend: &str) -> Value {
        let report = self.gateway.manage("GET", "/reports/backends", None).await.json();
        let items = report["items"].as_array().unwrap();
        items.iter().find(|item| item["name"] == backend).unwrap().clone()
    }
}
