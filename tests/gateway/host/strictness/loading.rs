//! Folders, names and triggers that the host does not load.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tollgate::cli::package;

use super::super::app::{App, Settings};

fn staged() -> tempfile::TempDir {
    let scratch = tempfile::tempdir().unwrap();
    fs::write(scratch.path().join("binary"), "#!/bin/sh\n").unwrap();
    package::stage(&scratch.path().join("binary"), scratch.path()).unwrap();
    scratch
}

fn settings() -> Settings {
    [
        ("USAGE_EVENTHUB_NAME", "usage"),
        ("UsageEventHub__fullyQualifiedNamespace", "contoso.servicebus.windows.net"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut json);
    fs::write(path, json.to_string()).unwrap();
}

/// The faults after a change to one file of an app that has none.
fn faults(file: &str, change: impl FnOnce(&mut Value)) -> String {
    let scratch = staged();
    let root = scratch.path().join("functionapp");
    App::load(&root, &settings()).unwrap();
    edit(&root.join(file), change);
    App::load(&root, &settings()).unwrap_err().join("\n")
}

type Change = fn(&mut Value);

#[test]
fn what_the_host_refuses_to_load_is_refused() {
    let http = "openai/function.json";
    let hub = "token-accounting/function.json";
    let timer = "upkeep/function.json";
    let changes: [(&str, Change, &str); 16] = [
        ("host.json", |json| json["version"] = json!("1.0"), "version"),
        (
            "host.json",
            |json| json["customHandler"]["description"]["defaultExecutablePath"] = json!("x"),
            "`x`",
        ),
        ("host.json", |json| json["customHandler"]["http"] = json!({"routes": [{"route": "x"}]}), "exclude"),
        ("host.json", |json| json["configurationProfile"] = json!("fast"), "configurationProfile"),
        (http, |json| json["bindings"][0]["route"] = json!("admin-api/{*path}"), "the host's own"),
        (http, |json| json["bindings"][0]["route"] = json!("/Runtime/x"), "the host's own"),
        (http, |json| json["bindings"][0]["route"] = json!("healthz"), "is taken"),
        (http, |json| json["bindings"][0]["name"] = json!("my-request"), "my-request"),
        (http, |json| json["bindings"][0]["authLevel"] = json!("nobody"), "authLevel"),
        (http, |json| json["bindings"][0]["direction"] = json!(null), "direction"),
        (http, |json| json["bindings"] = json!([]), "exactly one trigger"),
        (
            hub,
            |json| json["retry"] = json!({"strategy": "exponentialBackoff", "maxRetryCount": -1}),
            "intervals",
        ),
        (hub, |json| json["retry"]["strategy"] = json!(null), "strategy"),
        (timer, |json| json["bindings"][0]["schedule"] = json!("*/5 * * * *"), "six fields"),
        (timer, |json| json["bindings"][0]["schedule"] = json!("%NOT_SET%"), "six fields"),
        (hub, |json| json["bindings"][0]["eventHubName"] = json!("%OTHER%"), "`OTHER`"),
    ];
    for (file, change, fault) in changes {
        let faults = faults(file, change);
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
}

#[test]
fn only_immediate_folders_hold_functions() {
    let scratch = staged();
    let root = scratch.path().join("functionapp");
    fs::create_dir_all(root.join("function-definitions")).unwrap();
    fs::rename(root.join("openai"), root.join("function-definitions/openai")).unwrap();
    let app = App::load(&root, &settings()).unwrap();
    assert!(app.functions.iter().all(|function| function.name != "openai"));
}

#[test]
fn a_name_that_the_host_refuses_is_refused() {
    let scratch = staged();
    let root = scratch.path().join("functionapp");
    fs::rename(root.join("openai"), root.join("1openai")).unwrap();
    let faults = App::load(&root, &settings()).unwrap_err();
    assert!(faults[0].contains("1openai"), "{faults:?}");
}

#[test]
fn a_trigger_without_its_settings_is_in_error_unless_it_is_switched_off() {
    let scratch = staged();
    let root = scratch.path().join("functionapp");
    let mut settings = settings();
    settings.remove("UsageEventHub__fullyQualifiedNamespace");
    let faults = App::load(&root, &settings).unwrap_err();
    assert!(faults[0].contains("UsageEventHub"), "{faults:?}");
    settings.insert("AzureWebJobs.token-accounting.Disabled".to_owned(), "true".to_owned());
    let app = App::load(&root, &settings).unwrap();
    assert!(!app.function("token-accounting").is_enabled);
}
