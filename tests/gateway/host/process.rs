//! The handler's process: how it is started, when it counts as ready, and what its end means.

use std::io::ErrorKind;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::app::{App, Settings};
use super::client::Client;

/// How often a handler that is not ready yet is asked again.
const PROBE: Duration = Duration::from_millis(25);
/// At the third error the host gives up, and so does the instance.
const MAX_ERRORS: u32 = 3;

/// Where the handler stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready {
        port: u16,
        pid: u32,
    },
    /// It exited with 0: nothing restarts it, and every call is refused.
    Ended,
    /// It failed too often, and the host has shut down.
    ShutDown,
}

/// What the handler wrote, by line.
#[derive(Clone, Debug, Default)]
pub(super) struct Output {
    pub(super) stdout: Arc<Mutex<Vec<String>>>,
    pub(super) stderr: Arc<Mutex<Vec<String>>>,
}

impl Output {
    pub(super) fn stdout(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    pub(super) fn stderr(&self) -> Vec<String> {
        self.stderr.lock().unwrap().clone()
    }

    /// Everything, for a look at secrets.
    pub(super) fn text(&self) -> String {
        [self.stdout(), self.stderr()].concat().join("\n")
    }
}

/// A handler under the host's care. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Handler {
    pub(super) output: Output,
    state: watch::Receiver<State>,
    exits: watch::Receiver<Vec<Option<i32>>>,
    _care: JoinSet<()>,
}

impl Handler {
    /// Starts it, without waiting for it to be ready.
    pub(super) fn start(app: &Arc<App>, settings: &Settings) -> Self {
        let output = Output::default();
        let (state, watched) = watch::channel(State::Starting);
        let (ended, exits) = watch::channel(Vec::new());
        let mut care = JoinSet::new();
        let keeper = Keeper {
            app: app.clone(),
            settings: settings.clone(),
            output: output.clone(),
            state,
            exits: ended,
        };
        care.spawn(keeper.keep());
        Self { output, state: watched, exits, _care: care }
    }

    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    pub(super) async fn ready(&self) -> (u16, u32) {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| *state != State::Starting).await.expect("the keeper lives");
        match *ended {
            State::Ready { port, pid } => (port, pid),
            other => panic!("the handler is not ready but {other:?}:\n{}", self.output.text()),
        }
    }

    /// Sends SIGKILL, as the host does whenever it ends a handler, and waits until the next one is ready.
    pub(super) async fn kill_and_restart(&self) {
        let (_, pid) = self.ready().await;
        self.kill().await;
        let mut state = self.state.clone();
        let again = |state: &State| matches!(state, State::Ready { pid: new, .. } if *new != pid);
        state.wait_for(again).await.expect("the keeper lives");
    }

    /// Sends SIGKILL and returns once the process is gone.
    pub(super) async fn kill(&self) {
        let (_, pid) = self.ready().await;
        let before = self.exits.borrow().len();
        kill_process(to_pid(pid), Signal::KILL).expect("the handler runs");
        let mut exits = self.exits.clone();
        exits.wait_for(|exits| exits.len() > before).await.expect("the keeper lives");
    }

    /// Ctrl-C in a terminal: the whole process group hears it. Returns the exit code.
    pub(super) async fn interrupt(&self) -> Option<i32> {
        let (_, pid) = self.ready().await;
        kill_process_group(to_pid(pid), Signal::INT).expect("the handler runs");
        self.exit().await
    }

    /// The code of the next process that ends, or of the one that has: none for a signal.
    pub(super) async fn exit(&self) -> Option<i32> {
        let mut exits = self.exits.clone();
        let ended = exits.wait_for(|exits| !exits.is_empty()).await.expect("the keeper lives");
        ended[0]
    }

    /// Waits until the host has nothing more to do with it.
    pub(super) async fn end(&self) -> (State, Vec<Option<i32>>) {
        let mut state = self.state.clone();
        let over = |state: &State| matches!(state, State::Ended | State::ShutDown);
        let last = *state.wait_for(over).await.expect("the keeper lives");
        (last, self.exits.borrow().clone())
    }
}

fn to_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process id is an i32")).expect("a process id is not 0")
}

/// Starts the process, over and over, by the host's rules.
struct Keeper {
    app: Arc<App>,
    settings: Settings,
    output: Output,
    state: watch::Sender<State>,
    exits: watch::Sender<Vec<Option<i32>>>,
}

impl Keeper {
    async fn keep(self) {
        let mut errors = 0;
        loop {
            self.state.send_replace(State::Starting);
            let code = self.run_once().await;
            self.exits.send_modify(|exits| exits.push(code));
            match code {
                Some(0) => {
                    self.state.send_replace(State::Ended);
                    return;
                }
                Some(200) => {}
                _ => errors += 1,
            }
            if errors == MAX_ERRORS {
                self.state.send_replace(State::ShutDown);
                return;
            }
        }
    }

    /// One process from its start to its end; the code, unless a signal ended it.
    async fn run_once(&self) -> Option<i32> {
        let port = free_port().await;
        let mut readers = JoinSet::new();
        let mut child = self.spawn(port).await;
        let pid = child.id().expect("a process that was just started has an id");
        readers.spawn(read(child.stdout.take().expect("it is piped"), self.output.stdout.clone()));
        readers.spawn(read(child.stderr.take().expect("it is piped"), self.output.stderr.clone()));
        let status = tokio::select! {
            biased;
            () = is_ready(port) => {
                self.state.send_replace(State::Ready { port, pid });
                child.wait().await
            }
            status = child.wait() => status,
            () = tokio::time::sleep(self.app.initialization_timeout) => {
                child.start_kill().expect("the handler runs");
                child.wait().await
            }
        };
        // Until then its last words may still be on their way.
        while readers.join_next().await.is_some() {}
        self.state.send_replace(State::Starting);
        status.as_ref().map(ExitStatus::code).expect("a child can be waited for")
    }

    async fn spawn(&self, port: u16) -> Child {
        let worker = uuid::Uuid::now_v7().to_string();
        let mut command = Command::new(self.app.root.join(&self.app.executable));
        command
            .env_clear()
            .envs(&self.settings)
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.to_string())
            .env("FUNCTIONS_HTTPWORKER_PORT", port.to_string())
            .env("FUNCTIONS_CUSTOMHANDLER_WORKER_ID", &worker)
            .env("FUNCTIONS_HTTPWORKER_ID", &worker)
            .env("FUNCTIONS_APP_ROOT_PATH", &self.app.root)
            .current_dir(&self.app.root)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        loop {
            match command.spawn() {
                Ok(child) => return child,
                // A test beside this one was forking while the file was still open for writing.
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                    tokio::time::sleep(PROBE).await;
                }
                Err(error) => panic!("the host cannot execute the handler: {error}"),
            }
        }
    }
}

/// The host takes a free port and hands its number on, as the real one does.
async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    listener.local_addr().expect("a bound listener has an address").port()
}

/// Any answer at all is ready; a refused connection is not. A handler that accepts and says nothing
/// is waited for.
async fn is_ready(port: u16) {
    let client = Client::new();
    loop {
        let probe = Request::get(format!("http://127.0.0.1:{port}/"))
            .header("host", format!("127.0.0.1:{port}"))
            .body(Empty::new().map_err(Into::into).boxed_unsync())
            .expect("a probe is a request");
        match client.send(probe).await {
            Err(error) if error.is_connect() => tokio::time::sleep(PROBE).await,
            Ok(_) | Err(_) => return,
        }
    }
}

async fn read(stream: impl AsyncRead + Unpin, lines: Arc<Mutex<Vec<String>>>) {
    let mut reader = BufReader::new(stream).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        lines.lock().unwrap().push(line);
    }
}
