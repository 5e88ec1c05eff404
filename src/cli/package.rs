//! Stages the function app: a flat folder, and the zip of it, that the Functions host can run.
//!
//! # What it must never do
//! Stage a binary that the Functions images cannot start. Publishing one succeeds, and then every
//! call fails with nothing in the portal that says why; so the refusal comes here, with the way out.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

pub mod definitions;
mod portable;
mod stage;

use portable::Unportable;
pub use stage::{Staged, stage};

/// The flags of `tollgate package`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The binary to stage; without it, the one that is running.
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Where to put `functionapp/` and `functionapp.zip`.
    #[arg(long, value_name = "DIR", default_value = "dist")]
    out: PathBuf,
}

/// Why nothing was staged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The path of the running program is not to be had.
    #[error("cannot tell which program is running ({0}): name the binary with --binary")]
    Unnamed(#[source] io::Error),
    /// The binary is not there, or not readable.
    #[error("cannot read the binary `{}`: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The Functions images could not start it.
    #[error("`{}` {reason}\n\nNothing was staged. {ADVICE}", path.display())]
    Unportable { path: PathBuf, reason: Unportable },
    /// What stands where the stage belongs was not put there by us.
    #[error(
        "`{}` is not an older stage (it has no host.json) and would be replaced: move it away, or choose another folder with --out",
        .0.display()
    )]
    NotAStage(PathBuf),
    /// A file or folder of the stage could not be written.
    #[error("cannot write `{}`: {source}", path.display())]
    Unwritable { path: PathBuf, source: io::Error },
    /// The zip could not be made.
    #[error("cannot zip the function app: {0}")]
    Unzippable(#[from] zip::result::ZipError),
}

/// What to do about a binary that is not portable. These commands are the ones that CI runs.
const ADVICE: &str = "\
Build a portable one, then package it:

    pip install cargo-zigbuild ziglang==0.15.2
    cargo zigbuild --release --locked --target x86_64-unknown-linux-gnu.2.28
    target/x86_64-unknown-linux-gnu/release/tollgate package

or one that needs no C library at all (with Debian's musl-tools, or zigbuild again):

    rustup target add x86_64-unknown-linux-musl
    cargo build --release --locked --target x86_64-unknown-linux-musl
    target/x86_64-unknown-linux-musl/release/tollgate package";

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let binary = match &arguments.binary {
        Some(path) => path.clone(),
        None => std::env::current_exe().map_err(Error::Unnamed)?,
    };
    check(&binary)?;
    let staged = stage(&binary, &arguments.out)?;
    println!("{}", Summary(&staged));
    Ok(())
}

fn check(path: &Path) -> Result<(), Error> {
    let bytes = fs::read(path).map_err(|source| Error::Unreadable { path: path.to_owned(), source })?;
    portable::check(&bytes).map_err(|reason| Error::Unportable { path: path.to_owned(), reason })
}

/// What was staged, and the commands that come next, for a person.
struct Summary<'a>(&'a Staged);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let folder = self.0.folder.display();
        writeln!(f, "Staged {folder}:")?;
        for name in &self.0.files {
            writeln!(f, "    {name}")?;
        }
        writeln!(
            f,
            "and {} ({} KB), which is what is published.",
            self.0.zip.display(),
            self.0.zip_bytes.div_ceil(1024)
        )?;
        writeln!(f, "\nRun it on this machine:")?;
        if self.0.has_local_settings {
            writeln!(f, "    cd {folder} && func start")?;
        } else {
            writeln!(f, "    cd {folder}")?;
            writeln!(f, "    cp local.settings.sample.json local.settings.json")?;
            writeln!(f, "    func start")?;
        }
        writeln!(f, "\nPublish it:")?;
        write!(f, "    cd {folder} && func azure functionapp publish APP --custom --no-build")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binary_that_the_images_cannot_run_is_refused_and_nothing_is_staged() {
        let scratch = tempfile::tempdir().unwrap();
        let binary = scratch.path().join("tollgate");
        fs::write(&binary, "#!/bin/sh\nexit 0\n").unwrap();
        let out = scratch.path().join("dist");
        let refusal = run(&Arguments { binary: Some(binary), out: out.clone() }).unwrap_err().to_string();
        assert!(refusal.contains("is not an ELF file"), "{refusal}");
        assert!(refusal.contains("cargo zigbuild"), "{refusal}");
        assert!(!out.exists(), "something was staged");
    }

    #[test]
    fn a_binary_that_is_not_there_is_named() {
        let scratch = tempfile::tempdir().unwrap();
        let refusal = run(&Arguments {
            binary: Some(scratch.path().join("nowhere")),
            out: scratch.path().join("dist"),
        })
        .unwrap_err()
        .to_string();
        assert!(refusal.contains("nowhere"), "{refusal}");
    }
}
