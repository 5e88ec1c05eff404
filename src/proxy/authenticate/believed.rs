//! What the store said of a subscription, believed for a while: so that a known caller costs no I/O, and
//! however many ask at once, the store is asked once.
//!
//! Never believes, on this instance, what was read before a change that was made through it, or that it has
//! seen others make.
//!
//! # When the store cannot be reached
//! Who is known goes on as they were known, for [`STANDS_IN`]: whoever may call still may, and who was suspended
//! stays refused. Who is not known cannot be looked up, and that a key was nobody's is not believed either:
//! it may have been issued since.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use moka::future::Cache;

use crate::domain::ids::SubscriptionId;
use crate::domain::subscription::Subscription;
use crate::ports::{Clock, Unavailable};

/// A change of a subscription holds within 5 s, on every instance.
const BELIEVED: Duration = Duration::from_secs(4);
/// However often it is confirmed: for what nobody is told of, such as a database that was restored.
const READ_AGAIN: Duration = Duration::from_mins(5);
/// How long what was known stands in for a store that does not answer: longer than a server takes to be failed
/// over or restarted, and short enough that who was revoked through another instance meanwhile is out soon.
const STANDS_IN: Duration = Duration::from_mins(10);
/// By those who wait for it, and nobody later.
const LOOK_IS_SHARED: Duration = Duration::from_millis(1);
/// As long as somebody waits for the store who could go on without it.
const PATIENCE: Duration = Duration::from_secs(1);
/// For how long nobody else waits for it after that.
const FAILURE_HOLDS: Duration = Duration::from_secs(5);
/// Changes that are remembered at once: past it, everything is read again.
const MAX_CHANGES: usize = 20_000;

/// Those that are there and those that are not alike: a flood of wrong keys takes no more memory than it has room.
pub(super) struct Believed<K> {
    read: Cache<K, Read>,
    /// Looks under way.
    looks: Cache<K, Read>,
    clock: Arc<dyn Clock>,
    heard: Heard,
}

#[derive(Clone)]
struct Read {
    found: Option<Arc<Subscription>>,
    /// How many changes there had been when the store was asked.
    count: u64,
    /// When that was, by the clock's `elapsed`, as every moment here.
    at: Duration,
}

/// What was heard of changes.
#[derive(Default)]
struct Heard {
    count: AtomicU64,
    changes: RwLock<Numbers>,
    /// Milliseconds. Every change that others made before it was seen.
    complete_at: AtomicU64,
    /// What was read before it is read again, though nothing is known against it.
    doubted_before: AtomicU64,
    /// Until then the store is not waited for by those who can do without.
    failing_until: AtomicU64,
}

/// The number of the last change of each subscription that was changed.
#[derive(Default)]
struct Numbers {
    of: HashMap<SubscriptionId, u64>,
    /// Those before it are not remembered: anything may have changed.
    forgotten: u64,
}

fn millis(moment: Duration) -> u64 {
    u64::try_from(moment.as_millis()).unwrap_or(u64::MAX)
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> Believed<K> {
    pub(super) fn with_room_for(entries: u64, clock: Arc<dyn Clock>) -> Self {
        Self {
            read: Cache::builder().max_capacity(entries).time_to_idle(STANDS_IN).build(),
            looks: Cache::builder().max_capacity(entries).time_to_live(LOOK_IS_SHARED).build(),
            clock,
            heard: Heard::default(),
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
        let now = self.clock.elapsed();
        let known = self.read.get(key).await.filter(|read| self.heard.nothing_against(read));
        if let Some(read) = &known
            && self.heard.is_fresh(read, now)
        {
            return Ok(read.found.clone());
        }
        let Some(known) = known.filter(|read| self.heard.may_stand_in(read, now)) else {
            return self.look(key, look).await;
        };
        if millis(now) < self.heard.failing_until.load(Ordering::Acquire) {
            return Ok(known.found);
        }
        if let Ok(Ok(found)) = tokio::time::timeout(PATIENCE, self.look(key, look)).await {
            return Ok(found);
        }
        self.fails();
        // Unless it was changed meanwhile.
        if self.heard.nothing_against(&known) {
            return Ok(known.found);
        }
        Err(Unavailable { what: "the store of subscriptions", source: "it does not answer".into() })
    }

    /// Asks the store, once for all who wait for the same.
    async fn look<L>(&self, key: &K, look: impl Fn() -> L) -> Result<Option<Arc<Subscription>>, Unavailable>
    where
        L: Future<Output = Result<Option<Subscription>, Unavailable>>,
    {
        loop {
            let looking = async {
                let (count, at) = (self.heard.count.load(Ordering::Acquire), self.clock.elapsed());
                let read = Read { found: look().await?.map(Arc::new), count, at };
                self.read.insert(key.clone(), read.clone()).await;
                Ok(read)
            };
            let read = self.looks.try_get_with_by_ref(key, looking).await;
            // From now on whoever comes finds it among what was read.
            self.looks.invalidate(key).await;
            let read = read.map_err(|error: Arc<Unavailable>| Unavailable {
                what: error.what,
                source: Box::new(error),
            })?;
            if self.heard.nothing_against(&read) {
                return Ok(read.found);
            }
            // It was changed while somebody else's look was under way.
        }
    }

    /// What was read of this subscription until now is not believed any more.
    pub(super) fn forget(&self, id: &SubscriptionId) {
        self.heard.note_change(id);
    }

    /// Every change that was made before `at` is forgotten here by now.
    pub(super) fn confirm(&self, at: Duration) {
        self.heard.complete_at.store(millis(at), Ordering::Release);
        self.heard.failing_until.store(0, Ordering::Release);
    }

    /// Any may have changed before `at`: what was read until then is read again, and stands in only.
    pub(super) fn doubt(&self, at: Duration) {
        self.heard.doubted_before.store(millis(at), Ordering::Release);
        self.heard.failing_until.store(0, Ordering::Release);
    }

    /// The store does not answer.
    pub(super) fn fails(&self) {
        let until = millis(self.clock.elapsed() + FAILURE_HOLDS);
        self.heard.failing_until.store(until, Ordering::Release);
    }
}

impl Heard {
    fn note_change(&self, id: &SubscriptionId) {
        let mut changes = self.changes.write().unwrap_or_else(PoisonError::into_inner);
        let change = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if changes.of.len() >= MAX_CHANGES {
            changes.of.clear();
            changes.forgotten = change;
        }
        changes.of.insert(id.clone(), change);
    }

    /// No change is known that came after it was read.
    fn nothing_against(&self, read: &Read) -> bool {
        // The usual case: nothing has changed since.
        if read.count == self.count.load(Ordering::Acquire) {
            return true;
        }
        let changes = self.changes.read().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = &read.found else { return true };
        read.count >= changes.forgotten
            && changes.of.get(&found.id).is_none_or(|change| *change <= read.count)
    }

    /// When it was known last to be so. Of what is not there nobody tells.
    fn confirmed_at(&self, read: &Read) -> Duration {
        if read.found.is_none() {
            return read.at;
        }
        read.at.max(Duration::from_millis(self.complete_at.load(Ordering::Acquire)))
    }

    fn is_fresh(&self, read: &Read, now: Duration) -> bool {
        let is_doubted = millis(read.at) < self.doubted_before.load(Ordering::Acquire);
        let known_at = if is_doubted { read.at } else { self.confirmed_at(read) };
        now.saturating_sub(known_at) < BELIEVED && now.saturating_sub(read.at) < READ_AGAIN
    }

    fn may_stand_in(&self, read: &Read, now: Duration) -> bool {
        read.found.is_some() && now.saturating_sub(self.confirmed_at(read)) < STANDS_IN
    }
}

#[cfg(test)]
mod tests;
