//! The commands: serve, local, simulate, package.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio_util::sync::CancellationToken;

use crate::{server, simulator};

pub mod package;

/// A keyless, metered gateway to Azure OpenAI in one Azure Functions app.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, at the start")]
enum Command {
    /// Run an Azure OpenAI resource that is not there, for tests and for load.
    Simulate(simulator::Arguments),
    /// Stage the function app in `dist/functionapp/`, ready to run and to publish.
    Package(package::Arguments),
}

/// Runs the command; what went wrong goes to stderr, and the exit code is never 0 then.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => Ok(()),
        Some(Command::Simulate(arguments)) => simulate(arguments),
        Some(Command::Package(arguments)) => package::run(&arguments).map_err(Into::into),
    }
    .map_or_else(fail, |()| ExitCode::SUCCESS)
}

type Error = Box<dyn std::error::Error>;

fn fail(error: Error) -> ExitCode {
    eprintln!("tollgate: {error}");
    ExitCode::FAILURE
}

fn simulate(arguments: simulator::Arguments) -> Result<(), Error> {
    runtime()?.block_on(async {
        let listener = server::bind(arguments.listen).await?;
        let router = simulator::router(arguments.knobs);
        println!("The simulated Azure OpenAI resource listens on http://{}", listener.local_addr()?);
        server::serve(listener, router, interrupted()).await;
        Ok(())
    })
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
fn interrupted() -> CancellationToken {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    tokio_util::task::TaskTracker::new().spawn(async move {
        let _ = tokio::signal::ctrl_c().await;
        stopping.cancel();
    });
    stop
}
