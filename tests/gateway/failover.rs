//! What a caller is told when backends do not answer, and that another one is asked at once.

use serde_json::{Value, json};
use tollgate::simulator::Knobs;

use crate::support::{TestGateway, configuration, resource};

mod endurance;
mod faults;
mod rests;
mod rig;
mod scripted;
mod shares;
mod sign_in;
mod verdicts;
mod waiting;

fn hello() -> Value {
    json!({"messages": [{"role": "user", "content": "Say hello."}]})
}

#[tokio::test]
async fn what_every_backend_failed_at_is_told_in_the_gateways_own_words() {
    for (behaviour, status, code) in [
        ("status=429,retry-after-ms=1500", 429, "backends_throttled"),
        ("status=429,no-retry-after,misspelt-reset-tokens=7", 429, "backends_throttled"),
        ("status=500", 503, "no_backend_available"),
        ("status=503", 503, "no_backend_available"),
        ("status=408", 503, "no_backend_available"),
        ("reset", 503, "no_backend_available"),
        ("error=bad-key", 502, "backend_misconfigured"),
        ("error=permission-denied", 502, "backend_misconfigured"),
        ("error=key-auth-disabled", 502, "backend_misconfigured"),
        ("error=public-access-disabled", 502, "backend_misconfigured"),
        ("error=virtual-network", 502, "backend_misconfigured"),
        ("error=deployment-not-found", 502, "backend_misconfigured"),
    ] {
        // One for each: a backend that was busy is left alone.
        let gateway = TestGateway::start().await;
        let answer = gateway.chat(&hello(), behaviour).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{behaviour}: {}", answer.body);
        assert_eq!(answer.header("x-tollgate-attempts"), "1", "{behaviour}");
        // Nothing of the inside.
        for inside in ["127.0.0.1", "sim", "Virtual", "Principal", "private endpoint"] {
            assert!(!answer.body.contains(inside), "{behaviour}: {}", answer.body);
        }
        let total = gateway.total(1).await;
        assert_eq!((&total["input_tokens"], &total["cost"]), (&json!(0), &json!("0")), "{total}");
    }
    let gateway = TestGateway::start().await;
    let throttled = gateway.chat(&hello(), "status=429,retry-after-ms=1500").await;
    assert_eq!((throttled.header("retry-after-ms"), throttled.header("retry-after")), ("1500", "2"));
}

#[tokio::test]
async fn the_callers_own_faults_come_back_unchanged() {
    let gateway = TestGateway::start().await;
    for (behaviour, status) in
        [("error=content-filter", 400), ("status=400", 400), ("error=resource-not-found", 404)]
    {
        let through = gateway.chat(&hello(), behaviour).await;
        let direct = gateway.direct(&hello(), behaviour).await;
        assert_eq!((through.status, &through.body), (status, &direct.body), "{behaviour}");
        assert_eq!(through.header("x-tollgate-attempts"), "1");
    }
}

#[tokio::test]
async fn the_next_backend_serves_what_the_first_cannot() {
    let ((down, stopped), (busy, _two), (good, _three)) = (
        resource(Knobs::default()).await,
        resource(Knobs { requests_per_minute: Some(0), ..Knobs::default() }).await,
        resource(Knobs::default()).await,
    );
    drop(stopped);
    let mut configuration = configuration(good);
    let backend = |name: &str, address, priority| json!({"name": name, "endpoint": format!("http://{address}"), "auth": {"kind": "none"}, "priority": priority});
    configuration["backends"] =
        json!([backend("good", good, 3), backend("down", down, 1), backend("busy", busy, 2)]);
    let gateway = TestGateway::with(good, &configuration).await;
    // The busy one is asked once, and then left alone.
    for (stream, attempts) in [(true, "2"), (false, "1")] {
        let mut body = hello();
        body["stream"] = stream.into();
        let answer = gateway.chat(&body, "").await;
        assert_eq!((answer.status, answer.header("x-tollgate-backend")), (200, "good"), "{}", answer.body);
        // The one that could not be reached was not sent a request.
        assert_eq!(answer.header("x-tollgate-attempts"), attempts);
    }
    let rows = gateway.usage("group_by=backend").await["rows"].clone();
    assert_eq!(
        (&rows[0]["backend"], &rows[0]["requests"], rows[1].is_null()),
        (&json!("good"), &json!(2), true)
    );
}

#[tokio::test]
async fn a_request_that_reached_no_backend_is_no_usage() {
    // Bound, so that nobody else gets the port, and deaf.
    let deaf = tokio::net::TcpSocket::new_v4().unwrap();
    deaf.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = deaf.local_addr().unwrap();
    let gateway = TestGateway::with(address, &configuration(address)).await;
    let answer = gateway.chat(&hello(), "").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"));
    assert_eq!(gateway.usage("").await["total"]["requests"], 0);
}

#[tokio::test]
async fn a_backend_that_refuses_stream_options_is_asked_without_and_remembered() {
    let (address, _stop) = resource(Knobs { refuse_stream_options: true, ..Knobs::default() }).await;
    let gateway = TestGateway::with(address, &configuration(address)).await;
    let mut body = hello();
    body["stream"] = true.into();
    for attempts in ["2", "1", "1"] {
        let answer = gateway.chat(&body, "").await;
        assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (200, attempts), "{}", answer.body);
        assert!(answer.body.ends_with("data: [DONE]\n\n"));
        let received = gateway.received().await["body"].as_str().unwrap().to_owned();
        assert!(!received.contains("stream_options"), "{received}");
    }
    // Counted here, from what was sent and said, to the token.
    let (total, counts) = (gateway.total(3).await, gateway.counts().await);
    assert_eq!(total["estimated_requests"], 3);
    assert_eq!(total["output_tokens"], counts["completion_tokens"]);
    assert_eq!(total["input_tokens"], counts["prompt_tokens"]);
    // A caller that asks for it itself gets the backend's own refusal.
    body["stream_options"] = json!({"include_usage": true});
    assert_eq!(gateway.chat(&body, "").await.status, 400);
}
