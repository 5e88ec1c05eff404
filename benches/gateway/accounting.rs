//! What does it cost to make every event safe: nothing at all next to the ledger, next to an event hub that
//! takes 10 ms to acknowledge?
//!
//! The three gateways are this program itself, started again with the library's own parts, so that they
//! differ in nothing but where usage goes. It must never assert a figure.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tollgate::config::catalog::Catalog;
use tollgate::config::live::Live;
use tollgate::config::settings::{Environment, Settings};
use tollgate::domain::units::UnixMillis;
use tollgate::domain::usage::UsageEvent;
use tollgate::ports::{Receipt, UsageSink};
use tollgate::{routes, server, wiring};

use crate::Result;
use crate::report::median;

/// What the hub takes before it acknowledges.
const ACKNOWLEDGED_AFTER: Duration = Duration::from_millis(10);
/// Says to this program that it is a gateway, and whether it drops its usage.
const SERVE: &str = "GATEWAY_BENCH_SERVE";

/// Where usage goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Books {
    Off = 0,
    Ledger = 1,
    Hub = 2,
}

impl Books {
    pub(crate) const ALL: [Self; 3] = [Self::Off, Self::Ledger, Self::Hub];
}

/// An event hub that does nothing but acknowledge, and an identity that may send to it. Ends when it is
/// dropped.
pub(crate) struct Hub {
    address: SocketAddr,
    _stop: DropGuard,
}

impl Hub {
    pub(crate) async fn start() -> Result<Self> {
        let listener = server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let address = listener.local_addr()?;
        let router = Router::new()
            .route(
                "/msi/token",
                get(async || axum::Json(json!({"access_token": "t", "expires_on": "4102444800"}))),
            )
            .route(
                "/usage/messages",
                post(async |_: axum::body::Bytes| {
                    tokio::time::sleep(ACKNOWLEDGED_AFTER).await;
                    StatusCode::CREATED
                }),
            );
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(server::serve(listener, router, stop.clone()));
        Ok(Self { address, _stop: stop.drop_guard() })
    }

    /// The command of a gateway whose usage goes there. Its other settings are the caller's matter.
    pub(crate) fn command(&self, books: Books) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(SERVE, format!("{books:?}"));
        if books == Books::Hub {
            command
                .env("UsageEventHub__fullyQualifiedNamespace", "bench.servicebus.windows.net")
                .env("USAGE_EVENTHUB_NAME", "usage")
                .env("TOLLGATE_EVENT_HUB_ENDPOINT", format!("http://{}", self.address))
                .env("IDENTITY_ENDPOINT", format!("http://{}/msi/token", self.address))
                .env("IDENTITY_HEADER", "bench");
        }
        Ok(command)
    }
}

/// Usage that nobody wants.
struct Nowhere;

impl UsageSink for Nowhere {
    fn record(&self, _event: UsageEvent) -> Receipt {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// Whether this program was started as a gateway; then it is one until it is ended.
pub(crate) fn serve_if_told() -> Option<Result<()>> {
    let books = std::env::var(SERVE).ok()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    Some(runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(serve(books == "Off"))))
}

async fn serve(drops_usage: bool) -> Result<()> {
    let settings = Settings::read(&Environment)?;
    let file = settings.config_file.as_ref().ok_or("TOLLGATE_CONFIG is not set")?;
    let catalog = Catalog::parse(&std::fs::read_to_string(file)?, "bench")?;
    let config = Arc::new(Live::holding(catalog, "bench", UnixMillis(0)));
    let port = settings.handler_port.ok_or("the port is not set")?;
    let mut app = wiring::wire(&settings, config, settings.admin_key.clone()).await?.app;
    if drops_usage {
        let proxy = Arc::get_mut(&mut app.proxy).ok_or("somebody else has the proxy")?;
        proxy.usage = Arc::new(Nowhere);
    }
    let listener = server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
    server::serve(listener, routes::router(app), CancellationToken::new()).await;
    Ok(())
}

/// The figures of this part: for each of [`Books`], a value for each run.
#[derive(Default)]
pub(crate) struct Figures(Vec<(&'static str, [Vec<f64>; 3])>);

impl Figures {
    pub(crate) fn add(&mut self, name: &'static str, books: Books, value: f64) {
        let at = self.0.iter().position(|(known, _)| *known == name).unwrap_or_else(|| {
            self.0.push((name, <[Vec<f64>; 3]>::default()));
            self.0.len() - 1
        });
        self.0[at].1[books as usize].push(value);
    }

    pub(crate) fn print(&self) {
        println!(
            "\n{:44}{:>10}{:>10}{:>10}{:>9}",
            "where usage goes (hub: acknowledges in 10 ms)", "nowhere", "ledger", "hub", "hub/none"
        );
        for (name, values) in &self.0 {
            let [off, ledger, hub] = values.each_ref().map(|values| median(values).unwrap_or_default());
            println!("  {name:42}{off:>10.0}{ledger:>10.0}{hub:>10.0}{:>9.2}", hub / off);
        }
    }

    pub(crate) fn json(&self) -> Value {
        let rows = self.0.iter().map(|(name, [off, ledger, hub])| {
            json!({"name": name, "runs": {"nowhere": off, "ledger": ledger, "hub": hub}})
        });
        rows.collect()
    }
}
