//! The life of a proxied request.
//!
//! A caller proves itself before its body is read ([`Proxy::caller`]); the rest is
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
mod pool;
mod publish;
mod read;
mod refusal;
mod relay;
mod room;
mod uses;

pub use authenticate::{Caller, Keys, SignedIn};
pub use forward::Unasked;
use forward::{Exchange, Progress};
pub use kept::Kept;
pub use pool::{BackendReport, DeploymentReport, LastFailure, Pool, Quantiles};
pub use read::MAX_BODY_BYTES;
pub use refusal::Refusal;
pub use relay::{BrokenReply, Relay};
pub use room::{Room, Taken};
pub use uses::Uses;

/// What the journey needs.
pub struct Proxy {
    pub config: Arc<Live>,
    pub clock: Arc<dyn Clock>,
    pub keys: Keys,
    pub signed_in: Arc<SignedIn>,
    /// When subscriptions were used last.
    pub uses: Arc<Uses>,
    pub backends: Arc<dyn Backends>,
    pub usage: Arc<dyn UsageSink>,
    /// Backends that must not be asked for usage.
    pub unasked: Unasked,
    /// What backends keep for callers.
    pub kept: Kept,
    /// Work that goes on when a caller has hung up.
    pub tasks: TaskTracker,
    /// What is known of the backends.
    pub pool: Pool,
    /// For the bodies of requests.
    pub room: Room,
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
        self: &Arc<Self>,
        catalog: Arc<Catalog>,
        caller: Caller,
        incoming: Incoming,
    ) -> Result<Answer, Refusal> {
        let ask = self.kept.recognised(&caller, read::ask(&incoming)?)?;
        let permit = admit::admit(&catalog, self.usage.standing(), caller, &ask)?;
        let targets = choose::in_order(&self.pool, &catalog, &ask)?;
        let open = publish::Open::new(self, &incoming, &ask, permit);
        let (id, is_stream, timeouts) = (incoming.id, ask.stream, catalog.timeouts);
        let since = self.clock.elapsed();
        let progress = Arc::new(Progress::default());
        let proxy = Arc::clone(self);
        let exchange = Exchange {
            proxy,
            incoming,
            ask,
            targets,
            open,
            timeouts,
            progress: Arc::clone(&progress),
            since,
        };
        if !is_stream {
            let answered = forward::until_answered(exchange).await?;
            let mut answer = relay::metered(answered, &self.tasks);
            answer.body.settle_if_empty().await;
            return Ok(answer);
        }
        let mut forwarding: relay::Forwarding = Box::pin(forward::until_answered(exchange));
        match tokio::time::timeout(timeouts.waiting_after, &mut forwarding).await {
            Ok(answered) => {
                let mut answer = relay::metered(answered?, &self.tasks);
                answer.body.settle_if_empty().await;
                Ok(answer)
            }
            Err(_) => Ok(relay::waiting(forwarding, &progress, timeouts.waiting_every, id, &self.tasks)),
        }
    }
}
