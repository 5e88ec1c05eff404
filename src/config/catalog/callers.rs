//! Who may call without an issued key: whether it is well written, and nothing more.

use super::super::{Fault, file};
use crate::domain::ids::Name;

/// Callers of the Entra kind are checked so that a configuration written today stays good.
pub(super) fn check(file: Option<file::Callers>, faults: &mut Vec<Fault>) {
    let Some(entra) = file.and_then(|callers| callers.entra) else { return };
    for (field, list) in [("tenants", &entra.tenants), ("audiences", &entra.audiences)] {
        if list.is_empty() {
            faults.push(Fault::new(format!("callers.entra.{field}"), "at least one is needed"));
        }
    }
    let ids = |kind: &str, index, id: &str, subscription: Option<&Name>| {
        let place = format!("callers.entra.{kind}[{index}]");
        let missing = id.is_empty() || subscription.is_none();
        missing.then(|| Fault::new(place, "needs whom it binds, and a `subscription`"))
    };
    let applications = entra.applications.iter().map(|a| ("applications", &a.client_id, &a.subscription));
    let users = entra.users.iter().map(|u| ("users", &u.object_id, &u.subscription));
    let groups = entra.groups.iter().map(|g| ("groups", &g.object_id, &g.subscription));
    let roles = entra.app_roles.iter().map(|r| ("app_roles", &r.role, &r.subscription));
    faults.extend(applications.enumerate().filter_map(|(i, (k, id, s))| ids(k, i, id, s.as_ref())));
    faults.extend(users.enumerate().filter_map(|(i, (k, id, s))| ids(k, i, id, s.as_ref())));
    faults.extend(groups.enumerate().filter_map(|(i, (k, id, s))| ids(k, i, id, s.as_ref())));
    faults.extend(roles.enumerate().filter_map(|(i, (k, id, s))| ids(k, i, id, s.as_ref())));
}
