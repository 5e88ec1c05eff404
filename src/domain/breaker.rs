//! Is a backend fit to be asked for a deployment?
//!
//! One that asks to be left alone, or that failed several times in a row, rests. What ends a rest is one
//! real caller's request, never one of our own: the first who comes when the time is over looks, the
//! others go elsewhere until it is known how that went, or a second has passed.
//!
//! The caller of each function brings the time, on a clock that never goes back.

use std::time::Duration;

use super::retry::{DEFAULT_WAIT, MAX_WAIT};

/// A wait shorter than this concerns only the request that met it: provisioned capacity says so when it is
/// full for an instant, and to leave it alone then would leave paid capacity idle.
const SHORT_WAIT: Duration = Duration::from_secs(1);
/// One that looks and has not heard for so long is no reason to keep the next one from looking: a long
/// answer begins late, and provisioned capacity would lie idle until then.
const NEXT_LOOK: Duration = Duration::from_secs(1);
/// So many faults in a row make a backend rest, for [`DEFAULT_WAIT`].
const FAULTS: u32 = 3;

/// Why a backend rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It asked for it.
    Throttled,
    /// It failed.
    Failed,
    /// It refuses the gateway itself, and will until somebody mends that.
    Misconfigured,
}

/// Whether a backend is fit to be asked now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    Fit,
    /// Its rest is over, and somebody must look.
    Due(Why),
    /// Somebody is looking; for so long still, nobody else should.
    Watched(Why, Duration),
    /// It rests for so long still.
    Resting(Why, Duration),
}

/// How a backend does, for one deployment.
#[derive(Clone, Debug, Default)]
pub struct Breaker {
    state: State,
    faults: u32,
    /// When the state was entered.
    since: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Well,
    Resting {
        why: Why,
        until: Duration,
    },
    /// Who looked first after the rest began then, and who looked last.
    Watched {
        why: Why,
        first: Duration,
        last: Duration,
    },
}

impl Breaker {
    pub fn fitness(&self, now: Duration) -> Fitness {
        match self.state {
            State::Well => Fitness::Fit,
            State::Resting { why, until } if now < until => Fitness::Resting(why, until.saturating_sub(now)),
            State::Watched { why, last, .. } if now < last + NEXT_LOOK => {
                Fitness::Watched(why, (last + NEXT_LOOK).saturating_sub(now))
            }
            State::Resting { why, .. } | State::Watched { why, .. } => Fitness::Due(why),
        }
    }

    /// Since when it is as it is.
    pub fn since(&self) -> Duration {
        self.since
    }

    /// Somebody asks the backend now. Whoever does must say how it went.
    pub fn asked(&mut self, now: Duration) {
        if let Fitness::Due(why) = self.fitness(now) {
            match &mut self.state {
                State::Watched { last, .. } => *last = now,
                _ => self.enter(State::Watched { why, first: now, last: now }, now),
            }
        }
    }

    /// It answered somebody who began to ask at `began`. One who began before the rest says nothing of
    /// what holds since; a backend that asked to be left alone is, until its time is over.
    pub fn answered(&mut self, began: Duration, now: Duration) {
        let ends_it = match self.state {
            State::Well => false,
            State::Resting { why, .. } => why != Why::Throttled && began >= self.since,
            State::Watched { first, .. } => began >= first,
        };
        if ends_it {
            self.faults = 0;
            self.enter(State::Well, now);
        }
    }

    /// A reply that it began came to its end.
    pub fn completed(&mut self) {
        if self.state == State::Well {
            self.faults = 0;
        }
    }

    /// It is busy, and said how long to wait, or not.
    pub fn throttled(&mut self, wait: Option<Duration>, now: Duration) {
        let wait = wait.unwrap_or(DEFAULT_WAIT);
        if wait >= SHORT_WAIT {
            self.rest(Why::Throttled, wait, now);
        } else if let State::Watched { .. } = self.state {
            self.enter(State::Well, now);
        }
    }

    /// It failed, or refused the gateway, somebody who began to ask at `began`, and said how long to wait,
    /// or not.
    pub fn failed(&mut self, why: Why, wait: Option<Duration>, began: Duration, now: Duration) {
        self.faults = self.faults.saturating_add(1);
        let long = wait.filter(|wait| *wait >= SHORT_WAIT);
        let rests = match self.state {
            _ if long.is_some() => true,
            State::Well => self.faults >= FAULTS,
            State::Watched { first, .. } => began >= first,
            // It does already.
            State::Resting { .. } => false,
        };
        if rests {
            self.rest(why, long.unwrap_or(DEFAULT_WAIT), now);
        }
    }

    /// Whoever asked since `began` went away without knowing how it went: the next one may look.
    pub fn abandoned(&mut self, began: Duration) {
        if let State::Watched { last, .. } = &mut self.state
            && *last == began
        {
            *last = began.saturating_sub(NEXT_LOOK);
        }
    }

    fn rest(&mut self, why: Why, wait: Duration, now: Duration) {
        let until = now + wait.min(MAX_WAIT);
        match &mut self.state {
            // The longer of two demands holds.
            State::Resting { until: told, why: told_why } if *told > now => {
                if until > *told {
                    (*told, *told_why) = (until, why);
                }
            }
            _ => self.enter(State::Resting { why, until }, now),
        }
    }

    fn enter(&mut self, state: State, now: Duration) {
        self.state = state;
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn throttled(wait: Option<Duration>) -> Breaker {
        let mut breaker = Breaker::default();
        breaker.throttled(wait, s(100));
        breaker
    }

    #[test]
    fn it_rests_for_as_long_as_it_asked_and_a_minute_at_most() {
        for (wait, rest) in [
            (None, Fitness::Resting(Why::Throttled, s(10))),
            (Some(Duration::from_millis(999)), Fitness::Fit),
            (Some(s(1)), Fitness::Resting(Why::Throttled, s(1))),
            (Some(s(30)), Fitness::Resting(Why::Throttled, s(30))),
            (Some(s(86_400)), Fitness::Resting(Why::Throttled, s(60))),
        ] {
            assert_eq!(throttled(wait).fitness(s(100)), rest, "{wait:?}");
        }
    }

    #[test]
    fn one_request_looks_and_the_others_go_elsewhere_until_it_has_answered() {
        let mut breaker = throttled(Some(s(30)));
        assert_eq!(breaker.fitness(s(129)), Fitness::Resting(Why::Throttled, s(1)));
        assert_eq!(breaker.fitness(s(130)), Fitness::Due(Why::Throttled));
        breaker.asked(s(130));
        assert_eq!(breaker.fitness(s(130)), Fitness::Watched(Why::Throttled, s(1)));
        breaker.answered(s(130), s(131));
        assert_eq!(breaker.fitness(s(131)), Fitness::Fit);
        assert_eq!(breaker.since(), s(131));
    }

    #[test]
    fn one_that_looked_in_vain_makes_it_rest_again() {
        let mut breaker = throttled(Some(s(30)));
        breaker.asked(s(130));
        breaker.failed(Why::Failed, None, s(130), s(131));
        assert_eq!(breaker.fitness(s(131)), Fitness::Resting(Why::Failed, s(10)));
        breaker.asked(s(141));
        breaker.throttled(Some(s(20)), s(142));
        assert_eq!(breaker.fitness(s(142)), Fitness::Resting(Why::Throttled, s(20)));
    }

    #[test]
    fn one_that_looked_and_went_away_leaves_it_to_the_next() {
        let mut breaker = throttled(Some(s(30)));
        breaker.asked(s(130));
        breaker.abandoned(s(129));
        assert_eq!(breaker.fitness(s(130)), Fitness::Watched(Why::Throttled, s(1)));
        breaker.abandoned(s(130));
        assert_eq!(breaker.fitness(s(130)), Fitness::Due(Why::Throttled));
    }

    #[test]
    fn while_an_answer_takes_long_one_more_looks_each_second_and_any_of_them_ends_the_rest() {
        let mut breaker = throttled(Some(s(30)));
        for second in [130, 131, 132] {
            assert_eq!(breaker.fitness(s(second)), Fitness::Due(Why::Throttled));
            breaker.asked(s(second));
            assert_eq!(breaker.fitness(s(second)), Fitness::Watched(Why::Throttled, s(1)));
        }
        let mut refused = breaker.clone();
        refused.throttled(Some(s(5)), s(132));
        assert_eq!(refused.fitness(s(132)), Fitness::Resting(Why::Throttled, s(5)));
        breaker.answered(s(130), s(132));
        assert_eq!(breaker.fitness(s(132)), Fitness::Fit);
    }

    #[test]
    fn three_faults_in_a_row_and_no_fewer_make_it_rest() {
        let mut breaker = Breaker::default();
        for _ in 0..5 {
            breaker.failed(Why::Failed, None, s(1), s(1));
            breaker.failed(Why::Failed, None, s(1), s(1));
            assert_eq!(breaker.fitness(s(1)), Fitness::Fit);
            breaker.completed();
        }
        for _ in 0..3 {
            breaker.failed(Why::Misconfigured, Some(Duration::from_millis(20)), s(2), s(2));
        }
        assert_eq!(breaker.fitness(s(2)), Fitness::Resting(Why::Misconfigured, s(10)));
    }

    #[test]
    fn a_failure_that_says_how_long_makes_it_rest_at_once() {
        let mut breaker = Breaker::default();
        breaker.failed(Why::Failed, Some(s(20)), s(1), s(1));
        assert_eq!(breaker.fitness(s(1)), Fitness::Resting(Why::Failed, s(20)));
    }

    #[test]
    fn a_reply_to_an_older_request_does_not_end_a_rest() {
        let mut breaker = throttled(Some(s(30)));
        breaker.answered(s(99), s(101));
        breaker.answered(s(101), s(102));
        breaker.completed();
        assert_eq!(breaker.fitness(s(110)), Fitness::Resting(Why::Throttled, s(20)));
        // Nor does it for the one who looks.
        breaker.asked(s(130));
        breaker.answered(s(99), s(130));
        assert_eq!(breaker.fitness(s(130)), Fitness::Watched(Why::Throttled, s(1)));
        breaker.failed(Why::Failed, None, s(99), s(130));
        assert_eq!(breaker.fitness(s(130)), Fitness::Watched(Why::Throttled, s(1)));
    }

    #[test]
    fn an_answer_in_spite_of_its_faults_ends_a_rest() {
        let mut breaker = Breaker::default();
        for _ in 0..3 {
            breaker.failed(Why::Failed, None, s(1), s(1));
        }
        breaker.answered(s(2), s(3));
        assert_eq!(breaker.fitness(s(3)), Fitness::Fit);
    }

    #[test]
    fn the_longer_of_two_demands_holds() {
        let mut breaker = throttled(Some(s(30)));
        breaker.throttled(Some(s(5)), s(101));
        assert_eq!(breaker.fitness(s(101)), Fitness::Resting(Why::Throttled, s(29)));
        breaker.throttled(Some(s(45)), s(102));
        assert_eq!(breaker.fitness(s(102)), Fitness::Resting(Why::Throttled, s(45)));
    }
}
