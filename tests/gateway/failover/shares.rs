//! Who gets which share of the requests, and who may get any.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::rig::{Rig, hello};
use crate::support::{Answer, ask};

/// Three of one priority, with weights 3, 1 and 2.
fn weighted(configuration: &mut Value) {
    for (backend, weight) in configuration["backends"].as_array_mut().unwrap().iter_mut().zip([3, 1, 2]) {
        backend["priority"] = json!(1);
        backend["weight"] = json!(weight);
    }
}

fn shares<'a>(servers: impl IntoIterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    let mut shares = BTreeMap::new();
    for server in servers {
        *shares.entry(server.as_str()).or_default() += 1;
    }
    shares
}

#[tokio::test]
async fn any_run_as_long_as_the_weights_sum_is_exact() {
    let rig = Rig::with(&["heavy", "light", "middle"], weighted).await;
    let mut servers = Vec::new();
    for _ in 0..18 {
        servers.push(rig.server().await);
    }
    for run in servers.windows(6) {
        assert_eq!(shares(run), BTreeMap::from([("heavy", 3), ("light", 1), ("middle", 2)]), "{run:?}");
    }
}

#[tokio::test]
async fn shares_are_exact_when_all_come_at_once() {
    let rig = Rig::with(&["heavy", "light", "middle"], weighted).await;
    let servers = join_all((0..60).map(|_| rig.server())).await;
    assert_eq!(shares(&servers), BTreeMap::from([("heavy", 30), ("light", 10), ("middle", 20)]));
    for (backend, requests) in [("heavy", 30), ("light", 10), ("middle", 20)] {
        assert_eq!(rig.asked(backend).await, requests, "{backend}");
    }
}

#[tokio::test]
async fn one_that_rests_gives_its_share_to_its_equals_before_the_next_priority() {
    let rig = Rig::with(&["heavy", "light", "middle"], |configuration| {
        weighted(configuration);
        configuration["backends"][2]["priority"] = json!(2);
    })
    .await;
    rig.always("heavy", "status=429,retry-after=30").await;
    for _ in 0..8 {
        assert_eq!(rig.server().await, "light");
    }
    assert_eq!((rig.asked("heavy").await, rig.asked("middle").await), (1, 0));
}

#[tokio::test]
async fn each_backend_is_asked_at_most_once_for_a_request() {
    let rig = Rig::with(&["heavy", "light", "middle"], weighted).await;
    for backend in ["heavy", "light", "middle"] {
        rig.always(backend, "status=500").await;
    }
    for round in 1..=4 {
        assert_eq!(rig.chat(false).await.header("x-tollgate-attempts"), "3");
        for backend in ["heavy", "light", "middle"] {
            assert_eq!(rig.asked(backend).await, round, "{backend}");
        }
    }
}

#[tokio::test]
async fn a_deployment_goes_only_to_those_that_have_it_under_their_own_name() {
    let rig = Rig::with(&["ptu", "other", "any"], |configuration| {
        configuration["backends"][0]["deployments"] = json!({"gpt-4o-mini": "gpt-4o-mini-ptu"});
        configuration["backends"][1]["deployments"] = json!({"text-embedding-3-small": "embeddings"});
    })
    .await;
    let deployments = async |backend: &str| {
        let url = format!("http://{}/simulator/counts", rig.backends[backend].address);
        let counts = ask(&rig.gateway.client, "GET", &url, &[], None).await.json();
        counts["deployments"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(rig.server().await, "ptu");
    let v1 = async |model: &str| -> Answer {
        let mut body = hello(false);
        body["model"] = json!(model);
        let key = [("api-key", rig.gateway.key.as_str())];
        rig.gateway.send("POST", "/v1/chat/completions", &key, Some(body.to_string())).await
    };
    assert_eq!(v1("gpt-4o-mini").await.header("x-tollgate-backend"), "ptu");
    rig.always("ptu", "status=503").await;
    assert_eq!(rig.server().await, "any");
    assert_eq!(v1("gpt-4o").await.header("x-tollgate-backend"), "any");
    assert_eq!(deployments("ptu").await, ["gpt-4o-mini-ptu"]);
    assert_eq!(deployments("any").await, ["gpt-4o", "gpt-4o-mini"]);
    assert_eq!(rig.asked("other").await, 0);
    // The ledger has the callers' name.
    let events = rig.events(4).await;
    assert!(events.iter().all(|event| event.deployment.as_str().starts_with("gpt-4o")), "{events:?}");
    assert!(events.iter().all(|event| event.deployment.as_str() != "gpt-4o-mini-ptu"));
}

#[tokio::test]
async fn a_rest_is_of_one_deployment_alone() {
    let rig = Rig::of(&["first", "second"]).await;
    rig.always("first", "status=429,retry-after=30").await;
    assert_eq!(rig.server().await, "second");
    rig.always("first", "").await;
    let body = Some(hello(false).to_string());
    let path = "/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21";
    let other = rig.gateway.send("POST", path, &[("api-key", &rig.gateway.key)], body).await;
    assert_eq!(other.header("x-tollgate-backend"), "first");
    assert_eq!(rig.server().await, "second");
}
