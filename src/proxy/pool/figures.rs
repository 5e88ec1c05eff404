//! How one backend did, in numbers, since this process began.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::domain::units::UnixMillis;

/// Quantiles are those of the last five to ten minutes: what was slow yesterday helps nobody.
const WINDOW: Duration = Duration::from_mins(5);
/// In microseconds: nothing is waited for longer than four minutes.
const MAX_MICROS: u64 = 240_000_000;
/// A kind is a word of ours or a status; there are not that many.
const MAX_KINDS: usize = 100;

/// Counted without a lock where a request passes, with one where something failed.
pub(super) struct Figures {
    in_flight: AtomicU64,
    requests: AtomicU64,
    answered: AtomicU64,
    throttled: AtomicU64,
    failures: Mutex<Failures>,
    latency: Mutex<Latency>,
}

#[derive(Default)]
struct Failures {
    by_kind: BTreeMap<String, u64>,
    last: Option<LastFailure>,
}

/// What went wrong last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastFailure {
    pub at: UnixMillis,
    pub kind: String,
    /// What happened and, where an operator must mend something, what.
    pub text: String,
}

struct Latency {
    began: Duration,
    now: Histogram<u32>,
    before: Histogram<u32>,
}

/// From the request to the first byte of the answer, of the last minutes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quantiles {
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
}

/// All of it at one moment.
pub(super) struct Snapshot {
    pub(super) in_flight: u64,
    pub(super) requests: u64,
    pub(super) answered: u64,
    pub(super) throttled: u64,
    pub(super) failures: BTreeMap<String, u64>,
    pub(super) last_failure: Option<LastFailure>,
    pub(super) latency: Option<Quantiles>,
}

fn empty() -> Histogram<u32> {
    Histogram::new_with_bounds(1, MAX_MICROS, 2).expect("constant bounds that hdrhistogram takes")
}

impl Figures {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            in_flight: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            throttled: AtomicU64::new(0),
            failures: Mutex::default(),
            latency: Mutex::new(Latency { began: now, now: empty(), before: empty() }),
        }
    }

    pub(super) fn asked(&self) {
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn ended(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(super) fn answered(&self, now: Duration, after: Duration) {
        self.answered.fetch_add(1, Relaxed);
        let micros = u64::try_from(after.as_micros()).unwrap_or(MAX_MICROS);
        self.latency(now).now.saturating_record(micros.max(1));
    }

    pub(super) fn failed(&self, failure: LastFailure, is_throttled: bool) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if is_throttled {
            self.throttled.fetch_add(1, Relaxed);
        } else if failures.by_kind.contains_key(&failure.kind) || failures.by_kind.len() < MAX_KINDS {
            *failures.by_kind.entry(failure.kind.clone()).or_default() += 1;
        }
        failures.last = Some(failure);
    }

    fn latency(&self, now: Duration) -> MutexGuard<'_, Latency> {
        let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
        let age = now.saturating_sub(latency.began);
        if age >= WINDOW {
            latency.began = now;
            let last = std::mem::replace(&mut latency.now, empty());
            latency.before = if age >= 2 * WINDOW { empty() } else { last };
        }
        latency
    }

    pub(super) fn snapshot(&self, now: Duration) -> Snapshot {
        let quantiles = {
            let latency = self.latency(now);
            let mut both = latency.before.clone();
            // They have the same bounds, and there is nothing else that could fail.
            let is_added = both.add(&latency.now).is_ok();
            let at = |quantile| Duration::from_micros(both.value_at_quantile(quantile));
            (is_added && !both.is_empty()).then(|| Quantiles { p50: at(0.5), p90: at(0.9), p99: at(0.99) })
        };
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        Snapshot {
            in_flight: self.in_flight.load(Relaxed),
            requests: self.requests.load(Relaxed),
            answered: self.answered.load(Relaxed),
            throttled: self.throttled.load(Relaxed),
            failures: failures.by_kind.clone(),
            last_failure: failures.last.clone(),
            latency: quantiles,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_last_minutes() {
        let (minute, figures) = (Duration::from_mins(1), Figures::new(Duration::ZERO));
        assert_eq!(figures.snapshot(minute).latency, None);
        for _ in 0..100 {
            figures.answered(minute, Duration::from_millis(800));
        }
        let p50 = |at| figures.snapshot(at).latency.map(|latency| latency.p50.as_millis());
        assert!(matches!(p50(6 * minute), Some(795..=805)), "{:?}", p50(6 * minute));
        for _ in 0..300 {
            figures.answered(7 * minute, Duration::from_millis(20));
        }
        assert!(matches!(p50(7 * minute), Some(19..=21)), "{:?}", p50(7 * minute));
        assert_eq!(p50(30 * minute), None);
    }
}
