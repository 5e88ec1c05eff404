//! The responses that the resource keeps, as far as there is room.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::responses::Response;

/// The oldest goes when there are more.
const MAX_RESPONSES: usize = 4_096;

/// One response, and what it answered.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) response: Response,
    pub(super) deployment: String,
    /// What `GET …/input_items` lists.
    pub(super) input: Vec<Value>,
}

#[derive(Debug, Default)]
struct Shelf {
    by_id: HashMap<String, Arc<Kept>>,
    /// In the order in which they came; some may have been deleted.
    order: VecDeque<String>,
}

#[derive(Debug, Default)]
pub(super) struct Shelves(Mutex<Shelf>);

impl Shelves {
    pub(super) fn keep(&self, kept: Kept) {
        let mut kept_here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept_here.order.len() >= MAX_RESPONSES
            && let Some(oldest) = kept_here.order.pop_front()
        {
            kept_here.by_id.remove(&oldest);
        }
        let id = kept.response.id.clone();
        kept_here.order.push_back(id.clone());
        kept_here.by_id.insert(id, Arc::new(kept));
    }

    pub(super) fn find(&self, id: &str) -> Option<Arc<Kept>> {
        let kept_here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept_here.by_id.get(id).cloned()
    }

    pub(super) fn delete(&self, id: &str) {
        let mut kept_here = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept_here.by_id.remove(id);
    }
}
