//! What is done from time to time: by the Functions host's timer, or, where there is none, by this process.
//!
//! Never does anything that two cannot do at once, or that must have been done before a request comes. A
//! step that fails stops no other, and waits for the next time: the host does not repeat a timer's call.
//!
//! Nothing has to be done about subscriptions that expire, which are refused by their date, nor about rows that
//! a dead process had in hand, whose claim runs out.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::issuing::Issuing;
use crate::ledger::Ledger;
use crate::ports::{Unavailable, with_causes};

/// As the timer's schedule says.
const EVERY: Duration = Duration::from_mins(5);
/// For a step that is a statement or two.
const SHORT: Duration = Duration::from_secs(30);
/// Over before the next turn, and before any plan's functionTimeout.
const SHIPPING: Duration = Duration::from_mins(4);

/// The journeys that have something to be done.
#[derive(Clone)]
pub struct Upkeep {
    pub ledger: Arc<Ledger>,
    pub issuing: Arc<Issuing>,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// A line for each step.
    pub told: Vec<String>,
    pub has_failed: bool,
}

impl Done {
    fn note<T, E: Display>(&mut self, step: &str, done: Result<T, E>, tell: impl FnOnce(T) -> String) {
        match done {
            Ok(done) => self.told.push(tell(done)),
            Err(error) => {
                tracing::warn!(%error, "upkeep: {step} failed: {error}");
                self.told.push(format!("{step} failed: {error}"));
                self.has_failed = true;
            }
        }
    }
}

impl Upkeep {
    /// Does all of it, once.
    pub async fn run(&self) -> Done {
        let mut done = Done::default();
        let prepared = in_time(SHORT, self.ledger.prepare()).await;
        done.note("making room for the coming months", prepared, |()| {
            "there is room for the coming months".to_owned()
        });
        let forgotten = in_time(SHORT, self.issuing.forget_requests()).await;
        done.note("forgetting idempotency keys", forgotten, |keys| {
            format!("{keys} expired idempotency keys were forgotten")
        });
        if let Some(shipped) = self.ledger.ship(SHIPPING).await {
            let step = format!("sending to Log Analytics, where {} rows came meanwhile,", shipped.rows);
            let told = format!(
                "{} rows were sent to Log Analytics; {} that it never takes were taken out",
                shipped.rows, shipped.taken_out
            );
            done.note(&step, shipped.trouble.map_or(Ok(()), Err), |()| told);
        }
        done
    }

    /// Does it every five minutes, where no timer calls.
    pub async fn keep_up(self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            // Whatever failed was logged.
            let _ = stop.run_until_cancelled(self.run()).await;
        }
    }
}

async fn in_time<T>(
    patience: Duration,
    step: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, String> {
    match tokio::time::timeout(patience, step).await {
        Ok(done) => done.map_err(|error| with_causes(&error)),
        Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
    }
}
