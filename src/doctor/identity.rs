//! Who the gateway is, and whether it gets tokens.
//!
//! A token's claims are decoded to name its principal in commands. They are not checked, and never
//! trusted with more; the token itself is never told.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::{Doctor, Identity, Report, bounded};
use crate::config::catalog::{Auth, Backend, Catalog};

/// The tokens that were got, by audience.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    by_audience: BTreeMap<String, SecretString>,
    default_audience: String,
    /// The object id of who they are of.
    pub(super) principal: Option<String>,
}

impl Tokens {
    /// `None`: there is none, which was told.
    pub(super) fn of(&self, backend: &Backend) -> Option<&SecretString> {
        self.by_audience.get(audience(backend, &self.default_audience)?)
    }
}

/// The audience of a backend that is signed in to with a token.
fn audience<'a>(backend: &'a Backend, default: &'a str) -> Option<&'a str> {
    match &backend.auth {
        Auth::Entra { audience } => Some(audience.as_deref().unwrap_or(default)),
        _ => None,
    }
}

/// What a token says of itself.
#[derive(Debug, Default, Deserialize)]
struct Claims {
    oid: Option<String>,
    tid: Option<String>,
    appid: Option<String>,
    azp: Option<String>,
}

impl Claims {
    fn of(token: &SecretString) -> Self {
        let payload = token.expose_secret().split('.').nth(1).unwrap_or_default();
        let decoded = BASE64_URL_SAFE_NO_PAD.decode(payload).unwrap_or_default();
        let claims: Self = serde_json::from_slice(&decoded).unwrap_or_default();
        // They become parts of commands.
        let is_id = |id: &String| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') && id.len() <= 64;
        Self {
            oid: claims.oid.filter(is_id),
            tid: claims.tid.filter(is_id),
            appid: claims.appid.or(claims.azp).filter(is_id),
            azp: None,
        }
    }
}

/// Asks for a token for each audience that a backend needs.
pub(super) async fn examine(doctor: &Doctor<'_>, catalog: &Catalog, report: &Report) -> Tokens {
    let default_audience = doctor.identity.audience();
    let audiences: BTreeSet<String> = catalog
        .backends
        .iter()
        .filter_map(|backend| audience(backend, &default_audience))
        .map(str::to_owned)
        .collect();
    let mut tokens = Tokens { default_audience, ..Tokens::default() };
    for audience in audiences {
        let Some(token) = token(doctor, &audience, report).await else { continue };
        let claims = Claims::of(&token);
        report.ok("token", told(&*doctor.identity, &audience, &claims));
        tokens.principal = tokens.principal.or(claims.oid);
        tokens.by_audience.insert(audience, token);
    }
    tokens
}

/// A token; what hinders it is told.
async fn token(doctor: &Doctor<'_>, audience: &str, report: &Report) -> Option<SecretString> {
    let kind = doctor.identity.kind();
    let what = match bounded(doctor.identity.token(audience)).await {
        Some(Ok(token)) => return Some(token),
        Some(Err(error)) => format!("{kind} gives no token for {audience}: {error}"),
        None => format!("{kind} did not answer in time when asked for a token for {audience}"),
    };
    report.fault("no_token", what, doctor.identity.mend());
    None
}

/// Whether there are tokens at all: without any, a vault would only fail for the same reason.
pub(super) async fn is_there(doctor: &Doctor<'_>, report: &Report) -> bool {
    token(doctor, &doctor.identity.audience(), report).await.is_some()
}

fn told(identity: &dyn Identity, audience: &str, claims: &Claims) -> String {
    let ids = [("object id", &claims.oid), ("application", &claims.appid), ("tenant", &claims.tid)];
    let ids: Vec<_> =
        ids.into_iter().filter_map(|(what, id)| Some(format!("{what} {}", id.as_ref()?))).collect();
    let who = if ids.is_empty() { String::new() } else { format!(" ({})", ids.join(", ")) };
    format!("{} gives a token for {audience}{who}", identity.kind())
}

/// Whose the tokens are, for advice on what comes before any backend.
pub(super) async fn principal(identity: &dyn Identity) -> Option<String> {
    let token = bounded(identity.token(&identity.audience())).await?.ok()?;
    Claims::of(&token).oid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokens_principal_is_named_unless_it_could_be_a_command() {
        let token =
            |claims: &str| SecretString::from(format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims)));
        let claims = Claims::of(&token(r#"{"oid":"11-22","tid":"t","azp":"a","exp":5}"#));
        assert_eq!((claims.oid.as_deref(), claims.appid.as_deref()), (Some("11-22"), Some("a")));
        assert_eq!(Claims::of(&token(r#"{"oid":"$(reboot)"}"#)).oid, None);
        assert_eq!(Claims::of(&SecretString::from("opaque")).oid, None);
    }
}
