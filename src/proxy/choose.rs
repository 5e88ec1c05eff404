//! Ask → targets, best first: by priority, and in the configuration's order inside one.

use super::read::Ask;
use super::{Refusal, kept};
use crate::config::catalog::{Catalog, Target};

/// Never empty.
pub(super) struct Targets(Vec<Target>);

impl Targets {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, Target> {
        self.0.iter()
    }
}

pub(super) fn in_order(catalog: &Catalog, ask: &Ask) -> Result<Targets, Refusal> {
    let targets = kept::targets(catalog, ask);
    if targets.is_empty() {
        Err(Refusal::DeploymentNotFound(ask.deployment.to_string()))
    } else {
        Ok(Targets(targets))
    }
}
