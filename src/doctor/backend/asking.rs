//! One question to a backend that spends nothing, and what its answer means.

use http::StatusCode;
use serde::Deserialize;

use super::{Credential, Patient};
use crate::doctor::in_time;
use crate::domain::diagnosis::{Diagnosis, Refused, named_principal};
use crate::ports::with_causes;

/// An error is short; what is longer is none.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// Characters of what a backend says, as in the log.
const MAX_SAID: usize = 300;

/// What an answer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Asked and allowed; an empty request is a bad one, and that is all that is wrong.
    Good,
    /// As good, and busy.
    Throttled,
    /// The gateway itself is refused.
    Refused(Diagnosis, Words),
    /// There is no such path: an api-version that is not known reads so.
    NoSuchPath,
    /// It fails, or says what cannot be understood.
    Failing(String),
}

/// A refusal's own words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// The principal, where Azure names it.
    pub(super) principal: Option<String>,
    /// Status and message, cut short.
    pub(super) said: String,
}

#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(default)]
    error: Said,
}

#[derive(Default, Deserialize)]
struct Said {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

fn meaning(status: StatusCode, body: &[u8], credential: &Credential) -> Meaning {
    let Said { code, message } = serde_json::from_slice::<Envelope>(body).unwrap_or_default().error;
    let message = message.map(|message| credential.taken_out_of(&message));
    let sign_in = credential.kind;
    let refused = Refused { status, code: code.as_deref(), message: message.as_deref(), sign_in };
    let diagnosis = Diagnosis::of(refused);
    let words = || {
        let message = message.as_deref().unwrap_or("no reason is given");
        Words {
            principal: named_principal(message).map(str::to_owned),
            said: format!("{status}: {}", message.chars().take(MAX_SAID).collect::<String>()),
        }
    };
    match status.as_u16() {
        _ if diagnosis != Diagnosis::Unknown => Meaning::Refused(diagnosis, words()),
        200..=299 | 400 | 415 | 422 => Meaning::Good,
        429 => Meaning::Throttled,
        401 | 403 => Meaning::Refused(diagnosis, words()),
        404 => Meaning::NoSuchPath,
        _ => Meaning::Failing(format!("it answers {status}")),
    }
}

impl Patient<'_> {
    /// A chat completion that asks for nothing: refused before any token is spent.
    pub(super) async fn post(&self, deployment: &str, credential: &Credential) -> Meaning {
        let path = format!("openai/deployments/{deployment}/chat/completions");
        self.ask(http::Method::POST, &path, credential).await
    }

    /// The list of models, for where no deployment's name is known.
    pub(super) async fn models(&self, credential: &Credential) -> Meaning {
        self.ask(http::Method::GET, "openai/models", credential).await
    }

    async fn ask(&self, method: http::Method, path: &str, credential: &Credential) -> Meaning {
        let doctor = self.found.doctor;
        let mut url = self.backend.endpoint.clone();
        url.set_path(path);
        url.set_query(Some(&format!("api-version={}", doctor.api_version)));
        let mut request = doctor.client.request(method.clone(), url).headers(credential.headers.clone());
        if method == http::Method::POST {
            request = request.header(http::header::CONTENT_TYPE, "application/json").body("{}");
        }
        let answered = async {
            let mut response = request.send().await?;
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await? {
                if body.len() + chunk.len() > MAX_BODY_BYTES {
                    break;
                }
                body.extend_from_slice(&chunk);
            }
            Ok::<_, reqwest::Error>((response.status(), body))
        };
        match in_time(answered).await {
            Some(Ok((status, body))) => meaning(status, &body, credential),
            Some(Err(error)) => Meaning::Failing(with_causes(&error.without_url())),
            None => Meaning::Failing("it does not answer in time".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    #[test]
    fn an_empty_request_tells_what_is_there_without_spending_anything() {
        let token = Credential::token(&SecretString::from("hush")).unwrap();
        let of = |status: u16, code: &str, message: &str| {
            let body = serde_json::json!({"error": {"code": code, "message": message}}).to_string();
            meaning(StatusCode::from_u16(status).unwrap(), body.as_bytes(), &token)
        };
        assert_eq!(of(400, "missing_required_parameter", "Missing 'messages'"), Meaning::Good);
        assert_eq!(of(400, "OperationNotSupported", "not this model"), Meaning::Good);
        assert_eq!(of(429, "429", "slow down"), Meaning::Throttled);
        assert_eq!(of(404, "404", "Resource not found"), Meaning::NoSuchPath);
        for (answer, expected) in [
            (of(404, "DeploymentNotFound", ""), Diagnosis::DeploymentMissing),
            (of(403, "403", "?"), Diagnosis::Unknown),
            (of(400, "t", "Token tenant 1 does not match resource tenant."), Diagnosis::WrongTenant),
            (meaning(StatusCode::FORBIDDEN, b"<html>", &token), Diagnosis::Unknown),
        ] {
            assert!(
                matches!(&answer, Meaning::Refused(diagnosis, _) if *diagnosis == expected),
                "{answer:?}"
            );
        }
        let named = of(401, "PermissionDenied", "The principal `11-22` lacks the required data action `x`");
        let Meaning::Refused(Diagnosis::RoleMissing, words) = named else { panic!("{named:?}") };
        assert_eq!(words.principal.as_deref(), Some("11-22"));
        assert!(words.said.starts_with("401 Unauthorized: The principal"), "{}", words.said);
        // Who repeats what it was shown does not make us tell it.
        let Meaning::Refused(_, words) = of(401, "", "no `Bearer hush` here") else {
            panic!("it is refused")
        };
        assert_eq!(words.said, "401 Unauthorized: no `Bearer …` here");
        assert!(matches!(of(500, "", ""), Meaning::Failing(_)));
    }
}
