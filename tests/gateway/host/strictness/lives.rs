//! Handlers that exit, fail or never listen.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tollgate::cli::package;

use super::super::app::{App, Settings};
use super::super::process::{Handler, State};

/// A handler that is a shell script.
fn start(script: &str, scratch: &Path) -> Handler {
    fs::write(scratch.join("binary"), format!("#!/bin/sh\n{script}\n")).unwrap();
    package::stage(&scratch.join("binary"), scratch).unwrap();
    let settings: Settings = [
        ("AzureWebJobs.token-accounting.Disabled", "true".to_owned()),
        ("USAGE_EVENTHUB_NAME", "usage".to_owned()),
        ("MARK", scratch.join("mark").display().to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let mut app = App::load(&scratch.join("functionapp"), &settings).unwrap();
    app.initialization_timeout = Duration::from_millis(200);
    Handler::start(&Arc::new(app), &settings)
}

#[tokio::test]
async fn a_handler_that_exits_with_0_is_never_started_again() {
    let scratch = tempfile::tempdir().unwrap();
    let handler = start("echo started", scratch.path());
    assert_eq!(handler.end().await, (State::Ended, vec![Some(0)]));
    assert_eq!(handler.output.stdout(), ["started"]);
}

#[tokio::test]
async fn a_handler_that_fails_three_times_takes_the_host_with_it() {
    let scratch = tempfile::tempdir().unwrap();
    let handler = start("echo 'no such file' >&2; exit 3", scratch.path());
    assert_eq!(handler.end().await, (State::ShutDown, vec![Some(3); 3]));
    assert_eq!(handler.output.stderr(), vec!["no such file"; 3]);
}

#[tokio::test]
async fn exit_200_is_a_restart_that_does_not_count() {
    let scratch = tempfile::tempdir().unwrap();
    let script = r#"echo x >> "$MARK"; n=0; while read -r _; do n=$((n + 1)); done < "$MARK"
        if [ $n -gt 5 ]; then exit 0; fi; exit 200"#;
    let handler = start(script, scratch.path());
    let expected = [vec![Some(200); 5], vec![Some(0)]].concat();
    assert_eq!(handler.end().await, (State::Ended, expected));
}

#[tokio::test]
async fn a_handler_that_never_listens_is_killed() {
    let scratch = tempfile::tempdir().unwrap();
    let handler = start("while read -r _ < /dev/zero; do :; done", scratch.path());
    assert_eq!(handler.end().await, (State::ShutDown, vec![None; 3]));
}

#[tokio::test]
async fn a_handler_gets_the_hosts_variables_and_the_apps_settings_alone() {
    let scratch = tempfile::tempdir().unwrap();
    let handler = start("export -p; pwd; read -r x || echo 'stdin is closed'", scratch.path());
    handler.end().await;
    let lines = handler.output.stdout().join("\n");
    let wanted = [
        "FUNCTIONS_CUSTOMHANDLER_PORT",
        "FUNCTIONS_HTTPWORKER_PORT",
        "FUNCTIONS_CUSTOMHANDLER_WORKER_ID",
        "FUNCTIONS_HTTPWORKER_ID",
        "FUNCTIONS_APP_ROOT_PATH",
        "USAGE_EVENTHUB_NAME",
        "/functionapp\n",
        "stdin is closed",
    ];
    for word in wanted {
        assert!(lines.contains(word), "{word} in {lines}");
    }
    for word in ["HOME=", "PATH=", "CARGO"] {
        let is_there = lines.lines().any(|line| line.starts_with(&format!("export {word}")));
        assert!(!is_there, "{word} in {lines}");
    }
}
