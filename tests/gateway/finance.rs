//! What finance asks for: who pays what, where the month ends, and whether Azure's figures agree.

use serde_json::{Value, json};
use tollgate::config::catalog::Catalog;

use crate::support::{self, Answer, TestGateway};

mod chargeback;
mod forecast;
mod reconciliation;

const HOST: [(&str, &str); 2] =
    [("user-agent", "Azure-Functions-Host/4.1037"), ("x-azure-functions-invocationid", "5d8b2a10")];

/// An event of a subscription: of a million tokens in, and as many out as told.
fn event(number: u32, time: &str, changes: &Value) -> Value {
    let mut event = json!({
        "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
        "time": time, "subscription_id": "team-1", "product": "standard",
        "cost_center": "4711", "operation": "chat.completions", "deployment": "gpt-4o-mini",
        "model": "gpt-4o-mini-2024-07-18", "backend": "sim", "status": 200, "outcome": "completed",
        "usage": {"source": "reported", "input_tokens": 1_000_000, "output_tokens": 0},
    });
    event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    event
}

async fn deliver(gateway: &TestGateway, events: &[Value]) {
    let events: Vec<_> = events.iter().map(Value::to_string).collect();
    let body = json!({"Data": {"events": json!(events).to_string()}, "Metadata": {}}).to_string();
    let answer = gateway.send("POST", "/token-accounting", &HOST, Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// A gateway with a configuration of a test's own. Nothing is asked of its resource.
async fn gateway(change: impl FnOnce(&mut Value)) -> TestGateway {
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let mut configuration = support::configuration(nowhere);
    change(&mut configuration);
    TestGateway::with(nowhere, &configuration).await
}

/// Another configuration holds from now on.
fn hold(gateway: &TestGateway, configuration: &Value) {
    let catalog = Catalog::parse(&configuration.to_string(), "a test").unwrap();
    let config = &gateway.app.ledger.config;
    config.hold(catalog, config.standing());
}

async fn report(gateway: &TestGateway, path: &str) -> Value {
    let answer = gateway.manage("GET", path, None).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

async fn as_csv(gateway: &TestGateway, path: &str) -> Answer {
    let bearer = format!("Bearer {}", support::ADMIN_KEY);
    let headers = [("authorization", bearer.as_str()), ("accept", "text/csv")];
    gateway.send("GET", path, &headers, None).await
}
