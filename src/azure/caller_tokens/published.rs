//! The keys that Entra publishes for a tenant: fetched, and read with distrust.
//!
//! Never follows a redirect, never takes a key that could not be Entra's, and lets nothing that was published
//! take more than its share of memory.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use jsonwebtoken::DecodingKey;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::azure::transport;

/// Entra's list has about 20 KiB.
const MAX_BYTES: usize = 1024 * 1024;
/// It has five to ten keys.
const MAX_KEYS: usize = 200;
const MAX_KID_BYTES: usize = super::MAX_KID_BYTES;
/// Of a modulus of 2,048 to 8,192 bits, in base64.
const MODULUS_CHARS: std::ops::RangeInclusive<usize> = 342..=1_366;
const MAX_EXPONENT_CHARS: usize = 8;

/// The keys of one tenant, by their ids.
pub(super) type KeySet = HashMap<String, Arc<DecodingKey>>;

/// Gives what is published; keeps nothing.
#[async_trait]
pub trait Published: Send + Sync {
    /// Asks once for a tenant's keys, as JSON. A failure is told in words for the log.
    async fn fetch(&self, tenant: &str) -> Result<Vec<u8>, String>;
}

/// Entra's own endpoint.
#[derive(Debug)]
pub struct Endpoint {
    pub(super) client: reqwest::Client,
    pub(super) authority: String,
}

#[async_trait]
impl Published for Endpoint {
    async fn fetch(&self, tenant: &str) -> Result<Vec<u8>, String> {
        // A tenant's id is checked when the configuration is read: it cannot leave its place in the path.
        let url = format!("{}/{tenant}/discovery/v2.0/keys", self.authority);
        let (status, body) = transport::whole(self.client.get(url), MAX_BYTES).await?;
        if status == http::StatusCode::OK { Ok(body) } else { Err(format!("the answer was {status}")) }
    }
}

impl Endpoint {
    /// How many keys of a tenant can be used: for the doctor.
    ///
    /// # Errors
    /// In words for the operator.
    pub async fn count(&self, tenant: &str) -> Result<usize, String> {
        read(&self.fetch(tenant).await?, tenant).map(|keys| keys.len())
    }
}

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    n: String,
    e: String,
    #[serde(default)]
    r#use: Option<String>,
    #[serde(default)]
    alg: Option<String>,
    /// For whom it signs, with `{tenantid}` for any tenant.
    #[serde(default)]
    issuer: Option<String>,
}

/// The keys in a document that may sign tokens of `tenant`; what else is in it is passed over.
pub(super) fn read(document: &[u8], tenant: &str) -> Result<KeySet, String> {
    let document: Document<'_> =
        serde_json::from_slice(document).map_err(|_| "the answer is no list of keys".to_owned())?;
    let mut keys = KeySet::new();
    for key in document.keys {
        let Some((kid, key)) = serde_json::from_str(key.get()).ok().and_then(|jwk| usable(jwk, tenant))
        else {
            continue;
        };
        keys.entry(kid).or_insert_with(|| Arc::new(key));
        if keys.len() == MAX_KEYS {
            break;
        }
    }
    if keys.is_empty() { Err("no key in the answer can be used".to_owned()) } else { Ok(keys) }
}

fn usable(jwk: Jwk, tenant: &str) -> Option<(String, DecodingKey)> {
    let is_for = |member: Option<&str>, wanted| member.is_none_or(|value| value == wanted);
    // Without this a key of another tenant that stands in the list could sign for this one.
    let is_for_tenant = jwk.issuer.is_none_or(|issuer| {
        let issuer = issuer.replace("{tenantid}", tenant);
        issuer.split('/').any(|part| part.eq_ignore_ascii_case(tenant))
    });
    let is_usable = jwk.kty == "RSA"
        && is_for(jwk.r#use.as_deref(), "sig")
        && is_for(jwk.alg.as_deref(), "RS256")
        && is_for_tenant
        && (1..=MAX_KID_BYTES).contains(&jwk.kid.len())
        && MODULUS_CHARS.contains(&jwk.n.len())
        && jwk.e.len() <= MAX_EXPONENT_CHARS;
    let key = is_usable.then(|| DecodingKey::from_rsa_components(&jwk.n, &jwk.e).ok())??;
    Some((jwk.kid, key))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn jwk(changes: &Value) -> Value {
        let mut key = json!({"kty": "RSA", "use": "sig", "kid": "k", "n": "w".repeat(342), "e": "AQAB",
                             "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0"});
        key.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        key
    }

    fn ids(keys: &[Value]) -> Result<Vec<String>, String> {
        let mut ids: Vec<_> = read(json!({"keys": keys}).to_string().as_bytes(), "t1")?.into_keys().collect();
        ids.sort();
        Ok(ids)
    }

    #[test]
    fn junk_beside_good_keys_is_passed_over() {
        let junk = [
            json!(null),
            json!("key"),
            json!({"kty": "oct", "kid": "a", "k": "secret"}),
            jwk(&json!({"kid": "a", "kty": "EC"})),
            jwk(&json!({"kid": "a", "use": "enc"})),
            jwk(&json!({"kid": "a", "alg": "HS256"})),
            jwk(&json!({"kid": "", "alg": "RS256"})),
            jwk(&json!({"kid": "a".repeat(300)})),
            jwk(&json!({"kid": "a", "n": "w".repeat(171)})),
            jwk(&json!({"kid": "a", "n": "w".repeat(3_000)})),
            jwk(&json!({"kid": "a", "n": "!".repeat(342)})),
            jwk(&json!({"kid": "a", "issuer": "https://login.microsoftonline.com/t2/v2.0"})),
        ];
        for key in &junk {
            assert!(ids(std::slice::from_ref(key)).is_err(), "{key}");
        }
        let own = jwk(&json!({"kid": "own", "issuer": "https://sts.windows.net/t1/", "alg": "RS256"}));
        let keys: Vec<_> = junk.into_iter().chain([jwk(&json!({})), own]).collect();
        assert_eq!(ids(&keys).unwrap(), ["k", "own"]);
    }

    #[test]
    fn thousands_of_keys_are_cut() {
        let keys: Vec<_> = (0..3_000).map(|kid| jwk(&json!({"kid": format!("k{kid}")}))).collect();
        assert_eq!(ids(&keys).unwrap().len(), MAX_KEYS);
    }

    #[test]
    fn what_is_no_list_is_a_failure() {
        for document in ["", "null", "<html>", "{}", r#"{"keys": {}}"#, r#"{"keys": []}"#] {
            assert!(read(document.as_bytes(), "t1").is_err(), "{document}");
        }
    }
}
