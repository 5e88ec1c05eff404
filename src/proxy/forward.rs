//! Targets → reply: the first backend that can answer does, before the caller has seen a byte.
//!
//! At once, each backend at most once, never with a pause: a gateway that sleeps with a request in
//! hand only moves the queue into itself.

use std::collections::HashSet;
use std::sync::RwLock;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt as _;
use serde::Deserialize;

use super::choose::Targets;
use super::publish::Open;
use super::read::Ask;
use super::{Incoming, Proxy, Refusal, headers};
use crate::config::catalog::Target;
use crate::domain::ids::{DeploymentName, Name, RequestId};
use crate::domain::retry::{self, Reason, Verdict};
use crate::ports::{BackendBody, BackendFailure, BackendReply, Call, with_causes};

/// An error's body is a few hundred bytes; no more of one is read to understand it.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// And it comes with its head, or not at all.
const ERROR_BODY: Duration = Duration::from_secs(10);

/// A backend's reply that goes to the caller.
pub(super) struct Answered {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Bytes of the body that were read to understand it.
    pub(super) first: Bytes,
    pub(super) body: BackendBody,
    /// Usage was asked for on the caller's behalf.
    pub(super) is_injected: bool,
    pub(super) backend: Name,
    pub(super) request: RequestId,
    pub(super) open: Open,
}

/// Asks the targets one after the other.
///
/// # Errors
/// What all of them together mean for the caller; the log says what each of them did.
pub(super) async fn until_answered(
    proxy: &Proxy,
    incoming: &Incoming,
    ask: &Ask,
    targets: Targets,
    mut open: Open,
) -> Result<Answered, Refusal> {
    let mut failures = Failures::default();
    for target in targets.iter() {
        let mut attempt = Attempt { proxy, incoming, ask, target, open: &mut open };
        match attempt.make().await {
            Ok(reply) => {
                open.answered(reply.status);
                let Reply { status, headers, first, body, is_injected } = reply;
                let backend = target.backend.name.clone();
                return Ok(Answered {
                    status,
                    headers,
                    first,
                    body,
                    is_injected,
                    backend,
                    request: incoming.id,
                    open,
                });
            }
            Err(failure) => {
                log(incoming.id, target, &failure);
                failures.add(&failure);
            }
        }
    }
    let refusal = failures.refusal(open.attempts());
    open.refused(failures.status()).await;
    Err(refusal)
}

struct Attempt<'a> {
    proxy: &'a Proxy,
    incoming: &'a Incoming,
    ask: &'a Ask,
    target: &'a Target,
    open: &'a mut Open,
}

struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    first: Bytes,
    body: BackendBody,
    is_injected: bool,
}

impl Attempt<'_> {
    async fn make(&mut self) -> Result<Reply, Failure> {
        let unasked = &self.proxy.unasked;
        let injects = self.ask.needs_injection() && !unasked.contains(&self.key());
        let reply = self.send(injects).await?;
        let refuses_it = reply.status == StatusCode::BAD_REQUEST && names_stream_options(&reply.first);
        if !(injects && refuses_it) {
            return Ok(reply);
        }
        let again = self.send(false).await?;
        if again.status.is_success() {
            tracing::info!(
                backend.name = %self.target.backend.name,
                "backend `{}` does not take `stream_options`: its streams are counted here from now on",
                self.target.backend.name
            );
            unasked.insert(self.key());
        }
        Ok(again)
    }

    fn key(&self) -> (Name, DeploymentName, String) {
        let query = self.incoming.query.as_deref().map(headers::without_caller_marks).unwrap_or_default();
        (self.target.backend.name.clone(), self.target.deployment.clone(), query)
    }

    async fn send(&mut self, injects: bool) -> Result<Reply, Failure> {
        let mut path = self.incoming.address.path_at_backend(self.target.deployment.as_str());
        if let Some(query) = self.incoming.query.as_deref().map(headers::without_caller_marks)
            && !query.is_empty()
        {
            path.push('?');
            path.push_str(&query);
        }
        let call = Call {
            backend: &self.target.backend,
            path_and_query: &path,
            headers: headers::for_backend(&self.incoming.headers, self.incoming.trace),
            body: self.ask.body_for(&self.target.deployment, injects),
        };
        let before = self.open.asking(&self.target.backend);
        let first_byte = self.proxy.timeouts.first_byte;
        let sent = tokio::time::timeout(first_byte, self.proxy.backends.send(call)).await;
        match sent.unwrap_or(Err(BackendFailure::TimedOut(first_byte))) {
            Ok(reply) => understand(reply, injects).await,
            Err(failure) => {
                if matches!(
                    failure,
                    BackendFailure::NoConnection(_)
                        | BackendFailure::CannotSignIn(_)
                        | BackendFailure::NoToken(_)
                ) {
                    self.open.not_reached(before);
                }
                Err(Failure::of(&failure))
            }
        }
    }
}

/// Why a target did not serve the request.
struct Failure {
    kind: Kind,
    /// For the log.
    reason: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Throttled(Duration),
    Failed,
    Misconfigured,
}

impl Failure {
    fn of(failure: &BackendFailure) -> Self {
        let kind = match failure {
            BackendFailure::CannotSignIn(_) => Kind::Misconfigured,
            BackendFailure::NoConnection(_)
            | BackendFailure::TimedOut(_)
            | BackendFailure::BrokeOff(_)
            | BackendFailure::NoToken(_) => Kind::Failed,
        };
        Self { kind, reason: with_causes(failure) }
    }
}

/// Weighs a reply: the caller's, or a failure of its backend.
async fn understand(reply: BackendReply, is_injected: bool) -> Result<Reply, Failure> {
    let BackendReply { status, headers, mut body } = reply;
    let first = if status.is_success() { Bytes::new() } else { beginning(&mut body).await };
    let error = error_in(&first);
    let kind = match retry::weigh(status, error.code.as_deref()) {
        Verdict::Pass => return Ok(Reply { status, headers, first, body, is_injected }),
        Verdict::TryAnother(Reason::Throttled) => {
            Kind::Throttled(retry::wait(&headers).unwrap_or(retry::DEFAULT_WAIT))
        }
        Verdict::TryAnother(Reason::Failed) => Kind::Failed,
        Verdict::Misconfigured => Kind::Misconfigured,
    };
    let said = in_one_line(&error.message.unwrap_or_default(), 300);
    let code = in_one_line(&error.code.unwrap_or_default(), 100);
    Err(Failure { kind, reason: format!("{status} {code}: {said}") })
}

/// A backend's text for the log, whose records are one line each.
fn in_one_line(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The beginning of an error's body. What cannot be read is left for the caller to meet.
async fn beginning(body: &mut BackendBody) -> Bytes {
    let mut read = BytesMut::new();
    let reading = async {
        while read.len() < MAX_ERROR_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            read.extend_from_slice(&frame.into_data().unwrap_or_default());
        }
    };
    // Whether it ended or not, what came is what there is to understand.
    let _ = tokio::time::timeout(ERROR_BODY, reading).await;
    read.freeze()
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: ErrorMembers,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorMembers {
    code: Option<String>,
    message: Option<String>,
}

fn error_in(body: &[u8]) -> ErrorMembers {
    serde_json::from_slice::<ErrorBody>(body).unwrap_or_default().error
}

fn names_stream_options(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"stream_options").is_some()
}

fn log(request: RequestId, target: &Target, failure: &Failure) {
    let (backend, reason) = (&target.backend.name, &failure.reason);
    match failure.kind {
        Kind::Throttled(wait) => tracing::info!(
            request.id = %request, backend.name = %backend, wait_ms = wait.as_millis(),
            "backend `{backend}` is busy: {reason}"
        ),
        Kind::Failed => tracing::warn!(
            request.id = %request, backend.name = %backend, "backend `{backend}` failed: {reason}"
        ),
        Kind::Misconfigured => tracing::error!(
            request.id = %request, backend.name = %backend, deployment = %target.deployment,
            "backend `{backend}` refuses the gateway itself (deployment `{}`): {reason}", target.deployment
        ),
    }
}

/// What all targets together mean for the caller.
#[derive(Default)]
struct Failures {
    soonest: Option<Duration>,
    failed: bool,
}

impl Failures {
    fn add(&mut self, failure: &Failure) {
        match failure.kind {
            Kind::Throttled(wait) => {
                self.soonest = Some(self.soonest.map_or(wait, |soonest| soonest.min(wait)));
            }
            Kind::Failed => self.failed = true,
            Kind::Misconfigured => {}
        }
    }

    fn refusal(&self, attempts: u32) -> Refusal {
        match (self.soonest, self.failed) {
            (Some(retry_after), _) => Refusal::BackendsThrottled { retry_after, attempts },
            (None, true) => Refusal::NoBackendAvailable { attempts },
            (None, false) => Refusal::BackendMisconfigured { attempts },
        }
    }

    /// What the refusal is answered with, for the event.
    fn status(&self) -> StatusCode {
        match (self.soonest, self.failed) {
            (Some(_), _) => StatusCode::TOO_MANY_REQUESTS,
            (None, true) => StatusCode::SERVICE_UNAVAILABLE,
            (None, false) => StatusCode::BAD_GATEWAY,
        }
    }
}

/// Streams that must not be asked for usage: by backend, deployment and query, which has the version
/// and no longer the caller's key.
#[derive(Debug, Default)]
pub struct Unasked(RwLock<HashSet<(Name, DeploymentName, String)>>);

impl Unasked {
    /// More than any gateway has; a caller that makes up queries starts it anew.
    const MAX: usize = 1_000;

    fn contains(&self, key: &(Name, DeploymentName, String)) -> bool {
        self.0.read().is_ok_and(|known| known.contains(key))
    }

    fn insert(&self, key: (Name, DeploymentName, String)) {
        if let Ok(mut known) = self.0.write() {
            if known.len() >= Self::MAX {
                known.clear();
            }
            known.insert(key);
        }
    }
}
