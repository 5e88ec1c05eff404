//! Tokens from Entra for the gateway itself: one for each scope, at hand before it is needed.
//!
//! Never hands out a token that is stale, and never asks for one more often than it must: however many
//! requests wait, one question is under way for a scope.
//!
//! # When no token can be had
//! While the old one is good nobody notices: it is renewed in the background from half of its life on.
//! Without a good one a request waits for the question under way, at most [`FETCH`], and then fails; for
//! [`FAILURE_HOLDS`] others fail at once, so that a flood of requests is not a flood at the endpoint.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared as SharedFuture};
use http::HeaderValue;
use moka::future::Cache;
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::domain::units::UnixMillis;
use crate::ports::Clock;

mod keeping;
mod managed;
mod sdk;
mod source;

pub use source::{Source, source};

/// For one question with its repetitions, and so what a request waits at most. Some identity endpoints
/// take ten seconds when an app is new.
const FETCH: Duration = Duration::from_secs(15);
/// Between the attempts of one question.
const AGAIN_AFTER: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(1)];
/// A token with less to live could be stale when it arrives.
const MIN_LIFE: Duration = Duration::from_secs(30);
/// For how long a failure answers those who come after it.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);
/// A token that a backend refuses is replaced this often at most: a role that is missing stays missing.
const RENEW_EVERY: Duration = Duration::from_mins(1);
/// Requests that went out with the token before may still be refused for this long after a renewal.
const RENEWAL_HELPS: Duration = Duration::from_secs(5);
/// Scopes that nobody asked for in this time are forgotten.
const FORGET: Duration = Duration::from_hours(24);
/// More than any configuration names.
const MAX_SCOPES: u64 = 1_000;

/// A token, and until when it is good.
pub struct Token {
    secret: SecretString,
    bearer: HeaderValue,
    pub expires_at: UnixMillis,
}

impl Token {
    /// # Errors
    /// When it could not stand in a header: it is no token then.
    pub fn new(secret: SecretString, expires_at: UnixMillis) -> Result<Self, TokenFailure> {
        let bearer = format!("Bearer {}", secret.expose_secret());
        let mut bearer = HeaderValue::try_from(bearer).map_err(|_| TokenFailure::passing(NOT_A_TOKEN))?;
        if secret.expose_secret().is_empty() {
            return Err(TokenFailure::passing(NOT_A_TOKEN));
        }
        bearer.set_sensitive(true);
        Ok(Self { secret, bearer, expires_at })
    }

    /// As it is.
    pub(super) fn secret(&self) -> &SecretString {
        &self.secret
    }

    /// The value of an `authorization` header.
    pub fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    fn left(&self, now: UnixMillis) -> Duration {
        Duration::from_millis(u64::try_from(self.expires_at.0.saturating_sub(now.0)).unwrap_or(0))
    }

    fn is_same(&self, other: &Self) -> bool {
        self.secret.expose_secret() == other.secret.expose_secret()
    }
}

const NOT_A_TOKEN: &str = "what came is no token";

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum TokenFailure {
    /// There will be none as things are set up; the text tells the operator what to mend.
    #[error("{0}")]
    Refused(Arc<str>),
    /// There may be one soon.
    #[error("no token just now: {0}")]
    Passing(Arc<str>),
}

impl TokenFailure {
    fn refused(text: impl Into<Arc<str>>) -> Self {
        Self::Refused(text.into())
    }

    fn passing(text: impl Into<Arc<str>>) -> Self {
        Self::Passing(text.into())
    }
}

type Outcome = Result<Arc<Token>, TokenFailure>;
type Fetching = SharedFuture<BoxFuture<'static, Outcome>>;

/// The gateway's tokens. Clones share them.
#[derive(Clone)]
pub struct Tokens(Arc<Shared>);

struct Shared {
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
    stop: CancellationToken,
    slots: Cache<String, Arc<Slot>>,
}

/// What is known of one scope.
struct Slot {
    scope: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<Token>>,
    /// By the clock's `elapsed`, as every moment here.
    came_at: Duration,
    fetching: Option<Fetching>,
    failed: Option<(Duration, TokenFailure)>,
    renewal: Option<Renewal>,
    /// Somebody renews it in the background.
    is_kept: bool,
}

/// A backend refused a token, and another one was asked for.
#[derive(Clone)]
struct Renewal {
    began: Duration,
    refused: Option<Arc<Token>>,
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn pending(&self) -> Option<Fetching> {
        self.fetching.clone().filter(|fetching| fetching.peek().is_none())
    }
}

impl Tokens {
    /// Asks `source`; what is renewed in the background ends with `stop`.
    pub fn new(
        source: Arc<dyn Source>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let slots = Cache::builder().max_capacity(MAX_SCOPES).time_to_idle(FORGET).build();
        Self(Arc::new(Shared { source, clock, tasks, stop, slots }))
    }

    /// A good token for a scope such as `https://cognitiveservices.azure.com/.default`.
    ///
    /// # Errors
    /// When there is none and none can be had, after [`FETCH`] at most.
    pub async fn token(&self, scope: &str) -> Outcome {
        let slot = self.slot(scope).await;
        let (now, elapsed) = (self.0.clock.now(), self.0.clock.elapsed());
        let fetching = {
            let mut state = slot.lock();
            if let Some(token) = state.token.as_ref().filter(|token| token.left(now) >= MIN_LIFE) {
                return Ok(Arc::clone(token));
            }
            match &state.failed {
                Some((at, failure)) if elapsed < *at + FAILURE_HOLDS => return Err(failure.clone()),
                _ => self.fetching(&slot, &mut state),
            }
        };
        fetching.await
    }

    /// A backend answered 401 to a token of this scope: asks for a new one, once for all whom it happens
    /// to, and once in [`RENEW_EVERY`]. True when there is another one to try.
    pub async fn renew(&self, scope: &str) -> bool {
        let slot = self.slot(scope).await;
        let elapsed = self.0.clock.elapsed();
        let (refused, fetching) = {
            let mut state = slot.lock();
            let latest = state.renewal.clone().filter(|renewal| elapsed < renewal.began + RENEW_EVERY);
            match (latest, state.pending()) {
                (Some(Renewal { refused, .. }), Some(fetching)) => (refused, fetching),
                (Some(Renewal { refused, .. }), None) => {
                    let is_new = elapsed < state.came_at + RENEWAL_HELPS;
                    return is_new && is_other(state.token.as_ref(), refused.as_ref());
                }
                (None, _) => {
                    let refused = state.token.clone();
                    state.renewal = Some(Renewal { began: elapsed, refused: refused.clone() });
                    (refused, self.fetching(&slot, &mut state))
                }
            }
        };
        is_other(fetching.await.ok().as_ref(), refused.as_ref())
    }

    async fn slot(&self, scope: &str) -> Arc<Slot> {
        // First by reference: a key of its own is made for a new scope only.
        if let Some(slot) = self.0.slots.get(scope).await {
            return slot;
        }
        let new = async { Arc::new(Slot { scope: scope.to_owned(), state: Mutex::default() }) };
        self.0.slots.get_with_by_ref(scope, new).await
    }

    /// The question under way, or a new one: a task of its own, which goes on when whoever waits hangs up.
    fn fetching(&self, slot: &Arc<Slot>, state: &mut State) -> Fetching {
        if let Some(fetching) = state.pending() {
            return fetching;
        }
        let task = self.0.tasks.spawn(self.clone().fetch(Arc::clone(slot)));
        let outcome = async move {
            task.await.unwrap_or_else(|_| Err(TokenFailure::passing("the question for one was given up")))
        };
        let fetching = outcome.boxed().shared();
        state.fetching = Some(fetching.clone());
        fetching
    }

    async fn fetch(self, slot: Arc<Slot>) -> Outcome {
        let asking = tokio::time::timeout(FETCH, self.ask(&slot.scope));
        let outcome = tokio::select! {
            () = self.0.stop.cancelled() => Err(TokenFailure::passing("the gateway stops")),
            asked = asking => asked.unwrap_or_else(|_| {
                Err(TokenFailure::passing(format!("no answer within {} s", FETCH.as_secs())))
            }),
        };
        let mut state = slot.lock();
        state.fetching = None;
        match &outcome {
            Ok(token) => {
                state.failed = None;
                state.came_at = self.0.clock.elapsed();
                state.token = Some(Arc::clone(token));
                if !std::mem::replace(&mut state.is_kept, true) {
                    self.0.tasks.spawn(self.clone().keep(Arc::clone(&slot)));
                }
            }
            Err(failure) => state.failed = Some((self.0.clock.elapsed(), failure.clone())),
        }
        drop(state);
        outcome
    }

    async fn ask(&self, scope: &str) -> Outcome {
        let mut pauses = AGAIN_AFTER.iter();
        loop {
            let failure = match self.ask_once(scope).await {
                Ok(token) => return Ok(token),
                Err(failure) => failure,
            };
            match (&failure, pauses.next()) {
                (TokenFailure::Passing(_), Some(pause)) => tokio::time::sleep(*pause).await,
                _ => return Err(failure),
            }
        }
    }

    async fn ask_once(&self, scope: &str) -> Outcome {
        let token = self.0.source.fetch(scope).await?;
        let left = token.left(self.0.clock.now());
        if left < MIN_LIFE {
            let text = format!("a stale one came, with {} s to live", left.as_secs());
            return Err(TokenFailure::passing(text));
        }
        Ok(Arc::new(token))
    }
}

fn is_other(token: Option<&Arc<Token>>, refused: Option<&Arc<Token>>) -> bool {
    match (token, refused) {
        (Some(token), Some(refused)) => !token.is_same(refused),
        (token, None) => token.is_some(),
        (None, Some(_)) => false,
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

/// For Azure's own libraries, which then share these tokens.
#[async_trait]
impl TokenCredential for Tokens {
    async fn get_token(
        &self,
        scopes: &[&str],
        _options: Option<TokenRequestOptions<'_>>,
    ) -> azure_core::Result<AccessToken> {
        use azure_core::error::ErrorKind::Credential;
        let [scope] = scopes else {
            return Err(azure_core::Error::with_message(Credential, "one scope is wanted"));
        };
        let token = self.token(scope).await.map_err(|failure| {
            let text = failure.to_string();
            azure_core::Error::with_error(Credential, failure, text)
        })?;
        Ok(AccessToken::new(token.secret.expose_secret().to_owned(), token.expires_at.to_datetime()))
    }
}

#[cfg(test)]
mod tests;
