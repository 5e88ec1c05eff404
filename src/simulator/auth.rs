//! Does the caller prove itself, if the resource was started to ask for that?
//!
//! Keys are compared as they are: they are a test's, and guard nothing.

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::Knobs;
use super::refusal::{Name, Refusal};

pub(super) fn check(knobs: &Knobs, headers: &HeaderMap, is_v1: bool) -> Result<(), Refusal> {
    let keys = &knobs.require_key;
    if keys.is_empty() && knobs.require_bearer.is_none() {
        return Ok(());
    }
    let key = value(headers, "api-key");
    let bearer = value(headers, AUTHORIZATION.as_str())
        .and_then(|value| value.get(..7).zip(value.get(7..)))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer "))
        .map(|(_, token)| token.trim())
        .filter(|token| !token.is_empty());
    let is_key = |given: &str| keys.iter().any(|key| key == given);
    // The v1 routes take a key as a bearer too, for clients that know no other header.
    if key.is_some_and(is_key) || (is_v1 && bearer.is_some_and(is_key)) {
        return Ok(());
    }
    let Some(expected) = &knobs.require_bearer else {
        return Err(Refusal::named(Name::BadKey));
    };
    match bearer {
        Some(token) if expected.is_empty() || token == expected => Ok(()),
        Some(_) => Err(Refusal::named(Name::PermissionDenied)),
        None if key.is_none() => Err(Refusal::named(Name::NoToken)),
        None if keys.is_empty() => Err(Refusal::named(Name::KeyAuthDisabled)),
        None => Err(Refusal::named(Name::BadKey)),
    }
}

fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn asked(keys: &[&str], bearer: Option<&str>, header: (&'static str, &str), v1: bool) -> u16 {
        let knobs = Knobs {
            require_key: keys.iter().map(ToString::to_string).collect(),
            require_bearer: bearer.map(str::to_owned),
            ..Knobs::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert(header.0, HeaderValue::from_str(header.1).unwrap());
        check(&knobs, &headers, v1).map_or_else(|refusal| refusal.status(), |()| 200)
    }

    #[test]
    fn what_is_asked_for_is_what_serves() {
        for (keys, bearer, header, v1, status) in [
            (&[][..], None, ("x", "y"), false, 200),
            (&["k"], None, ("api-key", "k"), false, 200),
            (&["k"], None, ("api-key", "other"), false, 401),
            (&["k"], None, ("authorization", "Bearer k"), false, 401),
            (&["k"], None, ("authorization", "Bearer k"), true, 200),
            (&[], Some(""), ("authorization", "Bearer any"), false, 200),
            (&[], Some(""), ("authorization", "Basic any"), false, 401),
            (&[], Some("t"), ("authorization", "bearer t"), false, 200),
            (&[], Some("t"), ("authorization", "Bearer u"), false, 401),
            (&[], Some("t"), ("api-key", "k"), false, 403),
            (&["k"], Some("t"), ("api-key", "k"), false, 200),
        ] {
            let answer = asked(keys, bearer, header, v1);
            assert_eq!(answer, status, "{keys:?} {bearer:?} {header:?} {v1}");
        }
    }
}
