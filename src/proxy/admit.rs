//! Caller + Ask → Permit.
//!
//! Which deployments a product allows is held here. Its rate limits, quotas and budgets are part of
//! the configuration and do not limit yet.

use super::read::Ask;
use super::{Caller, Refusal, kept};
use crate::config::catalog::Catalog;

/// The caller may do what it asked. Only [`admit`] can make one.
pub(super) struct Permit {
    pub(super) caller: Caller,
    _admitted: (),
}

pub(super) fn admit(catalog: &Catalog, caller: Caller, ask: &Ask) -> Result<Permit, Refusal> {
    // A product that was taken out of the configuration allows nothing.
    let product = catalog.products.get(&caller.subscription().product);
    if product.is_some_and(|product| kept::is_unplaced(ask) || product.allows(&ask.deployment)) {
        Ok(Permit { caller, _admitted: () })
    } else {
        Err(Refusal::DeploymentNotAllowed(ask.deployment.clone()))
    }
}
