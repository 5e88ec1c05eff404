//! Notices a backend that has stopped in the middle of a reply.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Duration, Sleep};

/// How long the backend has said nothing. It is looked at in steps, so that a piece that comes costs
/// no look at the clock.
pub(super) struct Silence {
    pub(super) limit: Duration,
    /// Steps that have passed without a piece.
    steps: u32,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Silence {
    /// The limit is met to this part of it.
    const STEPS: u32 = 8;

    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, steps: 0, alarm: None }
    }

    /// A piece has come. The step that has begun counts no more.
    pub(super) fn broken(&mut self) {
        self.steps = 0;
    }

    /// Ready when the limit has passed, or up to one step more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let step = self.limit / Self::STEPS;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(step)));
        loop {
            ready!(alarm.as_mut().poll(cx));
            self.steps += 1;
            if self.steps > Self::STEPS {
                return Poll::Ready(());
            }
            let next = alarm.deadline() + step;
            alarm.as_mut().reset(next);
        }
    }
}
