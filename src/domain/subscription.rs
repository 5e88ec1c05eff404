//! What a team or application is issued: two keys, a product, limits, a cost centre; and what a change
//! makes of it. Never holds a key.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ids::{Name, SubscriptionId};
use super::key::KeyHash;
use super::limit::Limits;
use super::units::UnixMillis;

/// Names and values that an operator sorts subscriptions by, as Azure's resources have them.
pub type Tags = BTreeMap<String, String>;

/// A subscription as it is kept and shown: never with its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub name: String,
    pub product: Name,
    pub state: State,
    pub owner: Option<String>,
    pub cost_center: Option<String>,
    /// Override the product's, field by field.
    pub limits: Limits,
    pub notes: Option<String>,
    pub tags: Tags,
    pub created_at: UnixMillis,
    pub expires_at: Option<UnixMillis>,
    /// Known half a minute late.
    pub last_used_at: Option<UnixMillis>,
    /// The last four characters of each key.
    pub primary_key_hint: String,
    pub secondary_key_hint: String,
}

/// Whether its keys open anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Active,
    Suspended,
    /// For good: nothing can be changed any more.
    Ended,
}

impl State {
    pub const ALL: [Self; 3] = [Self::Active, Self::Suspended, Self::Ended];

    /// What it is called, in JSON and in a database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
            Self::Ended => "ended",
        }
    }

    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }
}

/// One of the two keys, so that one goes on working while the other is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    Primary,
    Secondary,
}

/// What is to become of a subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Fields(Box<Patch>),
    Key { slot: Slot, hash: KeyHash, hint: String },
    End,
}

impl Change {
    /// The new key's hash, and the slot that it is for.
    pub fn key(&self) -> Option<(Slot, &KeyHash)> {
        match self {
            Self::Key { slot, hash, .. } => Some((*slot, hash)),
            Self::Fields(_) | Self::End => None,
        }
    }
}

/// New values of some fields; `None`: stays as it is. `Some(None)`: is cleared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    pub name: Option<String>,
    pub product: Option<Name>,
    pub state: Option<State>,
    pub owner: Option<Option<String>>,
    pub cost_center: Option<Option<String>>,
    pub limits: Option<Limits>,
    pub notes: Option<Option<String>>,
    pub tags: Option<Tags>,
    pub expires_at: Option<Option<UnixMillis>>,
}

/// The subscription was ended: it cannot be changed any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the subscription has ended")]
pub struct HasEnded;

impl Subscription {
    /// Whether it may call at `now`.
    pub fn is_valid(&self, now: UnixMillis) -> bool {
        self.state == State::Active && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }

    /// What `change` makes of it. To end what has ended changes nothing.
    ///
    /// # Errors
    /// [`HasEnded`] when it has ended and anything else is asked.
    pub fn with(&self, change: &Change) -> Result<Self, HasEnded> {
        let mut after = self.clone();
        match change {
            Change::End => after.state = State::Ended,
            _ if self.state == State::Ended => return Err(HasEnded),
            Change::Key { slot: Slot::Primary, hint, .. } => after.primary_key_hint.clone_from(hint),
            Change::Key { slot: Slot::Secondary, hint, .. } => after.secondary_key_hint.clone_from(hint),
            Change::Fields(patch) => after.apply(patch),
        }
        Ok(after)
    }

    fn apply(&mut self, patch: &Patch) {
        fn put<T: Clone>(field: &mut T, new: Option<&T>) {
            if let Some(new) = new {
                field.clone_from(new);
            }
        }
        let Patch { name, product, state, owner, cost_center, limits, notes, tags, expires_at } = patch;
        put(&mut self.name, name.as_ref());
        put(&mut self.product, product.as_ref());
        put(&mut self.state, state.as_ref());
        put(&mut self.owner, owner.as_ref());
        put(&mut self.cost_center, cost_center.as_ref());
        put(&mut self.limits, limits.as_ref());
        put(&mut self.notes, notes.as_ref());
        put(&mut self.tags, tags.as_ref());
        put(&mut self.expires_at, expires_at.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(state: State) -> Subscription {
        Subscription {
            id: Name::new("sub-1").unwrap(),
            name: "one".into(),
            product: Name::new("standard").unwrap(),
            state,
            owner: Some("a@example.com".into()),
            cost_center: None,
            limits: Limits::default(),
            notes: None,
            tags: Tags::new(),
            created_at: UnixMillis(1),
            expires_at: Some(UnixMillis(10)),
            last_used_at: None,
            primary_key_hint: "aaaa".into(),
            secondary_key_hint: "bbbb".into(),
        }
    }

    #[test]
    fn a_patch_changes_what_it_names_and_clears_what_it_says() {
        let patch = Patch { owner: Some(None), expires_at: Some(None), ..Patch::default() };
        let before = subscription(State::Active);
        let after = before.with(&Change::Fields(Box::new(patch))).unwrap();
        assert_eq!(after, Subscription { owner: None, expires_at: None, ..before });
    }

    #[test]
    fn what_has_ended_cannot_be_changed_and_may_be_ended_again() {
        let ended = subscription(State::Ended);
        let change = Change::Fields(Box::new(Patch { state: Some(State::Active), ..Patch::default() }));
        assert_eq!(ended.with(&change), Err(HasEnded));
        let change = Change::Key { slot: Slot::Primary, hash: [0; 32], hint: "cccc".into() };
        assert_eq!(ended.with(&change), Err(HasEnded));
        assert_eq!(ended.with(&Change::End), Ok(ended.clone()));
        assert!(!ended.is_valid(UnixMillis(1)));
    }

    #[test]
    fn a_states_word_is_what_json_calls_it() {
        for state in State::ALL {
            assert_eq!(serde_json::to_value(state).unwrap(), state.word());
            assert_eq!(State::of_word(state.word()), Some(state));
        }
    }
}
