//! `tollgate local`: the main job on one machine, with nothing installed.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tokio_util::task::TaskTracker;

use super::serve::last_writes;
use super::{Error, interrupted, log, run_on_runtime};
use crate::app::App;
use crate::config::catalog::Catalog;
use crate::config::live::Live;
use crate::config::settings::{Environment, Settings};
use crate::domain::actor::Actor;
use crate::domain::ids::Name;
use crate::domain::key;
use crate::issuing::{Application, Issued, Reach};
use crate::memory::SystemClock;
use crate::ports::{Clock as _, with_causes};
use crate::proxy::Refusal;
use crate::wiring::{self, Wired};
use crate::{routes, server, simulator};

/// The product that the issued key is for.
const PRODUCT: &str = "local";

/// The flags of `tollgate local`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:7071")]
    listen: SocketAddr,
    #[command(flatten)]
    simulator: simulator::Knobs,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    log()?;
    if arguments.simulator.require_bearer.is_some() {
        return Err(
            "--require-bearer is for `tollgate simulate`: here nobody could sign in with a token".into()
        );
    }
    let settings = Settings::read(&Environment)?;
    run_on_runtime(async {
        let listener = server::bind(arguments.listen).await?;
        let tasks = TaskTracker::new();
        let stop = interrupted(&tasks);
        let resource = server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let catalog = catalog(resource.local_addr()?, &arguments.simulator)?;
        tasks.spawn(server::serve(resource, simulator::router(arguments.simulator.clone()), stop.clone()));
        let admin_key = match &settings.admin_key {
            Some(key) => key.clone(),
            None => kept_key(&settings.data_dir.join("admin-key"))?,
        };
        let config = Live::holding(catalog, "the built-in configuration", SystemClock::start().now());
        let wired = wiring::wire(&settings, Arc::new(config), Some(admin_key)).await?;
        let key = issued_key(&wired.app, &settings.data_dir).await?;
        say_how(listener.local_addr()?, &key, &settings)?;
        let Wired { app, tasks: writes } = wired;
        server::serve(listener, routes::router(app), stop).await;
        last_writes(&writes).await;
        Ok(())
    })
}

/// The simulated resource serves every deployment; prices make the report show money.
fn catalog(resource: SocketAddr, knobs: &simulator::Knobs) -> Result<Catalog, Error> {
    let auth = match knobs.require_key.first() {
        Some(key) => json!({"kind": "api_key", "value": key}),
        None => json!({"kind": "none"}),
    };
    let price = |deployment: &str, input: &str, cached: Option<&str>, output: Option<&str>| {
        json!({
            "deployment": deployment, "input_per_million": input, "cached_input_per_million": cached,
            "output_per_million": output, "effective_from": "2024-01-01",
        })
    };
    let file = json!({
        "backends": [{
            "name": "simulator", "endpoint": format!("http://{resource}"), "region": "local",
            "auth": auth,
        }],
        "products": [{"name": PRODUCT}],
        "prices": [
            price("gpt-4o", "2.50", Some("1.25"), Some("10.00")),
            price("gpt-4o-mini", "0.15", Some("0.075"), Some("0.60")),
            price("text-embedding-3-small", "0.02", None, None),
        ],
    });
    Ok(Catalog::parse(&file.to_string(), "the built-in configuration")?)
}

/// The key of the last start, as long as the database knows it; else a new one.
async fn issued_key(app: &App, data_dir: &Path) -> Result<SecretString, Error> {
    let file = data_dir.join("local-key");
    if let Some(key) = read_secret(&file)? {
        match app.proxy.keys.caller(key.expose_secret(), app.proxy.clock.now()).await {
            Ok(_) => return Ok(key),
            // It may still be good: a new one must not take its place.
            Err(Refusal::Unavailable(error)) => return Err(with_causes(&error).into()),
            Err(_) => {}
        }
    }
    let application = Application::new("local", Name::new(PRODUCT)?);
    let author = app.issuing.author(Actor::CommandLine, None);
    match app.issuing.issue(application, None, &author, &Reach::All).await? {
        Issued::New { primary_key, .. } => {
            write_secret(&file, &primary_key)?;
            Ok(primary_key)
        }
        Issued::Before(_) => Err("a key was issued before and is lost".into()),
    }
}

/// A secret that is made at the first start and kept.
fn kept_key(file: &Path) -> Result<SecretString, Error> {
    if let Some(key) = read_secret(file)? {
        return Ok(key);
    }
    let key = key::make()?;
    write_secret(file, &key)?;
    Ok(key)
}

/// `None` when it was never written. One that cannot be read is not replaced by another.
fn read_secret(file: &Path) -> Result<Option<SecretString>, Error> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text.trim()).filter(|text| !text.is_empty()).map(Into::into)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", file.display()).into()),
    }
}

/// For its owner's eyes only, from the first byte on.
fn write_secret(file: &Path, secret: &SecretString) -> Result<(), Error> {
    let written = || -> std::io::Result<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut open = options.open(file)?;
        // The mode above is for a new file only.
        #[cfg(unix)]
        open.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        writeln!(open, "{}", secret.expose_secret())
    };
    written().map_err(|error| format!("cannot write {}: {error}", file.display()).into())
}

fn say_how(address: SocketAddr, key: &SecretString, settings: &Settings) -> Result<(), Error> {
    let key = key.expose_secret();
    let data_dir = settings.data_dir.display();
    let admin_key = match &settings.admin_key {
        Some(_) => "$TOLLGATE_ADMIN_KEY".to_owned(),
        None => format!("$(cat '{data_dir}/admin-key')"),
    };
    let mut out = std::io::stdout().lock();
    write!(
        out,
        "\n\
         Tollgate listens on http://{address}\n\
         Your key, kept in {data_dir}/local-key: {key}\n\
         \n\
         A chat completion, streamed (leave out `\"stream\":true,` to get it whole):\n\
         \n\
         curl -sN 'http://{address}/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21' \
         -H 'api-key: {key}' -H 'content-type: application/json' \
         -d '{{\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"Say hello.\"}}]}}'\n\
         \n\
         What it used:\n\
         \n\
         curl -s 'http://{address}/reports/usage?group_by=deployment' -H \"Authorization: Bearer {admin_key}\"\n\
         \n\
         With an OpenAI SDK: base URL http://{address}/openai/v1 and the key above. Ctrl-C stops it.\n\n"
    )?;
    out.flush()?;
    Ok(())
}
