//! Listens, and gives each connection to the routes.
//!
//! Ours rather than `axum::serve` for three things that it leaves out: `TCP_NODELAY` (without it the
//! second stream on a kept-alive connection stalls for 40 ms), a bound on the time a request's head
//! may take, and a bounded drain.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

mod activity;

/// A connection on which nothing passed for this long takes no new request, and one on which nothing
/// passed for twice as long again is closed, be it in the middle of a request's head. The Functions
/// host keeps its connections for about a minute; closing first would reset a POST that cannot be sent
/// again. And no reply is silent for as long as that: its backend would have been given up.
const IDLE: Duration = Duration::from_secs(150);
/// Ctrl-C under the local host; in Azure there is no warning, only SIGKILL.
/// Whoever stops us waits two seconds, and what is cut off must still be counted and written.
const DRAIN: Duration = Duration::from_millis(300);
/// After a failed `accept` (no file descriptors left), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The address could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another program has it.
    #[error("{0} is in use by another program: stop that program, or choose another address with --listen")]
    Taken(SocketAddr),
    /// Anything else.
    #[error("cannot listen on {0}: {1}")]
    Other(SocketAddr, std::io::Error),
}

/// Takes the address. From here on the kernel queues connections, so a caller that comes before
/// [`serve`] waits instead of being refused.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|error| {
        if error.kind() == std::io::ErrorKind::AddrInUse {
            BindError::Taken(address)
        } else {
            BindError::Other(address, error)
        }
    })
}

/// Serves until `stop` is cancelled, then gives the requests in hand [`DRAIN`] to end. What has not
/// ended then is cut off before this returns, so that its usage can still be handed in.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let (_kept, router) = watch::channel(router);
    serve_latest(listener, router, stop).await;
}

/// The same, each connection with the routes that are the latest when it is accepted.
pub async fn serve_latest(listener: TcpListener, router: watch::Receiver<Router>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let (stream, peer) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            () = stop.cancelled() => break,
        };
        let latest = router.borrow().clone();
        connections.spawn(converse(stream, Told::of(latest, peer), stop.clone(), cut.clone()));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN, connections.wait()).await.is_err() {
        tracing::info!(connections.open = connections.len(), "stopped with requests still in hand");
        cut.cancel();
        connections.wait().await;
    }
}

/// The routes, told who is at the other end, unless that is on this machine: there it is the Functions host,
/// or whoever works here.
#[derive(Clone)]
struct Told {
    router: Router,
    peer: Option<SocketAddr>,
}

impl Told {
    fn of(router: Router, peer: SocketAddr) -> Self {
        Self { router, peer: Some(peer).filter(|peer| !peer.ip().to_canonical().is_loopback()) }
    }
}

impl Service<Request<Incoming>> for Told {
    type Response = Response;
    type Error = Infallible;
    type Future = <Router as Service<Request<Incoming>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Incoming>>::poll_ready(&mut self.router, context)
    }

    fn call(&mut self, mut request: Request<Incoming>) -> Self::Future {
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        self.router.call(request)
    }
}

async fn converse(stream: TcpStream, router: Told, stop: CancellationToken, cut: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection was gone before it was served");
        return;
    }
    let service = TowerToHyperService::new(router);
    let (stream, activity) = activity::watched(stream);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // A timer for each head costs each request more than one for the connection does.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = activity.ended(IDLE) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = activity.ended(2 * IDLE) => return,
                () = cut.cancelled() => return,
            }
        }
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection => ended,
                () = cut.cancelled() => return,
            }
        }
    };
    if let Err(error) = ended {
        // A caller that hangs up ends here too: nothing that an operator must act on.
        tracing::debug!(%error, "a connection ended early");
    }
}
