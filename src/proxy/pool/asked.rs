//! A backend that is being asked: whoever holds this says how it went, or goes away without knowing.

use std::sync::Arc;
use std::time::Duration;

use super::Member;
use super::figures::LastFailure;
use crate::domain::breaker::Why;
use crate::ports::Clock;

/// One request to one backend.
#[must_use = "dropping it tells the pool that nobody waits for an answer any more"]
pub(in crate::proxy) struct Asked {
    member: Arc<Member>,
    clock: Arc<dyn Clock>,
    began: Duration,
    answered: bool,
}

/// How a backend failed, for the figures.
#[derive(Clone, Debug)]
pub(in crate::proxy) struct Fault {
    pub(in crate::proxy) why: Why,
    /// One word: `status_500`, `no_connection`, `timed_out`, `role_missing`, …
    pub(in crate::proxy) kind: String,
    /// What happened and, where an operator must mend something, what.
    pub(in crate::proxy) text: String,
    /// How long the backend asked to be left alone.
    pub(in crate::proxy) wait: Option<Duration>,
}

impl Asked {
    /// `began` is the moment at which the member was taken: by it the breaker knows who looks.
    pub(in crate::proxy) fn new(member: Arc<Member>, clock: Arc<dyn Clock>, began: Duration) -> Self {
        member.figures.asked();
        Self { member, clock, began, answered: false }
    }

    pub(in crate::proxy) fn member(&self) -> &Arc<Member> {
        &self.member
    }

    /// The first byte of an answer is there.
    pub(in crate::proxy) fn answered(&mut self) {
        let now = self.clock.elapsed();
        self.answered = true;
        self.member.figures.answered(now, now.saturating_sub(self.began));
        self.member.tell(|breaker| breaker.answered(self.began, now));
    }

    /// The answer came to its end.
    pub(in crate::proxy) fn completed(self) {
        self.member.tell(crate::domain::breaker::Breaker::completed);
    }

    /// There is no answer that the caller could be given, or the answer broke off.
    pub(in crate::proxy) fn failed(mut self, fault: &Fault) {
        self.answered = true;
        let now = self.clock.elapsed();
        let failure =
            LastFailure { at: self.clock.now(), kind: fault.kind.clone(), text: fault.text.clone() };
        self.member.figures.failed(failure, fault.why == Why::Throttled);
        self.member.tell(|breaker| match fault.why {
            Why::Throttled => breaker.throttled(fault.wait, now),
            why => breaker.failed(why, fault.wait, self.began, now),
        });
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.member.figures.ended();
        if !self.answered {
            self.member.tell(|breaker| breaker.abandoned(self.began));
        }
    }
}
