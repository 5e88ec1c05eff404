//! Subscriptions that come from elsewhere with the keys that they had there, so that applications keep
//! theirs. What is here already stays as it is: to move in twice changes nothing.

use secrecy::SecretString;

use super::{Application, Issuing, Refusal, subscription};
use crate::domain::audit::{Action, Author};
use crate::domain::ids::SubscriptionId;
use crate::domain::key;
use crate::domain::subscription::State;
use crate::domain::units::UnixMillis;
use crate::ports::{Created, KeyHashes, New, Unavailable};

/// A subscription as it was elsewhere.
#[derive(Debug)]
pub struct Arrival {
    pub id: SubscriptionId,
    pub application: Application,
    pub state: State,
    /// `None`: now.
    pub created_at: Option<UnixMillis>,
    pub primary_key: SecretString,
    pub secondary_key: SecretString,
}

/// What became of an arrival.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrived {
    /// It is here now, or would be.
    New,
    /// It was here already, with these very keys.
    Here,
    /// It was here already, and its keys were replaced since: it stays as it is.
    HereWithOtherKeys,
    /// One of its keys is another's: nothing was kept.
    KeyOf(SubscriptionId),
    /// A key has not the form of API Management's own, so that no caller could use it here.
    KeyForm,
}

impl Issuing {
    /// Takes one in; with `rehearse`, only says what would become of it.
    ///
    /// # Errors
    /// A [`Refusal`] for what cannot be kept here; nothing was kept then.
    pub async fn take_in(
        &self,
        arrival: Arrival,
        rehearse: bool,
        author: &Author,
    ) -> Result<Arrived, Refusal> {
        let keys = [&arrival.primary_key, &arrival.secondary_key];
        if !keys.iter().all(|key| key::may_be_one(secrecy::ExposeSecret::expose_secret(*key))) {
            return Ok(Arrived::KeyForm);
        }
        let hashes = KeyHashes { primary: self.hash(keys[0]), secondary: self.hash(keys[1]) };
        if let Some(arrived) = self.is_here(&arrival.id, &hashes).await? {
            return Ok(arrived);
        }
        self.check(&arrival.application, author.at)?;
        if rehearse {
            return Ok(Arrived::New);
        }
        let mut new = subscription(arrival.application, author.at, keys);
        new.id = arrival.id;
        new.state = arrival.state;
        new.created_at = arrival.created_at.unwrap_or(author.at);
        let asked = New { subscription: &new, keys: &hashes, once: None, action: Action::Imported };
        match self.store.create(&asked, author).await? {
            Created::New => {}
            // Somebody else took it in just now.
            _ => return Ok(self.is_here(&new.id, &hashes).await?.unwrap_or(Arrived::HereWithOtherKeys)),
        }
        tracing::info!(
            subscription.id = %new.id, product = %new.product, actor = %author.actor,
            "subscription `{}` was imported", new.id
        );
        Ok(Arrived::New)
    }

    async fn is_here(&self, id: &SubscriptionId, hashes: &KeyHashes) -> Result<Option<Arrived>, Unavailable> {
        let mut own = 0;
        for hash in [&hashes.primary, &hashes.secondary] {
            match self.store.by_key(hash).await? {
                Some(other) if other.id != *id => return Ok(Some(Arrived::KeyOf(other.id))),
                Some(_) => own += 1,
                None => {}
            }
        }
        if own == 2 {
            return Ok(Some(Arrived::Here));
        }
        Ok(self.store.find(id).await?.map(|_| Arrived::HereWithOtherKeys))
    }
}
