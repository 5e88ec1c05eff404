//! An Azure OpenAI that is not there: for `local`, for tests, for load.
//!
//! Chat completions, completions and embeddings, under `/openai/deployments/{deployment}/…` and
//! `/openai/v1/…`, in Azure's words, statuses, headers and streaming habits, with true token counts. It
//! must never be taken for a model: what it says is a stock text.
//!
//! How it behaves is said by flags ([`Knobs`]), and for a single request by the header `x-simulate`,
//! whose words `tollgate simulate --help` lists ([`behaviour::HELP`]). Beside the API it has
//!
//! | call | does |
//! |---|---|
//! | `GET /simulator/counts` | its own books: requests, statuses and tokens, in total and by deployment |
//! | `DELETE /simulator/counts` | begins the books anew |
//! | `GET /simulator/last` | the last request as it was received |
//! | `PUT /simulator/always` | treats every request from now on as the words in the body say |
//!
//! A body longer than 200 MB is refused; all that is kept between requests is bounded.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use ask::Operation;
use exchange::Exchange;
use refusal::{Name, Refusal};
use resource::Resource;

pub use knobs::{Kind, Knobs};

mod answer;
mod ask;
mod auth;
mod behaviour;
mod capacity;
mod chat;
mod completions;
mod counts;
mod delivery;
mod dice;
mod embeddings;
mod events;
mod exchange;
mod headers;
mod knobs;
mod last;
mod memo;
mod model;
mod refusal;
mod reply;
mod resource;
mod schema;
mod throttle;
mod tools;
mod usage;
mod whole;
mod words;

/// The flags of `tollgate simulate`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = behaviour::HELP)]
pub struct Arguments {
    /// The address to listen on.
    #[arg(long, default_value = "127.0.0.1:8081")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub knobs: Knobs,
}

/// The resource, as routes.
///
/// # Panics
/// If `always` has words that are none of ours, which no flag can bring here.
pub fn router(knobs: Knobs) -> Router {
    let resource = Resource::new(knobs).expect("`always` is checked where flags are read");
    let mut router = Router::new();
    for operation in Operation::ALL {
        let path = operation.path();
        let on_deployment = move |State(resource), Path(deployment): Path<String>, request| {
            exchange(resource, operation, Some(deployment), request)
        };
        let on_v1 = move |State(resource), request| exchange(resource, operation, None, request);
        router = router
            .route(
                &format!("/openai/deployments/{{deployment}}/{path}"),
                post(on_deployment).fallback(not_found),
            )
            .route(&format!("/openai/v1/{path}"), post(on_v1).fallback(not_found));
    }
    router
        .route("/simulator/counts", get(counts).delete(reset_counts))
        .route("/simulator/last", get(last))
        .route("/simulator/always", put(always))
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(resource))
}

async fn exchange(
    resource: Arc<Resource>,
    operation: Operation,
    deployment: Option<String>,
    request: Request,
) -> Response {
    let exchange = Exchange { resource, operation, deployment };
    exchange.run(request).await
}

async fn not_found(State(resource): State<Arc<Resource>>, request: Request) -> Response {
    let mut response = Refusal::named(Name::ResourceNotFound).into_response();
    let echo = request.headers().get("x-ms-client-request-id").cloned();
    headers::dress(&mut response, &resource, echo, None);
    response
}

async fn counts(State(resource): State<Arc<Resource>>) -> Response {
    json(resource.books.to_json(resource.capacity.used()))
}

async fn reset_counts(State(resource): State<Arc<Resource>>) -> StatusCode {
    resource.books.reset();
    StatusCode::NO_CONTENT
}

async fn last(State(resource): State<Arc<Resource>>) -> Response {
    json(resource.last.to_json().to_string())
}

async fn always(State(resource): State<Arc<Resource>>, words: Bytes) -> Response {
    let words = String::from_utf8_lossy(&words);
    match resource.always(&words) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(unclear) => Refusal::invalid(&unclear.to_string(), Some("always"), None).into_response(),
    }
}

fn json(body: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], body).into_response()
}
