//! The life of a proxied request.
//!
//! A caller proves itself before its body is read ([`Keys::caller`]); the rest is
//! [`Proxy::serve`], in which each step returns what the next one demands.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio_util::task::TaskTracker;

use crate::config::catalog::Catalog;
use crate::config::live::Live;
use crate::domain::api::Address;
use crate::domain::ids::RequestId;
use crate::domain::trace::Trace;
use crate::ports::{Backends, Clock, Unavailable, UsageSink};

mod admit;
mod authenticate;
mod choose;
mod forward;
mod headers;
mod kept;
mod publish;
mod read;
mod refusal;
mod relay;

pub use authenticate::{Caller, Keys};
pub use forward::Unasked;
pub use kept::Kept;
pub use read::MAX_BODY_BYTES;
pub use refusal::Refusal;
pub use relay::{BrokenReply, Relay};

/// What the journey needs.
pub struct Proxy {
    pub config: Arc<Live>,
    pub clock: Arc<dyn Clock>,
    pub keys: Keys,
    pub backends: Arc<dyn Backends>,
    pub usage: Arc<dyn UsageSink>,
    /// Backends that must not be asked for usage.
    pub unasked: Unasked,
    /// What backends keep for callers.
    pub kept: Kept,
    /// Work that goes on when a caller has hung up.
    pub tasks: TaskTracker,
    pub timeouts: Timeouts,
}

/// How long a backend may be silent. All are below the 230 s after which Azure's front end gives up.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until a reply begins.
    pub first_byte: Duration,
    /// Between two pieces of a reply.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { first_byte: Duration::from_mins(3), idle: Duration::from_mins(3) }
    }
}

/// A request as it came, but for its credentials.
#[derive(Debug)]
pub struct Incoming {
    pub id: RequestId,
    pub trace: Trace,
    pub address: Address,
    /// As it came, without the `?`.
    pub query: Option<String>,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// By the clock's [`Clock::elapsed`].
    pub began: Duration,
}

/// The answer to the caller, its body still coming.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Relay,
}

impl Proxy {
    /// The configuration that holds for a request that comes now.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] while none was read: nobody can be served then, whoever it is.
    pub fn catalog(&self) -> Result<Arc<Catalog>, Refusal> {
        Ok(self.config.catalog().map_err(Unavailable::from)?)
    }

    /// Serves one request up to where its reply begins; the [`Relay`] does the rest as it is read.
    pub async fn serve(
        &self,
        catalog: Arc<Catalog>,
        caller: Caller,
        incoming: Incoming,
    ) -> Result<Answer, Refusal> {
        let ask = self.kept.recognised(&caller, read::ask(&incoming)?)?;
        let permit = admit::admit(&catalog, caller, &ask)?;
        let targets = choose::in_order(&catalog, &ask)?;
        let open = publish::Open::new(self, &incoming, &ask, permit);
        let reply = forward::until_answered(self, &incoming, &ask, targets, open).await?;
        let mut answer = relay::metered(self, &ask, reply);
        answer.body.settle_if_empty().await;
        Ok(answer)
    }
}
