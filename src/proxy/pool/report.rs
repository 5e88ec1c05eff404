//! How the backends do, for an operator.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{LastFailure, Pool, Quantiles};
use crate::config::catalog::{Backend, Catalog};
use crate::domain::breaker::Fitness;
use crate::domain::ids::Name;
use crate::domain::units::UnixMillis;

/// One backend as this instance knows it. Counts are those since this process began.
#[derive(Debug)]
pub struct BackendReport {
    pub backend: Arc<Backend>,
    pub in_flight: u64,
    /// That were sent to it, with those that did not reach it.
    pub requests: u64,
    /// That it answered with something for the caller, be it a refusal of what the caller asked.
    pub answered: u64,
    /// That it answered with 429.
    pub throttled: u64,
    /// By kind: `status_500`, `no_connection`, `timed_out`, …
    pub failures: BTreeMap<String, u64>,
    pub last_failure: Option<LastFailure>,
    /// `None` when nothing was answered in the last minutes.
    pub latency: Option<Quantiles>,
    /// Those that it was asked for.
    pub deployments: Vec<DeploymentReport>,
}

/// A backend's fitness for one deployment.
#[derive(Debug)]
pub struct DeploymentReport {
    /// The backend's own name for it.
    pub deployment: Name,
    pub fitness: Fitness,
    /// Since when that is so; `None`: from the beginning.
    pub since: Option<UnixMillis>,
}

impl Pool {
    /// Every backend of the configuration, in its order.
    pub fn report(&self, catalog: &Catalog) -> Vec<BackendReport> {
        let now = self.clock.elapsed();
        let mut deployments: BTreeMap<Name, Vec<DeploymentReport>> = BTreeMap::new();
        let addresses: BTreeMap<_, _> =
            catalog.backends.iter().map(|backend| (&backend.name, backend.endpoint.as_str())).collect();
        for (known, breaker) in &self.breakers {
            let (backend, endpoint, deployment) = known.as_ref();
            if addresses.get(backend).is_none_or(|address| *address != endpoint.as_ref()) {
                continue;
            }
            let breaker = breaker.lock().unwrap_or_else(PoisonError::into_inner);
            deployments.entry(backend.clone()).or_default().push(DeploymentReport {
                deployment: deployment.clone(),
                fitness: breaker.fitness(now),
                since: self.moment(breaker.since(), now),
            });
        }
        let report = |backend: &Arc<Backend>| {
            let figures = self.figures(&backend.name).snapshot(now);
            let mut deployments = deployments.remove(&backend.name).unwrap_or_default();
            let order = |one: &DeploymentReport| (one.fitness == Fitness::Fit, one.deployment.clone());
            deployments.sort_by_cached_key(order);
            BackendReport {
                backend: Arc::clone(backend),
                in_flight: figures.in_flight,
                requests: figures.requests,
                answered: figures.answered,
                throttled: figures.throttled,
                failures: figures.failures,
                last_failure: figures.last_failure,
                latency: figures.latency,
                deployments,
            }
        };
        catalog.backends.iter().map(report).collect()
    }

    /// When that was on the calendar; `None` for the beginning.
    fn moment(&self, elapsed: Duration, now: Duration) -> Option<UnixMillis> {
        let ago = i64::try_from(now.saturating_sub(elapsed).as_millis()).ok()?;
        (!elapsed.is_zero()).then(|| UnixMillis(self.clock.now().0 - ago))
    }
}
