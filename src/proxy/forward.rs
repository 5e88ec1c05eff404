//! Targets → reply: the first backend that can answer does, before the caller has seen a byte.
//!
//! At once, each backend at most once, never with a pause: a gateway that sleeps with a request in
//! hand only moves the queue into itself.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;

use super::choose::Targets;
use super::kept::Learning;
use super::pool::{Asked, Fault};
use super::publish::Open;
use super::read::Ask;
use super::{Incoming, Proxy, Refusal};
use crate::config::catalog::Target;
use crate::config::timeouts::Timeouts;
use crate::domain::api::Operation;
use crate::domain::breaker::Why;
use crate::domain::ids::{Name, RequestId};
use crate::domain::retry::DEFAULT_WAIT;

mod attempt;
mod unasked;

use attempt::Attempt;
pub(super) use attempt::{Reply, fault_of};
pub use unasked::Unasked;

/// How long a request waits for a token while another backend could serve it; what is under way goes on
/// behind it.
const SIGN_IN_WITH_ANOTHER: Duration = Duration::from_secs(1);
/// And where there is no other. A token endpoint that is slow answers in ten seconds.
const SIGN_IN: Duration = Duration::from_secs(15);

/// Everything that is known of a request when it goes out.
pub(super) struct Exchange {
    pub(super) proxy: Arc<Proxy>,
    pub(super) incoming: Incoming,
    pub(super) ask: Ask,
    pub(super) targets: Targets,
    pub(super) open: Open,
    pub(super) timeouts: Timeouts,
    pub(super) progress: Arc<Progress>,
    /// When it went out, by the clock's elapsed time: what a slow caller took to send it is not its
    /// backends'.
    pub(super) since: Duration,
}

/// What is shared with whoever waits for the answer to a stream.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// The caller has been given the beginning of an answer: no other backend may be asked.
    is_committed: AtomicBool,
    /// The one that was being asked then, and how many requests had been sent.
    asking: Mutex<Option<(Name, u32)>>,
}

/// A backend's reply that goes to the caller.
pub(super) struct Answered {
    pub(super) reply: Reply,
    pub(super) asked: Asked,
    pub(super) operation: Operation,
    /// Where the backend keeps the reply.
    pub(super) learning: Option<Learning>,
    pub(super) request: RequestId,
    pub(super) open: Open,
    pub(super) timeouts: Timeouts,
}

/// Asks the targets one after the other.
///
/// # Errors
/// What all of them together mean for the caller; the log says what each of them did.
pub(super) async fn until_answered(mut exchange: Exchange) -> Result<Answered, Refusal> {
    let mut failures = Failures::default();
    let found = exchange.first_answer(&mut failures).await;
    failures.rest(exchange.targets.soonest(exchange.proxy.clock.elapsed()));
    // What one backend has not may lie with another: while that cannot be asked, nobody knows that it is
    // missing.
    let found = found.filter(|(reply, _)| !(reply.may_be_elsewhere && failures.may_pass()));
    if let Some((reply, asked)) = found {
        return Ok(exchange.answered(reply, asked));
    }
    // Nobody could be asked, and somebody is fit again this very moment.
    failures.failed |= !failures.misconfigured;
    let refusal = failures.refusal(exchange.open.attempts());
    exchange.open.refused(failures.status()).await;
    Err(refusal)
}

impl Exchange {
    /// The first answer for the caller; or else the last that said that what was asked for is elsewhere.
    async fn first_answer(&mut self, failures: &mut Failures) -> Option<(Reply, Asked)> {
        let Self { proxy, incoming, ask, targets, open, timeouts, progress, since } = self;
        let mut missing = None;
        loop {
            let now = proxy.clock.elapsed();
            let left = (*since + timeouts.total).saturating_sub(now);
            if left.is_zero() || progress.is_committed.load(Relaxed) {
                // Whoever is not asked for want of time might have served it.
                failures.failed |= targets.has_another(now);
                return missing;
            }
            let Some(member) = targets.next(now) else { return missing };
            let so_far = now.saturating_sub(*since);
            let has_another = targets.has_another(now);
            let limit = limit(timeouts, ask, so_far, left, has_another);
            let patience = if has_another { SIGN_IN_WITH_ANOTHER } else { SIGN_IN };
            let mut asked = Asked::new(member, Arc::clone(&proxy.clock), now);
            let target = &asked.member().target;
            let mut attempt = Attempt { proxy, incoming, ask, target, open, limit, patience, progress };
            match attempt.make().await {
                Ok(reply) => {
                    asked.answered();
                    if !reply.may_be_elsewhere {
                        return Some((reply, asked));
                    }
                    missing = Some((reply, asked));
                }
                Err(fault) => {
                    log(incoming.id, target, &fault);
                    failures.add(&fault);
                    asked.failed(&fault);
                }
            }
        }
    }

    fn answered(mut self, reply: Reply, asked: Asked) -> Answered {
        self.open.answered(reply.status);
        let backend = &asked.member().target.backend.name;
        let caller = self.open.caller().filter(|_| reply.status.is_success());
        let learning = caller.and_then(|caller| self.proxy.kept.learning(&self.ask, backend, caller));
        Answered {
            reply,
            asked,
            operation: self.ask.operation,
            learning,
            request: self.incoming.id,
            open: self.open,
            timeouts: self.timeouts,
        }
    }
}

/// How long this backend may take to its first byte. A stream's last chance to be asked of another
/// backend is when its caller is told to wait: from then on this one has all the time there is.
fn limit(timeouts: &Timeouts, ask: &Ask, since: Duration, left: Duration, has_another: bool) -> Duration {
    let alone = if ask.stream { timeouts.stream_first_byte } else { timeouts.first_byte };
    let is_in_time = !ask.stream || since + alone <= timeouts.waiting_after;
    if alone < left && is_in_time && has_another { alone } else { left }
}

impl Progress {
    /// The backend that was asked last, and how many requests had been sent by then.
    pub(super) fn asking(&self) -> Option<(Name, u32)> {
        self.asking.lock().ok()?.clone()
    }

    fn now_asking(&self, backend: &Name, attempts: u32) {
        if let Ok(mut asking) = self.asking.lock() {
            *asking = Some((backend.clone(), attempts));
        }
    }

    /// From now on only the backend that is being asked may answer.
    pub(super) fn commit(&self) {
        self.is_committed.store(true, Relaxed);
    }
}

fn log(request: RequestId, target: &Target, fault: &Fault) {
    let (backend, text) = (&target.backend.name, &fault.text);
    match fault.why {
        Why::Throttled => tracing::info!(
            request.id = %request, backend.name = %backend,
            wait_ms = fault.wait.unwrap_or(DEFAULT_WAIT).as_millis(),
            "backend `{backend}` is busy: {text}"
        ),
        Why::Failed => tracing::warn!(
            request.id = %request, backend.name = %backend, "backend `{backend}` failed: {text}"
        ),
        Why::Misconfigured => tracing::error!(
            request.id = %request, backend.name = %backend, deployment = %target.deployment,
            "backend `{backend}` refuses the gateway itself (deployment `{}`): {text}", target.deployment
        ),
    }
}

/// What all targets together mean for the caller.
#[derive(Default)]
struct Failures {
    soonest: Option<Duration>,
    failed: bool,
    misconfigured: bool,
}

impl Failures {
    fn add(&mut self, fault: &Fault) {
        match fault.why {
            Why::Throttled => self.rest(Some(fault.wait.unwrap_or(DEFAULT_WAIT))),
            Why::Failed => self.failed = true,
            Why::Misconfigured => self.misconfigured = true,
        }
    }

    /// The soonest that one of them wants to be asked again.
    fn rest(&mut self, wait: Option<Duration>) {
        self.soonest = self.soonest.into_iter().chain(wait).min();
    }

    /// Whether one of them might have answered at another time.
    fn may_pass(&self) -> bool {
        self.failed || self.soonest.is_some()
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
