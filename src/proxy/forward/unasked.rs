//! Backends that must not be asked for usage on a caller's behalf.

use std::collections::HashSet;
use std::sync::RwLock;

use crate::domain::ids::{DeploymentName, Name};

/// Streams that must not be asked for usage: by backend, deployment and query, which has the version
/// and no longer the caller's key.
#[derive(Debug, Default)]
pub struct Unasked(RwLock<HashSet<(Name, DeploymentName, String)>>);

impl Unasked {
    /// More than any gateway has; a caller that makes up queries starts it anew.
    const MAX: usize = 1_000;

    pub(super) fn contains(&self, key: &(Name, DeploymentName, String)) -> bool {
        self.0.read().is_ok_and(|known| known.contains(key))
    }

    pub(super) fn insert(&self, key: (Name, DeploymentName, String)) {
        if let Ok(mut known) = self.0.write() {
            if known.len() >= Self::MAX {
                known.clear();
            }
            known.insert(key);
        }
    }
}
