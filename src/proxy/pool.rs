//! The backends as this process has met them: whose turn it is, who rests, how they did.
//!
//! What is known here is this instance's own, and lost with it: a new instance asks everyone once and
//! knows again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use moka::sync::Cache;

use crate::config::catalog::{Backend, Catalog, Target};
use crate::domain::balance::Turn;
use crate::domain::breaker::{Breaker, Fitness};
use crate::domain::ids::{DeploymentName, Name};
use crate::ports::Clock;

mod asked;
mod figures;
mod report;

pub(super) use asked::{Asked, Fault};
use figures::Figures;
pub use figures::{LastFailure, Quantiles};
pub use report::{BackendReport, DeploymentReport};

/// Deployments that something is known of. Callers choose the name where a product allows every
/// deployment, so there is a bound; more than any company has.
const MAX_DEPLOYMENTS: u64 = 10_000;
/// Of which a route is kept at once.
const MAX_ROUTES: usize = 10_000;

/// What is known of the backends.
pub struct Pool {
    clock: Arc<dyn Clock>,
    routes: ArcSwapOption<Routes>,
    /// By backend, its address and its own name for the deployment: a backend that moved is a new one.
    breakers: Cache<(Name, Box<str>, Name), Arc<Mutex<Breaker>>>,
    figures: RwLock<BTreeMap<Name, Arc<Figures>>>,
}

/// The routes of one configuration.
struct Routes {
    catalog: Arc<Catalog>,
    /// A plain map: it is looked at by each request, and what is dropped from it is only whose turn it is.
    by_deployment: RwLock<HashMap<DeploymentName, Arc<Route>>>,
}

/// The backends that have one deployment, best first.
pub(super) struct Route {
    pub(super) tiers: Vec<Tier>,
}

/// Those of one priority.
pub(super) struct Tier {
    pub(super) members: Vec<Arc<Member>>,
    weights: Vec<u32>,
    turn: Mutex<Turn>,
}

/// A backend, for one deployment.
pub(super) struct Member {
    pub(super) target: Target,
    breaker: Arc<Mutex<Breaker>>,
    figures: Arc<Figures>,
}

impl Pool {
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            routes: ArcSwapOption::empty(),
            breakers: Cache::new(MAX_DEPLOYMENTS),
            figures: RwLock::default(),
        }
    }

    /// The backends that have a deployment; `None` when there is none.
    pub(super) fn route(&self, catalog: &Arc<Catalog>, deployment: &DeploymentName) -> Option<Arc<Route>> {
        let routes = self.routes_of(catalog);
        let known =
            routes.by_deployment.read().unwrap_or_else(PoisonError::into_inner).get(deployment).cloned();
        if known.is_some() {
            return known;
        }
        let tiers = self.tiers(catalog.targets(deployment));
        if tiers.is_empty() {
            return None;
        }
        let mut all = routes.by_deployment.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_ROUTES {
            all.clear();
        }
        Some(Arc::clone(all.entry(deployment.clone()).or_insert_with(|| Arc::new(Route { tiers }))))
    }

    /// All backends, for something of which nobody knows where it lies; `None` when there is none.
    pub(super) fn everywhere(&self, catalog: &Catalog, deployment: &DeploymentName) -> Option<Arc<Route>> {
        let target =
            |backend: &Arc<Backend>| Target { backend: Arc::clone(backend), deployment: deployment.clone() };
        let tiers = self.tiers(catalog.backends.iter().map(target));
        (!tiers.is_empty()).then(|| Arc::new(Route { tiers }))
    }

    /// Routes keep whose turn it is, and begin anew with a new configuration.
    fn routes_of(&self, catalog: &Arc<Catalog>) -> Arc<Routes> {
        if let Some(routes) = self.routes.load_full().filter(|routes| Arc::ptr_eq(&routes.catalog, catalog)) {
            return routes;
        }
        let routes = Arc::new(Routes { catalog: Arc::clone(catalog), by_deployment: RwLock::default() });
        self.routes.store(Some(Arc::clone(&routes)));
        routes
    }

    fn tiers(&self, targets: impl Iterator<Item = Target>) -> Vec<Tier> {
        let mut by_priority: BTreeMap<u32, Vec<Arc<Member>>> = BTreeMap::new();
        for target in targets {
            let (breaker, figures) = (self.breaker(&target), self.figures(&target.backend.name));
            let members = by_priority.entry(target.backend.priority).or_default();
            members.push(Arc::new(Member { target, breaker, figures }));
        }
        let tier = |members: Vec<Arc<Member>>| Tier {
            weights: members.iter().map(|member| member.target.backend.weight).collect(),
            turn: Mutex::new(Turn::among(members.len())),
            members,
        };
        by_priority.into_values().map(tier).collect()
    }

    fn breaker(&self, target: &Target) -> Arc<Mutex<Breaker>> {
        let key = key(&target.backend, &target.deployment);
        self.breakers.get_with(key, Arc::default)
    }

    fn figures(&self, backend: &Name) -> Arc<Figures> {
        if let Some(figures) = self.figures.read().unwrap_or_else(PoisonError::into_inner).get(backend) {
            return Arc::clone(figures);
        }
        let mut all = self.figures.write().unwrap_or_else(PoisonError::into_inner);
        let figures =
            all.entry(backend.clone()).or_insert_with(|| Arc::new(Figures::new(self.clock.elapsed())));
        Arc::clone(figures)
    }
}

fn key(backend: &Backend, deployment: &Name) -> (Name, Box<str>, Name) {
    (backend.name.clone(), backend.endpoint.as_str().into(), deployment.clone())
}

impl Route {
    pub(super) fn members(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.tiers.iter().flat_map(|tier| &tier.members)
    }
}

impl Tier {
    /// The next one, by weight, of those that are fit and that `may` be asked.
    pub(super) fn next(&self, now: Duration, may: impl Fn(&Member) -> bool) -> Option<Arc<Member>> {
        if let [only] = self.members.as_slice() {
            return (may(only) && only.take(now)).then(|| Arc::clone(only));
        }
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let fit = |index: usize| {
            let member = &self.members[index];
            may(member) && matches!(member.fitness(now), Fitness::Fit | Fitness::Due(_))
        };
        let chosen = &self.members[turn.next(&self.weights, fit)?];
        // Whoever takes is alone with the turn in hand, so what was fit still is, unless it failed this
        // very moment; it is then asked all the same.
        chosen.take(now);
        Some(Arc::clone(chosen))
    }
}

impl Member {
    pub(super) fn is_of(&self, backend: &Name) -> bool {
        self.target.backend.name == *backend
    }

    pub(super) fn fitness(&self, now: Duration) -> Fitness {
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner).fitness(now)
    }

    /// Whether it is fit, and now asked by whoever wants to know.
    fn take(&self, now: Duration) -> bool {
        let mut breaker = self.breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fit = matches!(breaker.fitness(now), Fitness::Fit | Fitness::Due(_));
        if is_fit {
            breaker.asked(now);
        }
        is_fit
    }

    fn tell(&self, what: impl FnOnce(&mut Breaker)) {
        what(&mut self.breaker.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
