//! Entra's token endpoint, for an application that trusts a Kubernetes service account.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use serde_json::json;
use tokio_util::sync::DropGuard;

use super::identity_endpoint::token_for;
use super::serve;

pub(crate) const TENANT: &str = "7b795fb9-09d3-42f4-a494-38864f99ba3c";
pub(crate) const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const ASSERTION: &str = "a-service-accounts-token";

/// Answers with a token for the scope that is asked for, or as Entra refuses.
pub(crate) struct Entra {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<Mutex<Vec<BTreeMap<String, String>>>>,
    _stop: DropGuard,
}

impl Entra {
    pub(crate) async fn start() -> Self {
        let asked = Arc::default();
        let routes = Router::new().route("/{tenant}/oauth2/v2.0/token", post(token));
        let (address, stop) = serve(routes.with_state(Arc::clone(&asked))).await;
        Self { address, asked, _stop: stop }
    }
}

type Asked = Arc<Mutex<Vec<BTreeMap<String, String>>>>;

async fn token(State(asked): State<Asked>, Path(tenant): Path<String>, body: String) -> Response {
    let form: BTreeMap<String, String> = serde_urlencoded::from_str(&body).unwrap();
    asked.lock().unwrap().push(form.clone());
    let is = |name: &str, value: &str| form.get(name).is_some_and(|given| given == value);
    let refused = |status: u16, code: u32, message: &str| {
        let body = json!({
            "error": "invalid_client", "error_codes": [code],
            "error_description": format!("AADSTS{code}: {message} Trace ID: 0 Correlation ID: 0"),
        });
        (StatusCode::from_u16(status).unwrap(), axum::Json(body)).into_response()
    };
    if tenant != TENANT {
        return refused(400, 90_002, "Tenant not found.");
    }
    if !is("client_id", CLIENT) {
        return refused(400, 700_016, "Application was not found in the directory.");
    }
    let jwt = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    if !is("grant_type", "client_credentials")
        || !is("client_assertion_type", jwt)
        || !is("client_assertion", ASSERTION)
    {
        return refused(401, 70_021, "No matching federated identity record found for presented assertion.");
    }
    let Some(resource) = form.get("scope").and_then(|scope| scope.strip_suffix("/.default")) else {
        return refused(400, 1_002_012, "The provided value for scope is not valid.");
    };
    axum::Json(json!({
        "token_type": "Bearer", "expires_in": 3_599, "ext_expires_in": 3_599,
        "access_token": token_for(resource, 1),
    }))
    .into_response()
}
