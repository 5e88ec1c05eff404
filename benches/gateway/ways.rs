//! The three ways to the same backend: direct, through nginx, and through Tollgate.
//!
//! Each proxy gets what it needs to do well at this job, and nothing that only serves this benchmark.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Result;
use crate::accounting::{Books, Hub};
use crate::calls::{CHAT, Kind, request};
use crate::client::{Call, Connection, Expected};
use crate::metronome::{self, Metronome};
use crate::procs::{Cores, Process, free_address};

const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate");
/// Where `cargo` lets a benchmark write: on the disk of the build, not in memory, because the
/// ledger's commits must cost what commits cost.
const SCRATCH: &str = env!("CARGO_TARGET_TMPDIR");
const ADMIN_KEY: &str = "not-a-secret-benchmark-admin";
/// Between two looks whether a process answers. The thread really sleeps: nothing else is to be
/// done then, and the runtime's timer is four times as coarse.
const READY_STEP: Duration = Duration::from_micros(250);
const READY_WITHIN: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Direct = 0,
    Nginx = 1,
    Tollgate = 2,
}

/// What the load knows of a way.
pub(crate) struct Running {
    /// Where the simulator is reached.
    pub(crate) chat: SocketAddr,
    /// Where the metronome is reached.
    pub(crate) paced: SocketAddr,
    /// The process under test; none on the direct way.
    pub(crate) process: Option<Process>,
}

/// All that one run needs. Ends with it.
pub(crate) struct Stage {
    cores: Cores,
    pub(crate) ways: Vec<Way>,
    pub(crate) metronome: Metronome,
    simulator: SocketAddr,
    nginx: SocketAddr,
    tollgate: SocketAddr,
    /// Sent on every way, so that all carry the same bytes.
    key: String,
    _simulator_process: Process,
    folder: TempDir,
}

impl Stage {
    /// Starts the backends, writes the configurations and has a key issued.
    pub(crate) async fn set(cores: Cores, with_nginx: bool, paces: &[Duration]) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("gateway-bench-").tempdir_in(SCRATCH)?;
        let simulator = free_address()?;
        let mut command = Command::new(TOLLGATE);
        command.args(["simulate", "--reply-tokens", "100", "--listen"]).arg(simulator.to_string());
        let output = folder.path().join("simulator.out");
        let mut process = Process::start(command, &output, cores.load, cores.load)?;
        listens(simulator, &mut process).await?;
        let mut stage = Self {
            cores,
            ways: vec![Way::Direct, Way::Nginx, Way::Tollgate],
            metronome: Metronome::start().await?,
            simulator,
            nginx: free_address()?,
            tollgate: free_address()?,
            key: String::new(),
            _simulator_process: process,
            folder,
        };
        if !with_nginx {
            stage.ways.retain(|way| *way != Way::Nginx);
        }
        std::fs::write(stage.file("nginx.conf"), stage.nginx_configuration())?;
        let configuration = stage.tollgate_configuration(paces);
        std::fs::write(stage.file("tollgate.json"), configuration.to_string())?;
        stage.key = stage.issue_key().await?;
        Ok(stage)
    }

    /// Starts a way and waits until it answers.
    pub(crate) async fn start(&self, way: Way) -> Result<Running> {
        let (command, address) = match way {
            Way::Direct => {
                return Ok(Running { chat: self.simulator, paced: self.metronome.address, process: None });
            }
            Way::Nginx => (self.nginx_command(), self.nginx),
            Way::Tollgate => (self.tollgate_command(), self.tollgate),
        };
        let output = self.file(&format!("{way:?}.out"));
        let mut process = Process::start(command, &output, self.cores.gateway, self.cores.load)?;
        answers(address, &mut process).await?;
        Ok(Running { chat: address, paced: address, process: Some(process) })
    }

    /// Starts a gateway whose usage goes there.
    pub(crate) async fn start_keeping(&self, books: Books, hub: &Hub) -> Result<Running> {
        let command = self.with_settings(hub.command(books)?);
        let output = self.file(&format!("{books:?}.out"));
        let mut process = Process::start(command, &output, self.cores.gateway, self.cores.load)?;
        answers(self.tollgate, &mut process).await?;
        Ok(Running { chat: self.tollgate, paced: self.tollgate, process: Some(process) })
    }

    /// A chat completion, whole, streamed, or streamed with usage.
    pub(crate) async fn chat(&self, kind: Kind) -> Result<Arc<Call>> {
        let mut call = Call { request: request(CHAT, &self.key, &kind.body()), expected: Expected::Anything };
        let mut direct = Connection::open(self.simulator).await?;
        direct.exchange(&call).await?;
        call.expected = Expected::of(direct.body());
        Ok(Arc::new(call))
    }

    /// A stream of the metronome.
    pub(crate) fn paced(&self, pace: Duration) -> Arc<Call> {
        let deployment = metronome::deployment(pace);
        Arc::new(Call {
            request: request(&deployment, &self.key, &Kind::Stream.body()),
            expected: Expected::Events(metronome::EVENTS),
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn issue_key(&self) -> Result<String> {
        let running = self.start(Way::Tollgate).await?;
        let body = json!({"name": "bench", "product": "standard"}).to_string();
        let call = Call {
            request: format!(
                "POST /subscriptions HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {ADMIN_KEY}\r\n\
                 content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                running.chat,
                body.len()
            )
            .into_bytes(),
            expected: Expected::Anything,
        };
        let mut connection = Connection::open(running.chat).await?;
        connection.exchange(&call).await?;
        let issued: Value = serde_json::from_slice(connection.body())?;
        let key = issued["primary_key"].as_str();
        Ok(key.ok_or("no key was issued")?.to_owned())
    }

    fn tollgate_command(&self) -> Command {
        let mut command = Command::new(TOLLGATE);
        command.arg("serve");
        self.with_settings(command)
    }

    fn with_settings(&self, mut command: Command) -> Command {
        let ledger = self.file("ledger.db");
        command
            .env("TOLLGATE_CONFIG", self.file("tollgate.json"))
            .env("TOLLGATE_DATABASE_URL", format!("sqlite://{}", ledger.display()))
            .env("TOLLGATE_ADMIN_KEY", ADMIN_KEY)
            .env("TOLLGATE_DATA_DIR", self.folder.path())
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", self.tollgate.port().to_string());
        command
    }

    fn tollgate_configuration(&self, paces: &[Duration]) -> Value {
        let streamed: Vec<String> = paces.iter().map(|pace| metronome::deployment(*pace)).collect();
        let unchanged =
            |names: &[String]| -> Value { names.iter().map(|name| (name.clone(), json!(name))).collect() };
        let backend = |name: &str, address: SocketAddr, names: &[String]| {
            json!({"name": name, "endpoint": format!("http://{address}"), "auth": {"kind": "none"},
                   "deployments": unchanged(names)})
        };
        let chat = vec![CHAT.to_owned()];
        let all = [chat.clone(), streamed.clone()].concat();
        let price = |name: &String| {
            json!({"deployment": name, "input_per_million": "0.15", "output_per_million": "0.60",
                   "effective_from": "2024-07-18"})
        };
        json!({
            "backends": [backend("simulator", self.simulator, &chat),
                         backend("metronome", self.metronome.address, &streamed)],
            "products": [{"name": "standard", "deployments": all}],
            "prices": all.iter().map(price).collect::<Vec<_>>(),
            "currency": "USD",
        })
    }

    fn nginx_command(&self) -> Command {
        let mut command = Command::new("nginx");
        command.arg("-c").arg(self.file("nginx.conf")).arg("-e").arg(self.file("nginx-error.log"));
        command
    }

    /// `docs/BENCHMARK.md` says why each line is as it is.
    fn nginx_configuration(&self) -> String {
        let folder = self.folder.path().display();
        let (simulator, metronome, listen) = (self.simulator, self.metronome.address, self.nginx);
        format!(
            "daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
events {{ worker_connections 8192; }}
http {{
    access_log {folder}/nginx-access.log;
    client_body_temp_path {folder}/client-body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;

    tcp_nodelay on;
    keepalive_requests 100000000;
    client_body_buffer_size 128k;

    upstream simulator {{ server {simulator}; keepalive 128; keepalive_requests 100000000; }}
    upstream metronome {{ server {metronome}; keepalive 128; keepalive_requests 100000000; }}
    proxy_http_version 1.1;
    proxy_set_header Connection \"\";
    proxy_buffering off;

    server {{
        listen {listen} backlog=1024;
        location = / {{ return 200 \"ready\"; }}
        location /openai/deployments/every- {{ proxy_pass http://metronome; }}
        location / {{ proxy_pass http://simulator; }}
    }}
}}
"
        )
    }
}

/// Which nginx is installed, if any.
pub(crate) fn nginx_version() -> Option<String> {
    let output = Command::new("nginx").arg("-v").output().ok()?;
    let printed = String::from_utf8_lossy(&output.stderr);
    Some(printed.trim().replace("nginx version: ", ""))
}

/// Waits until connections are taken.
async fn listens(address: SocketAddr, process: &mut Process) -> Result<Connection> {
    loop {
        // Refused until then, at once.
        if let Ok(connection) = Connection::open(address).await {
            return Ok(connection);
        }
        process.check()?;
        if process.started.elapsed() > READY_WITHIN {
            return Err(format!("nothing listened on {address} within {READY_WITHIN:?}").into());
        }
        std::thread::sleep(READY_STEP);
    }
}

/// Waits until `GET /` is answered.
async fn answers(address: SocketAddr, process: &mut Process) -> Result<()> {
    let call = Call {
        request: format!("GET / HTTP/1.1\r\nhost: {address}\r\n\r\n").into_bytes(),
        expected: Expected::Anything,
    };
    let mut connection = listens(address, process).await?;
    connection.exchange(&call).await?;
    Ok(())
}
