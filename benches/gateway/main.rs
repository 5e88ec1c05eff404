//! What does Tollgate cost, next to nginx and next to nothing?
//!
//! `docs/BENCHMARK.md` says what is measured and how to read it. The gateway under test has one core
//! for itself; load and backends share another. It must never assert an absolute time: that would
//! test the machine.

#![expect(clippy::disallowed_methods, reason = "a benchmark measures the real time")]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Parser;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use procs::Cores;
use report::Report;
use run::Run;

mod accounting;
mod calls;
mod client;
mod inside;
mod load;
mod metronome;
mod procs;
mod report;
mod run;
mod ways;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// Tollgate next to nginx and next to no gateway: CPU, latency, pauses in streams, memory, start.
#[derive(Parser)]
struct Arguments {
    /// How often everything is measured; the table shows medians.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    runs: u32,
    /// One short run, for a look or for CI: under a minute.
    #[arg(long)]
    quick: bool,
    /// Only what accounting costs.
    #[arg(long)]
    accounting: bool,
    /// Also write every figure to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What `cargo bench` passes.
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long, how often.
struct Plan {
    runs: u32,
    /// Of each process, in a run.
    starts: u32,
    /// Before each window of load.
    warm_up: Duration,
    window: Duration,
    /// Pairs of paced streams on each connection.
    rounds: u32,
    /// Between two chunks of each of the thousand streams.
    crowd_pace: Duration,
}

impl Plan {
    fn of(arguments: &Arguments) -> Self {
        if arguments.quick {
            Self {
                runs: 1,
                starts: 5,
                warm_up: Duration::from_millis(200),
                window: Duration::from_secs(1),
                rounds: 1,
                crowd_pace: Duration::from_millis(50),
            }
        } else {
            Self {
                runs: arguments.runs,
                starts: 20,
                warm_up: Duration::from_millis(500),
                window: Duration::from_secs(3),
                rounds: 4,
                crowd_pace: Duration::from_millis(100),
            }
        }
    }
}

fn main() -> Result<()> {
    if let Some(served) = accounting::serve_if_told() {
        return served;
    }
    let arguments = Arguments::parse();
    let cores = Cores::choose()?;
    procs::pin(cores.load)?;
    procs::raise_open_files()?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        // Dropping what is under way ends the processes that it started.
        tokio::select! {
            ended = measure(&arguments, cores) => ended,
            () = told_to_stop() => Err("interrupted".into()),
        }
    })
}

async fn told_to_stop() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => terminated.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

async fn measure(arguments: &Arguments, cores: Cores) -> Result<()> {
    let plan = Plan::of(arguments);
    let begun = Instant::now();
    let nginx = ways::nginx_version();
    println!(
        "{}; gateway on core {}, load and backends on core {}; {}; {} run(s)",
        procs::model()?,
        cores.gateway,
        cores.load,
        nginx.as_deref().unwrap_or("no nginx"),
        plan.runs
    );
    if nginx.is_none() {
        println!("nginx is not installed, so there are no ratios: `apt-get install nginx-light`");
    }
    if !cores.apart() {
        println!("there is one core only: nothing but CPU time and memory will mean anything");
    }
    let mut report = Report::default();
    let mut accounting = accounting::Figures::default();
    let inside = inside::measure().await?;
    for number in 0..plan.runs {
        let run = Run::prepare(&plan, cores, nginx.is_some(), number).await?;
        run.accounting(&mut accounting).await?;
        if !arguments.accounting {
            run.measure(&mut report).await?;
        }
        eprintln!("run {} of {} is done", number + 1, plan.runs);
    }
    if !arguments.accounting {
        report.print();
    }
    accounting.print();
    inside.print();
    println!("\nmeasured in {} s", begun.elapsed().as_secs());
    if let Some(path) = &arguments.json {
        let figures = json!({
            "nginx": nginx, "runs": plan.runs, "quick": arguments.quick, "figures": report.json(),
            "accounting": accounting.json(), "inside": inside.json(),
        });
        std::fs::write(path, format!("{figures:#}\n"))?;
    }
    Ok(())
}
