//! What was used → the usage event, safe before the reply is complete.
//!
//! An event is opened before a backend is asked and closed exactly once, whatever happens: by the
//! relay when the reply ends, by a refusal, or by [`Drop`] when the caller hangs up. It never holds
//! a key, and what it holds of the prompt and the reply is only for counting and never written.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio_util::task::TaskTracker;

use super::admit::Permit;
use super::read::Ask;
use super::{Caller, Incoming, Proxy};
use crate::config::catalog::Backend;
use crate::domain::api::Operation;
use crate::domain::estimate;
use crate::domain::ids::{DeploymentName, RequestId};
use crate::domain::meter::{self, said::Said};
use crate::domain::tokens::Encoding;
use crate::domain::units::UnixMillis;
use crate::domain::usage::{Outcome, Schema, Usage, UsageEvent};
use crate::ports::{Clock, Receipt, UsageSink};

/// What is recorded as the answer to a caller that did not wait for one.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Longer than any model's name or person's id: a text that somebody else chose must not make an event too large
/// for the hub.
const MAX_TEXT_CHARS: usize = 256;

/// Resolves once the event is safe.
pub(super) type Closing = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A usage event that is not written yet.
#[must_use = "dropping it records that the caller hung up"]
pub(super) struct Open(Option<Box<Draft>>);

struct Draft {
    id: RequestId,
    time: UnixMillis,
    caller: Caller,
    operation: Operation,
    deployment: DeploymentName,
    api_version: Option<String>,
    stream: bool,
    /// Kept for the case that its tokens must be counted here.
    body: Bytes,
    /// The backend that was asked last; `None` until one was reached.
    asked: Option<Arc<Backend>>,
    attempts: u32,
    status: u16,
    began: Duration,
    first_byte: Option<Duration>,
    clock: Arc<dyn Clock>,
    usage: Arc<dyn UsageSink>,
    tasks: TaskTracker,
}

/// How much was used, as far as the relay saw.
pub(super) struct Metered {
    pub(super) model: Option<String>,
    pub(super) usage: Used,
}

/// Where the counts come from.
pub(super) enum Used {
    /// The backend refused: there is nothing to count.
    Nothing,
    Reported(Usage),
    /// To be counted, in this text of a stream.
    Said(Said),
    /// To be counted, in this beginning of a whole reply that had so many bytes in all.
    Reply(Vec<Bytes>, u64),
}

impl Open {
    pub(super) fn new(proxy: &Proxy, incoming: &Incoming, ask: &Ask, permit: Permit) -> Self {
        Self(Some(Box::new(Draft {
            id: incoming.id,
            time: proxy.clock.now(),
            caller: permit.caller,
            operation: ask.operation,
            deployment: ask.deployment.clone(),
            api_version: incoming.query.as_deref().and_then(api_version),
            stream: ask.stream,
            body: ask.body.clone(),
            asked: None,
            attempts: 0,
            status: CLIENT_CLOSED_REQUEST,
            began: incoming.began,
            first_byte: None,
            clock: Arc::clone(&proxy.clock),
            usage: Arc::clone(&proxy.usage),
            tasks: proxy.tasks.clone(),
        })))
    }

    fn draft(&mut self) -> &mut Draft {
        self.0.as_mut().expect("an open event has its draft until it is closed, which consumes it")
    }

    /// A backend is being asked. Answers with the one before, for [`Self::not_reached`].
    pub(super) fn asking(&mut self, backend: &Arc<Backend>) -> Option<Arc<Backend>> {
        let draft = self.draft();
        draft.attempts += 1;
        draft.asked.replace(Arc::clone(backend))
    }

    /// The backend that was being asked has seen nothing of the request.
    pub(super) fn not_reached(&mut self, before: Option<Arc<Backend>>) {
        let draft = self.draft();
        draft.attempts -= 1;
        draft.asked = before;
    }

    pub(super) fn attempts(&self) -> u32 {
        self.0.as_ref().map_or(0, |draft| draft.attempts)
    }

    pub(super) fn id(&self) -> Option<RequestId> {
        self.0.as_ref().map(|draft| draft.id)
    }

    pub(super) fn caller(&self) -> Option<&Caller> {
        self.0.as_ref().map(|draft| &draft.caller)
    }

    pub(super) fn answered(&mut self, status: StatusCode) {
        self.draft().status = status.as_u16();
    }

    pub(super) fn first_byte(&mut self) {
        let draft = self.draft();
        if draft.first_byte.is_none() {
            draft.first_byte = Some(draft.clock.elapsed().saturating_sub(draft.began));
        }
    }

    /// Hands the event over. From here on it is written even if nobody waits for the answer.
    pub(super) fn close(mut self, outcome: Outcome, metered: Metered) -> Closing {
        match self.0.take() {
            Some(draft) => draft.close(outcome, metered),
            None => Box::pin(std::future::ready(())),
        }
    }

    /// No backend served the request.
    pub(super) fn refused(mut self, status: StatusCode) -> Closing {
        self.answered(status);
        self.close(Outcome::BackendFailed, Metered { model: None, usage: Used::Nothing })
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let Some(draft) = self.0.take() else { return };
        // A backend may be at work on the prompt: that much was used.
        let tasks = draft.tasks.clone();
        let usage = Used::Said(Said::default());
        settle_alone(&tasks, draft.close(Outcome::ClientCancelled, Metered { model: None, usage }));
    }
}

/// Lets an event be written when nobody waits for it.
pub(super) fn settle_alone(tasks: &TaskTracker, closing: Closing) {
    // Without a runtime the process is ending; the event was handed over when it was closed.
    if tokio::runtime::Handle::try_current().is_ok() {
        tasks.spawn(closing);
    }
}

impl Draft {
    fn close(self: Box<Self>, outcome: Outcome, metered: Metered) -> Closing {
        let Some(backend) = self.asked.clone() else { return Box::pin(std::future::ready(())) };
        let model = metered.model;
        if self.operation.is_of_item() {
            return self.write(&backend, outcome, model, Usage::default());
        }
        match metered.usage {
            Used::Reported(usage) => self.write(&backend, outcome, model, usage),
            Used::Nothing => self.write(&backend, outcome, model, Usage::default()),
            Used::Said(said) => self.count(backend, outcome, model, move || said),
            Used::Reply(frames, all) => self.count(backend, outcome, model, move || {
                let beginning = frames.concat();
                meter::said_in(&beginning).stretched(beginning.len() as u64, all)
            }),
        }
    }

    /// Counts before it writes: on a thread of its own, since it takes its time.
    fn count(
        self: Box<Self>,
        backend: Arc<Backend>,
        outcome: Outcome,
        model: Option<String>,
        said: impl FnOnce() -> Said + Send + 'static,
    ) -> Closing {
        if tokio::runtime::Handle::try_current().is_err() {
            return Box::pin(std::future::ready(()));
        }
        let tasks = self.tasks.clone();
        let counting = tasks.spawn(async move {
            let (operation, body) = (self.operation, self.body.clone());
            let encoding = Encoding::of(model.as_deref().unwrap_or(self.deployment.as_str()));
            let counted =
                tokio::task::spawn_blocking(move || estimate::usage(operation, encoding, &body, &said()));
            let usage = counted.await.unwrap_or_else(|error| {
                tracing::error!(%error, request.id = %self.id, "tokens could not be counted");
                Usage::default()
            });
            self.write(&backend, outcome, model, usage).await;
        });
        Box::pin(async move {
            // It only fails where it was cancelled, and then the process ends.
            let _ = counting.await;
        })
    }

    fn write(self, backend: &Backend, outcome: Outcome, model: Option<String>, usage: Usage) -> Closing {
        let subscription = self.caller.subscription();
        let event = UsageEvent {
            schema: Schema::V1,
            id: self.id,
            time: self.time,
            subscription_id: subscription.id.clone(),
            product: subscription.product.clone(),
            cost_center: subscription.cost_center.clone(),
            end_user: self.caller.end_user().map(str::to_owned).map(cut),
            operation: self.operation.name().into(),
            deployment: self.deployment,
            model: model.map(cut),
            api_version: self.api_version,
            backend: backend.name.clone(),
            region: backend.region.clone(),
            attempts: self.attempts,
            status: self.status,
            stream: self.stream,
            outcome,
            usage,
            duration_ms: millis(self.clock.elapsed().saturating_sub(self.began)),
            first_byte_ms: self.first_byte.map(millis),
        };
        let id = self.id;
        let receipt: Receipt = self.usage.record(event);
        Box::pin(async move {
            if let Err(error) = receipt.await {
                tracing::error!(
                    request.id = %id, error = %error.source,
                    "the usage of request {id} could not be recorded: {error}"
                );
            }
        })
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The beginning of a text, as long as an event may hold it.
fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT_CHARS) {
        text.truncate(end);
    }
    text
}

/// The query's `api-version`, cut to what a version may be long.
fn api_version(query: &str) -> Option<String> {
    const MAX_BYTES: usize = 64;
    let version = query.split('&').find_map(|pair| pair.strip_prefix("api-version="))?;
    let is_version = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    (version.len() <= MAX_BYTES && version.bytes().all(is_version)).then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_holds_no_more_than_the_beginning_of_a_long_text() {
        assert_eq!(cut("gpt-4o-mini-2024-07-18".to_owned()), "gpt-4o-mini-2024-07-18");
        assert_eq!(cut("ö".repeat(100_000)), "ö".repeat(256));
    }
}
