//! Headers → Caller, before the body is read.
//!
//! A known key costs no I/O: what the store said is [`Believed`] for a while. SDKs demand some key
//! and send junk beside the good one, so every credential is looked at, in the documented order, and
//! the first valid one serves. An Entra token is one as well, as a bearer alone.
//!
//! Never believes a header that says who the caller is, such as `X-MS-CLIENT-PRINCIPAL`: anybody can send it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::{Proxy, Refusal};
use crate::config::catalog::Catalog;
use crate::domain::ids::SubscriptionId;
use crate::domain::key::{self, Hasher, KeyHash};
use crate::domain::subscription::Subscription;
use crate::domain::token;
use crate::domain::units::UnixMillis;
use crate::ports::{Clock, Subscriptions, Unavailable};

mod believed;
mod signed_in;
mod watch;

use believed::Believed;
pub use signed_in::SignedIn;

/// Keys, known and unknown.
const MAX_BELIEVED: u64 = 20_000;

/// Credentials that are looked at in one request: each unknown one is a look-up in the store.
const MAX_CREDENTIALS: usize = 16;

/// Somebody who proved who they are. Only [`Proxy::caller`] can make one.
#[derive(Clone, Debug)]
pub struct Caller {
    subscription: Arc<Subscription>,
    end_user: Option<String>,
}

impl Caller {
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// The person behind it, by their object id in Entra; `None` where there is none, or none is known.
    pub fn end_user(&self) -> Option<&str> {
        self.end_user.as_deref()
    }
}

/// Knows callers by their keys.
pub struct Keys {
    hasher: Hasher,
    store: Arc<dyn Subscriptions>,
    believed: Believed<KeyHash>,
    /// Changes could not be looked for when that was tried last.
    is_store_away: AtomicBool,
}

impl Keys {
    pub fn new(hasher: Hasher, store: Arc<dyn Subscriptions>, clock: Arc<dyn Clock>) -> Self {
        let believed = Believed::with_room_for(MAX_BELIEVED, clock);
        Self { hasher, store, believed, is_store_away: AtomicBool::new(false) }
    }

    /// Whether the store answered when it was last asked for changes; true where nobody asks for them. What
    /// is known of callers stands in for it meanwhile.
    pub fn reach_their_store(&self) -> bool {
        !self.is_store_away.load(Ordering::Relaxed)
    }

    /// The caller that an issued key proves.
    ///
    /// # Errors
    /// [`Refusal::InvalidKey`], or [`Refusal::Unavailable`] when it is not known here and the store cannot be asked.
    pub async fn caller(&self, credential: &str, now: UnixMillis) -> Result<Caller, Refusal> {
        // A typo, or somebody else's key: told by its form, without a look-up.
        let known = if key::may_be_one(credential) { self.known(credential).await? } else { None };
        match known {
            Some(subscription) if subscription.is_valid(now) => Ok(Caller { subscription, end_user: None }),
            _ => Err(Refusal::InvalidKey),
        }
    }

    async fn known(&self, credential: &str) -> Result<Option<Arc<Subscription>>, Unavailable> {
        let hash = self.hasher.hash(credential);
        self.believed.get(&hash, || self.store.by_key(&hash)).await
    }
}

impl Proxy {
    /// The caller that a request's credentials prove.
    ///
    /// # Errors
    /// [`Refusal::NoKey`], [`Refusal::InvalidKey`], [`Refusal::InvalidToken`], or [`Refusal::Unavailable`] when one
    /// of them is not known here and who knows it cannot be asked.
    pub async fn caller(
        &self,
        catalog: &Catalog,
        headers: &HeaderMap,
        query: Option<&str>,
        now: UnixMillis,
    ) -> Result<Caller, Refusal> {
        let mut refusal = Refusal::NoKey;
        for credential in credentials(headers, query).take(MAX_CREDENTIALS) {
            let proven = match credential {
                Credential::Bearer(token) if token::looks_like_one(token) => {
                    self.signed_in.caller(catalog, token, now).await
                }
                Credential::Bearer(key) | Credential::Key(key) => self.keys.caller(key, now).await,
            };
            match proven {
                Ok(caller) => {
                    self.uses.note(&caller.subscription.id, now);
                    return Ok(caller);
                }
                Err(other) => refusal = graver(refusal, other),
            }
        }
        Err(refusal)
    }

    /// A subscription was changed: what was known of it here is not believed any more.
    pub fn forget(&self, id: &SubscriptionId) {
        self.keys.believed.forget(id);
        self.signed_in.forget(id);
    }
}

/// Of two refusals the one to tell: that somebody could not be asked, then what is wrong with a token, then
/// that a key is wrong.
fn graver(one: Refusal, other: Refusal) -> Refusal {
    let weight = |refusal: &Refusal| match refusal {
        Refusal::NoKey => 0,
        Refusal::InvalidKey => 1,
        Refusal::InvalidToken(_) => 2,
        _ => 3,
    };
    if weight(&other) > weight(&one) { other } else { one }
}

/// What a request brings to prove who it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Credential<'a> {
    Key(&'a str),
    /// A key or a token.
    Bearer(&'a str),
}

impl Credential<'_> {
    /// Without the white space around it; `None` if it is empty.
    fn present(self) -> Option<Self> {
        let (text, trimmed) = match self {
            Self::Key(text) => (text.trim(), Self::Key(text.trim())),
            Self::Bearer(text) => (text.trim(), Self::Bearer(text.trim())),
        };
        (!text.is_empty()).then_some(trimmed)
    }
}

/// Every credential in a request, in the documented order; an empty one is absent.
fn credentials<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> impl Iterator<Item = Credential<'a>> {
    let values = |name| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let in_headers = values("api-key").chain(values("ocp-apim-subscription-key"));
    let bearers = headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| bearer(value.to_str().ok()?));
    let in_query = query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case("subscription-key").then_some(value)
    });
    let in_headers = in_headers.map(Credential::Key);
    in_headers
        .chain(bearers.map(Credential::Bearer))
        .chain(in_query.map(Credential::Key))
        .filter_map(Credential::present)
}

/// The token of an `Authorization: Bearer` header.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim_start().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::Credential::{Bearer, Key};
    use super::*;

    #[test]
    fn credentials_are_looked_at_in_the_documented_order() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "bearer three".parse().unwrap());
        headers.insert("Ocp-Apim-Subscription-Key", "two".parse().unwrap());
        headers.insert("api-key", " ".parse().unwrap());
        headers.append("api-key", "one".parse().unwrap());
        let query = Some("api-version=1&subscription-key=four&code=x");
        let found: Vec<_> = credentials(&headers, query).collect();
        assert_eq!(found, [Key("one"), Key("two"), Bearer("three"), Key("four")]);
        assert_eq!(credentials(&HeaderMap::new(), Some("key=1&subscription-key=")).count(), 0);
    }

    #[test]
    fn only_the_bearer_scheme_carries_a_token() {
        for (header, token) in [
            ("Bearer tg_x", Some("tg_x")),
            ("BEARER  tg_x", Some(" tg_x")),
            ("Basic eDp5", None),
            ("tg_x", None),
        ] {
            assert_eq!(bearer(header), token, "{header}");
        }
    }
}
