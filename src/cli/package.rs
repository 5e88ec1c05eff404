//! Stages the function app: a flat folder, and the zip of it, that the Functions host can run.

/// The flags of `tollgate package`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {}

pub(super) fn run(_arguments: &Arguments) -> Result<(), std::io::Error> {
    Ok(())
}
