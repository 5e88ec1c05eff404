//! What the log says of publishing: once when something begins and once when it ends, never once an event.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::usage::UsageEvent;

/// A trouble that goes on is told again this often.
const TELL_AGAIN: Duration = Duration::from_mins(5);

/// What was told of the trouble there is.
#[derive(Default)]
pub(super) struct Trouble {
    told: Option<(String, Instant)>,
}

impl Trouble {
    /// The destination takes nothing.
    pub(super) fn is(&mut self, name: &str, reason: &str) {
        let is_told =
            self.told.as_ref().is_some_and(|(told, at)| told == reason && at.elapsed() < TELL_AGAIN);
        if !is_told {
            tracing::error!("{name} takes no usage, which goes to the spool until it does: {reason}");
            self.told = Some((reason.to_owned(), Instant::now()));
        }
    }

    pub(super) fn is_over(&mut self, name: &str) {
        if self.told.take().is_some() {
            tracing::info!("{name} takes usage again");
        }
    }
}

/// Events came out of the spool and arrived.
pub(super) fn emptied(events: u64) {
    tracing::info!(events, "{events} events were sent from the spool, which is empty now");
}

pub(super) fn rejected(events: usize) {
    tracing::error!(
        events,
        "{events} events will never be taken as they are, and were put aside in rejected.jsonl in the spool: \
         post them by hand"
    );
}

pub(super) fn unreadable(lines: usize) {
    tracing::warn!(
        unreadable = lines,
        "{lines} lines of the spool are no usage events, and were put aside in rejected.jsonl there"
    );
}

pub(super) fn unreadable_spool(error: &std::io::Error) {
    tracing::error!(%error, "the spool cannot be read: {error}");
}

pub(super) fn unfinished(error: &std::io::Error) {
    tracing::error!(
        %error,
        "a part of the spool whose events arrived cannot be put aside or deleted, which is tried again every \
         minute: {error}"
    );
}

/// The last resort: the log. An event holds no key, prompt or reply.
pub(super) fn lost(events: &[UsageEvent], error: &dyn std::error::Error) {
    for event in events {
        let json = serde_json::to_string(event).unwrap_or_default();
        tracing::error!(%error, "usage is not safe, nothing takes it, and it is in memory at best: {json}");
    }
}
