//! Subscriptions and their keys: issued, listed, changed, ended; who changed what. A key leaves here once,
//! to whoever asked for it, and never into the log or the audit.

use std::net::IpAddr;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};

use crate::config::live::Live;
use crate::domain::actor::Actor;
use crate::domain::audit::{Action, Author, Record};
use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::key::{self, Hasher};
use crate::domain::limit::Limits;
use crate::domain::subscription::{Change, Patch, Slot, State, Subscription, Tags};
use crate::domain::units::UnixMillis;
use crate::ports::{
    AuditQuery, Changed, Clock, Created, KeyHashes, ListQuery, New, Once, Subscriptions, Unavailable,
};

mod check;
mod moving_in;
mod reach;

pub use moving_in::{Arrival, Arrived};
pub use reach::Reach;

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
    pub notes: Option<String>,
    pub tags: Tags,
    pub expires_at: Option<UnixMillis>,
}

impl Application {
    /// With nothing but what it must have.
    pub fn new(name: impl Into<String>, product: Name) -> Self {
        Self {
            name: name.into(),
            product,
            owner: None,
            cost_center: None,
            limits: Limits::default(),
            notes: None,
            tags: Tags::new(),
            expires_at: None,
        }
    }
}

/// What became of an application.
pub enum Issued {
    /// A subscription with its keys: the only time that these are shown.
    New { subscription: Subscription, primary_key: SecretString, secondary_key: SecretString },
    /// The same was asked before: its subscription, without keys.
    Before(Subscription),
}

/// Why nothing was issued or changed.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("`{field}` {problem}")]
    Invalid { field: String, problem: String },
    #[error("this idempotency key came before with another request")]
    Conflict,
    #[error("there is no product `{0}`: add it to the gateway configuration, or name another")]
    NoProduct(Name),
    #[error("the product `{0}` is issued by whoever manages the gateway, and not by those who use it")]
    NotSelfService(Name),
    #[error("you have {0} subscriptions of your own: end one that you do not need")]
    TooMany(u32),
    #[error("there is no subscription `{0}`")]
    NotFound(SubscriptionId),
    #[error("the subscription `{0}` has ended, and stays as it is: issue another")]
    HasEnded(SubscriptionId),
    #[error("the gateway cannot answer just now; try again")]
    Unavailable(#[from] Unavailable),
    #[error("no key could be made")]
    NoKey(#[from] key::NoRandomness),
}

/// How long a repeated request is the same request.
const REPLAY: i64 = 24 * 60 * 60 * 1_000;

impl Issuing {
    /// Whoever asks, now.
    pub fn author(&self, actor: Actor, address: Option<IpAddr>) -> Author {
        Author { actor, address, at: self.clock.now() }
    }

    /// Issues a subscription; with the same key in `once`, the same author and the same application, only
    /// once in a day.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing was kept then.
    pub async fn issue(
        &self,
        application: Application,
        once: Option<&str>,
        author: &Author,
        reach: &Reach,
    ) -> Result<Issued, Refusal> {
        let application = reach.fit(application)?;
        let once = once.map(|key| Once {
            key: digest(format!("{}\n{key}", author.actor).as_bytes()),
            request: digest(format!("{application:?}").as_bytes()),
            forget_before: UnixMillis(author.at.0 - REPLAY),
        });
        let mut checked = self.check(&application, author.at);
        if checked.is_ok() {
            checked = self.check_reach(reach, &application.product).await;
        }
        if let Err(refusal) = checked {
            // What was right then may be wrong by now: its time, or its product.
            let asked = match &once {
                Some(once) => self.store.asked_before(once).await?,
                None => None,
            };
            return match asked {
                Some(Created::Before(subscription)) => Ok(Issued::Before(*subscription)),
                _ => Err(refusal),
            };
        }
        let (primary_key, secondary_key) = (key::make()?, key::make()?);
        let subscription = subscription(application, author.at, [&primary_key, &secondary_key]);
        let keys = KeyHashes { primary: self.hash(&primary_key), secondary: self.hash(&secondary_key) };
        let new =
            New { subscription: &subscription, keys: &keys, once: once.as_ref(), action: Action::Issued };
        match self.store.create(&new, author).await? {
            Created::Before(subscription) => return Ok(Issued::Before(*subscription)),
            Created::Conflict => return Err(Refusal::Conflict),
            // Of ids and keys with so much chance in them no two are the same: the generator is broken.
            Created::Taken => return Err(Refusal::NoKey(key::NoRandomness)),
            Created::New => {}
        }
        tracing::info!(
            subscription.id = %subscription.id, product = %subscription.product, actor = %author.actor,
            "subscription `{}` was issued", subscription.id
        );
        Ok(Issued::New { subscription, primary_key, secondary_key })
    }

    /// Forgets idempotency keys that hold no longer; answers with how many.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn forget_requests(&self) -> Result<u64, Unavailable> {
        self.store.forget_requests(UnixMillis(self.clock.now().0 - REPLAY)).await
    }

    /// Changes the fields that the patch names.
    ///
    /// # Errors
    /// A [`Refusal`]; nothing was changed then.
    pub async fn change(
        &self,
        id: &SubscriptionId,
        patch: Patch,
        author: &Author,
    ) -> Result<Subscription, Refusal> {
        self.check_patch(&patch, author.at)?;
        self.make(id, &Change::Fields(Box::new(patch)), author).await
    }

    /// A new key for one slot; the other slot's goes on working.
    ///
    /// # Errors
    /// A [`Refusal`]; the old key is still good then.
    pub async fn replace_key(
        &self,
        id: &SubscriptionId,
        slot: Slot,
        author: &Author,
    ) -> Result<SecretString, Refusal> {
        let key = key::make()?;
        let change = Change::Key { slot, hash: self.hash(&key), hint: key::hint(&key) };
        self.make(id, &change, author).await?;
        Ok(key)
    }

    /// Ends it for good. What has ended may be ended again.
    ///
    /// # Errors
    /// A [`Refusal`]; it has not ended then.
    pub async fn end(&self, id: &SubscriptionId, author: &Author) -> Result<(), Refusal> {
        self.make(id, &Change::End, author).await.map(drop)
    }

    async fn make(
        &self,
        id: &SubscriptionId,
        change: &Change,
        author: &Author,
    ) -> Result<Subscription, Refusal> {
        match self.store.change(id, change, author).await? {
            Changed::Done(subscription) => {
                let action = Action::of(change).word();
                tracing::info!(
                    subscription.id = %id, action, actor = %author.actor,
                    "subscription `{id}` was changed: {action}"
                );
                Ok(*subscription)
            }
            Changed::NotThere => Err(Refusal::NotFound(id.clone())),
            Changed::HasEnded => Err(Refusal::HasEnded(id.clone())),
        }
    }

    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::Unavailable`].
    pub async fn find(&self, id: &SubscriptionId) -> Result<Subscription, Refusal> {
        self.store.find(id).await?.ok_or_else(|| Refusal::NotFound(id.clone()))
    }

    /// A page of subscriptions in the order of their ids, and whether there are more.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn list(&self, query: ListQuery) -> Result<(Vec<Subscription>, bool), Unavailable> {
        let limit = query.limit;
        let page = self.store.list(&ListQuery { limit: limit + 1, ..query }).await?;
        Ok(cut(page, limit))
    }

    /// A page of the audit, the newest entry first, and whether there are more.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn audit(&self, query: AuditQuery) -> Result<(Vec<Record>, bool), Unavailable> {
        let limit = query.limit;
        let page = self.store.audit(&AuditQuery { limit: limit + 1, ..query }).await?;
        Ok(cut(page, limit))
    }

    fn hash(&self, key: &SecretString) -> key::KeyHash {
        self.hasher.hash(key.expose_secret())
    }
}

/// One more was asked for than the page has, to know whether there is one.
fn cut<T>(mut page: Vec<T>, limit: u32) -> (Vec<T>, bool) {
    let has_more = page.len() > limit as usize;
    page.truncate(limit as usize);
    (page, has_more)
}

fn subscription(application: Application, now: UnixMillis, keys: [&SecretString; 2]) -> Subscription {
    let Application { name, product, owner, cost_center, limits, notes, tags, expires_at } = application;
    Subscription {
        id: SubscriptionId::new(&format!("sub-{}", uuid::Uuid::now_v7().simple()))
            .expect("letters, digits and a dash"),
        name,
        product,
        state: State::Active,
        owner,
        cost_center,
        limits,
        notes,
        tags,
        created_at: now,
        expires_at,
        last_used_at: None,
        primary_key_hint: key::hint(keys[0]),
        secondary_key_hint: key::hint(keys[1]),
    }
}

fn digest(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("an SHA-256 digest has 32 bytes")
}
