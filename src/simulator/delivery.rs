//! How an answer goes out: its pace, and the ways in which it is broken off.
//!
//! The ticket travels with the body. A client that hangs up makes the server drop the body, also
//! while it waits for the next token, and so the ticket is entered at once.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep};

use super::counts::Ticket;
use super::events::{Event, Events};
use super::responses;
use super::usage::Usage;

/// The connection is to be closed without another byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the simulated resource broke the connection off, as it was told to")]
pub(super) struct BrokenOff;

/// Where an answer stops before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Never,
    /// The connection breaks after so many pieces.
    Cut(u64),
    /// Nothing more comes after so many pieces.
    Stall(u64),
}

impl Stop {
    /// The same, after `pieces` at the latest.
    pub(super) fn at_most(self, pieces: u64) -> Self {
        match self {
            Self::Never => Self::Never,
            Self::Cut(after) => Self::Cut(after.min(pieces)),
            Self::Stall(after) => Self::Stall(after.min(pieces)),
        }
    }
}

/// The events of a stream, of whichever API.
#[derive(Debug)]
pub(super) enum Stream {
    Chat(Box<Events>),
    Responses(Box<responses::events::Events>),
}

impl Stream {
    fn next(&mut self) -> Option<Event> {
        match self {
            Self::Chat(events) => events.next(),
            Self::Responses(events) => events.next(),
        }
    }

    pub(super) fn usage(&self) -> Usage {
        match self {
            Self::Chat(events) => events.usage(),
            Self::Responses(events) => events.usage(),
        }
    }

    fn includes_usage(&self) -> bool {
        match self {
            Self::Chat(events) => events.includes_usage(),
            Self::Responses(events) => events.includes_usage(),
        }
    }
}

/// What is sent, piece by piece.
#[derive(Debug)]
enum Source {
    Events(Stream),
    /// A whole body, in one piece or two.
    Pieces(VecDeque<Bytes>),
    Nothing,
}

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Delivery {
    source: Source,
    ticket: Option<Ticket>,
    reports_usage: bool,
    stop: Stop,
    sent: u64,
    /// What was sent has had its chance to leave the buffers before the connection breaks.
    flushed: bool,
    /// The time that a token takes; none: as fast as possible.
    per_token: Option<Duration>,
    due: Option<Pin<Box<Sleep>>>,
    waiting: Option<(Bytes, u64)>,
    chunk_bytes: Option<usize>,
    malformed_after: Option<u64>,
    rest: Bytes,
}

impl Delivery {
    pub(super) fn stream(events: Stream, ticket: Ticket) -> Self {
        let reports_usage = events.includes_usage();
        Self::new(Source::Events(events), Some(ticket), reports_usage)
    }

    /// A whole body, which may be broken off in its middle.
    pub(super) fn whole(body: Bytes, ticket: Ticket) -> Self {
        let mut end = body;
        let beginning = end.split_to(end.len() / 2);
        let pieces = VecDeque::from([beginning, end]);
        Self::new(Source::Pieces(pieces), Some(ticket), true)
    }

    /// The connection closes without an answer.
    pub(super) fn nothing() -> Self {
        let mut nothing = Self::new(Source::Nothing, None, false);
        nothing.stop = Stop::Cut(0);
        // The headers must not leave either.
        nothing.flushed = true;
        nothing
    }

    fn new(source: Source, ticket: Option<Ticket>, reports_usage: bool) -> Self {
        Self {
            source,
            ticket,
            reports_usage,
            stop: Stop::Never,
            sent: 0,
            flushed: false,
            per_token: None,
            due: None,
            waiting: None,
            chunk_bytes: None,
            malformed_after: None,
            rest: Bytes::new(),
        }
    }

    pub(super) fn stopping(mut self, stop: Stop) -> Self {
        self.stop = stop;
        self
    }

    pub(super) fn paced(mut self, per_token: Option<Duration>) -> Self {
        self.per_token = per_token;
        self
    }

    pub(super) fn in_chunks_of(mut self, bytes: Option<usize>) -> Self {
        self.chunk_bytes = bytes;
        self
    }

    /// The event that comes after so many others breaks off in the middle of its JSON.
    pub(super) fn malformed_after(mut self, events: Option<u64>) -> Self {
        self.malformed_after = events;
        self
    }

    fn next(&mut self) -> Option<(Bytes, u64)> {
        match &mut self.source {
            Source::Events(events) => events.next().map(|event| match self.malformed_after {
                Some(after) if after == self.sent => (broken_event(&event.bytes), event.tokens),
                _ => (event.bytes, event.tokens),
            }),
            Source::Pieces(pieces) => pieces.pop_front().map(|piece| (piece, 0)),
            Source::Nothing => None,
        }
    }

    fn cut(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if !self.flushed {
            self.flushed = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        if let Some(ticket) = &mut self.ticket {
            ticket.cut();
        }
        Poll::Ready(Some(Err(BrokenOff)))
    }

    /// The next piece once its time has come.
    fn poll_piece(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.waiting.is_none() {
            let Some((bytes, tokens)) = self.next() else {
                return Poll::Ready(None);
            };
            if let (Some(per_token), 1..) = (self.per_token, tokens) {
                self.wait(per_token.mul_f64(tokens_as_float(tokens)));
            }
            self.waiting = Some((bytes, tokens));
        }
        if let Some(due) = &mut self.due
            && due.deadline() > Instant::now()
            && due.as_mut().poll(context).is_pending()
        {
            return Poll::Pending;
        }
        let piece = self.waiting.take().map(|(bytes, tokens)| {
            self.sent += 1;
            if let Some(ticket) = &mut self.ticket {
                ticket.said(tokens);
            }
            bytes
        });
        Poll::Ready(piece)
    }

    /// Deadlines follow each other, so that the pace holds however late a timer fires.
    fn wait(&mut self, pause: Duration) {
        match &mut self.due {
            Some(due) => {
                let next = due.deadline() + pause;
                due.as_mut().reset(next);
            }
            None => self.due = Some(Box::pin(tokio::time::sleep(pause))),
        }
    }

    fn chunk(&mut self, piece: Bytes) -> Bytes {
        let size = self.chunk_bytes.unwrap_or(piece.len()).min(piece.len());
        self.rest = piece;
        self.rest.split_to(size)
    }
}

impl http_body::Body for Delivery {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        let this = self.get_mut();
        if !this.rest.is_empty() {
            let rest = std::mem::take(&mut this.rest);
            return Poll::Ready(Some(Ok(Frame::data(this.chunk(rest)))));
        }
        match this.stop {
            Stop::Cut(after) if this.sent >= after => return this.cut(context),
            // Only the client can end this: the server drops us when it does.
            Stop::Stall(after) if this.sent >= after => return Poll::Pending,
            _ => {}
        }
        match this.poll_piece(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(piece)) => Poll::Ready(Some(Ok(Frame::data(this.chunk(piece))))),
            Poll::Ready(None) => {
                if let Some(ticket) = &mut this.ticket {
                    ticket.completed(this.reports_usage);
                }
                Poll::Ready(None)
            }
        }
    }
}

fn broken_event(event: &Bytes) -> Bytes {
    // The same bytes whether usage was asked for or not.
    [&event[..event.len().min(40)], b"\n\n"].concat().into()
}

fn tokens_as_float(tokens: u64) -> f64 {
    u32::try_from(tokens).map_or(f64::from(u32::MAX), f64::from)
}

/// The time that one token takes at so many a second; 0 is as fast as possible.
pub(super) fn per_token(tokens_per_second: f64) -> Option<Duration> {
    (tokens_per_second > 0.0).then(|| Duration::from_secs_f64(1.0 / tokens_per_second))
}

/// Waits as long as it takes to say `tokens`.
pub(super) async fn speak(tokens: u64, tokens_per_second: f64) {
    if let Some(per_token) = per_token(tokens_per_second) {
        tokio::time::sleep(per_token.mul_f64(tokens_as_float(tokens))).await;
    }
}

pub(super) async fn pause(pause: Duration) {
    if !pause.is_zero() {
        tokio::time::sleep(pause).await;
    }
}

/// Never: until the client goes away and the request is dropped.
pub(super) async fn silence() -> Infallible {
    std::future::pending().await
}
