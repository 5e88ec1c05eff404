//! The published keys, at hand: one set a tenant, replaced whole.
//!
//! Never asks Entra for each request, whatever callers send: one question is under way for a tenant, and keys that
//! nobody has heard of are asked for once in [`ASK_EVERY`].
//!
//! # When Entra cannot be asked
//! Known keys go on for [`KEEP`]. An unknown one is then neither right nor wrong: its caller gets 503.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use jsonwebtoken::DecodingKey;
use moka::sync::Cache;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::published::{self, KeySet, Published};
use crate::ports::{Clock, Unavailable};

/// Known keys are looked at again behind the requests.
const REFRESH: Duration = Duration::from_hours(1);
/// For an unknown key, at most: Entra publishes a key long before it signs with it.
const ASK_EVERY: Duration = Duration::from_mins(5);
/// After a failure, when a caller waits.
const AGAIN_FOR_CALLERS: Duration = Duration::from_secs(1);
/// After a failure, when nobody does.
const AGAIN_BEHIND: Duration = Duration::from_mins(1);
/// Without news for so long, a key that Entra took back could still be believed.
const KEEP: Duration = Duration::from_hours(24);
/// For one question in all: callers wait for it.
const FETCH: Duration = Duration::from_secs(5);
/// More than any configuration names.
const MAX_TENANTS: u64 = 1_000;

/// Shared by all requests; clones are the same.
#[derive(Clone)]
pub(super) struct Keys(Arc<Inside>);

struct Inside {
    published: Arc<dyn Published>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    stop: CancellationToken,
    tenants: Cache<String, Arc<Tenant>>,
}

struct Tenant {
    id: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: KeySet,
    /// When they came, by the clock's `elapsed`.
    came_at: Option<Duration>,
    latest: Option<Latest>,
    asking: Option<Asking>,
}

/// How the latest question ended.
struct Latest {
    at: Duration,
    failure: Option<Arc<str>>,
}

type Asking = Shared<BoxFuture<'static, ()>>;

impl Tenant {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The question under way.
    fn pending(&self) -> Option<Asking> {
        self.asking.clone().filter(|asking| asking.peek().is_none())
    }

    /// Whether it is time to look for changes of keys that are known.
    fn is_due(&self, now: Duration) -> bool {
        let is_old = self.came_at.is_none_or(|came_at| now >= came_at + REFRESH);
        let is_tried = self.latest.as_ref().is_some_and(|latest| now < latest.at + AGAIN_BEHIND);
        is_old && !is_tried
    }

    /// What is known of a key that is not there, without asking: `None` if it is time to ask.
    fn answer(&self, now: Duration) -> Option<Result<(), Unavailable>> {
        let latest = self.latest.as_ref()?;
        let holds = if latest.failure.is_some() { AGAIN_FOR_CALLERS } else { ASK_EVERY };
        (now < latest.at + holds).then(|| self.verdict())
    }

    fn verdict(&self) -> Result<(), Unavailable> {
        let failure = match &self.latest {
            Some(Latest { failure: None, .. }) => return Ok(()),
            Some(Latest { failure: Some(failure), .. }) => failure.to_string(),
            None => "the question was given up".to_owned(),
        };
        Err(Unavailable { what: "Entra's list of signing keys", source: failure.into() })
    }
}

impl Keys {
    pub(super) fn new(
        published: Arc<dyn Published>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let tenants = Cache::new(MAX_TENANTS);
        Self(Arc::new(Inside { published, clock, tasks, stop, tenants }))
    }

    /// The tenant's key of this id; `None`: Entra does not publish it.
    pub(super) async fn find(
        &self,
        tenant: &str,
        kid: &str,
    ) -> Result<Option<Arc<DecodingKey>>, Unavailable> {
        let new = || Arc::new(Tenant { id: tenant.to_owned(), state: Mutex::default() });
        let tenant = match self.0.tenants.get(tenant) {
            Some(tenant) => tenant,
            None => self.0.tenants.get_with_by_ref(tenant, new),
        };
        let asking = {
            let mut state = tenant.lock();
            let now = self.0.clock.elapsed();
            if state.came_at.is_some_and(|came_at| now >= came_at + KEEP) {
                state.keys.clear();
                state.came_at = None;
            }
            if let Some(key) = state.keys.get(kid).cloned() {
                if state.pending().is_none() && state.is_due(now) {
                    drop(self.ask(&tenant, &mut state));
                }
                return Ok(Some(key));
            }
            match (state.pending(), state.answer(now)) {
                (Some(asking), _) => asking,
                (None, Some(answer)) => return answer.map(|()| None),
                (None, None) => self.ask(&tenant, &mut state),
            }
        };
        asking.await;
        let state = tenant.lock();
        match state.keys.get(kid) {
            Some(key) => Ok(Some(Arc::clone(key))),
            None => state.verdict().map(|()| None),
        }
    }

    /// A task of its own, which goes on when whoever waits hangs up.
    fn ask(&self, tenant: &Arc<Tenant>, state: &mut State) -> Asking {
        let task = self.0.tasks.spawn(self.clone().fetch(Arc::clone(tenant)));
        // It only fails where it was cancelled, and then the process ends.
        let asking = task.map(|_| ()).boxed().shared();
        state.asking = Some(asking.clone());
        asking
    }

    async fn fetch(self, tenant: Arc<Tenant>) {
        let fetched = tokio::select! {
            () = self.0.stop.cancelled() => Err("the gateway stops".to_owned()),
            fetched = tokio::time::timeout(FETCH, self.0.published.fetch(&tenant.id)) => {
                fetched.unwrap_or_else(|_| Err(format!("no answer within {} s", FETCH.as_secs())))
            }
        };
        let read = fetched.and_then(|document| published::read(&document, &tenant.id));
        let mut state = tenant.lock();
        let at = self.0.clock.elapsed();
        let was_failing = state.latest.as_ref().is_some_and(|latest| latest.failure.is_some());
        tell(&tenant.id, read.as_ref().err(), was_failing);
        let failure = match read {
            Ok(keys) => {
                (state.keys, state.came_at) = (keys, Some(at));
                None
            }
            Err(failure) => Some(failure.into()),
        };
        state.latest = Some(Latest { at, failure });
        state.asking = None;
    }
}

/// Says when it begins to fail and when it is well again, and nothing in between.
fn tell(tenant: &str, failure: Option<&String>, was_failing: bool) {
    match failure {
        Some(failure) if !was_failing => tracing::warn!(
            tenant.id = tenant,
            "the signing keys of tenant {tenant} cannot be had, those that are known go on: {failure}"
        ),
        None if was_failing => {
            tracing::info!(tenant.id = tenant, "the signing keys of tenant {tenant} can be had again");
        }
        _ => {}
    }
}
