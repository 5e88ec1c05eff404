//! The processes of a benchmark: pinned to a core, weighed, and ended whatever happens.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use rustix::thread::CpuSet;

use crate::Result;

/// What a process is given to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(3);
const GRACE_STEP: Duration = Duration::from_millis(2);

/// Which core does what.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// The gateway alone.
    pub(crate) gateway: usize,
    /// This process, and the backend that it plays or starts.
    pub(crate) load: usize,
}

impl Cores {
    /// The first allowed core makes the load (interrupts tend to go there), the last one has the gateway.
    pub(crate) fn choose() -> Result<Self> {
        let allowed = rustix::thread::sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let load = cores.next().ok_or("this process may run on no core")?;
        let gateway = cores.next_back().unwrap_or(load);
        Ok(Self { gateway, load })
    }

    pub(crate) fn apart(self) -> bool {
        self.gateway != self.load
    }
}

/// Binds this thread, and what it starts from now on, to one core.
pub(crate) fn pin(core: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(rustix::thread::sched_setaffinity(None, &only)?)
}

/// Lets this process and its children have as many open files as the machine grants.
pub(crate) fn raise_open_files() -> Result<()> {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    Ok(rustix::process::setrlimit(Resource::Nofile, raised)?)
}

/// What the machine says that its processor is.
pub(crate) fn model() -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(model.map_or("unknown processor", |(_, model)| model).to_owned())
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// A child that is ended when it is dropped.
pub(crate) struct Process {
    child: Child,
    output: PathBuf,
    /// Taken just before the start.
    pub(crate) started: Instant,
}

impl Process {
    /// Starts `command` on `core`. What it prints goes to the file `output`.
    pub(crate) fn start(mut command: Command, output: &Path, core: usize, load: usize) -> Result<Self> {
        let file = File::create(output)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        // A child inherits the core of the thread that starts it, so that it is never elsewhere,
        // not even while it starts (when runtimes count the cores to size themselves).
        pin(core)?;
        let started = Instant::now();
        let child = command.spawn();
        pin(load)?;
        Ok(Self {
            child: child.map_err(|error| format!("{command:?} did not start: {error}"))?,
            output: output.to_owned(),
            started,
        })
    }

    /// An error with what the process printed, if it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => {
                let printed = std::fs::read_to_string(&self.output)?;
                Err(format!("a process ended by itself ({status}):\n{printed}").into())
            }
        }
    }

    /// User and system time used up to now, by all threads and by the processes it started.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let mut ticks = 0;
        for stat in self.family()? {
            ticks += stat.cpu_ticks;
        }
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos(ticks * 1_000_000_000 / per_second))
    }

    /// Resident memory in bytes, with that of the processes it started.
    pub(crate) fn resident_bytes(&self) -> Result<u64> {
        let mut bytes = 0;
        for stat in self.family()? {
            // Not from `stat`: the kernel keeps that one per core and lags behind.
            let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", stat.pid))?;
            let kib: u64 = rollup
                .lines()
                .find_map(|line| line.strip_prefix("Rss:")?.split_whitespace().next())
                .ok_or("smaps_rollup has no Rss")?
                .parse()?;
            bytes += kib * 1024;
        }
        Ok(bytes)
    }

    /// This process and its children (the worker of nginx).
    fn family(&self) -> Result<Vec<Stat>> {
        let pid = self.child.id();
        let mut family = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let path = entry?.path();
            let is_process = path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()));
            if !is_process {
                continue;
            }
            // One that has ended since the folder was read is none of ours.
            let Ok(stat) = std::fs::read_to_string(path.join("stat")) else {
                continue;
            };
            let stat = Stat::parse(&stat).ok_or("a stat file was not understood")?;
            if stat.pid == pid || stat.parent == pid {
                family.push(stat);
            }
        }
        Ok(family)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Politely first: a killed nginx would leave its worker behind.
        let _ = rustix::process::kill_process(Pid::from_child(&self.child), Signal::TERM);
        let asked = Instant::now();
        while asked.elapsed() < GRACE {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(GRACE_STEP);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Stat {
    pid: u32,
    parent: u32,
    cpu_ticks: u64,
}

impl Stat {
    /// Reads `/proc/PID/stat`, whose second field is a name that may hold anything.
    fn parse(line: &str) -> Option<Self> {
        let (pid, rest) = line.split_once(' ')?;
        let fields: Vec<&str> = rest.rsplit_once(')')?.1.split_whitespace().collect();
        Some(Self {
            pid: pid.parse().ok()?,
            parent: fields.get(1)?.parse().ok()?,
            cpu_ticks: fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?,
        })
    }
}
