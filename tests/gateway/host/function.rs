//! One `function.json`, read as the host reads it.

use std::time::Duration;

use serde_json::Value;

use super::app::{Settings, time_span};
use super::template::Template;

#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) trigger: Trigger,
    /// Off where the app setting `AzureWebJobs.<name>.Disabled` says so.
    pub(super) is_enabled: bool,
}

#[derive(Debug)]
pub(super) enum Trigger {
    Http {
        template: Template,
        /// Upper-cased; an empty list is every method.
        methods: Vec<String>,
        needs_key: bool,
        /// The input's binding name.
        name: String,
        /// Exactly one trigger and one output: anything more always gets an envelope.
        is_plain: bool,
    },
    Timer {
        name: String,
    },
    EventHub {
        name: String,
        shape: Shape,
        retry: Option<Retry>,
    },
}

/// In what form a batch of events is put into `Data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    ManyStrings,
    ManyBinaries,
    /// Cardinality many without a data type: each event must be JSON.
    ManyValues,
    OneString,
    OneBinary,
}

/// What happens to a failed batch. Without a policy it is checkpointed, and lost.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    /// `None` is for ever.
    pub(super) max: Option<u32>,
    pub(super) shortest: Duration,
    pub(super) longest: Duration,
}

impl Retry {
    /// How long the host waits before the attempt after this many failures.
    pub(super) fn pause(&self, failures: u32) -> Duration {
        self.shortest.saturating_mul(1 << (failures.min(16) - 1)).min(self.longest)
    }
}

impl Function {
    pub(super) fn read(name: &str, json: &Value, settings: &Settings) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        if !is_name(name, true) || name.eq_ignore_ascii_case("host") {
            faults.push("is no name for a function".to_owned());
        }
        let bindings = json["bindings"].as_array().map_or(&[][..], Vec::as_slice);
        for binding in bindings {
            check_binding(binding, &mut faults);
        }
        let retry = retry(&json["retry"], &mut faults);
        let triggers: Vec<_> =
            bindings.iter().filter(|binding| type_of(binding).ends_with("trigger")).collect();
        let trigger = if let [one] = triggers[..] {
            trigger(one, bindings, retry, (name, settings), &mut faults)
        } else {
            faults.push("must have exactly one trigger".to_owned());
            None
        };
        match trigger {
            Some(trigger) if faults.is_empty() => {
                Ok(Self { name: name.to_owned(), trigger, is_enabled: is_enabled(name, settings) })
            }
            _ => Err(faults.into_iter().map(|fault| format!("the function `{name}` {fault}")).collect()),
        }
    }
}

fn is_enabled(function: &str, settings: &Settings) -> bool {
    let off = settings.get(&format!("AzureWebJobs.{function}.Disabled"));
    off.is_none_or(|value| value != "1" && !value.eq_ignore_ascii_case("true"))
}

fn type_of(binding: &Value) -> String {
    binding["type"].as_str().unwrap_or_default().to_ascii_lowercase()
}

/// A letter, then at most 127 letters or digits; a function's may have `_` and `-` as well.
fn is_name(name: &str, is_function: bool) -> bool {
    let mut letters = name.chars();
    letters.next().is_some_and(|first| first.is_ascii_alphabetic())
        && name.len() <= 128
        && letters.all(|letter| letter.is_ascii_alphanumeric() || is_function && matches!(letter, '_' | '-'))
}

fn check_binding(binding: &Value, faults: &mut Vec<String>) {
    let name = binding["name"].as_str().unwrap_or_default();
    if !is_name(name, false) && name != "$return" {
        faults.push(format!("has a binding with the name `{name}`, which is none"));
    }
    if !matches!(binding["direction"].as_str(), Some("in" | "out" | "inout")) {
        faults.push(format!("has a binding `{name}` without a direction"));
    }
    if type_of(binding).is_empty() {
        faults.push(format!("has a binding `{name}` without a type"));
    }
}

fn trigger(
    binding: &Value,
    bindings: &[Value],
    retry: Option<Retry>,
    (function, settings): (&str, &Settings),
    faults: &mut Vec<String>,
) -> Option<Trigger> {
    let name = binding["name"].as_str().unwrap_or_default().to_owned();
    match type_of(binding).as_str() {
        "httptrigger" => {
            let template = Template::parse(binding["route"].as_str().unwrap_or(function));
            let template = template.map_err(|fault| faults.push(fault)).ok()?;
            let methods = binding["methods"].as_array().map_or(&[][..], Vec::as_slice);
            let needs_key = needs_key(binding["authLevel"].as_str().unwrap_or("function"), faults);
            Some(Trigger::Http {
                template,
                methods: methods.iter().filter_map(Value::as_str).map(str::to_ascii_uppercase).collect(),
                needs_key,
                name,
                is_plain: bindings.len() == 2 && bindings.iter().any(|other| type_of(other) == "http"),
            })
        }
        "eventhubtrigger" => {
            check_hub(binding, settings, is_enabled(function, settings), faults);
            let shape = shape(binding).map_err(|fault| faults.push(fault)).ok()?;
            Some(Trigger::EventHub { name, shape, retry })
        }
        "timertrigger" => {
            check_schedule(binding["schedule"].as_str().unwrap_or_default(), settings, faults);
            Some(Trigger::Timer { name })
        }
        other => {
            faults.push(format!("has a trigger `{other}` that this host does not run"));
            None
        }
    }
}

/// Six fields, the first of them seconds, or a setting that has them. Five, as elsewhere, would be another time.
fn check_schedule(schedule: &str, settings: &Settings, faults: &mut Vec<String>) {
    let named = schedule.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'));
    let schedule = named.map_or(Some(schedule), |setting| settings.get(setting).map(String::as_str));
    let is_field = |field: &str| {
        field.chars().all(|sign| sign.is_ascii_digit() || matches!(sign, '*' | '/' | ',' | '-'))
    };
    if schedule.is_none_or(|text| text.split(' ').count() != 6 || !text.split(' ').all(is_field)) {
        faults.push("has no schedule of six fields".to_owned());
    }
}

fn needs_key(level: &str, faults: &mut Vec<String>) -> bool {
    match level.to_ascii_lowercase().as_str() {
        "anonymous" => return false,
        "function" | "admin" => {}
        other => faults.push(format!("has no such authLevel as `{other}`")),
    }
    true
}

fn shape(binding: &Value) -> Result<Shape, String> {
    let is_many = match binding["cardinality"].as_str().map(str::to_ascii_lowercase).as_deref() {
        None | Some("many") => true,
        Some("one") => false,
        Some(other) => return Err(format!("has no such cardinality as `{other}`")),
    };
    match (is_many, binding["dataType"].as_str().map(str::to_ascii_lowercase).as_deref()) {
        (true, Some("string")) => Ok(Shape::ManyStrings),
        (true, Some("binary")) => Ok(Shape::ManyBinaries),
        (true, None) => Ok(Shape::ManyValues),
        (false, Some("string") | None) => Ok(Shape::OneString),
        (false, Some("binary")) => Ok(Shape::OneBinary),
        (_, Some(other)) => Err(format!("has no such dataType as `{other}`")),
    }
}

/// The trigger's settings must resolve, or the function is in error and nothing is ever delivered.
/// Of a function that is switched off no listener is made, and so no connection is looked for.
fn check_hub(binding: &Value, settings: &Settings, listens: bool, faults: &mut Vec<String>) {
    for key in ["eventHubName", "consumerGroup"] {
        let text = binding[key].as_str().unwrap_or_default();
        if let Some(setting) = text.strip_prefix('%').and_then(|rest| rest.strip_suffix('%'))
            && !settings.contains_key(setting)
        {
            faults.push(format!("needs the app setting `{setting}` for its {key}"));
        }
    }
    if binding["eventHubName"].as_str().is_none_or(str::is_empty) {
        faults.push("has no eventHubName".to_owned());
    }
    let connection = binding["connection"].as_str().unwrap_or_default();
    let identity = format!("{connection}__fullyQualifiedNamespace");
    if listens
        && (connection.is_empty() || !settings.contains_key(connection) && !settings.contains_key(&identity))
    {
        faults.push(format!("needs the app setting `{connection}` or `{identity}`"));
    }
}

fn retry(json: &Value, faults: &mut Vec<String>) -> Option<Retry> {
    if json.is_null() {
        return None;
    }
    let (shortest, longest) = match json["strategy"].as_str() {
        Some("exponentialBackoff") => (&json["minimumInterval"], &json["maximumInterval"]),
        Some("fixedDelay") => (&json["delayInterval"], &json["delayInterval"]),
        _ => {
            faults.push("has a retry policy without a strategy".to_owned());
            return None;
        }
    };
    let spans = (shortest.as_str().and_then(time_span), longest.as_str().and_then(time_span));
    match (spans, json["maxRetryCount"].as_i64()) {
        ((Some(shortest), Some(longest)), Some(count)) if count >= -1 => {
            Some(Retry { max: u32::try_from(count).ok(), shortest, longest })
        }
        _ => {
            faults.push("has a retry policy without its count and its intervals".to_owned());
            None
        }
    }
}
