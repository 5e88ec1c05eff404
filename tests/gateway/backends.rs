//! What an operator is told of the backends.

use serde_json::{Value, json};
use tollgate::simulator::Knobs;

use crate::support::{TestGateway, configuration, resource};

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Say hello."}]})
}

#[tokio::test]
async fn the_report_tells_state_figures_and_what_to_mend() {
    let (first, _first) = resource(Knobs::default()).await;
    let (second, _second) = resource(Knobs::default()).await;
    let mut configuration = configuration(first);
    let backend = |name: &str, address, priority| {
        json!({"name": name, "endpoint": format!("http://{address}"), "region": "here",
               "auth": {"kind": "none"}, "priority": priority})
    };
    configuration["backends"] = json!([backend("first", first, 1), backend("second", second, 2)]);
    let gateway = TestGateway::with(first, &configuration).await;
    assert_eq!(gateway.chat(&hello(), "").await.status, 200);
    let always = |words: &'static str| {
        gateway.client.put(format!("http://{first}/simulator/always")).body(words).send()
    };
    always("error=permission-denied").await.unwrap();
    for _ in 0..3 {
        assert_eq!(gateway.chat(&hello(), "").await.header("x-tollgate-backend"), "second");
    }
    let report = gateway.manage("GET", "/reports/backends", None).await.json();
    assert_eq!(report["next"], Value::Null);
    assert_eq!(report["configuration"]["source"], "test");
    assert_eq!(report["configuration"]["trouble"], Value::Null);
    let (first, second) = (&report["items"][0], &report["items"][1]);
    assert_eq!(
        (&first["name"], &first["state"], &first["requests"]),
        (&json!("first"), &json!("resting"), &json!(4))
    );
    assert_eq!(
        (&first["answered"], &first["in_flight"], &first["throttled"]),
        (&json!(1), &json!(0), &json!(0))
    );
    assert_eq!(first["failures"], json!({"role_missing": 3}));
    let message = first["last_failure"]["message"].as_str().unwrap();
    assert!(message.contains("az role assignment create"), "{message}");
    let deployment = &first["deployments"][0];
    assert_eq!(
        (&deployment["deployment"], &deployment["state"], &deployment["reason"]),
        (&json!("gpt-4o-mini"), &json!("resting"), &json!("misconfigured"))
    );
    assert!(deployment["until"].as_str() > deployment["since"].as_str(), "{deployment}");
    assert_eq!((&second["state"], &second["answered"]), (&json!("ready"), &json!(3)));
    assert!(second["latency_ms"]["p50"].as_f64() <= second["latency_ms"]["p99"].as_f64(), "{second}");
}

#[tokio::test]
async fn only_an_admin_is_told_of_backends() {
    let gateway = TestGateway::start().await;
    let key = gateway.key.clone();
    for headers in [vec![], vec![("api-key", key.as_str())]] {
        assert_eq!(gateway.send("GET", "/reports/backends", &headers, None).await.status, 401);
    }
}
