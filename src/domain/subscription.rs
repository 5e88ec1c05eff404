//! What a team or application is issued: two keys, a product, limits, a cost centre.

use serde::{Deserialize, Serialize};

use super::ids::{Name, SubscriptionId};
use super::limit::Limits;
use super::units::UnixMillis;

/// A subscription as it is kept and shown: never with its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    pub id: SubscriptionId,
    pub name: String,
    pub product: Name,
    pub state: State,
    pub owner: Option<String>,
    pub cost_center: Option<String>,
    /// Override the product's, field by field.
    pub limits: Limits,
    pub created_at: UnixMillis,
    pub expires_at: Option<UnixMillis>,
    /// The last four characters of each key.
    pub primary_key_hint: String,
    pub secondary_key_hint: String,
}

/// Whether its keys open anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Active,
    Suspended,
}

impl Subscription {
    /// Whether it may call at `now`.
    pub fn is_valid(&self, now: UnixMillis) -> bool {
        self.state == State::Active && self.expires_at.is_none_or(|expires_at| now < expires_at)
    }
}
