//! `tollgate doctor`: asks everything the gateway depends on, and says how to mend it.

use std::io::Write as _;

use serde::Serialize;
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_util::sync::CancellationToken;

use super::{Error, run_on_runtime};
use crate::config::settings::Environment;
use crate::doctor::{self, Finding, Level};
use crate::wiring;

/// The flags of `tollgate doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one JSON object with all findings, once all are there
    #[arg(long)]
    json: bool,
    /// The api-version that backends are asked with
    #[arg(long, value_name = "VERSION", default_value = doctor::API_VERSION, value_parser = version)]
    api_version: String,
}

/// It becomes part of a query.
fn version(text: &str) -> Result<String, &'static str> {
    let is_plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if is_plain { Ok(text.to_owned()) } else { Err("such as 2024-10-21") }
}

pub(super) fn run(arguments: Arguments) -> Result<(), Error> {
    let Arguments { json, api_version } = arguments;
    run_on_runtime(async {
        let (findings, found) = mpsc::unbounded_channel();
        let examination = async {
            let Some(settings) = doctor::settings(&Environment, &findings) else {
                drop(findings);
                return Ok(());
            };
            let stop = CancellationToken::new();
            let _stop = stop.clone().drop_guard();
            wiring::doctor::doctor(&settings, api_version, stop)?.examine(findings).await;
            Ok::<_, Error>(())
        };
        let (examined, told) = tokio::join!(examination, tell(found, json));
        examined?;
        let told = told?;
        if told.faults == 0 { Ok(()) } else { Err(told.to_string().into()) }
    })
}

/// All findings, as `--json` prints them.
#[derive(Default, Serialize)]
struct Told {
    faults: usize,
    warnings: usize,
    findings: Vec<Finding>,
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |number, what| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        write!(f, "{}, {}", count(self.faults, "fault"), count(self.warnings, "warning"))
    }
}

/// Prints findings as they come, or all of them at the end.
async fn tell(mut found: UnboundedReceiver<Finding>, json: bool) -> std::io::Result<Told> {
    let mut told = Told::default();
    while let Some(finding) = found.recv().await {
        match finding.level {
            Level::Ok => {}
            Level::Warn => told.warnings += 1,
            Level::Fault => told.faults += 1,
        }
        if !json {
            writeln!(std::io::stdout(), "{finding}")?;
        }
        told.findings.push(finding);
    }
    if json {
        // Backends are asked side by side and come last: a program gets them in a settled order.
        let is_of_backend = |finding: &Finding| finding.subject.kind == "backend";
        let first = told.findings.iter().position(is_of_backend).unwrap_or(told.findings.len());
        told.findings[first..].sort_by(|one, other| one.subject.cmp(&other.subject));
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&told)?)?;
    } else if told.faults == 0 {
        writeln!(std::io::stdout(), "{told}")?;
    }
    Ok(told)
}
