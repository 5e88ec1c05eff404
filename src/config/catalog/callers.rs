//! Who may call without an issued key: the tokens that are taken, and the subscription that each is bound to.
//!
//! Never says whether a subscription exists: those are issued while the gateway runs.

use std::collections::BTreeMap;

use super::super::{Fault, file};
use crate::domain::actor::Identity;
use crate::domain::ids::{Name, SubscriptionId};

/// Whose Entra tokens are taken, and what they open.
#[derive(Debug, Default)]
pub struct EntraCallers {
    tenants: Vec<String>,
    /// A token must be for one of them.
    pub audiences: Vec<String>,
    applications: Bindings,
    users: Bindings,
    groups: Bindings,
    app_roles: Bindings,
}

impl EntraCallers {
    /// The tenants' ids.
    pub fn tenants(&self) -> impl Iterator<Item = &str> {
        self.tenants.iter().map(String::as_str)
    }

    /// The tenant of this id, as the configuration writes it.
    pub fn tenant(&self, id: &str) -> Option<&str> {
        self.tenants().find(|tenant| tenant.eq_ignore_ascii_case(id))
    }

    /// The subscription that somebody uses. Where several bindings meet, the application's holds, then the
    /// person's, then the first of the groups, then the first of the app roles, as they are listed.
    pub fn subscription(&self, identity: &Identity) -> Option<&SubscriptionId> {
        let application = self.applications.first([identity.client_id.as_str()]);
        let user = || self.users.first(identity.person());
        let group = || self.groups.first(identity.groups.iter().map(String::as_str));
        let role = || self.app_roles.first(identity.roles.iter().map(String::as_str));
        application.or_else(user).or_else(group).or_else(role)
    }
}

/// Ids or roles, each with its place in the list and its subscription.
#[derive(Debug, Default)]
struct Bindings(BTreeMap<String, (usize, SubscriptionId)>);

impl Bindings {
    /// Of those that `held` meets, the one that was listed first.
    fn first<'a>(&self, held: impl IntoIterator<Item = &'a str>) -> Option<&SubscriptionId> {
        let met = held.into_iter().filter_map(|id| self.0.get(id));
        met.min_by_key(|(place, _)| *place).map(|(_, subscription)| subscription)
    }
}

/// Names that stand for any tenant, where a token comes from one.
const NO_TENANTS: [&str; 3] = ["common", "organizations", "consumers"];

pub(super) fn check(file: Option<file::Callers>, faults: &mut Vec<Fault>) -> Option<EntraCallers> {
    let entra = file.and_then(|callers| callers.entra)?;
    for (field, list) in [("tenants", &entra.tenants), ("audiences", &entra.audiences)] {
        if list.is_empty() {
            faults.push(Fault::new(format!("callers.entra.{field}"), "at least one is needed"));
        }
    }
    for (index, tenant) in entra.tenants.iter().enumerate() {
        // It is put into a URL's path.
        let is_id = tenant.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') && !tenant.is_empty();
        if !is_id || NO_TENANTS.contains(&tenant.as_str()) {
            let place = format!("callers.entra.tenants[{index}]");
            let message = "must be a tenant's id, such as 72f988bf-86f1-41af-91ab-2d7cd011db47: no domain";
            faults.push(Fault::new(place, message));
        }
    }
    for (index, audience) in entra.audiences.iter().enumerate() {
        if audience.is_empty() || audience.contains(char::is_whitespace) {
            let place = format!("callers.entra.audiences[{index}]");
            let message = "must be the app registration's client id, or its URI, such as api://tollgate";
            faults.push(Fault::new(place, message));
        }
    }
    let lower = |id: String| id.to_ascii_lowercase();
    let applications = entra.applications.into_iter().map(|a| (lower(a.client_id), a.subscription));
    let users = entra.users.into_iter().map(|u| (lower(u.object_id), u.subscription));
    let groups = entra.groups.into_iter().map(|g| (lower(g.object_id), g.subscription));
    let app_roles = entra.app_roles.into_iter().map(|r| (r.role, r.subscription));
    Some(EntraCallers {
        applications: bindings("applications", applications, faults),
        users: bindings("users", users, faults),
        groups: bindings("groups", groups, faults),
        app_roles: bindings("app_roles", app_roles, faults),
        tenants: entra.tenants,
        audiences: entra.audiences,
    })
}

fn bindings(
    kind: &str,
    listed: impl Iterator<Item = (String, Option<Name>)>,
    faults: &mut Vec<Fault>,
) -> Bindings {
    let mut bindings = Bindings::default();
    for (index, (id, subscription)) in listed.enumerate() {
        let mut fault = |message: String| {
            faults.push(Fault::new(format!("callers.entra.{kind}[{index}]"), message));
        };
        match subscription {
            Some(subscription) if !id.is_empty() => {
                if bindings.0.contains_key(&id) {
                    fault(format!("`{id}` stands twice"));
                }
                bindings.0.entry(id).or_insert((index, subscription));
            }
            _ => fault("needs whom it binds, and a `subscription`".to_owned()),
        }
    }
    bindings
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::catalog::Catalog;

    fn parse(entra: &Value) -> Result<EntraCallers, Vec<String>> {
        let file = json!({
            "backends": [{"name": "b", "endpoint": "https://b.example"}],
            "callers": {"entra": entra},
        });
        let catalog = Catalog::parse(&file.to_string(), "test");
        catalog
            .map(|catalog| catalog.callers.unwrap())
            .map_err(|faults| faults.faults.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_most_certain_binding_holds_and_of_equals_the_first() {
        let callers = parse(&json!({
            "tenants": ["T1"], "audiences": ["api://tollgate"],
            "applications": [{"client_id": "APP", "subscription": "by-application"}],
            "users": [{"object_id": "user", "subscription": "by-user"}],
            "groups": [{"object_id": "g2", "subscription": "by-g2"}, {"object_id": "G1", "subscription": "by-g1"}],
            "app_roles": [{"role": "Reader", "subscription": "by-role"}],
        }))
        .unwrap();
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        let found = |client: &str, is_person, groups: &[&str], roles: &[&str]| {
            let identity = Identity {
                tenant_id: "T1".into(),
                client_id: client.into(),
                object_id: Some("user".into()),
                is_person,
                groups: strings(groups),
                leaves_groups_out: false,
                roles: strings(roles),
            };
            callers.subscription(&identity).map(ToString::to_string)
        };
        for (client, is_person, groups, roles, subscription) in [
            ("app", true, &["g1"][..], &["Reader"][..], Some("by-application")),
            ("other", true, &["g1"], &["Reader"], Some("by-user")),
            ("other", false, &["g1", "g2"], &["Reader"], Some("by-g2")),
            ("other", false, &["g1"], &["Reader"], Some("by-g1")),
            ("other", false, &["g3"], &["Writer", "Reader"], Some("by-role")),
            ("other", false, &["Reader"], &["reader", "g1"], None),
        ] {
            let met = found(client, is_person, groups, roles);
            assert_eq!(met.as_deref(), subscription, "{client} {groups:?} {roles:?}");
        }
        assert_eq!((callers.tenant("t1"), callers.tenant("t2")), (Some("T1"), None));
    }

    #[test]
    fn every_fault_has_its_place() {
        let faults = parse(&json!({
            "tenants": ["contoso.com", "common", "../x", ""], "audiences": ["", "api://a b"],
            "applications": [{"client_id": "a", "subscription": "s"}, {"client_id": "A", "subscription": "s"}],
            "users": [{"object_id": "u"}], "groups": [{"subscription": "s"}], "app_roles": [{}],
        }))
        .unwrap_err();
        let places: Vec<_> = faults.iter().filter_map(|fault| fault.split(": ").next()).collect();
        assert_eq!(
            places,
            [
                "callers.entra.tenants[0]",
                "callers.entra.tenants[1]",
                "callers.entra.tenants[2]",
                "callers.entra.tenants[3]",
                "callers.entra.audiences[0]",
                "callers.entra.audiences[1]",
                "callers.entra.applications[1]",
                "callers.entra.users[0]",
                "callers.entra.groups[0]",
                "callers.entra.app_roles[0]",
            ],
            "{faults:?}"
        );
    }
}
