//! For how long the sink is left alone after a failure, and what was said of it.

use std::time::Duration;

use crate::ports::{LogFailure, with_causes};

/// After the first failure of a row of them; twice as long after each.
const SHORTEST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_mins(5);
/// More than any service asks for in earnest.
const MAX_TOLD: Duration = Duration::from_hours(1);
/// Whatever it says: a sink that cannot be asked is not asked in a circle.
const LEAST: Duration = Duration::from_secs(1);
/// A role or a setting is not mended in seconds.
const MENDING: Duration = Duration::from_mins(1);

/// Whether the sink may be asked, by the clock's `elapsed`.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: Duration,
    /// In a row.
    failures: u32,
    /// What was told last, so that it is told once.
    told: Option<String>,
}

impl Rest {
    /// For how long it is left alone still.
    pub(super) fn left(&self, elapsed: Duration) -> Option<Duration> {
        self.until.checked_sub(elapsed).filter(|left| !left.is_zero())
    }

    /// Why it may not be asked now.
    pub(super) fn trouble(&self, elapsed: Duration) -> Option<String> {
        let left = self.left(elapsed)?;
        let told = self.told.as_deref().unwrap_or_default();
        Some(format!("left alone for {} s more: {told}", left.as_secs()))
    }

    pub(super) fn went_well(&mut self) {
        if self.told.is_some() {
            tracing::info!("Log Analytics takes the ledger's rows again");
        }
        *self = Self::default();
    }

    /// Notes a failure, and answers with what it was. `some_sent`: it took other rows just before.
    pub(super) fn failed(&mut self, failure: &LogFailure, some_sent: bool, elapsed: Duration) -> String {
        let error = with_causes(failure);
        self.failures = if some_sent { 1 } else { self.failures.saturating_add(1) };
        let longer = SHORTEST.saturating_mul(1 << self.failures.min(8).saturating_sub(1)).min(LONGEST);
        let (wait, is_passing) = match failure {
            LogFailure::Unavailable { retry_after, .. } => {
                (retry_after.map_or(longer, |told| told.min(MAX_TOLD)), true)
            }
            LogFailure::Refused(_) | LogFailure::BadRows(_) | LogFailure::TooLarge => {
                (longer.max(MENDING), false)
            }
        };
        let wait = wait.max(LEAST);
        self.until = elapsed + wait;
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        if self.told.as_ref() != Some(&error) {
            if is_passing {
                tracing::warn!(wait_ms, %error, "Log Analytics does not take the ledger's rows just now, they wait: {error}");
            } else {
                tracing::error!(wait_ms, %error, "Log Analytics does not take the ledger's rows, they wait: {error}");
            }
        }
        self.told = Some(error.clone());
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passing(retry_after: Option<u64>) -> LogFailure {
        let retry_after = retry_after.map(Duration::from_secs);
        LogFailure::Unavailable { what: "Log Analytics", retry_after, source: "down".into() }
    }

    #[test]
    fn a_wait_is_as_told_or_grows() {
        let mut rest = Rest::default();
        let mut waits = |failure: &LogFailure, some_sent| {
            rest.failed(failure, some_sent, Duration::from_secs(100));
            rest.left(Duration::from_secs(100)).map_or(0, |left| left.as_secs())
        };
        assert_eq!(waits(&passing(Some(17)), false), 17);
        assert_eq!(waits(&passing(Some(0)), false), 1);
        assert_eq!(waits(&passing(Some(1_000_000)), false), 3_600);
        assert_eq!(waits(&passing(None), true), 5);
        let grown: Vec<_> = (0..8).map(|_| waits(&passing(None), false)).collect();
        assert_eq!(grown, [10, 20, 40, 80, 160, 300, 300, 300]);
        assert_eq!(waits(&LogFailure::Refused("no role".to_owned()), true), 60);
        rest.went_well();
        assert_eq!(rest.trouble(Duration::ZERO), None);
    }
}
