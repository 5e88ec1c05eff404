//! Who changed what, when, from where: what the audit keeps of a change. Never a key, nor its hash.

use core::net::IpAddr;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::actor::Actor;
use super::ids::SubscriptionId;
use super::subscription::{Change, Slot, Subscription};
use super::units::UnixMillis;

/// Whose change it is, when, and from where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author {
    pub actor: Actor,
    /// As far as it is known and can be trusted.
    pub address: Option<IpAddr>,
    pub at: UnixMillis,
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Issued,
    /// From another gateway, with the keys that it had there.
    Imported,
    Changed,
    PrimaryKeyReplaced,
    SecondaryKeyReplaced,
    Ended,
}

impl Action {
    pub const ALL: [Self; 6] = [
        Self::Issued,
        Self::Imported,
        Self::Changed,
        Self::PrimaryKeyReplaced,
        Self::SecondaryKeyReplaced,
        Self::Ended,
    ];

    /// What it is called, in JSON and in a database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Imported => "imported",
            Self::Changed => "changed",
            Self::PrimaryKeyReplaced => "primary_key_replaced",
            Self::SecondaryKeyReplaced => "secondary_key_replaced",
            Self::Ended => "ended",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.word() == word)
    }

    pub fn of(change: &Change) -> Self {
        match change {
            Change::Fields(_) => Self::Changed,
            Change::Key { slot: Slot::Primary, .. } => Self::PrimaryKeyReplaced,
            Change::Key { slot: Slot::Secondary, .. } => Self::SecondaryKeyReplaced,
            Change::End => Self::Ended,
        }
    }
}

/// One entry of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Record {
    #[schemars(with = "String")]
    pub id: Uuid,
    pub at: UnixMillis,
    pub actor: Actor,
    pub address: Option<IpAddr>,
    pub action: Action,
    pub subscription_id: SubscriptionId,
    /// The members that changed, as they were: none of a new one.
    pub before: Map<String, Value>,
    /// The same, as they became.
    pub after: Map<String, Value>,
}

impl Record {
    /// A new entry; `before` is `None` for a new subscription.
    pub fn of(action: Action, author: &Author, before: Option<&Subscription>, after: &Subscription) -> Self {
        let (before, after_members) = differences(before, after);
        Self {
            id: Uuid::now_v7(),
            at: author.at,
            actor: author.actor.clone(),
            address: author.address,
            action,
            subscription_id: after.id.clone(),
            before,
            after: after_members,
        }
    }
}

/// The members that differ, as they were and as they became.
fn differences(
    before: Option<&Subscription>,
    after: &Subscription,
) -> (Map<String, Value>, Map<String, Value>) {
    let mut before = before.map(members).unwrap_or_default();
    let mut after = members(after);
    after.retain(|name, value| before.get(name).unwrap_or(&Value::Null) != value);
    before.retain(|name, _| after.contains_key(name));
    (before, after)
}

fn members(subscription: &Subscription) -> Map<String, Value> {
    match serde_json::to_value(subscription) {
        Ok(Value::Object(mut members)) => {
            // Nobody changed it: it was used.
            members.remove("last_used_at");
            members
        }
        _ => unreachable!("a subscription is an object of strings, numbers and lists"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::subscription::Patch;

    #[test]
    fn an_entry_has_what_changed_and_nothing_else() {
        let before: Subscription = serde_json::from_value(json!({
            "id": "sub-1", "name": "one", "product": "p", "state": "active", "owner": null, "cost_center": "1",
            "limits": {}, "notes": null, "tags": {}, "created_at": "2026-01-01T00:00:00Z", "expires_at": null,
            "last_used_at": null, "primary_key_hint": "aaaa", "secondary_key_hint": "bbbb",
        }))
        .unwrap();
        let author = Author { actor: Actor::AdminKey, address: None, at: UnixMillis(5) };
        let patch = Patch { owner: Some(Some("o".into())), cost_center: Some(None), ..Patch::default() };
        let after = before.with(&Change::Fields(Box::new(patch))).unwrap();
        let record = Record::of(Action::Changed, &author, Some(&before), &after);
        assert_eq!(Value::from(record.before), json!({"owner": null, "cost_center": "1"}));
        assert_eq!(Value::from(record.after), json!({"owner": "o", "cost_center": null}));
        let issued = Record::of(Action::Issued, &author, None, &before);
        assert!(issued.before.is_empty());
        assert_eq!(issued.after["name"], "one");
    }

    #[test]
    fn an_actions_word_is_what_json_calls_it() {
        for action in Action::ALL {
            assert_eq!(serde_json::to_value(action).unwrap(), action.word());
            assert_eq!(Action::of_word(action.word()), Some(action));
        }
    }
}
