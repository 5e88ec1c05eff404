//! Entra token → Caller: whom it speaks for, and the subscription that they are bound to.
//!
//! A subscription is believed as long as a key's is. Tokens are not kept: nobody gets in with one that the
//! configuration has ceased to take.

use std::sync::Arc;
use std::time::Duration;

use super::Caller;
use super::believed::Believed;
use crate::config::catalog::Catalog;
use crate::domain::actor::Identity;
use crate::domain::ids::SubscriptionId;
use crate::domain::subscription::Subscription;
use crate::domain::token::Distrust;
use crate::domain::units::UnixMillis;
use crate::ports::{CallerTokens, Clock, Subscriptions, TokenRefusal, Unavailable};
use crate::proxy::Refusal;

/// More than any configuration binds.
const MAX_BELIEVED: u64 = 10_000;

/// Knows callers by their Entra tokens.
pub struct SignedIn {
    tokens: Arc<dyn CallerTokens>,
    store: Arc<dyn Subscriptions>,
    believed: Believed<SubscriptionId>,
}

impl SignedIn {
    pub fn new(tokens: Arc<dyn CallerTokens>, store: Arc<dyn Subscriptions>, clock: Arc<dyn Clock>) -> Self {
        Self { tokens, store, believed: Believed::with_room_for(MAX_BELIEVED, clock) }
    }

    /// Whom a token speaks for.
    ///
    /// # Errors
    /// [`Refusal::InvalidToken`], or [`Refusal::Unavailable`] when it could not be looked at.
    pub async fn identity(&self, catalog: &Catalog, token: &str) -> Result<Identity, Refusal> {
        let trust = catalog.callers.as_ref().ok_or(Refusal::InvalidToken(Distrust::NotTaken))?;
        self.tokens.verify(token, trust).await.map_err(|refusal| match refusal {
            TokenRefusal::Distrusted(distrust) => Refusal::InvalidToken(distrust),
            TokenRefusal::Unavailable(unavailable) => Refusal::Unavailable(unavailable),
        })
    }

    /// The caller that a token proves.
    ///
    /// # Errors
    /// As [`Self::identity`].
    pub(super) async fn caller(
        &self,
        catalog: &Catalog,
        token: &str,
        now: UnixMillis,
    ) -> Result<Caller, Refusal> {
        let identity = self.identity(catalog, token).await?;
        let bound = catalog.callers.as_ref().and_then(|callers| callers.subscription(&identity));
        let not_bound = if identity.leaves_groups_out { Distrust::GroupsLeftOut } else { Distrust::NotBound };
        let id = bound.ok_or(Refusal::InvalidToken(not_bound))?;
        match self.known(id).await? {
            Some(subscription) if subscription.is_valid(now) => {
                Ok(Caller { subscription, end_user: identity.person().map(str::to_owned) })
            }
            _ => Err(Refusal::InvalidToken(Distrust::Subscription)),
        }
    }

    async fn known(&self, id: &SubscriptionId) -> Result<Option<Arc<Subscription>>, Unavailable> {
        self.believed.get(id, || self.store.find(id)).await
    }

    pub(super) fn forget(&self, id: &SubscriptionId) {
        self.believed.forget(id);
    }

    pub(super) fn confirm(&self, at: Duration) {
        self.believed.confirm(at);
    }

    pub(super) fn doubt(&self, at: Duration) {
        self.believed.doubt(at);
    }

    pub(super) fn fails(&self) {
        self.believed.fails();
    }
}
