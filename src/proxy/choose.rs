//! Ask → targets, best first: by priority, inside one by weight, and only those that are fit.
//!
//! Where nobody fit is left, those that rest because they failed are asked after all: a rest saves
//! callers the time that a broken backend takes, and must never be why they get nothing. One that asked
//! to be left alone is.

use std::sync::Arc;
use std::time::Duration;

use super::pool::{Member, Pool, Route};
use super::read::Ask;
use super::{Refusal, kept};
use crate::config::catalog::Catalog;
use crate::domain::breaker::{Fitness, Why};
use crate::domain::ids::Name;

/// The backends that one request may go to, each at most once.
pub(super) struct Targets {
    route: Arc<Route>,
    asked: Vec<Arc<Member>>,
    /// Keeps what the request belongs to: no other one could serve it.
    home: Option<Name>,
}

pub(super) fn in_order(pool: &Pool, catalog: &Arc<Catalog>, ask: &Ask) -> Result<Targets, Refusal> {
    let route = if kept::is_unplaced(ask) {
        pool.everywhere(catalog, &ask.deployment)
    } else {
        pool.route(catalog, &ask.deployment)
    };
    let route = route.ok_or_else(|| Refusal::DeploymentNotFound(ask.deployment.to_string()))?;
    // A backend that is no longer there leaves it to the others to say that they do not have it.
    let home = ask.home.as_ref().map(|home| home.backend.clone());
    let home = home.filter(|home| route.members().any(|member| member.is_of(home)));
    Ok(Targets { route, asked: Vec::new(), home })
}

impl Targets {
    /// The next one to ask, at a moment of the pool's clock.
    pub(super) fn next(&mut self, now: Duration) -> Option<Arc<Member>> {
        let fit = self.route.tiers.iter().find_map(|tier| tier.next(now, |member| self.may_be_asked(member)));
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
            Fitness::Resting(Why::Throttled, wait) | Fitness::Watched(Why::Throttled, wait) => Some(wait),
            Fitness::Due(Why::Throttled) => Some(Duration::ZERO),
            _ => None,
        });
        waits.min()
    }

    /// Those that may be asked, whether they are fit or not, best first.
    fn left(&self, now: Duration) -> impl Iterator<Item = &Arc<Member>> {
        let is_left_alone = move |member: &Member| {
            matches!(
                member.fitness(now),
                Fitness::Resting(Why::Throttled, _) | Fitness::Watched(Why::Throttled, _)
            )
        };
        self.unasked().filter(move |member| !is_left_alone(member))
    }

    fn unasked(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.route.members().filter(|member| self.may_be_asked(member))
    }

    fn may_be_asked(&self, member: &Member) -> bool {
        let was_asked = self.asked.iter().any(|asked| std::ptr::eq(asked.as_ref(), member));
        !was_asked && self.home.as_ref().is_none_or(|home| member.is_of(home))
    }
}
