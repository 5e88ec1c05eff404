//! Ports inside this process: the system's clock.

use std::time::{Duration, Instant};

use time::OffsetDateTime;

use crate::domain::units::UnixMillis;
use crate::ports::Clock;

/// The system's own clock.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock that everyone else asks")]
    pub fn start() -> Self {
        Self { started: Instant::now() }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> UnixMillis {
        // A clock before 1970 is broken; the ledger then shows 1970, which nobody overlooks.
        UnixMillis::from_datetime(OffsetDateTime::now_utc()).unwrap_or(UnixMillis(0))
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}
