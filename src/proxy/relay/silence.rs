//! Notices a backend that has stopped in the middle of a reply.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Duration, Sleep};

use crate::config::timeouts::Timeouts;

/// How long the backend has said nothing. It is looked at in steps, so that a piece that comes costs
/// no look at the clock; each limit is met to one step.
pub(super) struct Silence {
    pub(super) limit: Duration,
    step: Duration,
    /// Steps after which nothing more is expected.
    last: u32,
    /// Steps after which the caller hears of it, with each further one.
    beats_from: u32,
    /// Steps that have passed without a piece.
    steps: u32,
    alarm: Option<Pin<Box<Sleep>>>,
}

/// What a step brought.
pub(super) enum Heard {
    /// Nothing for so long that nothing will come.
    Nothing,
    /// Nothing for so long that the caller should hear something.
    Beat,
}

impl Silence {
    /// The limit is met to this part of it, or better.
    const STEPS: u32 = 8;

    pub(super) fn of(timeouts: &Timeouts, is_stream: bool) -> Self {
        let limit = timeouts.idle;
        let step = if is_stream { timeouts.waiting_every } else { limit }.min(limit / Self::STEPS);
        let steps = |time: Duration| {
            let steps = time.as_nanos().div_ceil(step.as_nanos().max(1));
            u32::try_from(steps).unwrap_or(u32::MAX)
        };
        let beats_from = if is_stream { steps(timeouts.waiting_after) } else { u32::MAX };
        Self { limit, step, last: steps(limit), beats_from, steps: 0, alarm: None }
    }

    /// A piece has come. The step that has begun counts no more.
    pub(super) fn broken(&mut self) {
        self.steps = 0;
    }

    /// Ready when something must happen.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        let step = self.step;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(step)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            self.steps += 1;
            let next = alarm.deadline() + step;
            alarm.as_mut().reset(next);
            if self.steps > self.last {
                return Poll::Ready(Heard::Nothing);
            }
            if self.steps > self.beats_from {
                return Poll::Ready(Heard::Beat);
            }
        }
    }
}
