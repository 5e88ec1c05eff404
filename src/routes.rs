//! Every route, in one list.

use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse as _;
use axum::routing::{any, get, post};
use http::Method;
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::app::App;

mod address;
mod audit;
mod backends;
mod dead_letters;
mod extract;
mod functions;
mod health;
mod layers;
mod openai;
mod openapi;
mod reports;
mod respond;
mod subscriptions;

/// How far the gateway is put together.
#[derive(Clone, Debug)]
pub enum Start {
    /// Soon: whoever comes waits.
    UnderWay,
    /// Something that it needs does not answer, and is tried again.
    Held,
    Done(Router),
}

/// What is answered while the gateway is put together: that it is alive, at once. Everything else waits
/// until `gateway` has its routes, and is then answered by those; or is told to come again, where that may take
/// long.
pub fn starting(gateway: watch::Receiver<Start>) -> Router {
    let held =
        Router::new().fallback(respond::not_yet).layer(axum::middleware::from_fn(layers::every_request));
    Router::new().fallback(async move |request: Request| {
        let mut gateway = gateway.clone();
        let is_done = matches!(*gateway.borrow(), Start::Done(_));
        if !is_done && request.method() == Method::GET {
            match request.uri().path() {
                "/" => return health::root().await.into_response(),
                "/healthz" => return health::starting().into_response(),
                _ => {}
            }
        }
        let start =
            gateway.wait_for(|start| !matches!(start, Start::UnderWay)).await.map(|start| start.clone());
        match start {
            Ok(Start::Done(router)) => router.oneshot(request).await.into_response(),
            Ok(Start::Held | Start::UnderWay) => held.oneshot(request).await.into_response(),
            // The process ends: it could not be put together.
            Err(_) => respond::broken(),
        }
    })
}

/// The gateway, as routes.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/", get(health::root))
        .route("/healthz", get(health::healthz).post(functions::envelope))
        .route("/openai/{*path}", any(openai::proxied))
        .route("/deployments/{*path}", any(openai::proxied))
        .route("/v1/{*path}", any(openai::proxied))
        .route("/subscriptions", get(subscriptions::list).post(subscriptions::issue))
        .route(
            "/subscriptions/{id}",
            get(subscriptions::find).patch(subscriptions::change).delete(subscriptions::end),
        )
        .route("/subscriptions/{id}/keys/{slot}", post(subscriptions::replace_key))
        .route("/reports/usage", get(reports::usage))
        .route("/reports/chargeback", get(reports::chargeback::show))
        .route("/reports/forecast", get(reports::forecast::show))
        .route("/reports/reconciliation", post(reports::reconciliation::compare))
        .route("/reports/backends", get(backends::report))
        .route("/reports/audit", get(audit::report))
        .route("/reports/dead-letters", get(dead_letters::list))
        .route("/reports/dead-letters/replay", post(dead_letters::replay))
        .route("/openapi.json", get(openapi::show))
        .route("/token-accounting", post(functions::token_accounting))
        .route("/upkeep", post(functions::upkeep))
        // Where the Functions host calls a function that it was not told to proxy to.
        .route("/openai", any(functions::envelope))
        .route("/deployments", any(functions::envelope))
        .route("/v1", any(functions::envelope))
        .route("/reports", any(functions::envelope))
        .route("/openapi", any(functions::envelope))
        .route("/dashboard", any(functions::envelope))
        .fallback(respond::nothing_here)
        .method_not_allowed_fallback(respond::wrong_method)
        .layer(axum::middleware::from_fn(layers::every_request))
        .with_state(app)
}
