//! A token is renewed before anybody needs another one. Never in the way of a request.

use std::sync::Arc;
use std::time::Duration;

use super::{MIN_LIFE, Outcome, Slot, Token, Tokens};
use crate::domain::units::UnixMillis;

/// The next try, when one failed and the old token is still good.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The next try, when there is no good token: requests ask by themselves.
const WITHOUT_TOKEN: Duration = Duration::from_secs(30);
/// An endpoint that keeps tokens gives the same one again: it is asked again after an eighth of what is
/// left, within these bounds.
const SAME_AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_mins(10));

impl Tokens {
    /// Renews a scope's token until the gateway stops or nobody has asked for it in a long time.
    pub(super) async fn keep(self, slot: Arc<Slot>) {
        let mut token = slot.lock().token.clone();
        let mut pause = next_try(None, token.as_deref(), self.0.clock.now());
        let mut is_failing = false;
        loop {
            tokio::select! {
                () = self.0.stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            if !self.0.slots.contains_key(&slot.scope) {
                return;
            }
            let fetching = self.fetching(&slot, &mut slot.lock());
            let outcome = fetching.await;
            let now = self.0.clock.now();
            is_failing = tell(&slot, &outcome, is_failing, now);
            pause = next_try(token.as_deref(), outcome.as_deref().ok(), now);
            if outcome.is_err() && token.as_ref().is_none_or(|token| token.left(now) < MIN_LIFE) {
                pause = WITHOUT_TOKEN;
            }
            token = outcome.ok().or(token);
        }
    }
}

/// Says when it begins to fail and when it is well again, and nothing in between.
fn tell(slot: &Slot, outcome: &Outcome, was_failing: bool, now: UnixMillis) -> bool {
    let scope = &slot.scope;
    match outcome {
        Err(failure) if !was_failing => {
            let left = slot.lock().token.as_ref().map_or(Duration::ZERO, |token| token.left(now));
            let left_s = left.as_secs();
            tracing::warn!(
                token.scope = %scope, token.left_s = left_s,
                "the token for {scope} cannot be renewed, the old one is good for {left_s} s: {failure}"
            );
        }
        Ok(_) if was_failing => {
            tracing::info!(token.scope = %scope, "the token for {scope} is renewed again");
        }
        _ => {}
    }
    outcome.is_err()
}

/// When to ask next, after `token` came where `before` was held; `None`: none came.
fn next_try(before: Option<&Token>, token: Option<&Token>, now: UnixMillis) -> Duration {
    let Some(token) = token else { return AFTER_FAILURE };
    let left = token.left(now);
    if before.is_some_and(|before| before.expires_at >= token.expires_at) {
        let (least, most) = SAME_AGAIN;
        (left / 8).clamp(least, most)
    } else {
        left / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_try_is_at_half_of_a_life_and_then_ever_sooner() {
        let token = |expires_s: i64| Token::new("t".into(), UnixMillis(expires_s * 1_000)).unwrap();
        for (before, came, now_s, pause_s) in [
            (None, Some(3_600), 0, 1_800),
            (Some(3_600), Some(7_200), 1_800, 2_700),
            // The same one again: an eighth of what is left, between 30 s and 10 min.
            (Some(86_400), Some(86_400), 43_200, 600),
            (Some(3_600), Some(3_600), 1_800, 225),
            (Some(3_600), Some(3_600), 3_500, 30),
            (Some(3_600), None, 1_800, 5),
        ] {
            let (before, came) = (before.map(token), came.map(token));
            let pause = next_try(before.as_ref(), came.as_ref(), UnixMillis(now_s * 1_000));
            assert_eq!(pause.as_secs(), pause_s, "at {now_s} s");
        }
    }
}
