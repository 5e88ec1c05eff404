//! Reply → caller, metered as it passes.
//!
//! Nothing is held but the end: the last bytes of a whole reply, and a stream's `[DONE]` frame (or,
//! without one, its end) wait until the usage event is safe. A caller that has seen the end can
//! therefore rely on its usage being in the ledger, whatever happens to this process.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http_body::{Body, Frame};
use tokio_util::task::TaskTracker;

use super::forward::Answered;
use super::kept::Learning;
use super::publish::{Closing, Metered, Open, Used, settle_alone};
use super::read::Ask;
use super::{Answer, Proxy, headers};
use crate::domain::meter::{stream, whole};
use crate::domain::usage::Outcome;
use crate::ports::{BackendBody, BackendFailure, with_causes};

mod gathering;
mod silence;

use gathering::Gathering;
use silence::Silence;

/// As much of a whole reply as is kept, in case that its tokens must be counted.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// Ends a stream that broke: never a clean end, never an invented `finish_reason`.
const FAILED_EVENT: &str = "data: {\"error\":{\"code\":\"backend_failed\",\"message\":\"the backend's \
    reply broke off\",\"type\":\"server_error\",\"param\":null}}\n\n";

/// The reply broke off, and its caller must see that it did.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the backend's reply broke off")]
pub struct BrokenReply;

/// A backend's reply on its way to the caller.
pub struct Relay {
    source: BackendBody,
    /// Bytes that were read before; they come first.
    first: Bytes,
    meter: Meter,
    open: Option<Open>,
    /// Until the reply has told what it is kept under.
    learning: Option<Learning>,
    tasks: TaskTracker,
    queue: VecDeque<Bytes>,
    /// The last byte so far of a whole reply of unknown length.
    held: Bytes,
    state: State,
    silence: Silence,
    gathering: Gathering,
}

enum Meter {
    Stream(Box<stream::Meter>),
    Whole(Box<Whole>),
    /// An error's body has no usage, and what is kept was counted when it was made.
    Nothing,
}

struct Whole {
    meter: whole::Meter,
    kept: Vec<Bytes>,
    kept_bytes: usize,
    passed_bytes: u64,
}

enum State {
    Passing,
    /// The event is being made safe; then these bytes follow.
    Closing(Closing, Bytes, After),
    /// Everything is accounted for: what still comes passes.
    Draining,
    /// To be told as a failure.
    Broken,
    Over,
}

#[derive(Clone, Copy)]
enum After {
    Drain,
    Break,
    End,
}

/// Makes the answer out of a backend's reply.
pub(super) fn metered(proxy: &Proxy, ask: &Ask, answered: Answered) -> Answer {
    let Answered { status, headers, first, body, is_injected, backend, request, open } = answered;
    let is_stream = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/event-stream"));
    let meter = match (is_stream, ask.is_of_responses()) {
        _ if !status.is_success() => Meter::Nothing,
        (true, true) => Meter::Stream(Box::new(stream::Meter::of_responses())),
        (true, false) => Meter::Stream(Box::new(stream::Meter::new(is_injected && ask.stream))),
        (false, _) if ask.operation.is_of_item() => Meter::Nothing,
        (false, true) => Meter::Whole(Box::new(Whole::of(whole::Meter::of_response()))),
        (false, false) => Meter::Whole(Box::new(Whole::of(whole::Meter::default()))),
    };
    let learning = open.caller().filter(|_| status.is_success());
    let learning = learning.and_then(|caller| proxy.kept.learning(ask, &backend, caller));
    let added = headers::Added {
        request,
        backend: backend.as_str(),
        attempts: open.attempts(),
        // Something is taken out of a stream, or an error put behind it; and a server stops reading
        // where the length is reached, before the end is known.
        is_edited: is_stream,
    };
    let headers = headers::for_caller(headers, &added);
    let body = Relay {
        source: body,
        first,
        meter,
        open: Some(open),
        learning,
        tasks: proxy.tasks.clone(),
        queue: VecDeque::new(),
        held: Bytes::new(),
        state: State::Passing,
        silence: Silence::new(proxy.timeouts.idle),
        gathering: Gathering::default(),
    };
    Answer { status, headers, body }
}

impl Body for Relay {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        loop {
            if self.gathering.is_full() {
                self.queue_gathered();
            }
            if !self.gathering.goes_on()
                && let Some(bytes) = self.queue.pop_front()
            {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            match &mut self.state {
                State::Passing => match self.poll_source(cx) {
                    Poll::Ready(Some(Ok(bytes))) => self.pass(bytes),
                    Poll::Ready(Some(Err(failure))) => self.break_off(&failure),
                    Poll::Ready(None) => self.end(),
                    Poll::Pending if self.gathering.waits_once_more() => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    Poll::Pending if self.queue.is_empty() => return Poll::Pending,
                    Poll::Pending => self.queue_gathered(),
                },
                State::Closing(closing, ..) => {
                    ready!(closing.as_mut().poll(cx));
                    self.closed();
                }
                State::Draining => match ready!(self.poll_source(cx)) {
                    Some(Ok(bytes)) => self.queue.push_back(bytes),
                    Some(Err(_)) | None => self.state = State::Over,
                },
                State::Broken => {
                    self.state = State::Over;
                    return Poll::Ready(Some(Err(BrokenReply)));
                }
                State::Over => return Poll::Ready(None),
            }
        }
    }
}

impl Relay {
    /// Makes the event of a reply without a body safe: the server sends its head, asks for nothing
    /// more, and drops this as it would for a caller that hung up.
    pub(super) async fn settle_if_empty(&mut self) {
        if self.first.is_empty() && self.source.is_end_stream() {
            self.end();
            if let State::Closing(closing, ..) = &mut self.state {
                closing.await;
                self.closed();
            }
        }
    }

    /// The next bytes from the backend; a failure when it is silent for too long.
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BackendFailure>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        loop {
            match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => {
                        self.silence.broken();
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                    // Trailers concern the connection to the backend only.
                    _ => {}
                },
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Err(failure))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(self.silence.poll(cx));
                    return Poll::Ready(Some(Err(BackendFailure::TimedOut(self.silence.limit))));
                }
            }
        }
    }

    fn pass(&mut self, bytes: Bytes) {
        if let Some(open) = &mut self.open {
            open.first_byte();
        }
        match &mut self.meter {
            Meter::Stream(meter) => {
                let before = self.queue.len();
                let end = meter.pass(bytes, &mut self.queue);
                self.gathering.add(self.queue.iter().skip(before));
                if self.learning.is_some()
                    && let Some(id) = meter.id()
                    && let Some(learning) = self.learning.take()
                {
                    learning.learned(id);
                }
                if let Some(end) = end {
                    self.close(Outcome::Completed, end, After::Drain);
                }
                return;
            }
            Meter::Whole(whole) => whole.pass(&bytes),
            Meter::Nothing => {}
        }
        self.pass_whole(bytes);
    }

    /// Passes bytes of a whole reply. Where its length is known the last ones are known too; in
    /// chunks any byte may be the last, so one always waits for the next.
    fn pass_whole(&mut self, mut bytes: Bytes) {
        let before = std::mem::take(&mut self.held);
        self.queue_bytes(before);
        if self.source.is_end_stream() {
            self.close(Outcome::Completed, bytes, After::End);
        } else {
            self.held = bytes.split_off(bytes.len() - 1);
            self.queue_bytes(bytes);
        }
    }

    fn queue_bytes(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.queue.push_back(bytes);
        }
    }

    /// The backend's reply is over, as it should be.
    fn end(&mut self) {
        let mut end = std::mem::take(&mut self.held);
        if let Meter::Stream(meter) = &mut self.meter {
            end = meter.finish(&mut self.queue).unwrap_or_default();
        }
        self.close(Outcome::Completed, end, After::End);
    }

    /// The backend's reply is not whole. A stream says so in an event of its own; a whole body can
    /// only break too.
    fn break_off(&mut self, failure: &BackendFailure) {
        let id = self.open.as_ref().and_then(Open::id).map(|id| id.to_string()).unwrap_or_default();
        let reason = with_causes(failure);
        tracing::warn!(request.id = %id, "the reply to request {id} broke off: {reason}");
        match &self.meter {
            Meter::Stream(meter) => {
                let blank = if meter.is_mid_event() { "\n\n" } else { "" };
                let end = Bytes::from(format!("{blank}{FAILED_EVENT}"));
                self.close(Outcome::BackendFailed, end, After::End);
            }
            Meter::Whole(_) | Meter::Nothing => {
                self.close(Outcome::BackendFailed, Bytes::new(), After::Break);
            }
        }
    }

    /// What was gathered goes out as one piece.
    fn queue_gathered(&mut self) {
        self.gathering = Gathering::default();
        if self.queue.len() > 1 {
            let bytes = self.queue.iter().map(Bytes::len).sum();
            let mut all = BytesMut::with_capacity(bytes);
            self.queue.drain(..).for_each(|piece| all.extend_from_slice(&piece));
            self.queue.push_back(all.freeze());
        }
    }

    fn close(&mut self, outcome: Outcome, end: Bytes, after: After) {
        self.queue_gathered();
        if let Meter::Whole(whole) = &mut self.meter
            && let Some(id) = whole.meter.take_id()
            && let Some(learning) = self.learning.take()
        {
            learning.learned(&id);
        }
        let metered = self.take_metered();
        if let Some(open) = self.open.take() {
            self.state = State::Closing(open.close(outcome, metered), end, after);
        }
    }

    fn closed(&mut self) {
        let next = match &self.state {
            State::Closing(_, _, After::Drain) => State::Draining,
            State::Closing(_, _, After::Break) => State::Broken,
            _ => State::Over,
        };
        if let State::Closing(_, end, _) = std::mem::replace(&mut self.state, next) {
            self.queue_bytes(end);
        }
    }

    fn take_metered(&mut self) -> Metered {
        match &mut self.meter {
            Meter::Nothing => Metered { model: None, usage: Used::Nothing },
            Meter::Stream(meter) => Metered {
                model: meter.model().map(str::to_owned),
                usage: meter.usage().map_or_else(|| Used::Said(meter.take_said()), Used::Reported),
            },
            Meter::Whole(whole) => Metered {
                model: whole.meter.model().map(str::to_owned),
                usage: whole.meter.usage().map_or_else(
                    || Used::Reply(std::mem::take(&mut whole.kept), whole.passed_bytes),
                    Used::Reported,
                ),
            },
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The caller hung up: what was said until now was used.
        if let Some(open) = self.open.take() {
            let metered = self.take_metered();
            settle_alone(&self.tasks, open.close(Outcome::ClientCancelled, metered));
        }
    }
}

impl Whole {
    fn of(meter: whole::Meter) -> Self {
        Self { meter, kept: Vec::new(), kept_bytes: 0, passed_bytes: 0 }
    }

    fn pass(&mut self, bytes: &Bytes) {
        self.meter.pass(bytes);
        self.passed_bytes += bytes.len() as u64;
        let room = MAX_KEPT_BYTES - self.kept_bytes;
        if room > 0 {
            let kept = bytes.slice(..bytes.len().min(room));
            self.kept_bytes += kept.len();
            self.kept.push(kept);
        }
    }
}
