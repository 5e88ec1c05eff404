//! How long a request may take, so that it ends here and not at Azure's front end, which cuts what has
//! been silent for 230 s.

use std::time::Duration;

use super::{Fault, file};

/// How long a backend may be silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Until the first byte of a whole reply, while another backend could still be asked.
    pub first_byte: Duration,
    /// The same, of a stream.
    pub stream_first_byte: Duration,
    /// Until the first byte of a reply, over all backends that are asked.
    pub total: Duration,
    /// Between two pieces of a reply.
    pub idle: Duration,
    /// So long a stream may say nothing before its caller gets `: waiting` comments.
    pub waiting_after: Duration,
    /// Between two such comments.
    pub waiting_every: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            first_byte: Duration::from_secs(100),
            stream_first_byte: Duration::from_secs(50),
            total: Duration::from_secs(200),
            idle: Duration::from_mins(3),
            waiting_after: Duration::from_mins(1),
            waiting_every: Duration::from_secs(15),
        }
    }
}

/// Under the front end's 230 s, with time left to say what happened.
const MAX_SECONDS: f64 = 220.0;
/// Silence is noticed up to an eighth later.
const MAX_IDLE_SECONDS: f64 = 200.0;
/// A stream's caller must hear something well before that.
const MAX_WAITING_SECONDS: f64 = 199.0;
/// Below it every request would fail.
const MIN_SECONDS: f64 = 0.1;

impl Timeouts {
    pub(super) fn check(file: &file::Timeouts, faults: &mut Vec<Fault>) -> Self {
        let default = Self::default();
        let mut seconds = |field: &str, given: Option<f64>, max: f64, default: Duration| match given {
            None => default,
            Some(seconds) if (MIN_SECONDS..=max).contains(&seconds) => Duration::from_secs_f64(seconds),
            Some(_) => {
                let message = format!("seconds, between {MIN_SECONDS} and {max}");
                faults.push(Fault::new(format!("timeouts.{field}"), message));
                default
            }
        };
        let waiting_after =
            seconds("waiting_after", file.waiting_after, MAX_WAITING_SECONDS, default.waiting_after);
        let waiting_every =
            seconds("waiting_every", file.waiting_every, MAX_WAITING_SECONDS, default.waiting_every);
        let first_of_stream = default.stream_first_byte.min(waiting_after.mul_f64(5.0 / 6.0));
        Self {
            first_byte: seconds("first_byte", file.first_byte, MAX_SECONDS, default.first_byte),
            stream_first_byte: seconds(
                "stream_first_byte",
                file.stream_first_byte,
                MAX_SECONDS,
                first_of_stream,
            ),
            total: seconds("total", file.total, MAX_SECONDS, default.total),
            idle: seconds("idle", file.idle, MAX_IDLE_SECONDS, default.idle),
            waiting_after,
            waiting_every,
        }
    }
}
