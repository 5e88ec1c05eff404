//! What a token says, and whether that will do.
//!
//! Sources: Microsoft's [claims of access tokens](https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference)
//! and [how to validate them](https://learn.microsoft.com/entra/identity-platform/claims-validation). Never
//! looks at `email`, `upn` or names: people change them.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::Issuers;
use crate::domain::actor::Identity;
use crate::domain::token::Distrust;
use crate::domain::units::UnixMillis;

/// How far Entra's clock and this machine's may differ.
const LEEWAY: Duration = Duration::from_mins(1);

/// Claims of other types than these make a token unreadable; so does one that stands twice.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    iss: Option<String>,
    aud: Option<String>,
    pub(super) tid: Option<String>,
    ver: Option<String>,
    exp: Option<i64>,
    nbf: Option<i64>,
    /// The application, in version 2.
    azp: Option<String>,
    /// The application, in version 1.
    appid: Option<String>,
    oid: Option<String>,
    scp: Option<String>,
    idtyp: Option<String>,
    groups: Option<Vec<String>>,
    roles: Option<Vec<String>>,
    /// Where to ask for what the token leaves out.
    #[serde(rename = "_claim_names")]
    elsewhere: Option<Value>,
    hasgroups: Option<bool>,
}

impl Claims {
    /// Whether a token with these claims is good for one of `audiences` at `now`.
    pub(super) fn check(
        &self,
        issuers: &Issuers,
        tenant: &str,
        audiences: &[String],
        now: UnixMillis,
    ) -> Result<(), Distrust> {
        fn there<T>(claim: Option<T>, name: &'static str) -> Result<T, Distrust> {
            claim.ok_or(Distrust::Missing(name))
        }
        let (issuer, version) = (there(self.iss.as_deref(), "iss")?, there(self.ver.as_deref(), "ver")?);
        let is_issuer = match version {
            "1.0" => is_one(issuer, &issuers.v1, tenant, "/"),
            "2.0" => is_one(issuer, &issuers.v2, tenant, "/v2.0"),
            _ => false,
        };
        if !is_issuer {
            return Err(Distrust::Issuer);
        }
        if !audiences.contains(there(self.aud.as_ref(), "aud")?) {
            return Err(Distrust::Audience);
        }
        let (now, leeway) = (now.0.div_euclid(1_000), LEEWAY.as_secs().cast_signed());
        if there(self.exp, "exp")? <= now.saturating_sub(leeway) {
            return Err(Distrust::Expired);
        }
        if there(self.nbf, "nbf")? > now.saturating_add(leeway) {
            return Err(Distrust::NotYetValid);
        }
        Ok(())
    }

    /// Whom they speak for.
    pub(super) fn identity(self, tenant: &str) -> Result<Identity, Distrust> {
        let lower = |ids: Vec<String>| ids.into_iter().map(|id| id.to_ascii_lowercase()).collect();
        let id = |id: Option<String>| id.filter(|id| !id.is_empty()).map(|id| id.to_ascii_lowercase());
        // An application's own token has no scopes. Sign-in (id) tokens have none either, but no application.
        let has_scopes = self.scp.is_some_and(|scopes| !scopes.trim().is_empty());
        let is_person = has_scopes && self.idtyp.as_deref() != Some("app");
        let application =
            if self.ver.as_deref() == Some("1.0") { (self.appid, "appid") } else { (self.azp, "azp") };
        let client_id = id(application.0).ok_or(Distrust::Missing(application.1))?;
        let object_id = id(self.oid);
        if is_person && object_id.is_none() {
            return Err(Distrust::Missing("oid"));
        }
        Ok(Identity {
            tenant_id: tenant.to_owned(),
            client_id,
            object_id,
            is_person,
            groups: lower(self.groups.unwrap_or_default()),
            leaves_groups_out: self.hasgroups == Some(true)
                || self.elsewhere.is_some_and(|names| names.get("groups").is_some()),
            roles: self.roles.unwrap_or_default(),
        })
    }
}

fn is_one(issuer: &str, bases: &[String], tenant: &str, end: &str) -> bool {
    let tail = format!("/{tenant}{end}");
    bases
        .iter()
        .any(|base| issuer.strip_prefix(base.as_str()).is_some_and(|given| given.eq_ignore_ascii_case(&tail)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_000_000;

    fn good() -> Value {
        json!({"iss": "https://login/t1/v2.0", "ver": "2.0", "tid": "t1", "aud": "api://tollgate",
               "exp": NOW + 10, "nbf": NOW - 10, "azp": "APP", "oid": "USER", "scp": "use",
               "groups": ["G1"], "roles": ["Role"]})
    }

    fn check(claims: &Value) -> Result<Identity, Distrust> {
        let claims: Claims = serde_json::from_value(claims.clone()).map_err(|_| Distrust::Malformed)?;
        let issuers = Issuers { v1: vec!["https://sts".into()], v2: vec!["https://login".into()] };
        claims.check(
            &issuers,
            "t1",
            &["api://tollgate".to_owned(), "guid".to_owned()],
            UnixMillis(NOW * 1_000),
        )?;
        claims.identity("t1")
    }

    fn with(changes: &Value) -> Value {
        let mut claims = good();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (changes, distrust) in [
            (json!({"iss": null}), Distrust::Missing("iss")),
            (json!({"ver": null}), Distrust::Missing("ver")),
            (json!({"aud": null}), Distrust::Missing("aud")),
            (json!({"exp": null}), Distrust::Missing("exp")),
            (json!({"nbf": null}), Distrust::Missing("nbf")),
            (json!({"azp": null}), Distrust::Missing("azp")),
            (json!({"azp": "", "appid": "APP"}), Distrust::Missing("azp")),
            (json!({"oid": null}), Distrust::Missing("oid")),
            (json!({"iss": "https://login/t2/v2.0"}), Distrust::Issuer),
            (json!({"iss": "https://login.evil/t1/v2.0"}), Distrust::Issuer),
            (json!({"iss": "https://login/t1/v2.0/"}), Distrust::Issuer),
            (json!({"iss": "https://sts/t1/"}), Distrust::Issuer),
            (json!({"ver": "1.0", "appid": "APP"}), Distrust::Issuer),
            (json!({"ver": "3.0"}), Distrust::Issuer),
            (json!({"aud": "api://tollgate2"}), Distrust::Audience),
            (json!({"aud": ["api://tollgate"]}), Distrust::Malformed),
            (json!({"exp": NOW - 60}), Distrust::Expired),
            (json!({"exp": i64::MIN}), Distrust::Expired),
            (json!({"exp": "never"}), Distrust::Malformed),
            (json!({"nbf": NOW + 61}), Distrust::NotYetValid),
            (json!({"nbf": i64::MAX}), Distrust::NotYetValid),
        ] {
            assert_eq!(check(&with(&changes)), Err(distrust), "{changes}");
        }
    }

    #[test]
    fn both_versions_and_a_minute_of_skew_are_taken() {
        for changes in [
            json!({}),
            json!({"exp": NOW - 59}),
            json!({"nbf": NOW + 60}),
            json!({"aud": "guid"}),
            json!({"ver": "1.0", "iss": "https://sts/T1/", "azp": null, "appid": "app"}),
        ] {
            let identity = check(&with(&changes)).unwrap_or_else(|distrust| panic!("{changes}: {distrust}"));
            assert_eq!((identity.client_id.as_str(), identity.person()), ("app", Some("user")));
            assert_eq!((identity.groups, identity.roles), (vec!["g1".to_owned()], vec!["Role".to_owned()]));
        }
    }

    #[test]
    fn an_application_of_its_own_is_no_person() {
        for changes in [json!({"scp": null}), json!({"scp": " "}), json!({"idtyp": "app"})] {
            assert_eq!(check(&with(&changes)).unwrap().person(), None, "{changes}");
        }
        assert!(check(&with(&json!({"scp": null, "oid": null}))).is_ok());
    }

    #[test]
    fn groups_that_a_token_leaves_out_are_noticed() {
        let out = |changes| check(&with(&changes)).unwrap().leaves_groups_out;
        assert!(out(json!({"_claim_names": {"groups": "src1"}})) && out(json!({"hasgroups": true})));
        assert!(!out(json!({})) && !out(json!({"_claim_names": {"other": "src1"}})));
    }
}
