//! `tollgate config`: looks at a gateway configuration.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use super::Error;
use crate::config::catalog::Catalog;
use crate::config::settings::{Environment, Source as _};
use crate::config::{Fault, Faults, schema};

#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Tell every fault in a gateway configuration, with its JSON path.
    Check {
        /// The configuration's file; without it, the one that `TOLLGATE_CONFIG` names.
        file: Option<PathBuf>,
        /// What it is for: a Key Vault secret takes 25,000 bytes and no key in the clear
        /// [default: a secret's size alone for FILE, a file without one].
        #[arg(long = "for", value_name = "USE")]
        purpose: Option<Purpose>,
    },
    /// Print the JSON Schema of the gateway configuration, for editors.
    Schema,
}

/// What a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Purpose {
    /// The file that `TOLLGATE_CONFIG` names.
    File,
    /// A secret in Key Vault.
    Secret,
}

/// What Key Vault takes for a secret's value.
/// <https://learn.microsoft.com/azure/key-vault/secrets/about-secrets>: 25k bytes.
const MAX_SECRET_BYTES: usize = 25_000;

pub(super) fn run(command: &Command) -> Result<(), Error> {
    match command {
        Command::Check { file, purpose } => check(file.as_deref(), *purpose),
        Command::Schema => {
            // Whoever reads it may stop early.
            Ok(writeln!(std::io::stdout(), "{:#}", schema::schema())?)
        }
    }
}

fn check(file: Option<&Path>, purpose: Option<Purpose>) -> Result<(), Error> {
    // The file that a setting names is a file's, and nobody's secret.
    let must_fit = match purpose {
        Some(purpose) => purpose == Purpose::Secret,
        None => file.is_some(),
    };
    let file = file
        .map(Path::to_path_buf)
        .or_else(|| Environment.get("TOLLGATE_CONFIG").map(PathBuf::from))
        .ok_or("name a file, or set TOLLGATE_CONFIG")?;
    let text =
        std::fs::read_to_string(&file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let source_name = file.display().to_string();
    let mut faults = Vec::new();
    if must_fit {
        faults.extend(too_large(&text, purpose));
    }
    let parsed = match purpose {
        Some(Purpose::Secret) => Catalog::parse_secret(&text, &source_name),
        _ => Catalog::parse(&text, &source_name),
    };
    let catalog = match parsed {
        Ok(catalog) if faults.is_empty() => catalog,
        Ok(_) => return Err(Faults { source_name, faults }.into()),
        Err(told) => {
            faults.extend(told.faults);
            return Err(Faults { source_name, faults }.into());
        }
    };
    println!(
        "{source_name}: no fault; {} backends, {} products, {} prices",
        catalog.backends.len(),
        catalog.products.len(),
        catalog.prices.0.len()
    );
    Ok(())
}

/// Why Key Vault would not take it.
fn too_large(text: &str, purpose: Option<Purpose>) -> Option<Fault> {
    let bytes = text.len();
    if bytes <= MAX_SECRET_BYTES {
        return None;
    }
    let minified = serde_json::from_str::<serde_json::Value>(text).map(|value| value.to_string().len());
    let remedy = match minified {
        Ok(minified) if minified <= MAX_SECRET_BYTES => {
            format!("minified (`jq -c .`) it has {minified} bytes and fits")
        }
        Ok(minified) => format!("minified it has {minified} bytes, which is still too much"),
        Err(_) => "it may fit minified".to_owned(),
    };
    let other =
        if purpose.is_none() { "; `--for file` checks one that TOLLGATE_CONFIG will name" } else { "" };
    Some(Fault::new(
        "$",
        format!("has {bytes} bytes, and Key Vault takes {MAX_SECRET_BYTES} for a secret: {remedy}{other}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_minified_is_told_so() {
        let wide = format!("{{\"backends\":[{}]}}", " ".repeat(MAX_SECRET_BYTES));
        let fault = too_large(&wide, None).unwrap().message;
        assert!(fault.contains("has 25015 bytes") && fault.contains("25000"), "{fault}");
        assert!(fault.contains("minified (`jq -c .`) it has 15 bytes"), "{fault}");
        let long = format!("{{\"currency\":\"{}\"}}", "x".repeat(MAX_SECRET_BYTES));
        assert!(too_large(&long, None).unwrap().message.contains("still too much"));
        let exact = " ".repeat(MAX_SECRET_BYTES);
        assert_eq!(too_large(&exact, None), None);
        assert!(too_large(&format!("{exact} "), Some(Purpose::Secret)).is_some());
    }
}
