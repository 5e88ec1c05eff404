//! The ledger's new rows reach Log Analytics, whatever fails on the way.

use std::time::Duration;

use serde_json::json;
use tollgate::simulator::Knobs;

use crate::azure::identity_endpoint::IdentityEndpoint;
use crate::azure::log_ingestion::{LogIngestion, Says};
use crate::support::{Process, TestGateway, configuration, resource};

mod adapter;
mod papers;
mod rig;
mod shipping;

const HOST: [(&str, &str); 2] =
    [("user-agent", "Azure-Functions-Host/4.1037"), ("x-azure-functions-invocationid", "5d8b2a10")];

/// What the Event Hub trigger delivers: so many events, from a number on.
fn batch(numbers: std::ops::Range<u32>) -> String {
    let events: Vec<_> = numbers
        .map(|number| {
            json!({
                "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
                "time": "2026-03-10T09:30:00.123Z", "subscription_id": "s1", "product": "standard",
                "operation": "chat.completions", "deployment": "gpt-4o-mini", "backend": "sim", "status": 200,
                "outcome": "completed",
                "usage": {"source": "reported", "input_tokens": 12, "output_tokens": 34},
            })
            .to_string()
        })
        .collect();
    json!({"Data": {"events": json!(events).to_string()}, "Metadata": {}}).to_string()
}

async fn deliver(gateway: &TestGateway, numbers: std::ops::Range<u32>) {
    let answer = gateway.send("POST", "/token-accounting", &HOST, Some(batch(numbers))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

struct Around {
    gateway: TestGateway,
    endpoint: LogIngestion,
    _identity: IdentityEndpoint,
    _resource: tokio_util::sync::DropGuard,
}

async fn around() -> Around {
    let (endpoint, identity) = (LogIngestion::start().await, IdentityEndpoint::start(None).await);
    let (address, stop) = resource(Knobs::default()).await;
    let settings = [&endpoint.settings()[..], &identity.settings()].concat();
    let gateway = TestGateway::with_settings(address, &configuration(address), &settings).await;
    Around { gateway, endpoint, _identity: identity, _resource: stop }
}

#[tokio::test]
async fn a_batch_is_in_log_analytics_when_it_is_answered_and_never_twice() {
    let around = around().await;
    for _ in 0..2 {
        deliver(&around.gateway, 0..100).await;
        assert_eq!((around.endpoint.rows().len(), around.endpoint.ids().len()), (100, 100));
    }
    let row = &around.endpoint.rows()[0];
    assert_eq!((&row["Subscription"], &row["CostExact"]), (&json!("s1"), &json!("0.0000222")));
    assert!(around.endpoint.complaints().is_empty(), "{:?}", around.endpoint.complaints());
}

#[tokio::test]
async fn what_is_proxied_in_this_process_comes_as_well() {
    let around = around().await;
    let answer = around.gateway.chat(&json!({"messages": [{"role": "user", "content": "Hi."}]}), "").await;
    around.endpoint.until(1).await;
    let row = &around.endpoint.rows()[0];
    assert_eq!(row["EventId"], answer.header("x-request-id"));
}

#[tokio::test]
async fn an_endpoint_that_is_down_fails_no_batch_and_gets_everything_later() {
    let around = around().await;
    around.endpoint.next([Says::Wait(503, 2)]);
    for number in 0..5 {
        deliver(&around.gateway, number * 10..number * 10 + 10).await;
    }
    assert_eq!(around.gateway.usage("from=2026-03-01").await["total"]["requests"], 50);
    around.endpoint.until(50).await;
    let calls = around.endpoint.calls().len();
    assert!(calls <= 3, "it was asked {calls} times, and had said to wait");
}

#[tokio::test]
async fn an_endpoint_that_hangs_holds_neither_a_reply_nor_for_long_a_batch() {
    let around = around().await;
    around.endpoint.always(Some(Says::Hangs));
    let answer = around.gateway.chat(&json!({"messages": [{"role": "user", "content": "Hi."}]}), "").await;
    assert_eq!(answer.status, 200);
    around.endpoint.another_call().await;
    // The call under way is given 20 s; the batch does not wait for that.
    deliver(&around.gateway, 0..10).await;
    assert_eq!((around.endpoint.calls().len(), around.endpoint.rows().len()), (1, 0));
    assert_eq!(around.gateway.usage("from=2026-03-01").await["total"]["requests"], 11);
}

#[tokio::test]
async fn a_process_that_was_killed_is_taken_up_where_it_stood() {
    let (endpoint, identity) = (LogIngestion::start().await, IdentityEndpoint::start(None).await);
    let (address, _stop) = resource(Knobs::default()).await;
    let settings = [&endpoint.settings()[..], &identity.settings()].concat();
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let folder = tempfile::tempdir().unwrap();
    endpoint.always(Some(Says::Status(500)));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for round in 0..3 {
        let mut gateway = Process::serve_in(folder.path(), &configuration(address), &settings).await;
        let request = client.post(format!("http://{}/token-accounting", gateway.address));
        let request = HOST.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let answer = request.body(batch(round * 20..round * 20 + 30)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        gateway.kill();
    }
    assert!(endpoint.rows().is_empty());
    endpoint.always(None);
    let _gateway = Process::serve_in(folder.path(), &configuration(address), &settings).await;
    endpoint.until(70).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!((endpoint.rows().len(), endpoint.ids().len()), (70, 70));
}
