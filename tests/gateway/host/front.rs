//! The host's own front: it listens, finds the function, asks for its key, and hands the request over.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::CONTENT_LENGTH;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;

use super::app::{App, Mode, Settings};
use super::client::{Body, Client};
use super::function::{Function, Trigger};
use super::process::{Handler, State};
use super::{envelope, forwarding, proxying};

pub(super) const HOST_VERSION: &str = "4.1041.200.0";
/// `FUNCTIONS_REQUEST_BODY_SIZE_LIMIT`'s default.
const MAX_BODY_BYTES: usize = 104_857_600;
/// While a handler restarts, a call waits this long: four times the initialization timeout.
const RESTART_WAIT: Duration = Duration::from_mins(2);
/// The only key that this host has issued.
pub(super) const FUNCTION_KEY: &str = "the-hosts-own-key";

/// A host that serves one app. Everything stops when it is dropped.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) address: SocketAddr,
    pub(super) app: Arc<App>,
    /// None where the handler is a test's own server.
    handler: Option<Handler>,
    _front: JoinSet<()>,
}

/// What every request of the front needs.
#[derive(Clone, Debug)]
pub(super) struct Front {
    pub(super) app: Arc<App>,
    pub(super) handler: watch::Receiver<State>,
    pub(super) client: Client,
    /// How long an exchange may be silent in proxying mode.
    pub(super) activity_timeout: Duration,
    /// Exchanges that go on when the client has gone.
    pub(super) detached: TaskTracker,
}

/// One request on its way to a function.
pub(super) struct Call {
    pub(super) function: String,
    pub(super) request: Request<Limited<Incoming>>,
    pub(super) peer: SocketAddr,
    pub(super) port: u16,
    pub(super) invocation: String,
}

pub(super) const ACTIVITY_TIMEOUT: Duration = Duration::from_mins(4);

impl Host {
    /// Loads the app, starts its handler and serves: ready when this returns.
    pub(super) async fn start(root: &Path, settings: &Settings) -> Self {
        let app = App::load(root, settings)
            .unwrap_or_else(|faults| panic!("the host refuses:\n{}", faults.join("\n")));
        let app = Arc::new(app);
        let handler = Handler::start(&app, settings);
        handler.ready().await;
        let state = handler.state();
        Self { handler: Some(handler), ..Self::serve(app, state, ACTIVITY_TIMEOUT).await }
    }

    /// Serves the app with a handler that someone else runs.
    pub(super) async fn serve(
        app: Arc<App>,
        handler: watch::Receiver<State>,
        activity_timeout: Duration,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let front = Front {
            app: app.clone(),
            handler,
            client: Client::new(),
            activity_timeout,
            detached: TaskTracker::new(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, front));
        Self { address, app, handler: None, _front: tasks }
    }

    pub(super) fn handler(&self) -> &Handler {
        self.handler.as_ref().expect("this host started a handler")
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

async fn accept(listener: TcpListener, front: Front) {
    let mut connections = JoinSet::new();
    loop {
        let (stream, peer) = listener.accept().await.expect("a connection can be accepted");
        stream.set_nodelay(true).expect("a connection takes options");
        connections.spawn(converse(stream, peer, front.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, front: Front) {
    let service = service_fn(|request| {
        let front = front.clone();
        async move { Ok::<_, Infallible>(front.answer(request, peer).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    // A client that hangs up is nothing to the host.
    let _ = connection.await;
}

impl Front {
    async fn answer(self, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let path = request.uri().path();
        if path == "/" {
            return plain(StatusCode::OK, "Your functions app is up and running");
        }
        if ["/admin/", "/runtime/webhooks/"].iter().any(|own| path.to_ascii_lowercase().starts_with(own)) {
            return status(StatusCode::UNAUTHORIZED);
        }
        let Some(function) = self.find(&request) else { return status(StatusCode::NOT_FOUND) };
        if let Trigger::Http { needs_key: true, .. } = function.trigger
            && !presents_key(&request)
        {
            return status(StatusCode::UNAUTHORIZED);
        }
        let declared =
            request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|bytes: usize| bytes > MAX_BODY_BYTES) {
            return status(StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mode = match function.trigger {
            Trigger::Http { is_plain: true, .. } => self.app.mode,
            _ => Mode::Envelope,
        };
        let function = function.name.clone();
        // No handler: the host's error page, as for a handler that cannot be reached.
        let Some(port) = self.port().await else { return status(StatusCode::INTERNAL_SERVER_ERROR) };
        let request = request.map(|body| Limited::new(body, MAX_BODY_BYTES));
        let invocation = uuid::Uuid::now_v7().to_string();
        let call = Call { function, request, peer, port, invocation };
        match mode {
            Mode::Proxying => proxying::pass(&self, call).await,
            Mode::Forwarding => forwarding::pass(&self, call).await,
            Mode::Envelope => envelope::pass(&self, call).await,
        }
    }

    /// The first function by name whose template matches; how specific it is does not count.
    fn find(&self, request: &Request<Incoming>) -> Option<&Function> {
        self.app.functions.iter().filter(|function| function.is_enabled).find(|function| {
            match &function.trigger {
                Trigger::Http { template, methods, .. } => {
                    let takes = methods.is_empty()
                        || methods.iter().any(|method| method == request.method().as_str());
                    takes && template.matches(request.uri().path())
                }
                Trigger::EventHub { .. } | Trigger::Timer { .. } => false,
            }
        })
    }

    async fn port(&self) -> Option<u16> {
        let mut state = self.handler.clone();
        let wait = state.wait_for(|state| *state != State::Starting);
        match *tokio::time::timeout(RESTART_WAIT, wait).await.ok()?.ok()? {
            State::Ready { port, .. } => Some(port),
            _ => None,
        }
    }
}

fn presents_key(request: &Request<Incoming>) -> bool {
    let header = request.headers().get("x-functions-key").and_then(|value| value.to_str().ok());
    let query = request.uri().query().unwrap_or_default();
    header == Some(FUNCTION_KEY)
        || query.split('&').any(|pair| pair.strip_prefix("code=") == Some(FUNCTION_KEY))
}

pub(super) fn status(status: StatusCode) -> Response<Body> {
    plain(status, "")
}

pub(super) fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let body = Full::from(text.to_owned()).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}

/// Whether the request brings a body, of whatever length.
pub(super) fn has_body(request: &Request<Limited<Incoming>>) -> bool {
    !request.body().is_end_stream()
}
