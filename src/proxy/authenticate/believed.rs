//! What the store said of a subscription, believed for a while: so that a known caller costs no I/O, and
//! however many ask at once, the store is asked once.
//!
//! Never believes, on this instance, what was read before a change that was made through it.

use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moka::future::Cache;

use crate::domain::ids::SubscriptionId;
use crate::domain::subscription::Subscription;
use crate::ports::Unavailable;

/// A change of a subscription holds within 5 s, on every instance.
const BELIEVED: Duration = Duration::from_secs(4);
/// Longer than anything is believed.
const REMEMBERED: Duration = Duration::from_secs(10);
/// Changes that are remembered at once: past it, what was read is believed for its 4 s after all.
const MAX_CHANGES: u64 = 20_000;

/// Those that are there and those that are not alike: a flood of wrong keys takes no more memory than it has room.
pub(super) struct Believed<K> {
    read: Cache<K, Read>,
    /// The number of the last change of each subscription that changed a moment ago.
    changes: Cache<SubscriptionId, u64>,
    count: AtomicU64,
}

#[derive(Clone)]
struct Read {
    found: Option<Arc<Subscription>>,
    /// How many changes there had been when the store was asked.
    count: u64,
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Believed<K> {
    pub(super) fn with_room_for(entries: u64) -> Self {
        Self {
            read: Cache::builder().max_capacity(entries).time_to_live(BELIEVED).build(),
            changes: Cache::builder().max_capacity(MAX_CHANGES).time_to_live(REMEMBERED).build(),
            count: AtomicU64::new(0),
        }
    }

    /// What is believed, or what `look` finds.
    ///
    /// # Errors
    /// When nothing is believed and `look` fails, for each who waited for it.
    pub(super) async fn get<L>(
        &self,
        key: &K,
        look: impl Fn() -> L,
    ) -> Result<Option<Arc<Subscription>>, Unavailable>
    where
        L: Future<Output = Result<Option<Subscription>, Unavailable>>,
    {
        if let Some(read) = self.read.get(key).await
            && self.holds(&read).await
        {
            return Ok(read.found);
        }
        loop {
            let looking = async {
                let count = self.count.load(Ordering::Acquire);
                Ok(Read { found: look().await?.map(Arc::new), count })
            };
            let read = self.read.try_get_with_by_ref(key, looking).await;
            let read = read.map_err(|error: Arc<Unavailable>| Unavailable {
                what: error.what,
                source: Box::new(error),
            })?;
            if self.holds(&read).await {
                return Ok(read.found);
            }
            // It was changed while somebody else's look was under way.
            self.read.invalidate(key).await;
        }
    }

    async fn holds(&self, read: &Read) -> bool {
        // The usual case: nothing has changed since.
        if read.count == self.count.load(Ordering::Acquire) {
            return true;
        }
        let Some(found) = &read.found else { return true };
        self.changes.get(&found.id).await.is_none_or(|change| change <= read.count)
    }

    /// What was read of this subscription until now is not believed any more.
    pub(super) async fn forget(&self, id: &SubscriptionId) {
        let change = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        self.changes.insert(id.clone(), change).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::ids::Name;

    fn subscription(name: &str) -> Subscription {
        serde_json::from_value(json!({
            "id": "sub-1", "name": name, "product": "p", "state": "active", "owner": null, "cost_center": null,
            "limits": {}, "notes": null, "tags": {}, "created_at": "2026-01-01T00:00:00Z", "expires_at": null,
            "last_used_at": null, "primary_key_hint": "aaaa", "secondary_key_hint": "bbbb",
        }))
        .unwrap()
    }

    #[tokio::test]
    async fn what_was_read_before_a_change_is_not_believed_even_if_the_look_was_under_way() {
        let believed: Believed<u8> = Believed::with_room_for(10);
        let id = Name::new("sub-1").unwrap();
        let looks = AtomicU64::new(0);
        let look = async || {
            let number = looks.fetch_add(1, Ordering::SeqCst);
            if number == 0 {
                believed.forget(&id).await;
            }
            Ok(Some(subscription(&number.to_string())))
        };
        let name = async || believed.get(&1, &look).await.unwrap().unwrap().name.clone();
        assert_eq!(name().await, "1");
        assert_eq!(name().await, "1");
        believed.forget(&Name::new("sub-2").unwrap()).await;
        assert_eq!(name().await, "1");
        believed.forget(&id).await;
        assert_eq!(name().await, "2");
    }

    #[tokio::test]
    async fn a_failed_look_is_not_believed() {
        let believed: Believed<u8> = Believed::with_room_for(10);
        let failed = || async { Err(Unavailable { what: "the store", source: "down".into() }) };
        assert_eq!(believed.get(&1, failed).await.unwrap_err().what, "the store");
        let found = believed.get(&1, || async { Ok(Some(subscription("one"))) }).await.unwrap();
        assert_eq!(found.unwrap().name, "one");
    }
}
