//! Receives for the proxied APIs.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;

use super::extract;
use super::respond::Refused;
use crate::app::App;
use crate::domain::api::Address;
use crate::domain::ids::RequestId;
use crate::domain::trace::Trace;
use crate::proxy::{Answer, Incoming, MAX_BODY_BYTES, Refusal};

pub(super) async fn proxied(State(app): State<App>, request: Request) -> Response {
    let id = RequestId::draw();
    match serve(&app, id, request).await {
        Ok(answer) => {
            let mut response = Response::new(Body::new(answer.body));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.headers;
            response
        }
        Err(refusal) => {
            let attempts = refusal.attempts();
            let mut response = Refused::from(refusal).into_response();
            let id = HeaderValue::try_from(id.to_string()).expect("an id is hexadecimal digits and dashes");
            response.headers_mut().insert("x-request-id", id);
            response.headers_mut().insert("x-tollgate-attempts", attempts.into());
            response
        }
    }
}

async fn serve(app: &App, id: RequestId, request: Request) -> Result<Answer, Refusal> {
    let began = app.proxy.clock.elapsed();
    let (parts, body) = request.into_parts();
    let address = Address::parse(&parts.method, parts.uri.path()).ok_or(Refusal::NotFound)?;
    let catalog = app.proxy.catalog()?;
    let query = parts.uri.query();
    let caller = app.proxy.caller(&catalog, &parts.headers, query, app.proxy.clock.now()).await?;
    let body = extract::body_in(&app.proxy.room, &parts.headers, body, MAX_BODY_BYTES).await?;
    let traceparent = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
    let trace = Trace::of_request(traceparent, id);
    let query = query.map(str::to_owned);
    let incoming = Incoming { id, trace, address, query, headers: parts.headers, body, began };
    app.proxy.serve(catalog, caller, incoming).await
}
