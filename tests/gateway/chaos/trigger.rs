//! The Functions host's triggers, at their worst: batches in any order, again and again, and the timer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;

use super::{Dice, System};

const MAX_BATCH: usize = 100;
const HOST: [(&str, &str); 2] =
    [("user-agent", "Azure-Functions-Host/4.1037"), ("x-azure-functions-invocationid", "5d8b2a10")];

/// How far the hub was delivered.
#[derive(Default)]
pub(super) struct Trigger {
    pub(super) delivered: AtomicUsize,
    pub(super) again: AtomicUsize,
    pub(super) failed: AtomicUsize,
    /// Everything is as it should be: nothing is delivered twice any more.
    pub(super) is_calm: AtomicBool,
}

impl Trigger {
    /// Delivers until it is dropped.
    pub(super) async fn run(self: Arc<Self>, system: Arc<System>, mut dice: Dice) {
        let mut before: Vec<String> = Vec::new();
        loop {
            let size = 1 + dice.below(MAX_BATCH);
            let mut batch = system.hub.events_from(before.len(), size);
            if batch.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
            let new = batch.len();
            before.extend(batch.iter().cloned());
            if !self.is_calm.load(Ordering::SeqCst) {
                for _ in 0..dice.below(20) {
                    batch.push(before[dice.below(before.len())].clone());
                    self.again.fetch_add(1, Ordering::SeqCst);
                }
                dice.shuffle(&mut batch);
            }
            let body = json!({"Data": {"events": json!(batch).to_string()}, "Metadata": {}}).to_string();
            // Two instances may have the same partition for a moment.
            if dice.one_in(4) {
                tokio::join!(
                    self.until_taken(&system, "token-accounting", &body),
                    self.until_taken(&system, "token-accounting", &body)
                );
            } else {
                self.until_taken(&system, "token-accounting", &body).await;
            }
            self.delivered.fetch_add(new, Ordering::SeqCst);
        }
    }

    /// The timer, on time and past its time.
    pub(super) async fn timer(self: Arc<Self>, system: Arc<System>) {
        let body = json!({"Data": {"timer": {"IsPastDue": true}}, "Metadata": {}}).to_string();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            tokio::join!(call(&system, "upkeep", &body), call(&system, "upkeep", &body));
        }
    }

    /// As the host does with the policy of `function.json`: for ever.
    async fn until_taken(&self, system: &System, function: &str, body: &str) {
        while call(system, function, body).await != Some(200) {
            self.failed.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

async fn call(system: &System, function: &str, body: &str) -> Option<u16> {
    let url = format!("http://{}/{function}", system.accounting.address());
    let request = system.client.post(url).timeout(Duration::from_mins(1)).body(body.to_owned());
    let request = HOST.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    let response = request.header("content-type", "application/json; charset=utf-8").send().await.ok()?;
    let status = response.status().as_u16();
    response.bytes().await.ok()?;
    Some(status)
}
