//! What we need from outside, one small trait each, in our words: no adapter's type crosses it.
//!
//! "Not there" is `Ok(None)`; an error means that we could not look. What must be atomic is one
//! method.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use secrecy::SecretString;
use uuid::Uuid;

use crate::config::catalog::{Backend, Catalog, EntraCallers};
use crate::config::live::NoConfiguration;
use crate::domain::actor::Identity;
use crate::domain::audit::{Action, Author, Record};
use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::key::KeyHash;
use crate::domain::subscription::{Change, State, Subscription};
use crate::domain::token::Distrust;
use crate::domain::units::UnixMillis;

mod accounting;
mod usage;

pub use accounting::{
    DeadLetter, DeadLetterId, DeadLetters, Entry, Group, LedgerStore, Outbox, Postings, Rated, Ratings,
    Rerating, SumQuery, Sums,
};
pub use usage::{Receipt, Undelivered, UsageDestination, UsageSink};

mod logs;

pub use logs::{LogFailure, LogRow, LogSink};

/// Something that we depend on could not be asked.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot be reached")]
pub struct Unavailable {
    /// Such as `the database`.
    pub what: &'static str,
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl From<NoConfiguration> for Unavailable {
    fn from(missing: NoConfiguration) -> Self {
        Self { what: "the gateway configuration", source: missing.into() }
    }
}

/// An error and what caused it, in one line for the log.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !line.ends_with(&cause_text) {
            line = format!("{line}: {cause_text}");
        }
        source = cause.source();
    }
    line
}

/// The time.
pub trait Clock: Send + Sync {
    /// On the calendar.
    fn now(&self) -> UnixMillis;
    /// Since some moment in the past: it never goes back.
    fn elapsed(&self) -> Duration;
}

/// The subscriptions that were issued, and who changed what of them.
#[async_trait]
pub trait Subscriptions: Send + Sync {
    /// Whose key has this hash, in either slot.
    async fn by_key(&self, key: &KeyHash) -> Result<Option<Subscription>, Unavailable>;
    async fn find(&self, id: &SubscriptionId) -> Result<Option<Subscription>, Unavailable>;
    /// In the order of their ids, which for those that were issued here is that of their issue. A page
    /// takes as long however many there are.
    async fn list(&self, query: &ListQuery) -> Result<Vec<Subscription>, Unavailable>;
    /// Keeps a new one with the hashes of its keys, unless `once` says that this was asked before.
    async fn create(&self, new: &New<'_>, author: &Author) -> Result<Created, Unavailable>;
    /// What the same request made before, if it was made before.
    async fn asked_before(&self, once: &Once) -> Result<Option<Created>, Unavailable>;
    /// Forgets idempotency keys that were used before a moment; answers with how many those were.
    async fn forget_requests(&self, before: UnixMillis) -> Result<u64, Unavailable>;
    /// Changes one as [`Subscription::with`] says, with its entry in the audit: both or neither. What
    /// changes nothing has no entry.
    async fn change(
        &self,
        id: &SubscriptionId,
        change: &Change,
        author: &Author,
    ) -> Result<Changed, Unavailable>;
    /// Keeps when each was used last; never goes back.
    async fn touch(&self, uses: &[(SubscriptionId, UnixMillis)]) -> Result<(), Unavailable>;
    /// Entries of the audit, the newest first. A page takes as long however many there are.
    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Record>, Unavailable>;
}

/// What changes of subscriptions others made, so that what was read before is not believed any more.
#[async_trait]
pub trait Changes: Send {
    /// Resolves when somebody says that there are some. That may be lost on its way, or for nothing.
    async fn heard(&mut self);
    /// Those that were made since this was asked last; the first time, since the store was opened. None is
    /// left out, and one may come twice.
    async fn look(&mut self) -> Result<Seen, Unavailable>;
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    These(Vec<SubscriptionId>),
    /// Any may have: they are too many, or some could not be seen.
    Any,
}

/// What a database is signed in to with, where its address has no password.
#[async_trait]
pub trait DatabasePasswords: Send + Sync {
    /// One that is good for a new connection. It changes, and is at hand as a rule.
    async fn password(&self) -> Result<SecretString, Unavailable>;
}

/// Which subscriptions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    pub product: Option<Name>,
    pub owner: Option<String>,
    /// `None`: those that have not ended.
    pub state: Option<State>,
    /// Those behind this one.
    pub after: Option<SubscriptionId>,
    pub limit: u32,
}

/// Which entries of the audit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditQuery {
    pub subscription: Option<SubscriptionId>,
    /// Inclusive.
    pub from: Option<UnixMillis>,
    /// Exclusive.
    pub to: Option<UnixMillis>,
    /// Those behind this one, which is the time and the id of the last entry of a page.
    pub behind: Option<(UnixMillis, Uuid)>,
    pub limit: u32,
}

/// A subscription that is to be kept.
#[derive(Clone, Copy, Debug)]
pub struct New<'a> {
    pub subscription: &'a Subscription,
    pub keys: &'a KeyHashes,
    pub once: Option<&'a Once>,
    /// What the audit calls it.
    pub action: Action,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The subscription as it is now.
    Done(Box<Subscription>),
    NotThere,
    /// It has ended, and stays as it is.
    HasEnded,
}

/// What makes a repeated request the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Once {
    /// A digest of the caller's idempotency key.
    pub key: [u8; 32],
    /// A digest of what was asked.
    pub request: [u8; 32],
    /// Keys that were used before this moment are forgotten.
    pub forget_before: UnixMillis,
}

/// What became of a new subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    New,
    /// The same was asked before, and this is what it made.
    Before(Box<Subscription>),
    /// The same idempotency key came before with another request.
    Conflict,
    /// There is one with this id, or one of its keys is another's: nothing was kept.
    Taken,
}

/// The hashes of a subscription's two keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyHashes {
    pub primary: KeyHash,
    pub secondary: KeyHash,
}

/// Tokens that callers bring instead of an issued key.
#[async_trait]
pub trait CallerTokens: Send + Sync {
    /// Whom a token speaks for, if it is genuine, of this moment, and one that the configuration takes.
    async fn verify(&self, token: &str, trust: &EntraCallers) -> Result<Identity, TokenRefusal>;
}

/// Why a token proves nobody.
#[derive(Debug, thiserror::Error)]
pub enum TokenRefusal {
    #[error(transparent)]
    Distrusted(#[from] Distrust),
    /// Whether it is genuine could not be looked at.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// The Azure OpenAI resources.
#[async_trait]
pub trait Backends: Send + Sync {
    /// Sends one request, signed in as the backend's configuration says, and answers once the
    /// reply's head is there. Nothing is retried here. Dropping the reply's body ends the backend's
    /// work.
    async fn send(&self, call: Call<'_>) -> Result<BackendReply, BackendFailure>;
    /// The backend answered 401: gets other credentials for it, once however many requests ask. True
    /// when there are other ones than a moment ago, so that the backend is worth asking once more.
    async fn renew_sign_in(&self, backend: &Backend) -> bool;
    /// Gets ready what signing in to these backends takes, so that no request waits for it. What cannot be
    /// had is logged, and tried again when it is needed.
    async fn prepare(&self, catalog: &Catalog);
}

/// A request to a backend.
#[derive(Debug)]
pub struct Call<'a> {
    pub backend: &'a Backend,
    pub method: Method,
    /// Begins with `/`.
    pub path_and_query: &'a str,
    /// Without any credential.
    pub headers: HeaderMap,
    /// How long may be waited for something to sign in with.
    pub patience: Duration,
    pub body: Bytes,
}

/// A backend's reply, its body still coming.
#[derive(Debug)]
pub struct BackendReply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: BackendBody,
}

pub type BackendBody = UnsyncBoxBody<Bytes, BackendFailure>;

/// Why a backend gave no reply, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum BackendFailure {
    /// It was not reached: it has seen nothing of the request.
    #[error("no connection")]
    NoConnection(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    #[error("the connection broke off")]
    BrokeOff(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It cannot be asked as it is set up; the text tells the operator what to mend.
    #[error("{0}")]
    CannotSignIn(String),
    /// There is no token for it just now, and there may be one soon: it has seen nothing of the request.
    #[error("no token to sign in with")]
    NoToken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Values that are kept in a vault.
#[async_trait]
pub trait Secrets: Send + Sync {
    /// The newest version under this name; `Ok(None)`: there is none.
    async fn read(&self, name: &str) -> Result<Option<Secret>, SecretFailure>;
}

/// A value from a vault.
#[derive(Clone, Debug)]
pub struct Secret {
    pub value: SecretString,
    /// The vault's own name for this version.
    pub version: Option<String>,
}

/// Why a secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretFailure {
    /// It will not be given as things are set up; the text tells the operator what to mend.
    #[error("{0}")]
    Refused(String),
    /// It may be given soon.
    #[error("{what} cannot be reached")]
    Unavailable {
        /// Such as `Key Vault`.
        what: &'static str,
        /// For how long it asks to be left alone.
        retry_after: Option<Duration>,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
