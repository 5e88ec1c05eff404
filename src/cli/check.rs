//! `tollgate config`: looks at a gateway configuration.

use std::path::PathBuf;

use super::Error;
use crate::config::catalog::Catalog;
use crate::config::settings::{Environment, Source as _};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Tell every fault in a gateway configuration, with its JSON path.
    Check {
        /// The configuration's file; without it, the one that `TOLLGATE_CONFIG` names.
        file: Option<PathBuf>,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Error> {
    let Command::Check { file } = command;
    let file = file
        .clone()
        .or_else(|| Environment.get("TOLLGATE_CONFIG").map(PathBuf::from))
        .ok_or("name a file, or set TOLLGATE_CONFIG")?;
    let text =
        std::fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let catalog = Catalog::parse(&text, &file.display().to_string())?;
    println!(
        "{}: no fault; {} backends, {} products, {} prices",
        file.display(),
        catalog.backends.len(),
        catalog.products.len(),
        catalog.prices.0.len()
    );
    Ok(())
}
