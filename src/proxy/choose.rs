//! Ask → targets, best first: by priority, inside one by weight, and only those that are fit.
//!
//! Where nobody fit is left, those that rest because they failed are asked after all: a rest saves
//! callers the time that a broken backend takes, and must never be why they get nothing. One that asked
//! to be left alone is.

use std::sync::Arc;
use std::time::Duration;

use super::Refusal;
use super::pool::{Member, Pool, Route};
use super::read::Ask;
use crate::config::catalog::Catalog;
use crate::domain::breaker::{Fitness, Why};

/// The backends that one request may go to, each at most once.
pub(super) struct Targets {
    route: Arc<Route>,
    asked: Vec<Arc<Member>>,
}

pub(super) fn in_order(pool: &Pool, catalog: &Arc<Catalog>, ask: &Ask) -> Result<Targets, Refusal> {
    let route = pool.route(catalog, &ask.deployment);
    let route = route.ok_or_else(|| Refusal::DeploymentNotFound(ask.deployment.to_string()))?;
    Ok(Targets { route, asked: Vec::new() })
}

impl Targets {
    /// The next one to ask, at a moment of the pool's clock.
    pub(super) fn next(&mut self, now: Duration) -> Option<Arc<Member>> {
        let fit = self.route.tiers.iter().find_map(|tier| tier.next(now, |member| !self.was_asked(member)));
        let next = fit.or_else(|| self.left(now).next().cloned())?;
        self.asked.push(Arc::clone(&next));
        Some(next)
    }

    /// Whether another one could still be asked.
    pub(super) fn has_another(&self, now: Duration) -> bool {
        self.left(now).next().is_some()
    }

    /// When the first of those that asked to be left alone, and were, can be asked again.
    pub(super) fn soonest(&self, now: Duration) -> Option<Duration> {
        let waits = self.unasked().filter_map(|member| match member.fitness(now) {
            Fitness::Resting(Why::Throttled, wait) => Some(wait),
            _ => None,
        });
        waits.min()
    }

    /// Those that may be asked, whether they are fit or not, best first.
    fn left(&self, now: Duration) -> impl Iterator<Item = &Arc<Member>> {
        self.unasked()
            .filter(move |member| !matches!(member.fitness(now), Fitness::Resting(Why::Throttled, _)))
    }

    fn unasked(&self) -> impl Iterator<Item = &Arc<Member>> {
        let all = self.route.tiers.iter().flat_map(|tier| &tier.members);
        all.filter(|member| !self.was_asked(member))
    }

    fn was_asked(&self, member: &Member) -> bool {
        self.asked.iter().any(|asked| std::ptr::eq(asked.as_ref(), member))
    }
}
