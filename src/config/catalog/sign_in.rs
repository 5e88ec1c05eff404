//! How the gateway signs in to a backend: whether it is well written. Never looks a secret up.

use super::super::file::{self, AuthKind};
use super::super::{Fault, is_secret_name};
use super::Auth;

pub(super) fn check(file: file::Auth, is_loopback: bool, place: &str, faults: &mut Vec<Fault>) -> Auth {
    let place = format!("{place}.auth");
    let kind = file.kind.unwrap_or(AuthKind::Entra);
    let mut fault = |field: &str, message: &str| faults.push(Fault::new(format!("{place}{field}"), message));
    if kind != AuthKind::ApiKey && (file.secret.is_some() || file.value.is_some()) {
        fault("", "`secret` and `value` go with the kind `api_key`");
    }
    if kind != AuthKind::Entra && file.audience.is_some() {
        fault(".audience", "goes with the kind `entra`");
    }
    match kind {
        AuthKind::Entra => Auth::Entra { audience: file.audience },
        AuthKind::None => {
            if !is_loopback {
                fault(".kind", "`none` is for endpoints on 127.0.0.1 or localhost only");
            }
            Auth::None
        }
        AuthKind::ApiKey => match (file.secret, file.value) {
            (Some(secret), None) => {
                if !is_secret_name(&secret) {
                    fault(".secret", "must be a secret's name: 1 to 127 letters, digits and `-`");
                }
                Auth::ApiKeySecret(secret)
            }
            (None, Some(value)) => Auth::ApiKey(value),
            _ => {
                fault("", "`api_key` needs a `secret` (its name in Key Vault) or a `value`, not both");
                Auth::None
            }
        },
    }
}
