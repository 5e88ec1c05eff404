//! An Azure OpenAI that is not there: for `local`, for tests, for load.
//!
//! Chat completions, completions and embeddings, under `/openai/deployments/{deployment}/…` and
//! `/openai/v1/…`, and responses, which it keeps, under `/openai/v1/…` and `/openai/…`; in Azure's words, statuses, headers and streaming habits, with true token counts. It
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
use axum::routing::{any, get, post, put};
use http::StatusCode;
use http::header::CONTENT_TYPE;

use ask::Operation;
use door::Root;
use exchange::Exchange;
use items::Item;
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
mod door;
mod embeddings;
mod events;
mod exchange;
mod headers;
mod items;
mod kept;
mod knobs;
mod last;
mod memo;
mod model;
mod refusal;
mod reply;
mod resource;
mod responses;
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
            exchange(resource, operation, Root::Deployment(deployment), request)
        };
        let on_v1 = move |State(resource), request| exchange(resource, operation, Root::V1, request);
        let on_dated = move |State(resource), request| exchange(resource, operation, Root::Dated, request);
        let (elsewhere, on_elsewhere) = match operation {
            Operation::Responses => (format!("/openai/{path}"), post(on_dated)),
            _ => (format!("/openai/deployments/{{deployment}}/{path}"), post(on_deployment)),
        };
        router = router
            .route(&elsewhere, on_elsewhere.fallback(not_found))
            .route(&format!("/openai/v1/{path}"), post(on_v1).fallback(not_found));
    }
    for (root, path) in [(Root::V1, "/openai/v1"), (Root::Dated, "/openai")] {
        let (on_item, on_part) = (root.clone(), root);
        let on_item = move |State(resource), Path(id): Path<String>, request| {
            item(resource, on_item.clone(), id, None, request)
        };
        let on_part = move |State(resource), Path((id, below)): Path<(String, String)>, request| {
            item(resource, on_part.clone(), id, Some(below), request)
        };
        router = router
            .route(&format!("{path}/responses/{{id}}"), any(on_item))
            .route(&format!("{path}/responses/{{id}}/{{below}}"), any(on_part));
    }
    router
        .route("/simulator/counts", get(counts).delete(reset_counts))
        .route("/simulator/last", get(last))
        .route("/simulator/always", put(always))
        .fallback(not_found)
        .layer(DefaultBodyLimit::disable())
        .with_state(Arc::new(resource))
}

async fn exchange(resource: Arc<Resource>, operation: Operation, root: Root, request: Request) -> Response {
    let exchange = Exchange { resource, operation, root };
    exchange.run(request).await
}

async fn item(
    resource: Arc<Resource>,
    root: Root,
    id: String,
    below: Option<String>,
    request: Request,
) -> Response {
    let item = Item { resource, root, id, below };
    item.run(request).await
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
