//! Connections to the backends: pooled, of either HTTP version, and not for ever.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::ArcSwap;
use reqwest::Client;
use reqwest::redirect::Policy;
use tokio::time::{Duration, Instant};

use crate::config::catalog::Backend;
use crate::domain::ids::Name;

/// A backend that is not reached in this time will not be: another one is asked.
const CONNECT: Duration = Duration::from_secs(5);
/// Azure's load balancers forget an idle connection after four minutes.
const POOL_IDLE: Duration = Duration::from_secs(90);
/// A peer that is gone without a word is noticed in this time, long before a backend is given up.
const DEAD_PEER: Duration = Duration::from_secs(30);
/// After this time new connections are made, and names are looked up again: a connection in use would
/// else outlive every change of an address.
const RENEWAL: Duration = Duration::from_mins(5);
/// HTTP/2 puts all requests to a host on one connection, and servers take about a hundred at a time
/// (RFC 9113 §6.5.2 recommends no fewer): the rest would wait for no reason. So these many go to one
/// client, and the next ones to another.
const PER_CONNECTION: usize = 80;
/// What goes beyond shares the last.
const MAX_CLIENTS: usize = 16;

/// Clients, each with its own pool of connections.
pub(super) struct Connections {
    clients: RwLock<Vec<Arc<Renewed>>>,
    busy: RwLock<HashMap<Name, Arc<AtomicUsize>>>,
}

struct Renewed {
    client: ArcSwap<Made>,
    is_being_made: AtomicBool,
}

struct Made {
    client: Client,
    at: Instant,
}

/// A request that is under way; dropped when its reply is over.
pub(super) struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Connections {
    /// # Errors
    /// When the system's certificates cannot be read.
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        Ok(Self { clients: RwLock::new(vec![Arc::new(Renewed::new()?)]), busy: RwLock::default() })
    }

    /// A client for one more request to a backend.
    pub(super) fn one_for(&self, backend: &Backend) -> (Client, Busy) {
        let busy = self.busy(&backend.name);
        let before = busy.fetch_add(1, Relaxed);
        // Without TLS nobody speaks HTTP/2.
        let full = if backend.endpoint.scheme() == "https" { before / PER_CONNECTION } else { 0 };
        (self.client(full.min(MAX_CLIENTS - 1)), Busy(busy))
    }

    fn busy(&self, backend: &Name) -> Arc<AtomicUsize> {
        if let Some(busy) = self.busy.read().unwrap_or_else(PoisonError::into_inner).get(backend) {
            return Arc::clone(busy);
        }
        let mut all = self.busy.write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry(backend.clone()).or_default())
    }

    /// The client at `index`, or the last that could be made.
    fn client(&self, index: usize) -> Client {
        let clients = self.clients.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(index) {
            return client.latest();
        }
        drop(clients);
        let mut clients = self.clients.write().unwrap_or_else(PoisonError::into_inner);
        if clients.len() <= index {
            match Renewed::new() {
                Ok(client) => clients.push(Arc::new(client)),
                Err(error) => tracing::warn!(%error, "no further HTTPS client could be made: {error}"),
            }
        }
        let last = clients.len() - 1;
        clients[index.min(last)].latest()
    }
}

impl Renewed {
    fn new() -> Result<Self, reqwest::Error> {
        Ok(Self { client: ArcSwap::from_pointee(Made::now()?), is_being_made: AtomicBool::new(false) })
    }

    /// The client of the moment. An old one is replaced behind the request that finds it so; what is under
    /// way on its connections goes on.
    fn latest(self: &Arc<Self>) -> Client {
        let made = self.client.load();
        if made.at.elapsed() > RENEWAL && !self.is_being_made.swap(true, Relaxed) {
            let this = Arc::clone(self);
            // To read the system's certificates takes some milliseconds.
            tokio::task::spawn_blocking(move || {
                match Made::now() {
                    Ok(made) => this.client.store(Arc::new(made)),
                    Err(error) => tracing::warn!(%error, "no new HTTPS client could be made: {error}"),
                }
                this.is_being_made.store(false, Relaxed);
            });
        }
        made.client.clone()
    }
}

impl Made {
    fn now() -> Result<Self, reqwest::Error> {
        let client = Client::builder()
            // Bytes go through as they come: nothing is unpacked, nothing is followed.
            .redirect(Policy::none())
            // Whether a backend is asked again is decided where all backends are known; and a client
            // that may ask again copies each request first.
            .retry(reqwest::retry::never().max_retries_per_request(0))
            .no_proxy()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(POOL_IDLE)
            .tcp_nodelay(true)
            .tcp_keepalive(DEAD_PEER / 2)
            .tcp_user_timeout(DEAD_PEER)
            .http2_keep_alive_interval(DEAD_PEER / 2)
            .http2_keep_alive_timeout(DEAD_PEER / 2)
            .build()?;
        Ok(Self { client, at: Instant::now() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::catalog::{Auth, Billing};

    #[tokio::test]
    async fn many_requests_at_once_are_spread_over_connections() {
        let connections = Connections::new().unwrap();
        let (one, other) = (backend("one", "https://one.test"), backend("other", "https://other.test"));
        let local = backend("local", "http://127.0.0.1:1");
        let clients = || connections.clients.read().unwrap().len();
        let mut busy: Vec<_> = (0..PER_CONNECTION).map(|_| connections.one_for(&one).1).collect();
        let _of_another = connections.one_for(&other);
        let _local: Vec<_> = (0..=PER_CONNECTION).map(|_| connections.one_for(&local)).collect();
        assert_eq!(clients(), 1);
        busy.push(connections.one_for(&one).1);
        assert_eq!(clients(), 2);
        busy.clear();
        assert_eq!(connections.busy(&one.name).load(Relaxed), 0);
        let all: Vec<_> = (0..=PER_CONNECTION * MAX_CLIENTS).map(|_| connections.one_for(&one).1).collect();
        assert_eq!((clients(), all.len()), (MAX_CLIENTS, PER_CONNECTION * MAX_CLIENTS + 1));
    }

    fn backend(name: &str, endpoint: &str) -> Backend {
        Backend {
            name: Name::new(name).unwrap(),
            endpoint: endpoint.parse().unwrap(),
            region: None,
            priority: 1,
            weight: 1,
            auth: Auth::None,
            private_endpoint: false,
            deployments: None,
            deployment_types: std::collections::BTreeMap::new(),
            billing: Billing::PayAsYouGo,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_client_is_replaced_behind_the_request_that_finds_it() {
        let renewed = Arc::new(Renewed::new().unwrap());
        let made_at = || renewed.client.load().at;
        let first = made_at();
        tokio::time::advance(RENEWAL).await;
        let _still = renewed.latest();
        assert!(!renewed.is_being_made.load(Relaxed));
        tokio::time::advance(Duration::from_secs(1)).await;
        let _old = renewed.latest();
        while made_at() == first {
            tokio::task::yield_now().await;
        }
        assert!(made_at() > first);
    }
}
