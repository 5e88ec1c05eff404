//! So many requests and tokens a minute for each deployment.
//!
//! As Azure counts: what a request may cost is charged when it comes, a running count is reset each
//! minute, and a request is refused once the count has reached the limit, so the last one may overshoot.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const MINUTE: Duration = Duration::from_mins(1);
/// What is reported as left where there is no limit.
const NOMINAL_REQUESTS: u64 = 10_000;
const NOMINAL_TOKENS: u64 = 1_000_000;
/// Names come from callers; at this many the old ones are forgotten, at worst all.
const MAX_WINDOWS: usize = 1_000;

#[derive(Debug)]
pub(super) struct Throttle {
    requests: Option<u64>,
    tokens: Option<u64>,
    windows: Mutex<HashMap<String, Window>>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    requests: u64,
    tokens: u64,
}

/// What a deployment has left in this minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    pub(super) requests: u64,
    pub(super) tokens: u64,
}

/// The minute's share is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exceeded {
    /// Of tokens rather than of requests.
    pub(super) of_tokens: bool,
    pub(super) retry_after: Duration,
}

impl Throttle {
    pub(super) fn new(requests: Option<u64>, tokens: Option<u64>) -> Self {
        Self { requests, tokens, windows: Mutex::default() }
    }

    /// Charges a request that may cost `tokens`, or refuses it.
    pub(super) fn charge(&self, deployment: &str, tokens: u64) -> Result<Left, Exceeded> {
        let now = Instant::now();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if windows.len() >= MAX_WINDOWS {
            windows.retain(|_, window| now < window.began + MINUTE);
        }
        if windows.len() >= MAX_WINDOWS {
            windows.clear();
        }
        let fresh = Window { began: now, requests: 0, tokens: 0 };
        if !windows.contains_key(deployment) {
            windows.insert(deployment.to_owned(), fresh);
        }
        let window = windows.get_mut(deployment).expect("it was put there if it was not");
        if now >= window.began + MINUTE {
            *window = fresh;
        }
        let retry_after = (window.began + MINUTE).saturating_duration_since(now);
        if self.tokens.is_some_and(|limit| window.tokens >= limit) {
            return Err(Exceeded { of_tokens: true, retry_after });
        }
        if self.requests.is_some_and(|limit| window.requests >= limit) {
            return Err(Exceeded { of_tokens: false, retry_after });
        }
        window.requests += 1;
        window.tokens += tokens;
        let requests = self.requests.unwrap_or(NOMINAL_REQUESTS);
        Ok(Left {
            requests: requests.saturating_sub(window.requests),
            tokens: self.tokens.unwrap_or(NOMINAL_TOKENS).saturating_sub(window.tokens),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_minute_grants_its_share_and_the_next_one_grants_it_again() {
        let throttle = Throttle::new(Some(2), None);
        assert_eq!(throttle.charge("a", 5).unwrap().requests, 1);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(throttle.charge("a", 5).unwrap().requests, 0);
        let exceeded = throttle.charge("a", 5).unwrap_err();
        assert_eq!(exceeded.retry_after, Duration::from_secs(40));
        assert!(!exceeded.of_tokens);
        assert!(throttle.charge("b", 5).is_ok());
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(throttle.charge("a", 5).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn tokens_are_granted_until_the_limit_is_reached() {
        let throttle = Throttle::new(None, Some(100));
        assert_eq!(throttle.charge("a", 90).unwrap().tokens, 10);
        assert_eq!(throttle.charge("a", 90).unwrap().tokens, 0);
        assert!(throttle.charge("a", 1).unwrap_err().of_tokens);
    }
}
