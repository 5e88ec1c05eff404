//! Reads a staged folder as the host reads it: strictly, and every fault at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::function::{Function, Trigger};

/// App settings: all that a handler has in its environment besides the host's own variables.
pub(super) type Settings = BTreeMap<String, String>;

/// How HTTP reaches the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Proxying,
    Forwarding,
    Envelope,
}

/// A function app that the host would run.
#[derive(Debug)]
pub(super) struct App {
    pub(super) root: PathBuf,
    /// `customHandler.description.defaultExecutablePath`.
    pub(super) executable: String,
    pub(super) mode: Mode,
    pub(super) initialization_timeout: Duration,
    pub(super) max_event_batch: usize,
    pub(super) host_json: Value,
    /// In the order of their names, which is the order in which routes are tried.
    pub(super) functions: Vec<Function>,
}

impl App {
    pub(super) fn load(root: &Path, settings: &Settings) -> Result<Self, Vec<String>> {
        let host = read_json(&root.join("host.json")).map_err(|fault| vec![fault])?;
        let mut faults = Vec::new();
        check_host(&host, &mut faults);
        let custom = &host["customHandler"];
        let executable = custom["description"]["defaultExecutablePath"].as_str().unwrap_or_default();
        if executable.is_empty() {
            faults.push("host.json: no customHandler.description.defaultExecutablePath".to_owned());
        } else if !root.join(executable).is_file() {
            faults.push(format!("host.json: there is no `{executable}` in the folder"));
        }
        let functions = functions(root, settings, &mut faults);
        check_routes(&functions, &mut faults);
        if !functions.is_empty() && !custom["http"]["routes"].is_null() {
            faults.push("host.json: http.routes and function.json files exclude each other".to_owned());
        }
        let timeout =
            custom["initializationTimeout"].as_str().map_or(Some(Duration::from_secs(30)), time_span);
        let Some(initialization_timeout) = timeout else {
            faults.push("host.json: initializationTimeout is not a time span".to_owned());
            return Err(faults);
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            root: root.to_owned(),
            executable: executable.to_owned(),
            mode: mode(custom, settings),
            initialization_timeout,
            max_event_batch: max_event_batch(&host),
            functions,
            host_json: host,
        })
    }

    pub(super) fn function(&self, name: &str) -> &Function {
        let found = self.functions.iter().find(|function| function.name == name);
        found.unwrap_or_else(|| panic!("the app has no function `{name}`"))
    }
}

fn read_json(path: &Path) -> Result<Value, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn check_host(host: &Value, faults: &mut Vec<String>) {
    if host["version"] != "2.0" {
        faults.push("host.json: the version must be \"2.0\"".to_owned());
    }
    if !matches!(host["configurationProfile"].as_str().unwrap_or(""), "" | "default" | "mcp-custom-handler") {
        faults.push("host.json: no such configurationProfile".to_owned());
    }
    if let Some(timeout) = host["functionTimeout"].as_str()
        && timeout != "-1"
        && time_span(timeout).is_none()
    {
        faults.push("host.json: functionTimeout is not a time span".to_owned());
    }
    if let Some(prefix) = host["extensions"]["http"]["routePrefix"].as_str()
        && !prefix.is_empty()
    {
        faults.push(format!("this host serves an empty routePrefix only, not `{prefix}`"));
    }
}

/// Proxying wins over forwarding; with neither the handler gets envelopes. An app setting overrides
/// the file, as for every key of host.json.
fn mode(custom: &Value, settings: &Settings) -> Mode {
    let is_on = |key: &str| {
        let setting = settings.get(&format!("AzureFunctionsJobHost__customHandler__{key}"));
        setting.map_or(custom[key] == true, |value| value.eq_ignore_ascii_case("true"))
    };
    if is_on("enableProxyingHttpRequest") {
        Mode::Proxying
    } else if is_on("enableForwardingHttpRequest") {
        Mode::Forwarding
    } else {
        Mode::Envelope
    }
}

fn max_event_batch(host: &Value) -> usize {
    let set = host["extensions"]["eventHubs"]["maxEventBatchSize"].as_u64();
    usize::try_from(set.unwrap_or(100)).expect("a batch of that many events fits no machine")
}

/// Immediate sub-folders only: a function.json deeper down is never seen.
fn functions(root: &Path, settings: &Settings, faults: &mut Vec<String>) -> Vec<Function> {
    let mut names: Vec<_> = fs::read_dir(root)
        .expect("the staged folder can be listed")
        .map(|entry| entry.expect("the staged folder can be listed"))
        .filter(|entry| entry.path().join("function.json").is_file())
        .map(|entry| entry.file_name().into_string().expect("the name of a function is UTF-8"))
        .collect();
    names.sort_by_key(|name| name.to_ascii_lowercase());
    let mut functions = Vec::new();
    for name in names {
        let read = read_json(&root.join(&name).join("function.json"))
            .map_err(|fault| vec![fault])
            .and_then(|json| Function::read(&name, &json, settings));
        match read {
            Ok(function) => functions.push(function),
            Err(more) => faults.extend(more),
        }
    }
    functions
}

fn check_routes(functions: &[Function], faults: &mut Vec<String>) {
    let mut seen: Vec<(&str, &[String])> = Vec::new();
    for function in functions {
        let Trigger::Http { template, methods, .. } = &function.trigger else { continue };
        let route = template.text();
        // By the start of the text: `admin-api` is refused as well.
        if route.starts_with("admin") || route.starts_with("runtime") {
            faults.push(format!("`{}`: the route `{route}` is the host's own", function.name));
        }
        let is_taken = seen.iter().any(|(other, verbs)| {
            let shared =
                verbs.is_empty() || methods.is_empty() || verbs.iter().any(|verb| methods.contains(verb));
            *other == route && shared
        });
        if is_taken {
            faults.push(format!("`{}`: the route `{route}` is taken", function.name));
        }
        seen.push((route, methods));
    }
}

/// `[d.]hh:mm:ss[.fff]`
pub(super) fn time_span(text: &str) -> Option<Duration> {
    let (days, clock) = match text.split_once('.') {
        Some((days, clock)) if clock.contains(':') => (days.parse().ok()?, clock),
        _ => (0_u64, text),
    };
    let mut parts = clock.split(':');
    let hours: u64 = parts.next()?.parse().ok()?;
    let minutes: u64 = parts.next()?.parse().ok()?;
    let seconds: f64 = parts.next()?.parse().ok()?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds >= 60.0 {
        return None;
    }
    Some(Duration::from_secs(((days * 24 + hours) * 60 + minutes) * 60) + Duration::from_secs_f64(seconds))
}
