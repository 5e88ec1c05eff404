//! Subscriptions and their keys: issued, listed.

use std::sync::Arc;

use secrecy::SecretString;

use crate::config::live::Live;
use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::key::{self, Hasher};
use crate::domain::limit::Limits;
use crate::domain::subscription::{State, Subscription};
use crate::domain::units::UnixMillis;
use crate::ports::{Clock, Created, KeyHashes, Once, Subscriptions, Unavailable};

/// What the journey needs.
pub struct Issuing {
    pub config: Arc<Live>,
    pub clock: Arc<dyn Clock>,
    pub hasher: Hasher,
    pub store: Arc<dyn Subscriptions>,
}

/// Who is to be issued what.
#[derive(Clone, Debug)]
pub struct Application {
    pub name: String,
    pub product: Name,
    pub owner: Option<String>,
    pub cost_center: Option<String>,
    pub limits: Limits,
    pub expires_at: Option<UnixMillis>,
}

/// What became of an application.
pub enum Issued {
    /// A subscription with its keys: the only time that these are shown.
    New { subscription: Subscription, primary_key: SecretString, secondary_key: SecretString },
    /// The same was asked before: its subscription, without keys.
    Before(Subscription),
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("`{field}` {problem}")]
    Invalid { field: String, problem: String },
    #[error("this idempotency key came before with another request")]
    Conflict,
    #[error("there is no product `{0}`: add it to the gateway configuration, or name another")]
    NoProduct(Name),
    #[error("the gateway cannot answer just now; try again")]
    Unavailable(#[from] Unavailable),
    #[error("no key could be made")]
    NoKey(#[from] key::NoRandomness),
}

/// How long a repeated request is the same request.
const REPLAY: i64 = 24 * 60 * 60 * 1_000;

/// As long as a name in the directories of large companies.
const MAX_TEXT_CHARS: usize = 256;

impl Issuing {
    /// Issues a subscription; with the same key in `once` and the same application, only once in a
    /// day.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing was kept then.
    pub async fn issue(&self, application: Application, once: Option<&str>) -> Result<Issued, Refusal> {
        let now = self.clock.now();
        self.check(&application, now)?;
        let once = once.map(|key| Once {
            key: digest(key.as_bytes()),
            request: digest(format!("{application:?}").as_bytes()),
            forget_before: UnixMillis(now.0 - REPLAY),
        });
        let (primary_key, secondary_key) = (key::make()?, key::make()?);
        let subscription = Subscription {
            id: SubscriptionId::new(&format!("sub-{}", uuid::Uuid::now_v7().simple()))
                .expect("letters, digits and a dash"),
            name: application.name,
            product: application.product,
            state: State::Active,
            owner: application.owner,
            cost_center: application.cost_center,
            limits: application.limits,
            created_at: now,
            expires_at: application.expires_at,
            primary_key_hint: key::hint(&primary_key),
            secondary_key_hint: key::hint(&secondary_key),
        };
        let hash = |key: &SecretString| self.hasher.hash(secrecy::ExposeSecret::expose_secret(key));
        let hashes = KeyHashes { primary: hash(&primary_key), secondary: hash(&secondary_key) };
        match self.store.create(&subscription, &hashes, once.as_ref()).await? {
            Created::Before(subscription) => return Ok(Issued::Before(*subscription)),
            Created::Conflict => return Err(Refusal::Conflict),
            Created::New => {}
        }
        tracing::info!(
            subscription.id = %subscription.id, product = %subscription.product,
            "subscription `{}` was issued", subscription.id
        );
        Ok(Issued::New { subscription, primary_key, secondary_key })
    }

    fn check(&self, application: &Application, now: UnixMillis) -> Result<(), Refusal> {
        let invalid = |field: &str, problem: &str| {
            Err(Refusal::Invalid { field: field.to_owned(), problem: problem.to_owned() })
        };
        let texts = [
            ("name", Some(&application.name)),
            ("owner", application.owner.as_ref()),
            ("cost_center", application.cost_center.as_ref()),
        ];
        for (field, text) in texts {
            let Some(text) = text else { continue };
            if text.trim().is_empty() {
                return invalid(field, "must not be empty");
            }
            if text.chars().count() > MAX_TEXT_CHARS {
                return invalid(field, "must have at most 256 characters");
            }
            if text.chars().any(char::is_control) {
                return invalid(field, "must not have control characters");
            }
        }
        if let Some((field, problem)) = application.limits.faults().first() {
            return invalid(&format!("limits.{field}"), problem);
        }
        if application.expires_at.is_some_and(|expires_at| expires_at <= now) {
            return invalid("expires_at", "must be in the future");
        }
        let catalog = self.config.catalog().map_err(Unavailable::from)?;
        if catalog.products.contains_key(&application.product) {
            Ok(())
        } else {
            Err(Refusal::NoProduct(application.product.clone()))
        }
    }

    /// # Errors
    /// When the store cannot be reached.
    pub async fn find(&self, id: &SubscriptionId) -> Result<Option<Subscription>, Unavailable> {
        self.store.find(id).await
    }

    /// A page of subscriptions in the order in which they were issued, and whether there are more.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn list(
        &self,
        after: Option<&SubscriptionId>,
        limit: u32,
    ) -> Result<(Vec<Subscription>, bool), Unavailable> {
        let mut page = self.store.list(after, limit + 1).await?;
        let has_more = page.len() > limit as usize;
        page.truncate(limit as usize);
        Ok((page, has_more))
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("an SHA-256 digest has 32 bytes")
}
