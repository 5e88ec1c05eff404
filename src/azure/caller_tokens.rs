//! Whom a caller's Entra token speaks for.
//!
//! Believes a token for its signature alone, by a key that Entra publishes for the token's own tenant, and never
//! one that names its own keys (`jku`, `jwk`, `x5u` are not looked at), another algorithm than RS256, or
//! another issuer than its tenant's. Never says "wrong" where it could not look.
//!
//! Verified tokens are not remembered: a check takes about 17 µs, a memory would keep credentials, and would have
//! to forget them whenever the configuration changes.

use std::sync::Arc;

use async_trait::async_trait;
use jsonwebtoken::dangerous::insecure_decode_claims;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use super::cloud;
use crate::config::catalog::EntraCallers;
use crate::config::settings::Cloud;
use crate::domain::actor::Identity;
use crate::domain::token::Distrust;
use crate::ports::{CallerTokens, Clock, TokenRefusal};

mod claims;
mod keys;
mod published;

use claims::Claims;
use keys::Keys;
pub use published::{Endpoint, Published};

/// Entra's own have 2 to 4 KiB, and with the most groups that they may name about 12.
const MAX_TOKEN_BYTES: usize = 16 * 1024;
/// Entra's have 27 to 43.
const MAX_KID_BYTES: usize = 256;

/// Verifies tokens by the keys that Entra publishes.
pub struct EntraTokens {
    keys: Keys,
    issuers: Issuers,
    clock: Arc<dyn Clock>,
    signature_only: Validation,
}

/// How issuers begin; the tenant's id stands behind it, and in version 2 `/v2.0` behind that.
#[derive(Clone, Debug)]
struct Issuers {
    v1: Vec<String>,
    v2: Vec<String>,
}

/// Where Entra is: by the cloud, or where a test says.
#[derive(Clone, Debug)]
pub struct Place {
    issuers: Issuers,
    authority: String,
}

impl Place {
    pub fn new(cloud: Cloud, authority: Option<&Url>) -> Self {
        let facts = cloud::facts(cloud);
        let v1 = facts.issuer_v1.to_owned();
        if let Some(authority) = authority {
            let authority = authority.as_str().trim_end_matches('/').to_owned();
            let issuers = Issuers { v1: vec![v1, authority.clone()], v2: vec![authority.clone()] };
            return Self { issuers, authority };
        }
        let authority = facts.issuers_v2.first().copied().unwrap_or(facts.authority).to_owned();
        let issuers =
            Issuers { v1: vec![v1], v2: facts.issuers_v2.iter().map(|base| (*base).to_owned()).collect() };
        Self { issuers, authority }
    }

    /// Where the keys are published there.
    pub fn endpoint(&self, client: reqwest::Client) -> Endpoint {
        Endpoint { client, authority: self.authority.clone() }
    }
}

impl EntraTokens {
    /// Asks `published` for keys, in tasks of `tasks`, until `stop`.
    pub fn new(
        place: Place,
        published: Arc<dyn Published>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let mut signature_only = Validation::new(Algorithm::RS256);
        // By our own clock, and of both versions: `Claims::check` does it.
        signature_only.validate_exp = false;
        signature_only.validate_aud = false;
        signature_only.required_spec_claims.clear();
        let keys = Keys::new(published, clock.clone(), tasks, stop);
        Self { keys, issuers: place.issuers, clock, signature_only }
    }
}

#[async_trait]
impl CallerTokens for EntraTokens {
    async fn verify(&self, token: &str, trust: &EntraCallers) -> Result<Identity, TokenRefusal> {
        let kid = key_id(token)?;
        // Read before it is proven only to know whose keys to look at.
        let claimed: Claims = insecure_decode_claims(token).map_err(|_| Distrust::Malformed)?;
        let tenant = claimed.tid.as_deref().ok_or(Distrust::Missing("tid"))?;
        let tenant = trust.tenant(tenant).ok_or(Distrust::Tenant)?;
        let key = self.keys.find(tenant, &kid).await?.ok_or(Distrust::UnknownKey)?;
        let proven = decode::<Claims>(token, &key, &self.signature_only).map_err(|_| Distrust::Signature)?;
        proven.claims.check(&self.issuers, tenant, &trust.audiences, self.clock.now())?;
        Ok(proven.claims.identity(tenant)?)
    }
}

/// Which key the token says that it is signed with: a name to look up in a map, and nothing else.
fn key_id(token: &str) -> Result<String, Distrust> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Distrust::TooLong);
    }
    // `none` is no algorithm to the library: such a header cannot be read.
    let header = decode_header(token).map_err(|_| Distrust::Malformed)?;
    if header.alg != Algorithm::RS256 {
        return Err(Distrust::Algorithm);
    }
    // What must be understood, and is not (RFC 7515, section 4.1.11).
    if header.crit.is_some() {
        return Err(Distrust::Malformed);
    }
    let kid = header.kid.filter(|kid| !kid.is_empty()).ok_or(Distrust::Missing("kid"))?;
    if kid.len() > MAX_KID_BYTES { Err(Distrust::UnknownKey) } else { Ok(kid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_and_keys_are_the_clouds_own() {
        for (cloud, v1, v2) in [
            (Cloud::Commercial, "https://sts.windows.net", "https://login.microsoftonline.com"),
            (Cloud::UsGov, "https://sts.windows.net", "https://login.microsoftonline.us"),
            (Cloud::China, "https://sts.chinacloudapi.cn", "https://login.partner.microsoftonline.cn"),
        ] {
            let place = Place::new(cloud, None);
            assert_eq!((place.issuers.v1[0].as_str(), place.issuers.v2[0].as_str()), (v1, v2));
            assert_eq!(place.authority, v2);
        }
        let local = Url::parse("http://127.0.0.1:8443").unwrap();
        let place = Place::new(Cloud::Commercial, Some(&local));
        assert_eq!(
            (place.authority.as_str(), place.issuers.v2),
            ("http://127.0.0.1:8443", vec![place.authority.clone()])
        );
    }
}
