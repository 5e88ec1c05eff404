//! Live and ready: answered here, at once, asking nobody.

use axum::Json;
use serde_json::{Value, json};

/// The Functions host asks this every 25 ms until something answers.
pub(super) async fn root() -> Json<Value> {
    Json(json!({"name": "tollgate", "version": env!("CARGO_PKG_VERSION")}))
}

pub(super) fn starting() -> Json<Value> {
    Json(json!({"status": "starting"}))
}

pub(super) async fn healthz() -> Json<Value> {
    Json(json!({"status": "ready"}))
}
