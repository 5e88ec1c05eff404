//! A gateway of a test's own: the real routes on a real port, a simulated resource behind it, a
//! ledger in a folder that goes when the test does.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tollgate::app::App;
use tollgate::config::catalog::Catalog;
use tollgate::config::live::Live;
use tollgate::config::settings::Settings;
use tollgate::domain::units::UnixMillis;
use tollgate::ledger::Ledger;
use tollgate::ports::{Backends, LedgerStore, UsageSink};
use tollgate::proxy::{Kept, Keys, Pool, Proxy, Room, Unasked};
use tollgate::simulator::{self, Knobs};
use tollgate::{routes, server, wiring};

mod clock;

pub(crate) use clock::SetClock;

pub(crate) const ADMIN_KEY: &str = "not-a-real-admin-key";
pub(crate) const CHAT: &str = "/openai/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21";

/// Tests wait this long for what must come; it is never what they measure.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway, its simulated resource and a key for it.
pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) resource: SocketAddr,
    pub(crate) key: String,
    pub(crate) app: App,
    pub(crate) client: reqwest::Client,
    stop: CancellationToken,
    _stop: DropGuard,
    resource_stop: Option<DropGuard>,
    folder: TempDir,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// Starts a simulated resource; it stops with the guard.
pub(crate) async fn resource(knobs: Knobs) -> (SocketAddr, DropGuard) {
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    TaskTracker::new().spawn(server::serve(listener, simulator::router(knobs), stop.clone()));
    (address, stop.drop_guard())
}

pub(crate) async fn listener() -> TcpListener {
    server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap()
}

/// A configuration with one backend, as a file would have it.
pub(crate) fn configuration(resource: SocketAddr) -> Value {
    json!({
        "backends": [{"name": "sim", "endpoint": format!("http://{resource}"), "region": "here",
                      "auth": {"kind": "none"}}],
        "products": [{"name": "standard"}, {"name": "narrow", "deployments": ["gpt-4o"]}],
        "prices": [{"deployment": "gpt-4o-mini", "input_per_million": "0.15",
                    "cached_input_per_million": "0.075", "output_per_million": "0.60"}],
    })
}

impl TestGateway {
    pub(crate) async fn start() -> Self {
        Self::before(Knobs::default()).await
    }

    /// Before a resource that behaves so.
    pub(crate) async fn before(knobs: Knobs) -> Self {
        let (resource, stop) = resource(knobs).await;
        let mut gateway = Self::with(resource, &configuration(resource)).await;
        gateway.resource_stop = Some(stop);
        gateway
    }

    pub(crate) async fn with(resource: SocketAddr, configuration: &Value) -> Self {
        Self::with_settings(resource, configuration, &[]).await
    }

    /// The same, with more settings.
    pub(crate) async fn with_settings(
        resource: SocketAddr,
        configuration: &Value,
        more: &[(&'static str, String)],
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let app = app(folder.path(), configuration, more).await;
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        TaskTracker::new().spawn(server::serve(listener, routes::router(app.clone()), stop.clone()));
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let stopping = stop.clone().drop_guard();
        let mut gateway = Self {
            address,
            resource,
            key: String::new(),
            app,
            client,
            stop,
            _stop: stopping,
            resource_stop: None,
            folder,
        };
        gateway.key = gateway.issue(&json!({"name": "test", "product": "standard"})).await;
        gateway
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Serves the same gateway once more, its usage going to `usage`.
    pub(crate) async fn serve_with(&self, usage: Arc<dyn UsageSink>) -> SocketAddr {
        let proxy = Arc::new(self.proxy_with(usage));
        self.serve(App { proxy, ..self.app.clone() }).await
    }

    /// Serves the same gateway once more, with so much room for the bodies of requests.
    pub(crate) async fn serve_with_room(&self, room: Room) -> SocketAddr {
        let proxy = Proxy { room, ..self.proxy_with(Arc::clone(&self.app.proxy.usage)) };
        self.serve(App { proxy: Arc::new(proxy), ..self.app.clone() }).await
    }

    /// Serves the same gateway once more, its backends asked through another port.
    pub(crate) async fn serve_asking(&self, backends: Arc<dyn Backends>) -> SocketAddr {
        let proxy = Proxy { backends, ..self.proxy_with(Arc::clone(&self.app.proxy.usage)) };
        self.serve(App { proxy: Arc::new(proxy), ..self.app.clone() }).await
    }

    fn proxy_with(&self, usage: Arc<dyn UsageSink>) -> Proxy {
        let (proxy, issuing) = (&self.app.proxy, &self.app.issuing);
        Proxy {
            config: Arc::clone(&proxy.config),
            clock: Arc::clone(&proxy.clock),
            keys: Keys::new(issuing.hasher.clone(), Arc::clone(&issuing.store), Arc::clone(&proxy.clock)),
            signed_in: Arc::clone(&proxy.signed_in),
            uses: Arc::clone(&proxy.uses),
            backends: Arc::clone(&proxy.backends),
            usage,
            unasked: Unasked::default(),
            kept: Kept::default(),
            tasks: proxy.tasks.clone(),
            pool: Pool::new(Arc::clone(&proxy.clock)),
            room: proxy.room.clone(),
        }
    }

    /// Serves the same gateway once more, its usage posted in process to `store`.
    pub(crate) async fn serve_posting_to(&self, store: Arc<dyn LedgerStore>) -> SocketAddr {
        let ledger = Arc::new(Ledger { store, shipping: None, ..Ledger::clone(&self.app.ledger) });
        let usage = wiring::usage_in_process(Arc::clone(&ledger), self.folder(), &self.app.proxy.tasks);
        let proxy = Arc::new(self.proxy_with(usage));
        self.serve(App { proxy, ledger, ..self.app.clone() }).await
    }

    async fn serve(&self, app: App) -> SocketAddr {
        let listener = listener().await;
        let address = listener.local_addr().unwrap();
        TaskTracker::new().spawn(server::serve(listener, routes::router(app), self.stop.clone()));
        address
    }

    /// The primary key of a new subscription.
    pub(crate) async fn issue(&self, application: &Value) -> String {
        let answer = self.manage("POST", "/subscriptions", Some(application)).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.json()["primary_key"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn manage(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let bearer = format!("Bearer {ADMIN_KEY}");
        self.send(method, path, &[("authorization", &bearer)], body.map(Value::to_string)).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answer {
        ask(&self.client, method, &format!("http://{}{path}", self.address), headers, body).await
    }

    /// A chat completion with this gateway's key, its resource told how to behave.
    pub(crate) async fn chat(&self, body: &Value, behaviour: &str) -> Answer {
        let mut headers = vec![("api-key", self.key.as_str())];
        if !behaviour.is_empty() {
            headers.push(("x-simulate", behaviour));
        }
        self.send("POST", CHAT, &headers, Some(body.to_string())).await
    }

    /// The same, asked of the resource itself.
    pub(crate) async fn direct(&self, body: &Value, behaviour: &str) -> Answer {
        let url = format!("http://{}{CHAT}", self.resource);
        let headers = if behaviour.is_empty() { vec![] } else { vec![("x-simulate", behaviour)] };
        ask(&self.client, "POST", &url, &headers, Some(body.to_string())).await
    }

    /// The request as the resource received it last.
    pub(crate) async fn received(&self) -> Value {
        self.of_resource("/simulator/last").await
    }

    /// The resource's own books.
    pub(crate) async fn counts(&self) -> Value {
        self.of_resource("/simulator/counts").await["total"].clone()
    }

    async fn of_resource(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.resource);
        ask(&self.client, "GET", &url, &[], None).await.json()
    }

    /// The usage report.
    pub(crate) async fn usage(&self, query: &str) -> Value {
        let answer = self.manage("GET", &format!("/reports/usage?{query}"), None).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    }

    /// The report's total once it has `requests`: what a caller did not wait for comes a moment later.
    pub(crate) async fn total(&self, requests: u64) -> Value {
        let reported = async {
            loop {
                let total = self.usage("").await["total"].clone();
                if total["requests"].as_u64().unwrap() >= requests {
                    return total;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let total = tokio::time::timeout(PATIENCE, reported).await;
        let total = total.unwrap_or_else(|_| panic!("{requests} requests never came into the report"));
        assert_eq!(total["requests"], requests, "{total}");
        total
    }

    /// Sends bytes as they are, and answers with everything that comes back until it is closed.
    pub(crate) async fn raw(&self, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        read.expect("the connection is closed").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

async fn app(folder: &Path, configuration: &Value, more: &[(&'static str, String)]) -> App {
    let mut settings = BTreeMap::from([
        ("TOLLGATE_DATABASE_URL", format!("sqlite://{}", folder.join("ledger.db").display())),
        ("TOLLGATE_DATA_DIR", folder.display().to_string()),
    ]);
    settings.extend(more.iter().cloned());
    let settings = Settings::read(&settings).unwrap();
    let catalog = Catalog::parse(&configuration.to_string(), "test").unwrap();
    let config = Arc::new(Live::holding(catalog, "test", UnixMillis(0)));
    wiring::wire(&settings, config, Some(SecretString::from(ADMIN_KEY))).await.unwrap().app
}

pub(crate) async fn ask(
    client: &reqwest::Client,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Answer {
    let mut request = client.request(method.parse().unwrap(), url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if let Some(body) = body {
        request = request.header("content-type", "application/json").body(body);
    }
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let body = response.bytes().await.map_or_else(
        |error| format!("broken: {error}"),
        |bytes| String::from_utf8_lossy(&bytes).into_owned(),
    );
    Answer { status, headers, body }
}

/// A gateway as a process of its own, for what only a process can show: being killed, its memory.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    pub(crate) child: std::process::Child,
}

impl Process {
    /// Starts `tollgate serve` on a free port, with its ledger in `folder`, and waits until it answers.
    pub(crate) async fn serve(folder: &Path, configuration: &Value) -> Self {
        Self::serve_in(folder, configuration, &[]).await
    }

    /// The same, with more in its environment.
    pub(crate) async fn serve_in(folder: &Path, configuration: &Value, more: &[(&str, &str)]) -> Self {
        let file = folder.join("gateway.json");
        std::fs::write(&file, configuration.to_string()).unwrap();
        // Taken and given back: the next free port is another one.
        let address = listener().await.local_addr().unwrap();
        let child = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .env_clear()
            .env("TOLLGATE_CONFIG", &file)
            .env("TOLLGATE_DATABASE_URL", format!("sqlite://{}", folder.join("ledger.db").display()))
            .env("TOLLGATE_DATA_DIR", folder)
            .env("TOLLGATE_ADMIN_KEY", ADMIN_KEY)
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", address.port().to_string())
            .envs(more.iter().copied())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { address, child };
        let up = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the gateway starts");
        process
    }

    pub(crate) async fn manage(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let bearer = format!("Bearer {ADMIN_KEY}");
        let url = format!("http://{}{path}", self.address);
        ask(&client, method, &url, &[("authorization", &bearer)], body.map(Value::to_string)).await
    }

    pub(crate) async fn issue(&self) -> String {
        let body = json!({"name": "test", "product": "standard"});
        let answer = self.manage("POST", "/subscriptions", Some(&body)).await;
        answer.json()["primary_key"].as_str().unwrap().to_owned()
    }

    /// SIGKILL: what the Functions host does.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C; answers with the exit code.
    pub(crate) fn interrupt(&mut self) -> Option<i32> {
        let id = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        self.child.wait().unwrap().code()
    }

    /// The most memory it ever had.
    pub(crate) fn peak_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
