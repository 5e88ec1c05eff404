//! Azure's services as fakes on this machine: as strict as the real ones, and able to fail as they do.

pub(crate) mod entra;
pub(crate) mod event_hub;
pub(crate) mod identity_endpoint;
pub(crate) mod issuer;
pub(crate) mod log_ingestion;
pub(crate) mod vault;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::Router;
use secrecy::SecretString;
use serde_json::json;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tollgate::app::App;
use tollgate::config::live::Live;
use tollgate::config::settings::Settings;
use tollgate::{routes, server, wiring};

use crate::support::{ADMIN_KEY, Answer, CHAT, ask, listener};

/// Serves a fake until the guard goes.
pub(crate) async fn serve(router: Router) -> (SocketAddr, DropGuard) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(server::serve(listener, router, stop.clone()));
    (address, stop.drop_guard())
}

/// A gateway with settings of a test's own; it reads its configuration as they say.
pub(crate) struct Keyless {
    pub(crate) app: App,
    pub(crate) address: SocketAddr,
    client: reqwest::Client,
    _stop: DropGuard,
}

impl Keyless {
    pub(crate) async fn start(folder: &Path, config: Live, settings: &[(&'static str, String)]) -> Self {
        let mut values = BTreeMap::from([("TOLLGATE_DATA_DIR", folder.display().to_string())]);
        values.extend(settings.iter().cloned());
        let settings = Settings::read(&values).unwrap();
        let admin_key = Some(SecretString::from(ADMIN_KEY));
        let app = wiring::wire(&settings, Arc::new(config), admin_key).await.unwrap().app;
        let (address, stop) = serve(routes::router(app.clone())).await;
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { app, address, client, _stop: stop }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        ask(&self.client, "GET", &format!("http://{}{path}", self.address), &[], None).await
    }

    /// A new subscription's key.
    pub(crate) async fn key(&self) -> String {
        let bearer = format!("Bearer {ADMIN_KEY}");
        let body = json!({"name": "test", "product": "standard"}).to_string();
        let url = format!("http://{}/subscriptions", self.address);
        let answer = ask(&self.client, "POST", &url, &[("authorization", &bearer)], Some(body)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["primary_key"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn chat(&self, key: &str) -> Answer {
        let body = json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string();
        let url = format!("http://{}{CHAT}", self.address);
        ask(&self.client, "POST", &url, &[("api-key", key)], Some(body)).await
    }
}
