//! The harness against handlers that misbehave: it would be worth nothing if it let them pass.

mod http;
mod lives;
mod loading;
mod triggers;

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::process::State;

/// A handler of our own in this process. It ends when this is dropped.
struct Fake {
    state: watch::Receiver<State>,
    _sender: watch::Sender<State>,
    _server: JoinSet<()>,
}

impl Fake {
    async fn start(router: Router) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut server = JoinSet::new();
        server.spawn(tollgate::server::serve(listener, router, CancellationToken::new()));
        let (sender, state) = watch::channel(State::Ready { port, pid: 0 });
        Self { state, _sender: sender, _server: server }
    }
}
