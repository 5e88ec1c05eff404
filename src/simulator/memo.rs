//! Remembers how many tokens a prompt had, so that a load test's prompt is counted once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// Prompts remembered; then it begins anew.
const MAX_PROMPTS: usize = 4_096;

/// Counts by the prompt's hash and the model that it was for.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<HashMap<u64, u64>>);

impl Memo {
    pub(super) fn recall(&self, prompt: u64) -> Option<u64> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&prompt).copied()
    }

    pub(super) fn remember(&self, prompt: u64, tokens: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_PROMPTS {
            counts.clear();
        }
        counts.insert(prompt, tokens);
    }
}
