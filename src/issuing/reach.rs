//! How far somebody may reach: an admin to everything, a person to what is their own.
//!
//! A person's own are the subscriptions that have their object id in Entra as `owner`, of products with
//! `self_service`. They issue, see, rotate and end them, and never set what costs others: limits, cost centre,
//! owner. What is somebody else's is not there for them.

use super::{Application, Issuing, Refusal};
use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::limit::Limits;
use crate::domain::subscription::Subscription;
use crate::ports::{ListQuery, Unavailable};

/// Subscriptions of one person that have not ended: enough for anybody, too few to fill a database with.
const MAX_OWN: u32 = 20;

/// Whose subscriptions somebody may manage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Everybody's.
    All,
    /// This person's, by their object id.
    Own(String),
}

impl Reach {
    /// The application as somebody of this reach may make it.
    pub(super) fn fit(&self, application: Application) -> Result<Application, Refusal> {
        let Self::Own(person) = self else { return Ok(application) };
        let is_theirs = application.owner.as_ref().is_none_or(|owner| owner.eq_ignore_ascii_case(person));
        for (field, is_free) in [
            ("owner", is_theirs),
            ("cost_center", application.cost_center.is_none()),
            ("limits", application.limits == Limits::default()),
        ] {
            if !is_free {
                let problem = "is set by whoever manages the gateway: leave it out".to_owned();
                return Err(Refusal::Invalid { field: field.to_owned(), problem });
            }
        }
        Ok(Application { owner: Some(person.clone()), ..application })
    }
}

impl Issuing {
    /// Whether one of this product may be issued to somebody of this reach.
    pub(super) async fn check_reach(&self, reach: &Reach, product: &Name) -> Result<(), Refusal> {
        let Reach::Own(person) = reach else { return Ok(()) };
        if !self.is_self_service(product)? {
            return Err(Refusal::NotSelfService(product.clone()));
        }
        let query = ListQuery { owner: Some(person.clone()), limit: MAX_OWN, ..ListQuery::default() };
        let own = self.store.list(&query).await?;
        if own.len() < MAX_OWN as usize { Ok(()) } else { Err(Refusal::TooMany(MAX_OWN)) }
    }

    /// Whether this subscription is there for somebody of this reach.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::Unavailable`].
    pub async fn within(&self, reach: &Reach, id: &SubscriptionId) -> Result<(), Refusal> {
        if *reach == Reach::All {
            return Ok(());
        }
        let subscription = self.find(id).await?;
        if self.reaches(reach, &subscription)? { Ok(()) } else { Err(Refusal::NotFound(id.clone())) }
    }

    /// What of a page is there for somebody of this reach.
    ///
    /// # Errors
    /// While there is no configuration.
    pub fn only_within(
        &self,
        reach: &Reach,
        page: Vec<Subscription>,
    ) -> Result<Vec<Subscription>, Unavailable> {
        let mut within = Vec::with_capacity(page.len());
        for subscription in page {
            if self.reaches(reach, &subscription)? {
                within.push(subscription);
            }
        }
        Ok(within)
    }

    fn reaches(&self, reach: &Reach, subscription: &Subscription) -> Result<bool, Unavailable> {
        match reach {
            Reach::All => Ok(true),
            Reach::Own(person) => {
                Ok(subscription.owner.as_ref() == Some(person)
                    && self.is_self_service(&subscription.product)?)
            }
        }
    }

    fn is_self_service(&self, product: &Name) -> Result<bool, Unavailable> {
        let catalog = self.config.catalog()?;
        Ok(catalog.products.get(product).is_some_and(|product| product.self_service))
    }
}
