//! The commands: serve, local, simulate, config, doctor, import, rerate, package.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ports::with_causes;
use crate::{server, simulator};

mod check;
mod doctor;
mod import;
mod local;
pub mod package;
mod rerate;
mod serve;

/// A keyless, metered gateway to Azure OpenAI in one Azure Functions app.
///
/// Without a command it serves, which is how the Functions host starts it.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the whole gateway on this machine, with a simulated Azure OpenAI and nothing installed.
    Local(local::Arguments),
    /// Run the gateway, as the Azure Functions host starts it.
    Serve(serve::Arguments),
    /// Run an Azure OpenAI resource that is not there, for tests and for load.
    Simulate(simulator::Arguments),
    /// Look at a gateway configuration.
    #[command(subcommand)]
    Config(check::Command),
    /// Ask everything that the gateway depends on, and say what is wrong and how to mend it.
    Doctor(doctor::Arguments),
    /// Take in what another gateway has issued.
    #[command(subcommand)]
    Import(import::Command),
    /// Rate a past period with today's price book, after showing what that changes.
    ///
    /// Needs the settings that `serve` has: the database and the configuration. Without `--apply` it only shows.
    Rerate(rerate::Arguments),
    /// Stage the function app in `dist/functionapp/`, ready to run and to publish.
    Package(package::Arguments),
}

type Error = Box<dyn std::error::Error>;

/// Runs the command; what went wrong goes to stderr, and the exit code is never 0 then.
pub fn run() -> ExitCode {
    let command = Cli::parse().command.unwrap_or_else(|| Command::Serve(serve::Arguments::default()));
    let done = match command {
        Command::Local(arguments) => local::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Simulate(arguments) => simulate(arguments),
        Command::Config(command) => check::run(&command),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Import(command) => import::run(&command),
        Command::Rerate(arguments) => rerate::run(&arguments),
        Command::Package(arguments) => package::run(&arguments).map_err(Into::into),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tollgate: {}", with_causes(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

fn simulate(arguments: simulator::Arguments) -> Result<(), Error> {
    run_on_runtime(async {
        let listener = server::bind(arguments.listen).await?;
        let router = simulator::router(arguments.knobs);
        println!("The simulated Azure OpenAI resource listens on http://{}", listener.local_addr()?);
        server::serve(listener, router, interrupted(&TaskTracker::new())).await;
        Ok(())
    })
}

/// Runs a command. What still computes when it has ended, such as the tokens of a long prompt, is not
/// waited for: whoever stops us waits two seconds.
fn run_on_runtime(command: impl Future<Output = Result<(), Error>>) -> Result<(), Error> {
    let runtime = runtime()?;
    let done = runtime.block_on(command);
    runtime.shutdown_background();
    done
}

/// One thread where there is one core: waking another costs more than it brings.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism()?.get();
    if cores == 1 {
        tokio::runtime::Builder::new_current_thread().enable_all().build()
    } else {
        tokio::runtime::Builder::new_multi_thread().enable_all().build()
    }
}

/// Cancelled by Ctrl-C, or by the polite signal of a service manager.
fn interrupted(tasks: &TaskTracker) -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tasks.spawn(async move {
        tokio::select! {
            result = tokio::signal::ctrl_c() => {
                if let Err(error) = result {
                    tracing::warn!(%error, "Ctrl-C will not be noticed: {error}");
                    std::future::pending::<()>().await;
                }
            }
            () = terminated() => {}
        }
        stopping.cancel();
    });
    stop
}

#[cfg(unix)]
async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut signal) => {
            signal.recv().await;
        }
        Err(_) => std::future::pending().await,
    }
}

#[cfg(not(unix))]
async fn terminated() {
    std::future::pending().await
}

/// The transport of Azure's libraries. At `info` it tells each request that failed, with its query, as often
/// as it fails; we tell each cause once.
const LIBRARY: &str = "typespec_client_core";

/// Logs go to stdout, one line each: the Functions host takes every line of stderr for an error.
fn log() -> Result<(), Error> {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    use tracing_subscriber::filter::LevelFilter;
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env();
    let mut filter = filter.map_err(|error| format!("RUST_LOG: {error}"))?;
    if !filter.to_string().contains(LIBRARY) {
        let quiet = format!("{LIBRARY}=warn").parse().map_err(|error| format!("{LIBRARY}: {error}"))?;
        filter = filter.add_directive(quiet);
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stdout)
        .with_ansi(std::io::stdout().is_terminal())
        .with_target(false)
        .init();
    Ok(())
}
