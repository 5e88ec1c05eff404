//! Backends that do not take the gateway's own credentials.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tollgate::config::catalog::{Backend, Catalog};
use tollgate::ports::{BackendFailure, BackendReply, Backends, Call};

use super::rig::{backend, hello};
use crate::support::{Answer, CHAT, TestGateway, ask, configuration};

/// Backends whose credentials may have gone stale. One named `tokenless` gets none at all.
#[derive(Default)]
struct Stale {
    /// There are other credentials to be had.
    can_renew: bool,
    is_renewed: AtomicBool,
    sent: AtomicU32,
    renewals: AtomicU32,
}

#[async_trait]
impl Backends for Stale {
    async fn send(&self, call: Call<'_>) -> Result<BackendReply, BackendFailure> {
        if call.backend.name.as_str() == "tokenless" {
            return Err(BackendFailure::NoToken("the identity endpoint does not answer".into()));
        }
        self.sent.fetch_add(1, SeqCst);
        let (status, body) = if self.is_renewed.load(SeqCst) {
            (StatusCode::OK, json!({"usage": {"prompt_tokens": 3, "completion_tokens": 4}}))
        } else {
            let error =
                json!({"code": "401", "message": "Access token is missing, invalid, or has expired."});
            (StatusCode::UNAUTHORIZED, json!({"error": error}))
        };
        let body = Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
        Ok(BackendReply { status, headers: HeaderMap::new(), body: body.boxed_unsync() })
    }

    async fn prepare(&self, _catalog: &Catalog) {}

    async fn renew_sign_in(&self, _backend: &Backend) -> bool {
        self.renewals.fetch_add(1, SeqCst);
        self.is_renewed.store(self.can_renew, SeqCst);
        self.can_renew
    }
}

async fn before(names: &[&str], backends: Stale) -> (TestGateway, Arc<Stale>) {
    let nobody = "127.0.0.1:9".parse().unwrap();
    let mut configuration = configuration(nobody);
    let listed = (1..).zip(names).map(|(priority, name)| backend(name, nobody, priority));
    configuration["backends"] = listed.collect();
    let mut gateway = TestGateway::with(nobody, &configuration).await;
    let backends = Arc::new(backends);
    gateway.address = gateway.serve_asking(Arc::clone(&backends) as Arc<dyn Backends>).await;
    (gateway, backends)
}

async fn chat(gateway: &TestGateway) -> Answer {
    let url = format!("http://{}{CHAT}", gateway.address);
    let headers = [("api-key", gateway.key.as_str())];
    ask(&gateway.client, "POST", &url, &headers, Some(hello(false).to_string())).await
}

#[tokio::test]
async fn a_refused_token_is_renewed_once_and_the_caller_does_not_notice() {
    let (gateway, backends) = before(&["only"], Stale { can_renew: true, ..Stale::default() }).await;
    for attempts in ["2", "1", "1"] {
        let answer = chat(&gateway).await;
        assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (200, attempts), "{}", answer.body);
    }
    assert_eq!((backends.sent.load(SeqCst), backends.renewals.load(SeqCst)), (4, 1));
    let total = gateway.total(3).await;
    assert_eq!((&total["input_tokens"], &total["output_tokens"]), (&json!(9), &json!(12)));
}

#[tokio::test]
async fn a_token_that_cannot_be_renewed_is_the_operators_matter() {
    let (gateway, backends) = before(&["one", "other"], Stale::default()).await;
    let answer = chat(&gateway).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_misconfigured"));
    assert_eq!(answer.header("x-tollgate-attempts"), "2");
    assert!(!answer.body.contains("token"), "{}", answer.body);
    assert_eq!((backends.sent.load(SeqCst), backends.renewals.load(SeqCst)), (2, 2));
    // The operator is told, of each backend.
    let report = gateway.manage("GET", "/reports/backends", None).await.json();
    for item in report["items"].as_array().unwrap() {
        let message = item["last_failure"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("token") || message.contains("401"), "{item}");
    }
}

/// It has seen nothing, and rests as one that failed does: whoever waits for a token waits in vain.
#[tokio::test]
async fn a_backend_for_which_there_is_no_token_is_passed_over_and_asked_again() {
    let (gateway, backends) =
        before(&["tokenless", "other"], Stale { can_renew: true, ..Stale::default() }).await;
    for attempts in ["2", "1", "1", "1"] {
        let answer = chat(&gateway).await;
        assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (200, attempts), "{}", answer.body);
        assert_eq!(answer.header("x-tollgate-backend"), "other");
    }
    assert_eq!(backends.sent.load(SeqCst), 5);
    let report = gateway.manage("GET", "/reports/backends", None).await.json();
    assert_eq!(
        (&report["items"][0]["state"], &report["items"][0]["failures"]),
        (&json!("resting"), &json!({"no_token": 3}))
    );
    // Where it is the only one, its callers may come again.
    let (gateway, _backends) = before(&["tokenless"], Stale::default()).await;
    let answer = chat(&gateway).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"));
    assert_eq!(gateway.usage("").await["total"]["requests"], 0);
}
