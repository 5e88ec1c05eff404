//! The life of a request: heard, checked, charged, answered.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::request::Parts;
use serde_json::Value;

use super::answer::Answer;
use super::ask::{self, Ask, Operation};
use super::behaviour::{Behaviour, Fault};
use super::counts::Ticket;
use super::door::{Ending, Root, api_version, break_down, end, read, refuse};
use super::kept::Kept;
use super::refusal::{Name, Refusal};
use super::resource::Resource;
use super::throttle::Left;
use super::{auth, chat, completions, embeddings, headers, model, responses};
use crate::domain::prompt;
use crate::domain::tokens::Encoding;

/// Longer ones are counted beside the other requests, not before them.
const LONG_BODY_BYTES: usize = 128 * 1024;
/// The first api-version whose chat completions know `stream_options`.
const KNOWS_STREAM_OPTIONS: &str = "2024-09-01";

/// Which resource was asked, on which route.
pub(super) struct Exchange {
    pub(super) resource: Arc<Resource>,
    pub(super) operation: Operation,
    pub(super) root: Root,
}

impl Exchange {
    pub(super) async fn run(self, request: Request) -> Response {
        let mut ticket = Ticket::new(&self.resource.books);
        if let Root::Deployment(deployment) = &self.root {
            ticket.concerns(deployment);
        }
        let (parts, body) = request.into_parts();
        let echo = parts.headers.get("x-ms-client-request-id").cloned();
        let behaviour = match self.resource.behaviour(&parts.headers) {
            Ok(behaviour) => behaviour,
            Err(unclear) => {
                let refusal = Refusal::invalid(&unclear.to_string(), Some("x-simulate"), None);
                return refuse(&self.resource, refusal, ticket, echo);
            }
        };
        match self.answer(parts, body, behaviour.clone(), &mut ticket).await {
            Ok((answer, left)) => {
                let mut response = answer.deliver(&behaviour, ticket).await;
                headers::dress(&mut response, &self.resource, echo, Some(left));
                response
            }
            Err(ending) => end(&self.resource, ending, &behaviour, ticket, echo),
        }
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
        let version = api_version(&parts, &self.root);
        let proof = auth::check(&self.resource.knobs, &parts.headers, self.root == Root::V1);
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
        let previous = self.previous(&ask)?;
        let mut ask = self.count(ask, body.len()).await?;
        ask.prompt_tokens += previous;
        self.check_length(&ask)?;
        let left = self.charge(&ask, &deployment, version.as_deref())?;
        if self.resource.filters(&body) {
            return Err(Refusal::named(Name::ContentFilter).into());
        }
        Ok((self.answered(&ask, deployment, streams), left))
    }

    fn answered(&self, ask: &Ask, deployment: String, streams: bool) -> Answer {
        if self.operation != Operation::Responses {
            return Answer::to(self.operation, ask, streams);
        }
        let response = responses::reply(ask);
        if ask.body["store"] != false {
            let input = responses::input_items(ask);
            self.resource.shelves.keep(Kept { response: response.clone(), deployment, input });
        }
        Answer::responding(response, ask, streams)
    }

    /// The tokens of the response that this one goes on from.
    fn previous(&self, ask: &Ask) -> Result<u64, Refusal> {
        let id = match &ask.body["previous_response_id"] {
            Value::String(id) if self.operation == Operation::Responses => id,
            _ => return Ok(0),
        };
        let kept = self.resource.shelves.find(id).ok_or_else(|| Refusal::no_previous_response(id))?;
        Ok(kept.response.usage.prompt + kept.response.usage.completion)
    }

    fn deployment(&self, body: &Value) -> Result<String, Refusal> {
        if let Root::Deployment(deployment) = &self.root {
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
            Operation::Chat | Operation::Completions | Operation::Responses => {
                ask::flag(&ask.body, "stream")?
            }
        };
        self.check_stream_options(&ask, streams, version)?;
        match self.operation {
            Operation::Chat => chat::check(&ask)?,
            Operation::Completions => completions::check(&ask)?,
            Operation::Embeddings => embeddings::check(&ask)?,
            Operation::Responses => responses::check(&ask)?,
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
            && self.root != Root::V1
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
        Ok(ask)
    }

    fn check_length(&self, ask: &Ask) -> Result<(), Refusal> {
        let known = || model::context_tokens(&ask.model);
        let limit = ask.behaviour.context_tokens.unwrap_or_else(known);
        if ask.prompt_tokens > limit {
            let param = match self.operation {
                Operation::Chat => "messages",
                Operation::Completions => "prompt",
                Operation::Embeddings | Operation::Responses => "input",
            };
            return Err(Refusal::too_long(limit, ask.prompt_tokens, param));
        }
        Ok(())
    }

    fn charge(&self, ask: &Ask, deployment: &str, version: Option<&str>) -> Result<Left, Refusal> {
        let usual = ask.behaviour.reply_tokens as u64;
        let most = match self.operation {
            Operation::Chat => chat::most_tokens(&ask.body).unwrap_or(usual),
            Operation::Completions => completions::most_tokens(&ask.body),
            Operation::Embeddings => 0,
            Operation::Responses => ask.body["max_output_tokens"].as_u64().unwrap_or(usual),
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

fn counted(body: Value, operation: Operation, encoding: Encoding) -> (Value, u64) {
    let tokens = match operation {
        Operation::Chat => prompt::chat_tokens(&body, encoding),
        Operation::Completions => prompt::completions_tokens(&body, encoding),
        Operation::Embeddings => prompt::embeddings_tokens(&body, encoding),
        Operation::Responses => prompt::responses_tokens(&body, encoding),
    };
    (body, tokens)
}
