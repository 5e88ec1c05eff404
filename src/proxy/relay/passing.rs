//! A reply that passes: metered, and its end held until its usage event is safe.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use tokio_util::task::TaskTracker;

use super::super::forward::{Answered, Reply, fault_of};
use super::super::kept::Learning;
use super::super::pool::{Asked, Fault};
use super::super::publish::{Closing, Metered, Open, Used, settle_alone};
use super::gathering::Gathering;
use super::silence::{Heard, Silence};
use super::{BrokenReply, FAILED_EVENT, WAITING};
use crate::domain::api::Operation;
use crate::domain::meter::{stream, whole};
use crate::domain::usage::Outcome;
use crate::ports::{BackendBody, BackendFailure, with_causes};

/// As much of a whole reply as is kept, in case that its tokens must be counted.
const MAX_KEPT_BYTES: usize = 256 * 1024;

/// A backend's reply on its way to the caller.
pub(super) struct Passing {
    source: BackendBody,
    /// Bytes that were read before; they come first.
    first: Bytes,
    meter: Meter,
    open: Option<Open>,
    /// Told how the reply went.
    asked: Option<Asked>,
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

/// What the backend says next.
enum Piece {
    Bytes(Bytes),
    /// It has said nothing for so long that the caller should hear that it is waited for.
    Silence,
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

/// Whether the body is a stream of events.
pub(super) fn is_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("text/event-stream"))
}

impl Passing {
    pub(super) fn new(answered: Answered, is_stream: bool, tasks: TaskTracker) -> Self {
        let Answered { reply, asked, operation, learning, open, timeouts, .. } = answered;
        let Reply { status, first, body, is_injected, .. } = reply;
        let (is_of_item, responds) = (operation.is_of_item(), operation == Operation::Responses);
        let meter = match is_stream {
            _ if !status.is_success() => Meter::Nothing,
            true if responds || is_of_item => Meter::Stream(Box::new(stream::Meter::of_responses())),
            true => Meter::Stream(Box::new(stream::Meter::new(is_injected))),
            false if is_of_item => Meter::Nothing,
            false if responds => Meter::Whole(Box::new(Whole::of(whole::Meter::of_response()))),
            false => Meter::Whole(Box::new(Whole::of(whole::Meter::default()))),
        };
        Self {
            source: body,
            first,
            meter,
            open: Some(open),
            asked: Some(asked),
            learning,
            tasks,
            queue: VecDeque::new(),
            held: Bytes::new(),
            state: State::Passing,
            silence: Silence::of(&timeouts, is_stream && status.is_success()),
            gathering: Gathering::default(),
        }
    }

    /// The next piece for the caller.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, BrokenReply>>> {
        loop {
            if self.gathering.is_full() {
                self.queue_gathered();
            }
            if !self.gathering.goes_on()
                && let Some(bytes) = self.queue.pop_front()
            {
                return Poll::Ready(Some(Ok(bytes)));
            }
            match &mut self.state {
                State::Passing => match self.poll_source(cx) {
                    Poll::Ready(Some(Ok(Piece::Bytes(bytes)))) => self.pass(bytes),
                    Poll::Ready(Some(Ok(Piece::Silence))) => self.queue.push_back(WAITING),
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
                    Some(Ok(Piece::Bytes(bytes))) => self.queue.push_back(bytes),
                    Some(Ok(Piece::Silence)) => {}
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
    fn poll_source(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Piece, BackendFailure>>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(Piece::Bytes(std::mem::take(&mut self.first)))));
        }
        loop {
            match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => {
                        self.silence.broken();
                        return Poll::Ready(Some(Ok(Piece::Bytes(bytes))));
                    }
                    // Trailers concern the connection to the backend only.
                    _ => {}
                },
                Poll::Ready(Some(Err(failure))) => return Poll::Ready(Some(Err(failure))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => match ready!(self.silence.poll(cx)) {
                    Heard::Nothing => {
                        return Poll::Ready(Some(Err(BackendFailure::TimedOut(self.silence.limit))));
                    }
                    // Between two events only: inside one it would become part of it.
                    Heard::Beat if self.may_comment() => return Poll::Ready(Some(Ok(Piece::Silence))),
                    Heard::Beat => {}
                },
            }
        }
    }

    fn may_comment(&self) -> bool {
        match &self.meter {
            Meter::Stream(meter) => !meter.is_mid_event() && !self.gathering.goes_on(),
            Meter::Whole(_) | Meter::Nothing => false,
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
                // As soon as the caller can know it.
                if let Some(id) = meter.id()
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
    pub(super) fn break_off(&mut self, failure: &BackendFailure) {
        let id = self.open.as_ref().and_then(Open::id).map(|id| id.to_string()).unwrap_or_default();
        let reason = with_causes(failure);
        tracing::warn!(request.id = %id, "the reply to request {id} broke off: {reason}");
        if let Some(asked) = self.asked.take() {
            asked.failed(&Fault { kind: "broke_off_mid_reply".to_owned(), ..fault_of(failure) });
        }
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

    /// The backend's answer is no stream, and a stream was begun. Its refusal of what the caller asked is
    /// told in an event; anything else is a failure.
    pub(super) fn end_unbegun(&mut self, status: StatusCode) {
        let id = self.open.as_ref().and_then(Open::id).map(|id| id.to_string()).unwrap_or_default();
        tracing::warn!(
            request.id = %id, status = status.as_u16(),
            "the stream of request {id} was begun without its backend, which then answered {status}"
        );
        let body = std::mem::take(&mut self.first);
        self.meter = Meter::Nothing;
        let refusal = Some(&body).filter(|_| status.is_client_error()).and_then(|body| refusal_in(body));
        let outcome = if refusal.is_some() { Outcome::Completed } else { Outcome::BackendFailed };
        let end = refusal.unwrap_or(Bytes::from_static(FAILED_EVENT.as_bytes()));
        self.close(outcome, end, After::End);
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
        if let Some(asked) = self.asked.take() {
            asked.completed();
        }
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

/// A backend's refusal as an event of a stream.
fn refusal_in(body: &[u8]) -> Option<Bytes> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    body.get("error")?;
    Some(Bytes::from(format!("data: {body}\n\n")))
}

impl Drop for Passing {
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
