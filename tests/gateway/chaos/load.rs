//! Callers that never give up, and remember what they were answered to the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use super::{Dice, System};
use crate::support::CHAT;

const CALLERS: usize = 12;
/// Longer than a gateway waits for anything here.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a caller was told of its tokens: input, output.
pub(super) type Answered = BTreeMap<String, (i64, i64)>;

#[derive(Default)]
pub(super) struct Load {
    /// By the request's id. Only what was answered to its end.
    pub(super) answered: Mutex<Answered>,
    /// Sent, and not answered, or not to the end.
    pub(super) broken: AtomicUsize,
}

impl Load {
    /// Sends until `count` requests were answered.
    pub(super) async fn run(self: &Arc<Self>, system: &Arc<System>, count: usize, seed: u64) {
        let left = Arc::new(AtomicUsize::new(count));
        let callers = (0..CALLERS).map(|caller| {
            let (load, system, left) = (Arc::clone(self), Arc::clone(system), Arc::clone(&left));
            tokio_util::task::TaskTracker::new().spawn(async move {
                let mut dice = Dice(seed ^ (0x1000 + caller as u64));
                while left
                    .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
                    .is_ok()
                {
                    while !load.ask(&system, &mut dice).await {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        });
        futures_util::future::join_all(callers).await;
    }

    /// Whether it was answered to the end.
    async fn ask(&self, system: &System, dice: &mut Dice) -> bool {
        let address = system.gateways[dice.below(system.gateways.len())].address();
        let stream = dice.one_in(2);
        let mut body = json!({"stream": stream, "messages": [{"role": "user", "content": "Say hello."}]});
        if stream {
            body["stream_options"] = json!({"include_usage": true});
        }
        let behaviour = format!("reply-tokens={}", 1 + dice.below(40));
        let request = system
            .client
            .post(format!("http://{address}{CHAT}"))
            .header("api-key", &system.key)
            .header("x-simulate", behaviour)
            .timeout(PATIENCE)
            .body(body.to_string());
        let answered = async {
            let response = request.send().await.ok().filter(|response| response.status() == 200)?;
            let id = response.headers().get("x-request-id")?.to_str().ok()?.to_owned();
            let text = response.text().await.ok()?;
            Some((id, usage(&text, stream)?))
        };
        let Some((id, tokens)) = answered.await else {
            self.broken.fetch_add(1, Ordering::SeqCst);
            return false;
        };
        let before = self.answered.lock().unwrap().insert(id, tokens);
        assert_eq!(before, None, "an id is given once");
        true
    }
}

/// The counts of a reply that came to its end.
fn usage(text: &str, stream: bool) -> Option<(i64, i64)> {
    let json = if stream {
        let mut events = text.lines().filter_map(|line| line.strip_prefix("data: ")).rev();
        if events.next()? != "[DONE]" {
            return None;
        }
        events.next()?
    } else {
        text
    };
    let usage = serde_json::from_str::<Value>(json).ok()?["usage"].clone();
    Some((usage["prompt_tokens"].as_i64()?, usage["completion_tokens"].as_i64()?))
}
