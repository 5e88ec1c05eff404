//! Caller + Ask → Permit.
//!
//! Nothing begins whose usage could not be made safe. Which deployments a product allows is held here. Its rate limits, quotas and budgets are part of
//! the configuration and do not limit yet.

use super::read::Ask;
use super::{Caller, Refusal, kept};
use crate::config::catalog::Catalog;
use crate::domain::usage::Standing;
use crate::ports::Unavailable;

/// The caller may do what it asked. Only [`admit`] can make one.
pub(super) struct Permit {
    pub(super) caller: Caller,
    _admitted: (),
}

pub(super) fn admit(
    catalog: &Catalog,
    usage: Standing,
    caller: Caller,
    ask: &Ask,
) -> Result<Permit, Refusal> {
    // A product that was taken out of the configuration allows nothing.
    let product = catalog.products.get(&caller.subscription().product);
    if !product.is_some_and(|product| kept::is_unplaced(ask) || product.allows(&ask.deployment)) {
        return Err(Refusal::DeploymentNotAllowed(ask.deployment.clone()));
    }
    if !usage.allows(catalog.on_usage_unsafe) {
        let why = match usage {
            Standing::Full => "usage is taken neither by it nor by the spool",
            _ => "it takes no usage, and `on_usage_unsafe` is `refuse`",
        };
        return Err(Unavailable { what: "the event hub", source: why.into() }.into());
    }
    Ok(Permit { caller, _admitted: () })
}
