//! The life of a request: heard, checked, charged, answered.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use bytes::Bytes;
use http::HeaderValue;
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;

use super::answer::Answer;
use super::ask::{self, Ask, Operation};
use super::behaviour::{Behaviour, Fault};
use super::counts::Ticket;
use super::delivery::{self, Delivery};
use super::refusal::{Name, Refusal};
use super::resource::Resource;
use super::throttle::Left;
use super::{auth, chat, completions, embeddings, headers, model};
use crate::domain::prompt;
use crate::domain::tokens::Encoding;

/// Longer bodies are refused, as Azure does with a little more.
const MAX_BODY_BYTES: usize = 200 * 1024 * 1024;
/// Longer ones are counted beside the other requests, not before them.
const LONG_BODY_BYTES: usize = 128 * 1024;
/// The first api-version whose chat completions know `stream_options`.
const KNOWS_STREAM_OPTIONS: &str = "2024-09-01";

/// Which resource was asked, on which route.
pub(super) struct Exchange {
    pub(super) resource: Arc<Resource>,
    pub(super) operation: Operation,
    /// `None` on the v1 routes, whose bodies name it.
    pub(super) deployment: Option<String>,
}

impl Exchange {
    pub(super) async fn run(self, request: Request) -> Response {
        let mut ticket = Ticket::new(&self.resource.books);
        ticket.concerns(self.deployment.as_deref().unwrap_or_default());
        let (parts, body) = request.into_parts();
        let echo = parts.headers.get("x-ms-client-request-id").cloned();
        let behaviour = match self.resource.behaviour(&parts.headers) {
            Ok(behaviour) => behaviour,
            Err(unclear) => {
                let refusal = Refusal::invalid(&unclear.to_string(), Some("x-simulate"), None);
                return self.refuse(refusal, ticket, echo);
            }
        };
        match self.answer(parts, body, behaviour.clone(), &mut ticket).await {
            Ok((answer, left)) => {
                let mut response = answer.deliver(&behaviour, ticket).await;
                headers::dress(&mut response, &self.resource, echo, Some(left));
                response
            }
            Err(Ending::Refused(refusal)) => {
                let refusal = match &behaviour.retry {
                    Some(retry) => refusal.with_retry_headers(retry),
                    None => refusal,
                };
                self.refuse(refusal, ticket, echo)
            }
            Err(Ending::Closed) => {
                ticket.unanswered();
                Response::new(Body::new(Delivery::nothing()))
            }
        }
    }

    fn refuse(&self, refusal: Refusal, ticket: Ticket, echo: Option<HeaderValue>) -> Response {
        ticket.refused(refusal.status());
        let mut response = refusal.into_response();
        headers::dress(&mut response, &self.resource, echo, None);
        response
    }

    async fn answer(
        &self,
        parts: Parts,
        body: Body,
        behaviour: Behaviour,
        ticket: &mut Ticket,
    ) -> Result<(Answer, Left), Ending> {
        if behaviour.fault == Some(Fault::Refuse) {
            return Err(Ending::Closed);
        }
        let version = self.api_version(&parts);
        let proof = auth::check(&self.resource.knobs, &parts.headers, self.deployment.is_none());
        let body = read(body).await?;
        self.resource.last.keep(parts, &body);
        proof?;
        let version = version?;
        let value = serde_json::from_slice::<Value>(&body).map_err(|_| Refusal::not_json());
        if let Some(deployment) = value.iter().find_map(|body| self.deployment(body).ok()) {
            ticket.concerns(&deployment);
        }
        break_down(&behaviour).await?;
        let value = value?;
        if !value.is_object() {
            return Err(Refusal::wrong_type("body", "an object", &value).into());
        }
        let deployment = self.deployment(&value)?;
        if !self.resource.has(&deployment) {
            return Err(Refusal::named(Name::DeploymentNotFound).into());
        }
        let (ask, streams) = self.examine(value, behaviour, &deployment, version.as_deref())?;
        let ask = self.count(ask, body.len()).await?;
        let left = self.charge(&ask, &deployment, version.as_deref())?;
        if self.resource.filters(&body) {
            return Err(Refusal::named(Name::ContentFilter).into());
        }
        Ok((Answer::to(self.operation, &ask, streams), left))
    }

    /// The deployment routes demand one; the v1 routes need none.
    fn api_version(&self, parts: &Parts) -> Result<Option<String>, Refusal> {
        let query = parts.uri.query().unwrap_or_default();
        let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version=")).map(str::to_owned);
        match &version {
            None if self.deployment.is_some() => Err(Refusal::named(Name::ResourceNotFound)),
            Some(version) if self.deployment.is_some() && !is_version(version) => {
                Err(Refusal::named(Name::ResourceNotFound))
            }
            _ => Ok(version),
        }
    }

    fn deployment(&self, body: &Value) -> Result<String, Refusal> {
        if let Some(deployment) = &self.deployment {
            return Ok(deployment.clone());
        }
        match &body["model"] {
            Value::String(model) if !model.is_empty() => Ok(model.clone()),
            Value::Null | Value::String(_) => Err(Refusal::missing("model")),
            other => Err(Refusal::wrong_type("model", "a string", other)),
        }
    }

    /// Is the request in order, and does it ask for a stream?
    fn examine<'a>(
        &'a self,
        body: Value,
        behaviour: Behaviour,
        deployment: &str,
        version: Option<&str>,
    ) -> Result<(Ask<'a>, bool), Refusal> {
        let model = model::reported(deployment).into_owned();
        let ask = Ask {
            encoding: Encoding::of(&model),
            seed: ask::seed(self.operation, &body, self.resource.knobs.seed),
            ids: &self.resource.ids,
            now: Resource::now(),
            prompt_tokens: 0,
            body,
            model,
            behaviour,
        };
        let streams = match self.operation {
            Operation::Embeddings => false,
            Operation::Chat | Operation::Completions => ask::flag(&ask.body, "stream")?,
        };
        self.check_stream_options(&ask, streams, version)?;
        match self.operation {
            Operation::Chat => chat::check(&ask)?,
            Operation::Completions => completions::check(&ask)?,
            Operation::Embeddings => embeddings::check(&ask)?,
        }
        Ok((ask, streams))
    }

    fn check_stream_options(&self, ask: &Ask, streams: bool, version: Option<&str>) -> Result<(), Refusal> {
        let options = &ask.body["stream_options"];
        if options.is_null() {
            return Ok(());
        }
        let dated = version.and_then(|version| version.get(..KNOWS_STREAM_OPTIONS.len()));
        let is_old = self.operation == Operation::Chat
            && self.deployment.is_some()
            && dated.is_some_and(|version| version < KNOWS_STREAM_OPTIONS);
        if is_old || ask.behaviour.refuses_stream_options {
            return Err(Refusal::unknown_argument("stream_options"));
        }
        if !options.is_object() {
            return Err(Refusal::wrong_type("stream_options", "an object", options));
        }
        if !streams {
            let message = "The 'stream_options' parameter is only allowed when 'stream' is enabled.";
            return Err(Refusal::invalid_value("stream_options", message));
        }
        Ok(())
    }

    /// Counts the prompt, or remembers having done so.
    async fn count<'a>(&self, ask: Ask<'a>, body_bytes: usize) -> Result<Ask<'a>, Refusal> {
        let mut ask = ask;
        let key = ask.seed ^ u64::from(ask.encoding == Encoding::O200k);
        if let Some(tokens) = self.resource.memo.recall(key) {
            ask.prompt_tokens = tokens;
        } else {
            let operation = self.operation;
            let (body, encoding) = (std::mem::take(&mut ask.body), ask.encoding);
            let (body, tokens) = if body_bytes > LONG_BODY_BYTES {
                tokio::task::spawn_blocking(move || counted(body, operation, encoding))
                    .await
                    .expect("counting tokens does not panic, and is not cancelled")
            } else {
                counted(body, operation, encoding)
            };
            ask.body = body;
            ask.prompt_tokens = tokens;
            self.resource.memo.remember(key, tokens);
        }
        let known = || model::context_tokens(&ask.model);
        let limit = ask.behaviour.context_tokens.unwrap_or_else(known);
        if ask.prompt_tokens > limit {
            let param = match self.operation {
                Operation::Chat => "messages",
                Operation::Completions => "prompt",
                Operation::Embeddings => "input",
            };
            return Err(Refusal::too_long(limit, ask.prompt_tokens, param));
        }
        Ok(ask)
    }

    fn charge(&self, ask: &Ask, deployment: &str, version: Option<&str>) -> Result<Left, Refusal> {
        let usual = ask.behaviour.reply_tokens as u64;
        let most = match self.operation {
            Operation::Chat => chat::most_tokens(&ask.body).unwrap_or(usual),
            Operation::Completions => completions::most_tokens(&ask.body),
            Operation::Embeddings => 0,
        };
        let cost = ask.prompt_tokens.saturating_add(most);
        let version = version.unwrap_or("v1");
        if let Err(wait) = self.resource.capacity.charge(deployment) {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
            let refusal = Refusal::throttled(self.operation.name(), version, "call", millis.div_ceil(1000));
            return Err(refusal.with_wait_ms(millis));
        }
        self.resource.throttle.charge(deployment, cost).map_err(|exceeded| {
            let seconds = exceeded.retry_after.as_secs_f64().ceil();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "at most a minute, and never negative"
            )]
            let seconds = seconds as u64;
            let (limit, reset) = if exceeded.of_tokens {
                ("token", "x-ratelimit-reset-tokens")
            } else {
                ("call", "x-ratelimit-reset-requests")
            };
            Refusal::throttled(self.operation.name(), version, limit, seconds)
                .with_numbers(&[(reset, seconds)])
        })
    }
}

/// Why there is no answer.
enum Ending {
    Refused(Refusal),
    Closed,
}

impl From<Refusal> for Ending {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Faults that come when the request has been read.
async fn break_down(behaviour: &Behaviour) -> Result<(), Ending> {
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

async fn read(body: Body) -> Result<Bytes, Ending> {
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Refusal::body_too_large().into()),
        Err(_) => Err(Ending::Closed),
    }
}

fn counted(body: Value, operation: Operation, encoding: Encoding) -> (Value, u64) {
    let tokens = match operation {
        Operation::Chat => prompt::chat_tokens(&body, encoding),
        Operation::Completions => prompt::completions_tokens(&body, encoding),
        Operation::Embeddings => prompt::embeddings_tokens(&body, encoding),
    };
    (body, tokens)
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
