//! Live and ready: answered here, at once, asking nobody.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::app::App;
use crate::domain::usage::Standing;

/// The Functions host asks this every 25 ms until something answers.
pub(super) async fn root() -> Json<Value> {
    Json(json!({"name": "tollgate", "version": env!("CARGO_PKG_VERSION")}))
}

pub(super) fn starting() -> Json<Value> {
    Json(json!({"status": "starting"}))
}

/// `starting` while there never was a good configuration, `degraded` while a newer one is faulty or cannot
/// be looked at, a key that it names is missing, the database that instances share does not answer, or usage waits on
/// this instance's disk.
pub(super) async fn healthz(State(app): State<App>) -> Json<Value> {
    let config = &app.proxy.config;
    let status = match (config.catalog(), config.standing().trouble) {
        (Err(_), _) => "starting",
        (Ok(_), Some(_)) => "degraded",
        (Ok(_), None) if !config.has_its_secrets() => "degraded",
        (Ok(_), None) if !app.proxy.keys.reach_their_store() => "degraded",
        (Ok(_), None) if app.proxy.usage.standing() != Standing::Flowing => "degraded",
        (Ok(_), None) => "ready",
    };
    Json(json!({"status": status}))
}
