//! Headers → Caller, before the body is read.
//!
//! A known key costs no I/O: what the store said is believed for [`BELIEVED`]. SDKs demand some key
//! and send junk beside the good one, so every credential is looked at, in the documented order, and
//! the first valid one serves.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use moka::future::Cache;

use super::Refusal;
use crate::domain::key::{self, Hasher, KeyHash};
use crate::domain::subscription::Subscription;
use crate::domain::units::UnixMillis;
use crate::ports::{Subscriptions, Unavailable};

/// A change of a subscription holds within 5 s, on every instance.
const BELIEVED: Duration = Duration::from_secs(4);
/// Known and unknown keys alike: a flood of wrong ones takes no more memory than this.
const MAX_BELIEVED: u64 = 20_000;

/// Credentials that are looked at in one request: each unknown one is a look-up in the store.
const MAX_CREDENTIALS: usize = 16;

/// Somebody who proved who they are. Only [`Keys::caller`] can make one.
#[derive(Clone, Debug)]
pub struct Caller {
    subscription: Arc<Subscription>,
}

impl Caller {
    pub fn subscription(&self) -> &Subscription {
        &self.subscription
    }
}

/// Knows callers by their keys.
pub struct Keys {
    hasher: Hasher,
    store: Arc<dyn Subscriptions>,
    believed: Cache<KeyHash, Option<Arc<Subscription>>>,
}

impl Keys {
    pub fn new(hasher: Hasher, store: Arc<dyn Subscriptions>) -> Self {
        let believed = Cache::builder().max_capacity(MAX_BELIEVED).time_to_live(BELIEVED).build();
        Self { hasher, store, believed }
    }

    /// The caller that a request's credentials prove.
    ///
    /// # Errors
    /// [`Refusal::NoKey`], [`Refusal::InvalidKey`], or [`Refusal::Unavailable`] when a key is not
    /// known here and the store cannot be asked.
    pub async fn caller(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        now: UnixMillis,
    ) -> Result<Caller, Refusal> {
        let mut refusal = Refusal::NoKey;
        for credential in credentials(headers, query).take(MAX_CREDENTIALS) {
            // A typo, or somebody else's key: told by its form, without a look-up.
            let known = if key::is_well_formed(credential) { self.known(credential).await } else { Ok(None) };
            match known {
                Ok(Some(subscription)) if subscription.is_valid(now) => return Ok(Caller { subscription }),
                Ok(_) if matches!(refusal, Refusal::NoKey) => refusal = Refusal::InvalidKey,
                Ok(_) => {}
                Err(unavailable) => refusal = Refusal::Unavailable(unavailable),
            }
        }
        Err(refusal)
    }

    async fn known(&self, credential: &str) -> Result<Option<Arc<Subscription>>, Unavailable> {
        let hash = self.hasher.hash(credential);
        if let Some(known) = self.believed.get(&hash).await {
            return Ok(known);
        }
        let found = self.store.by_key(&hash).await?.map(Arc::new);
        self.believed.insert(hash, found.clone()).await;
        Ok(found)
    }
}

/// Every credential in a request, in the documented order; an empty one is absent.
fn credentials<'a>(headers: &'a HeaderMap, query: Option<&'a str>) -> impl Iterator<Item = &'a str> {
    let values = |name| headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    let in_headers = values("api-key").chain(values("ocp-apim-subscription-key"));
    let bearers = headers.get_all(AUTHORIZATION).into_iter().filter_map(|value| bearer(value.to_str().ok()?));
    let in_query = query.into_iter().flat_map(|query| query.split('&')).filter_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        name.eq_ignore_ascii_case("subscription-key").then_some(value)
    });
    in_headers.chain(bearers).chain(in_query).map(str::trim).filter(|credential| !credential.is_empty())
}

/// The token of an `Authorization: Bearer` header.
fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.trim_start().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_looked_at_in_the_documented_order() {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, "bearer three".parse().unwrap());
        headers.insert("Ocp-Apim-Subscription-Key", "two".parse().unwrap());
        headers.insert("api-key", " ".parse().unwrap());
        headers.append("api-key", "one".parse().unwrap());
        let query = Some("api-version=1&subscription-key=four&code=x");
        assert_eq!(credentials(&headers, query).collect::<Vec<_>>(), ["one", "two", "three", "four"]);
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
