//! How the host speaks to the handler: HTTP/1.1 over kept-alive connections, nothing added, nothing
//! sent twice.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper::{Request, Response};
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type Body = UnsyncBoxBody<Bytes, BoxError>;

/// The host keeps a connection for about a minute.
const POOLED: Duration = Duration::from_mins(1);

#[derive(Clone, Debug)]
pub(super) struct Client(hyper_util::client::legacy::Client<HttpConnector, Body>);

impl Client {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
            .pool_idle_timeout(POOLED)
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .set_host(false)
            .build(connector);
        Self(client)
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Result<Response<Incoming>, Error> {
        self.0.request(request).await
    }
}
