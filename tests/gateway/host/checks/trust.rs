//! Who may call what: every invocation and every outsider comes through one port.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::app::Mode;
use super::super::front::HOST_VERSION;
use super::super::rig::{Issued, Rig, Used, hello};

fn forged(issued: &Issued) -> Value {
    let event = json!({
        "schema": "tollgate.usage.v1", "id": "01920000-0000-7000-8000-00000000f00d",
        "time": "2026-11-21T09:00:00.123Z", "subscription_id": issued.id, "product": "standard",
        "operation": "chat.completions", "deployment": "gpt-4o-mini", "backend": "scripted", "attempts": 1,
        "status": 200, "stream": false, "outcome": "completed", "duration_ms": 1,
        "usage": {"source": "reported", "input_tokens": 1_000_000, "output_tokens": 1_000_000},
    });
    let events = serde_json::to_string(&[event.to_string()]).unwrap();
    json!({"Data": {"events": events}, "Metadata": {}})
}

const AGENT: &str = "user-agent";
const INVOCATION: &str = "x-azure-functions-invocationid";

#[tokio::test]
async fn only_the_host_itself_may_post_usage() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let host = format!("Azure-Functions-Host/{HOST_VERSION}");
    let genuine = [(AGENT, host.as_str()), (INVOCATION, "5d8b2a10")];
    let marks = [
        ("x-ms-invocation-id", "5d8b2a10"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-forwarded-host", "contoso"),
        ("x-forwarded-proto", "https"),
    ];
    let mut attempts = vec![vec![], vec![genuine[0]], vec![genuine[1]], vec![(AGENT, "curl/8"), genuine[1]]];
    attempts.push(vec![(AGENT, "curl/8 Azure-Functions-Host/4.1041"), genuine[1]]);
    attempts.extend(marks.map(|mark| vec![genuine[0], genuine[1], mark]));
    let url = rig.handler_url("/token-accounting").await;
    for headers in attempts {
        let mut request = rig.client.post(&url).json(&forged(&issued));
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let status = request.send().await.unwrap().status();
        assert_eq!(status, StatusCode::NOT_FOUND, "{headers:?}");
    }
    assert_eq!(rig.used(&issued).await, Used::default());
    // The same with the host's marks alone is posted, or the refusals would prove nothing.
    let genuine =
        rig.client.post(&url).header(AGENT, &host).header(INVOCATION, "5d8b2a10").json(&forged(&issued));
    assert_eq!(genuine.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(rig.used(&issued).await.requests, 1);
}

#[tokio::test]
async fn no_path_from_outside_leads_to_the_trigger() {
    for mode in [Mode::Proxying, Mode::Forwarding] {
        let rig = Rig::start(mode).await;
        let issued = rig.issue().await;
        for path in [
            "/token-accounting",
            "/Token-Accounting",
            "/upkeep",
            "/Upkeep",
            "/v1/%2e%2e/upkeep",
            "/openai/../token-accounting",
            "/openai/..%2Ftoken-accounting",
            "/v1//token-accounting",
            "/v1/%2e%2e/token-accounting",
        ] {
            let request =
                rig.ask(Method::POST, path).header(AGENT, format!("Azure-Functions-Host/{HOST_VERSION}"));
            let response =
                request.header(INVOCATION, "5d8b2a10").json(&forged(&issued)).send().await.unwrap();
            assert!(response.status().is_client_error(), "{path} in {mode:?}: {}", response.status());
        }
        assert_eq!(rig.used(&issued).await, Used::default(), "{mode:?}");
        assert_eq!(rig.backend.seen().len(), 0, "{mode:?}");
    }
}

#[tokio::test]
async fn a_host_that_wraps_requests_gets_an_error_in_its_own_terms_and_the_log_says_why() {
    let rig = Rig::start(Mode::Envelope).await;
    for (method, path) in [
        (Method::GET, "/healthz"),
        (Method::POST, "/openai/deployments/gpt-4o-mini/chat/completions"),
        (Method::POST, "/v1/chat/completions"),
        (Method::POST, "/deployments/gpt-4o-mini/chat/completions"),
        (Method::POST, "/subscriptions"),
        (Method::GET, "/reports/usage"),
        (Method::GET, "/openapi.json"),
        (Method::GET, "/dashboard"),
    ] {
        let response = rig.admin(method, path).json(&hello()).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR, "{path}");
        let text = response.text().await.unwrap();
        assert!(text.contains("enableProxyingHttpRequest"), "{path}: {text}");
    }
    assert_eq!(rig.backend.seen().len(), 0);
    let log = rig.host.handler().output.stdout().join("\n");
    assert!(log.contains("enableProxyingHttpRequest"), "{log}");
}
