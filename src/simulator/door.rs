//! What is the same for every request, whatever it asks for: how it comes in, and how it ends without an
//! answer.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::behaviour::{Behaviour, Fault};
use super::counts::Ticket;
use super::delivery::{self, Delivery};
use super::headers;
use super::refusal::{Name, Refusal};
use super::resource::Resource;

/// Longer bodies are refused, as Azure does with a little more.
const MAX_BODY_BYTES: usize = 200 * 1024 * 1024;
/// The first api-version that has responses.
const KNOWS_RESPONSES: &str = "2025-03-01";

/// What the route begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    Deployment(String),
    /// `/openai/v1`, where bodies name the deployment.
    V1,
    /// `/openai`, where they do too.
    Dated,
}

/// The routes with a date demand one; the v1 routes need none.
pub(super) fn api_version(parts: &Parts, root: &Root) -> Result<Option<String>, Refusal> {
    let query = parts.uri.query().unwrap_or_default();
    let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version=")).map(str::to_owned);
    match (root, &version) {
        (Root::V1, _) => Ok(version),
        (Root::Dated, Some(dated)) if is_version(dated) && dated[..10] < *KNOWS_RESPONSES => {
            Err(Refusal::not_in_this_version())
        }
        (_, Some(dated)) if is_version(dated) => Ok(version),
        _ => Err(Refusal::named(Name::ResourceNotFound)),
    }
}

pub(super) fn refuse(
    resource: &Resource,
    refusal: Refusal,
    ticket: Ticket,
    echo: Option<HeaderValue>,
) -> Response {
    ticket.refused(refusal.status());
    let mut response = refusal.into_response();
    headers::dress(&mut response, resource, echo, None);
    response
}

/// A request that has no answer.
pub(super) fn end(
    resource: &Resource,
    ending: Ending,
    behaviour: &Behaviour,
    ticket: Ticket,
    echo: Option<HeaderValue>,
) -> Response {
    match ending {
        Ending::Refused(refusal) => {
            let refusal = match &behaviour.retry {
                Some(retry) => refusal.with_retry_headers(retry),
                None => refusal,
            };
            refuse(resource, refusal, ticket, echo)
        }
        Ending::Closed => {
            ticket.unanswered();
            Response::new(Body::new(Delivery::nothing()))
        }
    }
}

/// Why there is no answer.
pub(super) enum Ending {
    Refused(Refusal),
    Closed,
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Faults that come when the request has been read.
pub(super) async fn break_down(behaviour: &Behaviour) -> Result<(), Ending> {
    match behaviour.fault {
        Some(Fault::Reset) => Err(Ending::Closed),
        Some(Fault::Stall) => match delivery::silence().await {},
        Some(Fault::Status(status)) => {
            delivery::pause(behaviour.time_to_first_token).await;
            Err(Refusal::of_status(status).into())
        }
        Some(Fault::Named(name)) => {
            delivery::pause(behaviour.time_to_first_token).await;
            Err(Refusal::named(name).into())
        }
        _ => Ok(()),
    }
}

pub(super) async fn read(body: Body) -> Result<Bytes, Ending> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::body_too_large().into()),
        Err(_) => Err(Ending::Closed),
    }
}

/// A date, perhaps of a preview; Azure knows a list of them.
fn is_version(version: &str) -> bool {
    let date = version.strip_suffix("-preview").unwrap_or(version);
    let bytes = date.as_bytes();
    bytes.len() == 10
        && bytes.iter().enumerate().all(|(place, byte)| match place {
            4 | 7 => *byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}
