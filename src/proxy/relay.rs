//! Reply → caller, metered as it passes.
//!
//! Nothing is held but the end: the last bytes of a whole reply, and a stream's `[DONE]` frame (or,
//! without one, its end) wait until the usage event is safe. A caller that has seen the end can
//! therefore rely on its usage being in the ledger, whatever happens to this process.
//!
//! A stream whose backend takes long is begun without it: its caller hears that it is waited for, and
//! nothing in between takes the connection for dead.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use http_body::{Body, Frame};
use tokio::time::{Duration, Interval, MissedTickBehavior};
use tokio_util::task::TaskTracker;

use super::forward::{Answered, Progress};
use super::{Answer, Refusal, headers};
use crate::domain::ids::RequestId;

mod gathering;
mod passing;
mod silence;

use passing::Passing;

/// Says to a stream's caller that its backend is waited for.
const WAITING: Bytes = Bytes::from_static(b": waiting\n\n");

/// Ends a stream that broke: never a clean end, never an invented `finish_reason`.
const FAILED_EVENT: &str = "data: {\"error\":{\"code\":\"backend_failed\",\"message\":\"the backend's \
    reply broke off\",\"type\":\"server_error\",\"param\":null}}\n\n";

/// The reply broke off, and its caller must see that it did.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the backend's reply broke off")]
pub struct BrokenReply;

/// A reply on its way to the caller.
pub struct Relay(Stage);

#[expect(clippy::large_enum_variant, reason = "nearly every reply passes at once")]
enum Stage {
    /// No backend has answered yet.
    Waiting(Box<Waiting>),
    Passing(Passing),
    Over,
}

/// A request that is still being forwarded.
pub(super) type Forwarding = Pin<Box<dyn Future<Output = Result<Answered, Refusal>> + Send>>;

struct Waiting {
    forwarding: Forwarding,
    beat: Interval,
    tasks: TaskTracker,
}

/// Makes the answer out of a backend's reply.
pub(super) fn metered(mut answered: Answered, tasks: &TaskTracker) -> Answer {
    let status = answered.reply.status;
    let is_stream = passing::is_stream(&answered.reply.headers);
    let backend = answered.asked.member().target.backend.name.clone();
    let added = headers::Added {
        request: answered.request,
        backend: Some((&backend, answered.open.attempts())),
        // Something is taken out of a stream, or an error put behind it; and a server stops reading
        // where the length is reached, before the end is known.
        is_edited: is_stream,
    };
    let headers = headers::for_caller(std::mem::take(&mut answered.reply.headers), &added);
    let passing = Passing::new(answered, is_stream, tasks.clone());
    Answer { status, headers, body: Relay(Stage::Passing(passing)) }
}

/// Begins the answer to a stream that no backend has answered yet. The one that is being asked is the
/// last: the caller could not be told of another one's headers.
pub(super) fn waiting(
    forwarding: Forwarding,
    progress: &Arc<Progress>,
    every: Duration,
    request: RequestId,
    tasks: &TaskTracker,
) -> Answer {
    progress.commit();
    let mut beat = tokio::time::interval(every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    let asking = progress.asking();
    let added = headers::Added {
        request,
        backend: asking.as_ref().map(|(name, attempts)| (name, *attempts)),
        is_edited: true,
    };
    let headers = headers::for_caller(headers, &added);
    let waiting = Waiting { forwarding, beat, tasks: tasks.clone() };
    Answer { status: StatusCode::OK, headers, body: Relay(Stage::Waiting(Box::new(waiting))) }
}

impl Relay {
    /// Makes the event of a reply without a body safe: the server sends its head, asks for nothing
    /// more, and drops this as it would for a caller that hung up.
    pub(super) async fn settle_if_empty(&mut self) {
        if let Stage::Passing(passing) = &mut self.0 {
            passing.settle_if_empty().await;
        }
    }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        loop {
            let (bytes, next) = match &mut self.0 {
                Stage::Passing(passing) => {
                    return passing.poll(cx).map(|piece| piece.map(|bytes| bytes.map(Frame::data)));
                }
                Stage::Over => return Poll::Ready(None),
                Stage::Waiting(waiting) => ready!(waiting.poll(cx)),
            };
            if let Some(next) = next {
                self.0 = next;
            }
            if let Some(bytes) = bytes {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
        }
    }
}

impl Waiting {
    /// Something for the caller, or what comes behind the waiting.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<(Option<Bytes>, Option<Stage>)> {
        match self.forwarding.as_mut().poll(cx) {
            Poll::Ready(Ok(answered)) => {
                let status = answered.reply.status;
                let is_begun =
                    answered.reply.status.is_success() && passing::is_stream(&answered.reply.headers);
                let mut passing = Passing::new(answered, true, self.tasks.clone());
                if !is_begun {
                    passing.end_unbegun(status);
                }
                Poll::Ready((None, Some(Stage::Passing(passing))))
            }
            // Its event is written: that belongs to forwarding.
            Poll::Ready(Err(_)) => {
                Poll::Ready((Some(Bytes::from_static(FAILED_EVENT.as_bytes())), Some(Stage::Over)))
            }
            Poll::Pending => {
                ready!(self.beat.poll_tick(cx));
                Poll::Ready((Some(WAITING), None))
            }
        }
    }
}
