//! One target asked: its answer for the caller, or how it failed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use secrecy::ExposeSecret as _;
use serde::Deserialize;

use super::super::pool::Fault;
use super::super::publish::Open;
use super::super::read::Ask;
use super::super::{Incoming, Proxy, headers, kept};
use super::Progress;
use crate::config::catalog::{Auth, Target};
use crate::domain::breaker::Why;
use crate::domain::diagnosis::{self, Context, Diagnosis, Refused, SignIn};
use crate::domain::ids::{DeploymentName, Name};
use crate::domain::retry::{self, Reason, Verdict};
use crate::ports::{BackendBody, BackendFailure, BackendReply, Call, with_causes};

/// An error's body is a few hundred bytes; no more of one is read to understand it.
const MAX_ERROR_BYTES: usize = 64 * 1024;
/// And it comes with its head, or not at all.
const ERROR_BODY: Duration = Duration::from_secs(10);

pub(super) struct Attempt<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) incoming: &'a Incoming,
    pub(super) ask: &'a Ask,
    pub(super) target: &'a Target,
    pub(super) open: &'a mut Open,
    /// How long the first byte may take from now on.
    pub(super) limit: Duration,
    /// How long signing in may take.
    pub(super) patience: Duration,
    pub(super) progress: &'a Progress,
}

pub(in crate::proxy) struct Reply {
    pub(in crate::proxy) status: StatusCode,
    pub(in crate::proxy) headers: HeaderMap,
    /// Bytes of the body that were read before it was known to be the caller's.
    pub(in crate::proxy) first: Bytes,
    pub(in crate::proxy) body: BackendBody,
    /// Usage was asked for on the caller's behalf.
    pub(in crate::proxy) is_injected: bool,
    /// It says that what was asked for is not there, and another backend may have it.
    pub(in crate::proxy) may_be_elsewhere: bool,
}

/// Why a backend did not serve the request, and with which status if it answered.
struct Failed {
    fault: Fault,
    status: Option<StatusCode>,
}

impl Attempt<'_> {
    pub(super) async fn make(&mut self) -> Result<Reply, Fault> {
        let limit = self.limit;
        match tokio::time::timeout(limit, self.ask_it()).await {
            Ok(made) => made.map_err(|failed| failed.fault),
            Err(_) => Err(fault_of(&BackendFailure::TimedOut(limit))),
        }
    }

    async fn ask_it(&mut self) -> Result<Reply, Failed> {
        let unasked = &self.proxy.unasked;
        let injects = self.ask.needs_injection() && !unasked.contains(&self.key());
        let reply = self.signed_in(injects).await?;
        let refuses_it = reply.status == StatusCode::BAD_REQUEST && names_stream_options(&reply.first);
        if !(injects && refuses_it) {
            return Ok(reply);
        }
        let again = self.send(false).await?;
        if again.status.is_success() {
            tracing::info!(
                backend.name = %self.target.backend.name,
                "backend `{}` does not take `stream_options`: its streams are counted here from now on",
                self.target.backend.name
            );
            unasked.insert(self.key());
        }
        Ok(again)
    }

    /// Sends it, and once more where the credentials were refused and there are others by now.
    async fn signed_in(&mut self, injects: bool) -> Result<Reply, Failed> {
        match self.send(injects).await {
            Err(failed) if failed.status == Some(StatusCode::UNAUTHORIZED) && self.renewed().await => {
                self.send(injects).await
            }
            made => made,
        }
    }

    /// Whether there are other credentials by now.
    async fn renewed(&self) -> bool {
        let renewing = self.proxy.backends.renew_sign_in(&self.target.backend);
        tokio::time::timeout(self.patience, renewing).await.unwrap_or(false)
    }

    fn key(&self) -> (Name, DeploymentName, String) {
        let query = self.incoming.query.as_deref().map(headers::without_caller_marks).unwrap_or_default();
        (self.target.backend.name.clone(), self.target.deployment.clone(), query)
    }

    async fn send(&mut self, injects: bool) -> Result<Reply, Failed> {
        let mut path = self.incoming.address.path_at_backend(self.target.deployment.as_str());
        if let Some(query) = self.incoming.query.as_deref().map(headers::without_caller_marks)
            && !query.is_empty()
        {
            path.push('?');
            path.push_str(&query);
        }
        let call = Call {
            backend: &self.target.backend,
            method: self.ask.operation.method(),
            path_and_query: &path,
            headers: headers::for_backend(&self.incoming.headers, self.incoming.trace),
            patience: self.patience,
            body: self.ask.body_for(&self.target.deployment, injects),
        };
        let before = self.open.asking(&self.target.backend);
        if self.ask.stream {
            self.progress.now_asking(&self.target.backend.name, self.open.attempts());
        }
        match self.proxy.backends.send(call).await {
            Ok(reply) => self.understand(reply, injects).await,
            Err(failure) => {
                if is_unsent(&failure) {
                    self.open.not_reached(before);
                }
                Err(Failed { fault: fault_of(&failure), status: None })
            }
        }
    }

    /// Weighs a reply: the caller's, or a failure of its backend. It is the caller's once its first byte
    /// is there; until then another backend can be asked.
    async fn understand(&self, reply: BackendReply, is_injected: bool) -> Result<Reply, Failed> {
        let BackendReply { status, headers, mut body } = reply;
        if status.is_success() {
            let first = first_byte(&mut body).await;
            let first = first.map_err(|failure| Failed { fault: fault_of(&failure), status: None })?;
            return Ok(Reply { status, headers, first, body, is_injected, may_be_elsewhere: false });
        }
        let first = beginning(&mut body).await;
        let first = first.map_err(|failure| Failed { fault: fault_of(&failure), status: None })?;
        let error = error_in(&first);
        let refused = Refused {
            status,
            code: error.code.as_deref(),
            message: error.message.as_deref(),
            sign_in: sign_in(&self.target.backend.auth),
        };
        let diagnosis = Diagnosis::of(refused);
        let why = match retry::weigh(status, diagnosis) {
            Verdict::Pass => {
                let may_be_elsewhere = kept::may_be_elsewhere(self.ask, refused);
                return Ok(Reply { status, headers, first, body, is_injected, may_be_elsewhere });
            }
            Verdict::TryAnother(Reason::Throttled) => Why::Throttled,
            Verdict::TryAnother(Reason::Failed) => Why::Failed,
            Verdict::Misconfigured => Why::Misconfigured,
        };
        let wait = if why == Why::Throttled { retry::wait(&headers) } else { retry::told_wait(&headers) };
        let said = self.without_credentials(error.message.as_deref().unwrap_or_default());
        let said = in_one_line(&said, 300);
        let code = in_one_line(error.code.as_deref().unwrap_or_default(), 100);
        let mut text = format!("{status} {code}: {said}");
        let mut kind = format!("status_{}", status.as_u16());
        if why == Why::Misconfigured {
            diagnosis.code().clone_into(&mut kind);
            text = format!("{} ({text})", self.advice(diagnosis, refused));
        }
        Err(Failed { fault: Fault { why, kind, text, wait }, status: Some(status) })
    }

    /// What a backend said, for the log. Some repeat the key that they refuse.
    fn without_credentials(&self, said: &str) -> String {
        let mut said = said.to_owned();
        let key = match &self.target.backend.auth {
            Auth::ApiKey(key) => Some(key.clone()),
            Auth::ApiKeySecret(name) => self.proxy.config.secret(name).ok(),
            Auth::Entra { .. } | Auth::None => None,
        };
        if let Some(key) = key.as_ref().map(|key| key.expose_secret().trim()).filter(|key| !key.is_empty()) {
            said = said.replace(key, "…");
        }
        // Every token begins so: it is an object in base64.
        while let Some(at) = said.find("eyJ") {
            let is_of_it = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let end = said[at..].find(|c| !is_of_it(c)).map_or(said.len(), |length| at + length);
            said.replace_range(at..end, "…");
        }
        said
    }

    /// What an operator must mend, exactly.
    fn advice(&self, diagnosis: Diagnosis, refused: Refused<'_>) -> String {
        let backend = &self.target.backend;
        diagnosis.advice(&Context {
            backend: backend.name.as_str(),
            host: backend.endpoint.host_str().unwrap_or_default(),
            deployment: Some(self.target.deployment.as_str()),
            principal: refused.message.and_then(diagnosis::named_principal),
        })
    }
}

fn sign_in(auth: &Auth) -> SignIn {
    match auth {
        Auth::Entra { .. } => SignIn::Token,
        Auth::ApiKey(_) | Auth::ApiKeySecret(_) => SignIn::Key,
        Auth::None => SignIn::Nothing,
    }
}

/// Whether the backend has seen nothing of the request.
fn is_unsent(failure: &BackendFailure) -> bool {
    match failure {
        BackendFailure::NoConnection(_) | BackendFailure::CannotSignIn(_) | BackendFailure::NoToken(_) => {
            true
        }
        BackendFailure::TimedOut(_) | BackendFailure::BrokeOff(_) => false,
    }
}

/// A failure to get an answer, as a fault.
pub(in crate::proxy) fn fault_of(failure: &BackendFailure) -> Fault {
    let (why, kind) = match failure {
        BackendFailure::NoConnection(_) => (Why::Failed, "no_connection"),
        BackendFailure::TimedOut(_) => (Why::Failed, "timed_out"),
        BackendFailure::BrokeOff(_) => (Why::Failed, "broke_off"),
        BackendFailure::NoToken(_) => (Why::Failed, "no_token"),
        BackendFailure::CannotSignIn(_) => (Why::Misconfigured, "cannot_sign_in"),
    };
    Fault { why, kind: kind.to_owned(), text: with_causes(failure), wait: None }
}

/// The first bytes of a reply; none where it has none.
async fn first_byte(body: &mut BackendBody) -> Result<Bytes, BackendFailure> {
    while !body.is_end_stream()
        && let Some(frame) = body.frame().await
    {
        match frame?.into_data() {
            Ok(bytes) if !bytes.is_empty() => return Ok(bytes),
            // Trailers concern the connection to the backend only.
            _ => {}
        }
    }
    Ok(Bytes::new())
}

/// A backend's text for the log, whose records are one line each.
fn in_one_line(text: &str, max_chars: usize) -> String {
    text.chars().take(max_chars).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The beginning of an error's body. One that breaks off here is no answer yet: nobody has seen any of
/// it. What is longer, or slower, is left for the caller to meet.
async fn beginning(body: &mut BackendBody) -> Result<Bytes, BackendFailure> {
    let mut read = BytesMut::new();
    let reading = async {
        while read.len() < MAX_ERROR_BYTES
            && let Some(frame) = body.frame().await
        {
            read.extend_from_slice(&frame?.into_data().unwrap_or_default());
        }
        Ok(())
    };
    match tokio::time::timeout(ERROR_BODY, reading).await {
        Ok(Err(failure)) => Err(failure),
        // What came is what there is to understand.
        Ok(Ok(())) | Err(_) => Ok(read.freeze()),
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorBody {
    error: ErrorMembers,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ErrorMembers {
    code: Option<String>,
    message: Option<String>,
}

fn error_in(body: &[u8]) -> ErrorMembers {
    serde_json::from_slice::<ErrorBody>(body).unwrap_or_default().error
}

fn names_stream_options(body: &[u8]) -> bool {
    memchr::memmem::find(body, b"stream_options").is_some()
}
