//! Usage events to an event hub, over HTTPS, with the gateway's own token.
//!
//! One request sends a batch: <https://learn.microsoft.com/rest/api/eventhub/send-batch-events>. No partition
//! is named and no key, so the hub spreads batches as it likes. Never waits by itself and never tries again
//! but once with another token: when to send again, and where events wait meanwhile, `publisher` knows.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use reqwest::redirect::Policy;
use url::Url;

use super::cloud::EVENT_HUBS_SCOPE;
use super::entra::{TokenFailure, Tokens};
use super::transport;
use crate::config::settings;
use crate::domain::usage::UsageEvent;
use crate::ports::{Undelivered, UsageDestination, with_causes};

/// Requests under way at the same time. With one, an event that comes while a batch is under way would wait
/// for two round trips; with these there is nearly always one that leaves at once.
pub const AT_ONCE: usize = 4;
/// While many events wait: a hub that takes 10 ms then still takes tens of thousands a second.
pub const MOST_AT_ONCE: usize = 16;

const WHAT: &str = "the event hub";
const CONNECT: Duration = Duration::from_secs(2);
/// Replies wait less than this, and what lies in the spool no longer.
const ANSWER: Duration = Duration::from_secs(10);
/// Azure's load balancers forget an idle connection after four minutes.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// A batch with all its escaping. The Basic tier takes 256 KB, the others 1 MB:
/// <https://learn.microsoft.com/azure/event-hubs/event-hubs-quotas>. What the hub itself adds to each event
/// counts as well, and larger batches would be no faster.
const MAX_BATCH_BYTES: usize = 200_000;
/// More than any refusal says.
const MAX_ANSWER_BYTES: usize = 16 * 1024;

/// An event hub.
#[derive(Clone, Debug)]
pub struct EventHub {
    client: reqwest::Client,
    messages: Url,
    /// As it is named to an operator.
    shown: String,
    tokens: Tokens,
}

impl EventHub {
    /// # Errors
    /// When the system's certificates cannot be read.
    pub fn new(hub: &settings::EventHub, tokens: Tokens) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            .build()?;
        let mut messages = hub.endpoint.clone();
        messages.set_path(&format!("/{}/messages", hub.name));
        messages.set_query(Some(&format!("timeout={}&api-version=2014-01", ANSWER.as_secs())));
        let shown =
            format!("the event hub `{}` of {}", hub.name, hub.endpoint.host_str().unwrap_or_default());
        Ok(Self { client, messages, shown, tokens })
    }

    /// Gets a token before the first event needs it, and says if there is none.
    pub async fn prepare(self) {
        if let Err(failure) = self.tokens.token(EVENT_HUBS_SCOPE).await {
            let scope = EVENT_HUBS_SCOPE;
            tracing::error!(token.scope = scope, "there is no token for {scope} yet: {failure}");
        }
    }

    /// Whether it would take events: asked with a batch that has none, which publishes nothing. A hub that
    /// complains about that batch has found whoever sends it good enough.
    ///
    /// # Errors
    /// As for events.
    pub async fn look(&self) -> Result<(), Undelivered> {
        let answer = self.post(&[]).await?;
        let is_good = answer.status.is_success() || answer.status == StatusCode::BAD_REQUEST;
        if is_good { Ok(()) } else { Err(self.refusal(&answer)) }
    }

    /// Sends events that fit into one batch, as far as we know. The hub knows better, and may have them
    /// halved; an event that is too large all by itself is among those that will never be taken.
    fn send_batch<'a>(
        &'a self,
        items: &'a [Item<'a>],
    ) -> BoxFuture<'a, Result<Vec<UsageEvent>, Undelivered>> {
        let sent = async move {
            let mut answer = self.post(items).await?;
            if answer.status == StatusCode::UNAUTHORIZED && self.tokens.renew(EVENT_HUBS_SCOPE).await {
                answer = self.post(items).await?;
            }
            match (answer.status, items) {
                (StatusCode::CREATED, _) => Ok(Vec::new()),
                (StatusCode::PAYLOAD_TOO_LARGE, [item]) => Ok(vec![item.event.clone()]),
                (StatusCode::PAYLOAD_TOO_LARGE, [_, ..]) => {
                    let (one, other) = items.split_at(items.len() / 2);
                    let mut never = self.send_batch(one).await?;
                    never.extend(self.send_batch(other).await?);
                    Ok(never)
                }
                _ => Err(self.refusal(&answer)),
            }
        };
        sent.boxed()
    }

    async fn post(&self, items: &[Item<'_>]) -> Result<Answer, Undelivered> {
        let token = self.tokens.token(EVENT_HUBS_SCOPE).await.map_err(no_token)?;
        let request = self
            .client
            .post(self.messages.clone())
            .header(AUTHORIZATION, token.bearer())
            .header(CONTENT_TYPE, "application/vnd.microsoft.servicebus.json")
            .body(body(items));
        let broken = |error: reqwest::Error| unavailable(None, with_causes(&error.without_url()));
        let mut response = request.send().await.map_err(broken)?;
        let mut answer =
            Answer { status: response.status(), headers: response.headers().clone(), text: Vec::new() };
        while answer.text.len() < MAX_ANSWER_BYTES
            && let Some(piece) = response.chunk().await.map_err(broken)?
        {
            answer.text.extend_from_slice(&piece);
        }
        Ok(answer)
    }

    fn refusal(&self, answer: &Answer) -> Undelivered {
        let (shown, said) = (&self.shown, answer.said());
        match answer.status.as_u16() {
            408 | 429 | 500.. => {
                unavailable(answer.retry_after(), format!("it answered {}: {said}", answer.status))
            }
            401 => Undelivered::Refused(format!(
                "{shown} does not take the gateway's token: the app's identity must be of the namespace's own \
                 tenant. {said}"
            )),
            403 => Undelivered::Refused(format!(
                "the gateway's identity may not send to {shown}: give it the role Azure Event Hubs Data Sender \
                 there (`az role assignment create --role \"Azure Event Hubs Data Sender\" --assignee PRINCIPAL-ID \
                 --scope NAMESPACE-OR-HUB-RESOURCE-ID`; it takes some minutes to hold), and let its subnet through \
                 the namespace's network rules. {said}"
            )),
            404 | 410 => Undelivered::Refused(format!(
                "{shown} is not there: mend USAGE_EVENTHUB_NAME, or make it (`az eventhubs eventhub create \
                 --namespace-name NAMESPACE --resource-group GROUP --name HUB`). {said}"
            )),
            _ => Undelivered::Refused(format!(
                "{shown} answered {}, as no event hub does that is well: mend \
                 UsageEventHub__fullyQualifiedNamespace. {said}",
                answer.status
            )),
        }
    }
}

#[async_trait]
impl UsageDestination for EventHub {
    fn name(&self) -> &'static str {
        WHAT
    }

    async fn send(&self, events: &[UsageEvent]) -> Result<Vec<UsageEvent>, Undelivered> {
        let items = events.iter().map(Item::of).collect::<Result<Vec<_>, _>>();
        let items = items.map_err(|error| Undelivered::Refused(format!("an event is no JSON: {error}")))?;
        let mut never = Vec::new();
        for batch in batches(&items, MAX_BATCH_BYTES) {
            never.extend(self.send_batch(batch).await?);
        }
        Ok(never)
    }
}

/// An event as it stands in a batch: JSON in a string in JSON.
struct Item<'a> {
    event: &'a UsageEvent,
    json: String,
}

impl<'a> Item<'a> {
    fn of(event: &'a UsageEvent) -> serde_json::Result<Self> {
        let text = serde_json::to_string(&serde_json::to_string(event)?)?;
        Ok(Self { event, json: format!("{{\"Body\":{text}}}") })
    }
}

fn body(items: &[Item<'_>]) -> String {
    let mut body = String::with_capacity(items.iter().map(|item| item.json.len() + 1).sum::<usize>() + 2);
    body.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            body.push(',');
        }
        body.push_str(&item.json);
    }
    body.push(']');
    body
}

/// As many as fit into `max_bytes`, and again; one that does not fit stands alone.
fn batches<'a>(items: &'a [Item<'a>], max_bytes: usize) -> impl Iterator<Item = &'a [Item<'a>]> {
    let mut rest = items;
    std::iter::from_fn(move || {
        // The brackets, and behind each event a comma.
        let mut bytes = 2;
        let fit = rest.iter().take_while(|item| {
            bytes += item.json.len() + 1;
            bytes <= max_bytes
        });
        let count = fit.count().max(1);
        let batch = rest.get(..count)?;
        rest = &rest[count..];
        Some(batch)
    })
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: Vec<u8>,
}

impl Answer {
    /// Whole seconds are what Azure writes.
    fn retry_after(&self) -> Option<Duration> {
        let seconds = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds))
    }

    /// What it says, without the ids and the time that it ends with: with them each refusal would be a new
    /// one in the log.
    fn said(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        transport::in_one_line(text.split("TrackingId").next().unwrap_or_default())
    }
}

fn no_token(failure: TokenFailure) -> Undelivered {
    match failure {
        TokenFailure::Refused(text) => {
            Undelivered::Refused(format!("there is no token for the event hub: {text}"))
        }
        TokenFailure::Passing(_) => unavailable(None, failure),
    }
}

fn unavailable(
    retry_after: Option<Duration>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Undelivered {
    Undelivered::Unavailable { what: WHAT, retry_after, source: source.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(number: usize) -> UsageEvent {
        serde_json::from_value(json!({
            "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
            "time": "2026-11-21T09:00:00.123Z", "subscription_id": "s", "product": "p", "cost_center": "\"\\é",
            "operation": "chat.completions", "deployment": "d", "backend": "b", "status": 200,
            "outcome": "completed", "usage": {"source": "reported", "input_tokens": 1, "output_tokens": 2},
        }))
        .unwrap()
    }

    #[test]
    fn batches_fit_and_have_every_event_in_its_place() {
        let events: Vec<_> = (0..100).map(event).collect();
        let items: Vec<_> = events.iter().map(|event| Item::of(event).unwrap()).collect();
        let one = items[0].json.len();
        for max_bytes in [0, one, one + 3, 10 * one, 1_000 * one] {
            let mut found = Vec::new();
            for batch in batches(&items, max_bytes) {
                let body = body(batch);
                assert!(body.len() <= max_bytes || batch.len() == 1, "{} > {max_bytes}", body.len());
                let read: Vec<Value> = serde_json::from_str(&body).unwrap();
                for item in &read {
                    found.push(serde_json::from_str::<UsageEvent>(item["Body"].as_str().unwrap()).unwrap());
                }
            }
            assert_eq!(found, events, "{max_bytes}");
        }
        assert_eq!(batches(&[], 10).count(), 0);
    }
}
