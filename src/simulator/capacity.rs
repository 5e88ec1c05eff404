//! Provisioned capacity: so many requests a second for each deployment, and what is not used is gone.
//!
//! As Azure's leaky bucket does, it lets a short burst through, and then tells each request that is one
//! too many how soon the next one is taken: mostly milliseconds.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

/// Capacity of so many seconds can be saved up for a burst.
const SAVED: f64 = 0.1;
/// Names come from callers; at this many the old ones are forgotten.
const MAX_DEPLOYMENTS: usize = 1_000;

#[derive(Debug)]
pub(super) struct Capacity {
    per_second: Option<f64>,
    buckets: Mutex<HashMap<String, Bucket>>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Requests that would be taken at once.
    saved: f64,
    at: Instant,
    used: Used,
}

/// What became of the capacity, in requests.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Used {
    pub(super) granted: f64,
    /// That nobody asked for while it could not be saved up.
    pub(super) unused: f64,
}

impl Capacity {
    pub(super) fn new(per_second: Option<f64>) -> Self {
        Self { per_second, buckets: Mutex::default() }
    }

    /// Takes a request, or says how soon one would be taken.
    pub(super) fn charge(&self, deployment: &str) -> Result<(), Duration> {
        let Some(per_second) = self.per_second else { return Ok(()) };
        let now = Instant::now();
        let mut buckets = self.lock();
        if buckets.len() >= MAX_DEPLOYMENTS && !buckets.contains_key(deployment) {
            buckets.clear();
        }
        let full = Bucket { saved: most(per_second), at: now, used: Used::default() };
        let bucket = buckets.entry(deployment.to_owned()).or_insert(full);
        bucket.fill(per_second, now);
        if bucket.saved < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.saved) / per_second));
        }
        bucket.saved -= 1.0;
        bucket.used.granted += 1.0;
        Ok(())
    }

    /// What became of it until now; `None` where there is no such limit.
    pub(super) fn used(&self) -> Option<Used> {
        let per_second = self.per_second?;
        let now = Instant::now();
        let mut sum = Used::default();
        for bucket in self.lock().values_mut() {
            bucket.fill(per_second, now);
            sum.granted += bucket.used.granted;
            sum.unused += bucket.used.unused;
        }
        Some(sum)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Bucket>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bucket {
    fn fill(&mut self, per_second: f64, now: Instant) {
        let filled = self.saved + now.saturating_duration_since(self.at).as_secs_f64() * per_second;
        self.saved = filled.min(most(per_second));
        self.used.unused += filled - self.saved;
        self.at = now;
    }
}

fn most(per_second: f64) -> f64 {
    (per_second * SAVED).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_then_each_is_told_how_soon() {
        let capacity = Capacity::new(Some(20.0));
        assert_eq!((capacity.charge("a"), capacity.charge("a")), (Ok(()), Ok(())));
        assert_eq!(capacity.charge("a"), Err(Duration::from_millis(50)));
        assert!(capacity.charge("b").is_ok());
        tokio::time::advance(Duration::from_millis(50)).await;
        assert!(capacity.charge("a").is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_asked_for_is_gone_and_in_the_books() {
        let capacity = Capacity::new(Some(10.0));
        capacity.charge("a").unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
        let used = capacity.used().unwrap();
        assert!((used.granted - 1.0).abs() < 1e-6 && (used.unused - 9.0).abs() < 1e-6, "{used:?}");
        assert!(Capacity::new(None).used().is_none());
    }
}
