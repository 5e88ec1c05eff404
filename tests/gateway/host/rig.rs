//! Tollgate under the host: a staged folder, the test build as its handler, a backend behind it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;
use tollgate::cli::package;

use super::app::{App, Mode, Settings};
use super::backend::Backend;
use super::front::Host;
use super::hub::Listener;
use super::timer::Timer;

pub(super) const ADMIN_KEY: &str = "plainly-not-a-real-admin-key";
pub(super) const CHAT: &str = "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21";
/// What must happen happens long before; a machine with much else to do may need it.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A folder as `tollgate package` stages it, and what belongs beside it.
pub(super) struct Stage {
    pub(super) folder: TempDir,
    pub(super) settings: Settings,
}

pub(super) struct Rig {
    stage: Stage,
    pub(super) backend: Backend,
    pub(super) host: Host,
    pub(super) client: reqwest::Client,
}

/// What a caller was issued.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    pub(super) id: String,
    pub(super) key: String,
}

/// One subscription's line of the usage report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub(super) requests: u64,
    pub(super) input: u64,
    pub(super) output: u64,
}

impl Stage {
    /// The test build is a hundred megabytes and asks for this machine's C library: it is linked in the
    /// place where a portable one is staged.
    pub(super) fn new(backend: &str, mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("placeholder"), "").unwrap();
        package::stage(&path("placeholder"), folder.path()).unwrap();
        fs::remove_file(path("functionapp/handler")).unwrap();
        symlink(env!("CARGO_BIN_EXE_tollgate"), path("functionapp/handler")).unwrap();
        fs::write(path("gateway.json"), configuration(backend).to_string()).unwrap();
        let mut settings: Settings = [
            ("TOLLGATE_CONFIG", path("gateway.json").display().to_string()),
            ("TOLLGATE_DATABASE_URL", format!("sqlite://{}", path("ledger.db").display())),
            ("TOLLGATE_DATA_DIR", path("data").display().to_string()),
            ("TOLLGATE_ADMIN_KEY", ADMIN_KEY.to_owned()),
            ("AzureWebJobsStorage", "UseDevelopmentStorage=true".to_owned()),
            ("FUNCTIONS_WORKER_RUNTIME", "custom".to_owned()),
            ("USAGE_EVENTHUB_NAME", "usage".to_owned()),
            // By connection string, as with the emulator: no publisher takes it up.
            ("UsageEventHub", "Endpoint=sb://localhost".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        settings.extend(switches(mode));
        Self { folder, settings }
    }

    pub(super) fn root(&self) -> PathBuf {
        self.folder.path().join("functionapp")
    }

    pub(super) fn app(&self) -> App {
        App::load(&self.root(), &self.settings).unwrap_or_else(|faults| panic!("{}", faults.join("\n")))
    }
}

/// As an operator would: host.json stays as it was staged.
fn switches(mode: Mode) -> BTreeMap<String, String> {
    let off: &[&str] = match mode {
        Mode::Proxying => &[],
        Mode::Forwarding => &["enableProxyingHttpRequest"],
        Mode::Envelope => &["enableProxyingHttpRequest", "enableForwardingHttpRequest"],
    };
    off.iter()
        .map(|key| (format!("AzureFunctionsJobHost__customHandler__{key}"), "false".to_owned()))
        .collect()
}

fn configuration(backend: &str) -> Value {
    json!({
        "backends": [{"name": "scripted", "endpoint": backend, "region": "here", "auth": {"kind": "none"}}],
        "products": [{"name": "standard", "deployments": ["gpt-4o-mini", "text-embedding-3-small"]}],
        "prices": [{"deployment": "gpt-4o-mini", "input_per_million": "0.15", "output_per_million": "0.60"}],
        "currency": "USD",
    })
}

impl Rig {
    pub(super) async fn start(mode: Mode) -> Self {
        Self::before(Backend::start().await, mode).await
    }

    pub(super) async fn before(backend: Backend, mode: Mode) -> Self {
        Self::with(backend, mode, &[]).await
    }

    /// With more settings.
    pub(super) async fn with(backend: Backend, mode: Mode, settings: &[(&str, String)]) -> Self {
        let mut stage = Stage::new(&format!("http://{}", backend.address), mode);
        stage.settings.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let host = Host::start(&stage.root(), &stage.settings).await;
        assert_eq!(host.app.mode, mode);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { stage, backend, host, client }
    }

    /// The instance dies, its handler with it, and the platform puts another one in its place. (The
    /// host restarts a handler itself, but at its third failure it gives up.)
    pub(super) async fn replace_instance(&mut self) {
        self.host.handler().kill().await;
        self.host = Host::start(&self.stage.root(), &self.stage.settings).await;
    }

    pub(super) fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.host.url(path))
    }

    pub(super) fn admin(&self, method: Method, path: &str) -> RequestBuilder {
        self.ask(method, path).bearer_auth(ADMIN_KEY)
    }

    pub(super) async fn issue(&self) -> Issued {
        let asked = json!({"name": "team", "product": "standard"});
        let response = self.admin(Method::POST, "/subscriptions").json(&asked).send().await.unwrap();
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let text = |name: &str| body[name].as_str().unwrap().to_owned();
        Issued { id: text("id"), key: text("primary_key") }
    }

    pub(super) fn chat(&self, key: &str, body: &Value) -> RequestBuilder {
        self.ask(Method::POST, CHAT).header("api-key", key).json(body)
    }

    /// Straight to the handler, past the host, as nobody can from outside.
    pub(super) async fn handler_url(&self, path: &str) -> String {
        let (port, _) = self.host.handler().ready().await;
        format!("http://127.0.0.1:{port}{path}")
    }

    pub(super) fn listener(&self) -> Listener {
        let state = self.host.handler().state();
        Listener::new(&self.host.app, "token-accounting", state).without_pauses()
    }

    /// The database of all instances.
    pub(super) fn ledger_file(&self) -> PathBuf {
        self.stage.folder.path().join("ledger.db")
    }

    pub(super) fn timer(&self) -> Timer {
        Timer::new(&self.host.app, "upkeep", self.host.handler().state())
    }

    /// All that was ever used, by subscription.
    pub(super) async fn report(&self) -> BTreeMap<String, Used> {
        let path = "/reports/usage?group_by=subscription&from=2020-01-01&to=2100-01-01";
        let response = self.admin(Method::GET, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let report: Value = response.json().await.unwrap();
        let line = |row: &Value| {
            let number = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{name} in {row}"));
            let used = Used {
                requests: number("requests"),
                input: number("input_tokens"),
                output: number("output_tokens"),
            };
            (row["subscription"].as_str().unwrap().to_owned(), used)
        };
        report["rows"].as_array().unwrap().iter().map(line).collect()
    }

    pub(super) async fn used(&self, issued: &Issued) -> Used {
        self.report().await.get(&issued.id).copied().unwrap_or_default()
    }

    /// Asks for the report until it shows this many requests of the subscription.
    pub(super) async fn until_used(&self, issued: &Issued, requests: u64) -> Used {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let used = self.used(issued).await;
            if used.requests >= requests || Instant::now() > deadline {
                return used;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

pub(super) fn hello() -> Value {
    json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Say hello."}]})
}

pub(super) fn hello_streamed() -> Value {
    let mut body = hello();
    body["stream"] = true.into();
    body
}

/// Every file of a folder with its length, to see whether it was written to.
pub(super) fn listing(folder: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let bytes = fs::metadata(&path).unwrap().len();
                found.insert(path, bytes);
            }
        }
    }
    found
}
