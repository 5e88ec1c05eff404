//! What an operator writes and reads is written down: settings, the fields of the configuration, and
//! those of the log.

use std::collections::BTreeSet;

use serde_json::Value;

use super::imports::tokens;
use super::{assert_none, lines_before_tests, read, sources};

const SETTINGS: &str = "src/config/settings.rs";
const CONFIGURATION: &str = "docs/CONFIGURATION.md";
const SAMPLE: &str = "local.settings.sample.json";
const LOGGING: &str = "docs/LOGGING.md";

/// What `func start` cannot do without, and what a developer changes first.
const NEEDED_BY_DEVELOPERS: [&str; 7] = [
    "FUNCTIONS_WORKER_RUNTIME",
    "AzureWebJobsStorage",
    "USAGE_EVENTHUB_NAME",
    "TOLLGATE_CONFIG",
    "TOLLGATE_DATABASE_URL",
    "TOLLGATE_DATA_DIR",
    "TOLLGATE_ADMIN_KEY",
];

/// The names of settings among the strings of a file, before its tests.
fn settings_in(code: &str) -> BTreeSet<String> {
    let code: Vec<_> = code.lines().take(lines_before_tests(code)).collect();
    let code = code.join("\n");
    // Every second piece stands between quotes.
    let strings = code.split('"').skip(1).step_by(2);
    strings.filter(|text| is_setting(text)).map(str::to_owned).collect()
}

/// Such as `TOLLGATE_CONFIG` or `UsageEventHub__fullyQualifiedNamespace`.
fn is_setting(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.contains('_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// The names of fields that serde reads, one on a line.
fn fields_in(code: &str, visibility: &str) -> BTreeSet<String> {
    let fields = code.lines().take(lines_before_tests(code)).filter_map(|line| {
        let (name, _) = line.strip_prefix("    ")?.strip_prefix(visibility)?.split_once(": ")?;
        let is_field = name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        // `_schema` is renamed, and for editors.
        (is_field && !name.starts_with('_')).then(|| name.to_owned())
    });
    fields.collect()
}

/// Those that a document never names between backticks.
fn missing_in(document: &str, names: &BTreeSet<String>) -> Vec<String> {
    let quoted: BTreeSet<&str> = document.split('`').skip(1).step_by(2).collect();
    // A field may stand alone or in a path, such as `auth.kind` or `backends[]`.
    let is_named = |name: &str| {
        quoted.iter().any(|text| text.split('.').any(|part| part.strip_suffix("[]").unwrap_or(part) == name))
    };
    names.iter().filter(|name| !is_named(name)).cloned().collect()
}

#[test]
fn every_setting_is_written_down() {
    let settings = settings_in(&read(SETTINGS));
    assert!(settings.contains("TOLLGATE_CONFIG"), "{SETTINGS} is no longer read: {settings:?}");
    let missing = missing_in(&read(CONFIGURATION), &settings);
    assert_none(&missing, &format!("Give each a row in {CONFIGURATION}: meaning, default, active or not."));
}

#[test]
fn every_field_of_the_configuration_is_written_down() {
    let mut fields = fields_in(&read("src/config/file.rs"), "pub(super) ");
    fields.extend(fields_in(&read("src/config/file/callers.rs"), "pub(in crate::config) "));
    fields.extend(fields_in(&read("src/domain/limit.rs"), "pub "));
    assert!(
        ["endpoint", "audiences", "alert_at"].iter().all(|name| fields.contains(*name)),
        "fields are no longer read: {fields:?}"
    );
    let missing = missing_in(&read(CONFIGURATION), &fields);
    assert_none(&missing, &format!("Give each a row in {CONFIGURATION}: meaning, default, active or not."));
}

#[test]
fn the_sample_has_what_a_developer_needs_and_nothing_that_is_no_setting() {
    let sample: Value = serde_json::from_str(&read(SAMPLE)).expect("the sample is JSON");
    let values = sample["Values"].as_object().expect("the sample has Values");
    let mut complaints: Vec<_> = NEEDED_BY_DEVELOPERS
        .iter()
        .filter(|name| !values.contains_key(**name))
        .map(|name| format!("{SAMPLE}: `{name}` is missing"))
        .collect();
    let settings = settings_in(&read(SETTINGS));
    let is_ours = |name: &&String| name.starts_with("TOLLGATE_");
    let unknown = values.keys().filter(is_ours).filter(|name| !settings.contains(*name));
    complaints.extend(unknown.map(|name| format!("{SAMPLE}: `{name}` is read nowhere")));
    assert_none(&complaints, &format!("Mend {SAMPLE}, or NEEDED_BY_DEVELOPERS in this test."));
}

/// The fields of log records: `name = value`, and `%name` for a value of that name.
fn log_fields_in(code: &str) -> BTreeSet<String> {
    let tokens = tokens(code);
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let mut fields = BTreeSet::new();
    for (at, window) in tokens.windows(5).enumerate() {
        let ["tracing", "::", "error" | "warn" | "info" | "debug" | "trace", "!", "("] = window else {
            continue;
        };
        let mut depth = 1;
        let mut argument = Vec::new();
        for token in &tokens[at + 5..] {
            depth += match *token {
                "(" | "[" | "{" => 1,
                ")" | "]" | "}" => -1,
                _ => 0,
            };
            if depth == 0 || (depth == 1 && *token == ",") {
                fields.extend(log_field(&argument));
                argument.clear();
            } else {
                argument.push(*token);
            }
            if depth == 0 {
                break;
            }
        }
    }
    fields
}

fn log_field(argument: &[&str]) -> Option<String> {
    if let ["%" | "?", name] = argument {
        return Some((*name).to_owned());
    }
    let end = argument.iter().position(|token| *token == "=")?;
    let is_comparison = argument.get(end + 1) == Some(&"=");
    (!is_comparison).then(|| argument[..end].concat())
}

#[test]
fn every_field_of_the_log_is_written_down() {
    let fields: BTreeSet<_> =
        sources(&["src"]).iter().flat_map(|source| log_fields_in(&source.text)).collect();
    assert!(fields.contains("request.id"), "log fields are no longer read: {fields:?}");
    // A field is one name, dots and all.
    let document = read(LOGGING);
    let missing: Vec<_> =
        fields.into_iter().filter(|name| !document.contains(&format!("| `{name}` |"))).collect();
    assert_none(&missing, &format!("Give each a row in {LOGGING}."));
}

#[test]
fn what_is_not_written_down_is_noticed() {
    let code = "const A: &str = \"TOLLGATE_NEW\"; f(\"Hub__name\"); // \"x\"\n\
                g(\"must be sqlite://PATH\");\n#[cfg(test)]\nmod tests { \"TOLLGATE_TEST\" }";
    let settings = settings_in(code);
    assert_eq!(settings, ["Hub__name", "TOLLGATE_NEW"].map(str::to_owned).into());
    assert_eq!(missing_in("| `TOLLGATE_NEW` | new |", &settings), ["Hub__name"]);
    assert_eq!(missing_in("TOLLGATE_NEW and Hub__name", &settings).len(), 2, "a mention is no row");

    let code = "tracing::info!(request.id = %id, wait_ms = f(1, 2), %error, status, \"said {}\", a == b);";
    assert_eq!(log_fields_in(code), ["error", "request.id", "wait_ms"].map(str::to_owned).into());

    let file = "struct A {\n    pub(super) unit_price: u8,\n    pub(super) _schema: u8,\n    other: u8,\n}";
    let fields = fields_in(file, "pub(super) ");
    assert_eq!(fields, ["unit_price".to_owned()].into());
    assert!(missing_in("`billing.unit_price`", &fields).is_empty());
    assert_eq!(missing_in("`hourly_unit_price`", &fields).len(), 1);
}
