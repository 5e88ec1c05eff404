//! Requests for responses that the resource keeps.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::Method;
use http::request::Parts;
use serde_json::json;

use super::answer::Answer;
use super::behaviour::Behaviour;
use super::counts::Ticket;
use super::door::{self, Ending, Root};
use super::kept::Kept;
use super::refusal::{Name, Refusal};
use super::resource::Resource;
use super::usage::Usage;
use super::{auth, headers};

/// Which response, and what lies below it.
pub(super) struct Item {
    pub(super) resource: Arc<Resource>,
    pub(super) root: Root,
    pub(super) id: String,
    /// Such as `cancel`.
    pub(super) below: Option<String>,
}

impl Item {
    pub(super) async fn run(self, request: Request) -> Response {
        let mut ticket = Ticket::new(&self.resource.books);
        let (parts, body) = request.into_parts();
        let echo = parts.headers.get("x-ms-client-request-id").cloned();
        let behaviour = match self.resource.behaviour(&parts.headers) {
            Ok(behaviour) => behaviour,
            Err(unclear) => {
                let refusal = Refusal::invalid(&unclear.to_string(), Some("x-simulate"), None);
                return door::refuse(&self.resource, refusal, ticket, echo);
            }
        };
        let answered = match door::read(body).await {
            Ok(body) => self.answer(parts, &body, &behaviour, &mut ticket).await,
            Err(ending) => Err(ending),
        };
        match answered {
            Ok(body) => {
                let answer = Answer::Whole { body, usage: Usage::default(), reports_usage: false };
                let mut response = answer.deliver(&behaviour, ticket).await;
                headers::dress(&mut response, &self.resource, echo, None);
                response
            }
            Err(ending) => door::end(&self.resource, ending, &behaviour, ticket, echo),
        }
    }

    async fn answer(
        &self,
        parts: Parts,
        body: &bytes::Bytes,
        behaviour: &Behaviour,
        ticket: &mut Ticket,
    ) -> Result<bytes::Bytes, Ending> {
        let method = parts.method.clone();
        let version = door::api_version(&parts, &self.root);
        let proof = auth::check(&self.resource.knobs, &parts.headers, self.root == Root::V1);
        self.resource.last.keep(parts, body);
        proof?;
        version?;
        door::break_down(behaviour).await?;
        let kept = self.resource.shelves.find(&self.id);
        if let Some(kept) = &kept {
            ticket.concerns(&kept.deployment);
        }
        let kept = kept.ok_or_else(|| Refusal::no_response(&self.id))?;
        Ok(self.act(&method, &kept)?.into())
    }

    fn act(&self, method: &Method, kept: &Kept) -> Result<Vec<u8>, Refusal> {
        match (method.as_str(), self.below.as_deref()) {
            ("GET", None) => Ok(kept.response.whole()),
            ("DELETE", None) => {
                self.resource.shelves.delete(&self.id);
                Ok(json!({"id": self.id, "object": "response", "deleted": true}).to_string().into())
            }
            ("GET", Some("input_items")) => Ok(json!({
                "object": "list", "data": kept.input, "has_more": false,
                "first_id": kept.input.first().map(|item| &item["id"]),
                "last_id": kept.input.last().map(|item| &item["id"]),
            })
            .to_string()
            .into()),
            ("POST", Some("cancel")) => {
                Err(Refusal::invalid("Cannot cancel a synchronous response.", None, None))
            }
            _ => Err(Refusal::named(Name::ResourceNotFound)),
        }
    }
}
