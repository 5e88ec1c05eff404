//! `tollgate serve`: the gateway as the Functions host starts it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Error, interrupted, log, run_on_runtime};
use crate::config::catalog::Catalog;
use crate::config::live::Live;
use crate::config::settings::{Environment, Settings};
use crate::memory::SystemClock;
use crate::ports::{Clock as _, with_causes};
use crate::routes::{self, Start};
use crate::server;
use crate::wiring::{self, Stores, Wired, WiringError};

/// What is still being written when everything else has stopped: the usage of replies that were cut
/// off, which may need a vocabulary first.
const LAST_WRITES: Duration = Duration::from_millis(1_500);
/// Before the next try to open a database that cannot be reached; each pause is twice the one before, up to this.
const OPEN_AGAIN_AFTER: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// The flags of `tollgate serve`.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen when the Functions host has not said where [default: 127.0.0.1:7071].
    #[arg(long)]
    listen: Option<SocketAddr>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    log()?;
    let settings = Settings::read(&Environment)?;
    let config = Arc::new(configuration(&settings)?);
    for name in &settings.inactive {
        tracing::warn!(setting = name, "{name} is set and does nothing in this version yet");
    }
    // The host says where; what it says goes before a flag that somebody left in host.json.
    let address = settings
        .handler_port
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        .or(arguments.listen)
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 7071)));
    run_on_runtime(async {
        // First of all: the host looks for an answer every 25 ms, and whoever comes waits.
        let listener = server::bind(address).await?;
        tracing::info!("listening on http://{}", listener.local_addr()?);
        let background = TaskTracker::new();
        let stop = interrupted(&background);
        let (ready, gateway) = watch::channel(Start::UnderWay);
        let (latest, router) = watch::channel(routes::starting(gateway));
        let serving = background.spawn(server::serve_latest(listener, router, stop.clone()));
        let stores = tokio::select! {
            opened = open_stores(&settings, &ready) => opened?,
            // Nothing has begun that would have to end.
            () = stop.cancelled() => return Ok(()),
        };
        let Wired { app, tasks } = wiring::wire_on(stores, &settings, config, settings.admin_key.clone())?;
        if app.admin_key.is_none() {
            tracing::warn!(
                "TOLLGATE_ADMIN_KEY is not set: only Entra tokens with the role Tollgate.Admin open management"
            );
        }
        let gateway = routes::router(app);
        drop(latest.send_replace(gateway.clone()));
        drop(ready.send_replace(Start::Done(gateway)));
        serving.await?;
        // The routes hold the journeys, and these what writes: gone, that can end.
        drop((latest, ready));
        last_writes(&tasks).await;
        Ok(())
    })
}

/// Opens the database; one that cannot be reached is tried until it can.
async fn open_stores(settings: &Settings, start: &watch::Sender<Start>) -> Result<Stores, WiringError> {
    let (mut pause, longest) = OPEN_AGAIN_AFTER;
    let mut said = String::new();
    loop {
        let error = match Stores::open(settings).await {
            Ok(stores) => {
                if !said.is_empty() {
                    tracing::info!("the database can be used now");
                }
                return Ok(stores);
            }
            Err(error) if error.may_pass() => with_causes(&error),
            Err(error) => return Err(error),
        };
        start.send_replace(Start::Held);
        if said != error {
            tracing::error!(%error, "the gateway cannot start yet, and tries again: {error}; `tollgate doctor` says what mends it");
            said = error;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(longest);
    }
}

/// Waits for what is still being written when everything else has stopped.
pub(super) async fn last_writes(tasks: &TaskTracker) {
    tasks.close();
    if tokio::time::timeout(LAST_WRITES, tasks.wait()).await.is_err() {
        tracing::warn!("stopped before everything was written");
    }
}

/// A file is read now; a secret is read by the gateway, as soon as it listens.
pub(super) fn configuration(settings: &Settings) -> Result<Live, Error> {
    let Some(file) = &settings.config_file else {
        if settings.key_vault.is_some() {
            return Ok(Live::default());
        }
        return Err("neither TOLLGATE_CONFIG nor TOLLGATE_KEY_VAULT_URL is set: name the gateway \
                    configuration's file, or the vault that keeps it as a secret (to try Tollgate without \
                    one, run `tollgate local`)"
            .into());
    };
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read TOLLGATE_CONFIG {}: {error}", file.display()))?;
    let source = file.display().to_string();
    let catalog = Catalog::parse(&text, &source)?;
    Ok(Live::holding(catalog, source, SystemClock::start().now()))
}
