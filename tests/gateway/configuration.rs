//! The gateway configuration as its author meets it: the schema in an editor, and `config check`.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tollgate::config::catalog::Catalog;
use tollgate::config::schema::schema;

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema()).unwrap()
}

/// The contract's own example: every field that matters.
fn azure() -> Value {
    serde_json::from_str(&std::fs::read_to_string("examples/azure.json").unwrap()).unwrap()
}

fn is_taken(file: &Value) -> bool {
    Catalog::parse(&file.to_string(), "test").is_ok()
}

#[test]
fn every_example_is_what_the_schema_and_the_check_want() {
    assert!(jsonschema::draft202012::meta::is_valid(&schema()));
    let validator = validator();
    let mut examples = 0;
    for entry in std::fs::read_dir("examples").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let mut file: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            file["$schema"] = "./tollgate.schema.json".into();
            let faults: Vec<_> = validator.iter_errors(&file).map(|fault| fault.to_string()).collect();
            assert!(faults.is_empty() && is_taken(&file), "{}: {faults:?}", path.display());
            examples += 1;
        }
    }
    assert!(examples >= 2);
}

#[test]
fn what_the_check_refuses_for_its_form_the_schema_refuses_too() {
    let validator = validator();
    for (place, value) in [
        ("/extra", json!(1)),
        ("/backends", json!([])),
        ("/backends", json!({})),
        ("/backends/0/wieght", json!(2)),
        ("/backends/0/name", json!("a b")),
        ("/backends/0/priority", json!("high")),
        ("/backends/0/priority", json!(0)),
        ("/backends/0/weight", json!(1001)),
        ("/backends/0/endpoint", json!("http://contoso.openai.azure.com")),
        ("/backends/0/endpoint", json!("https://contoso.openai.azure.com/openai")),
        ("/backends/0/endpoint", json!("https://user@contoso.openai.azure.com")),
        ("/backends/0/auth/kind", json!("password")),
        ("/backends/0/auth", json!({"kind": "api_key"})),
        ("/backends/0/auth", json!({"kind": "api_key", "secret": "a", "value": "b"})),
        ("/backends/0/auth", json!({"kind": "api_key", "secret": "a b"})),
        ("/backends/0/auth", json!({"secret": "a"})),
        ("/backends/0/auth", json!({"kind": "api_key", "secret": "a", "audience": "b"})),
        ("/backends/0/deployments", json!({"a/b": "c"})),
        ("/backends/0/deployments", json!({"a": "b c"})),
        ("/backends/0/billing", json!({"kind": "provisioned"})),
        ("/backends/0/billing", json!({"units": 5, "hourly_price_per_unit": "1"})),
        ("/products/0/limits/requests_per_minute", json!(0)),
        ("/products/0/limits/token_quota", json!({"tokens": 5})),
        ("/products/0/limits/budget/period", json!("fortnight")),
        ("/products/0/limits/budget/amount", json!(500)),
        ("/products/0/limits/budget/alert_at", json!([11])),
        ("/prices/0", json!({"input_per_million": "1"})),
        ("/prices/0/input_per_million", json!(0.15)),
        ("/prices/0/input_per_million", json!("-1")),
        ("/prices/0/effective_from", json!("July")),
        ("/currency", json!("dollars")),
        ("/timeouts", json!({"total": 221})),
        ("/timeouts", json!({"first_byte": 0.05})),
        ("/timeouts", json!({"waiting_every": 200})),
        ("/timeouts", json!({"totl": 5})),
        ("/callers/entra/tenants", json!([])),
        ("/callers/entra/applications/0/client_id", json!("")),
    ] {
        let mut file = azure();
        put(&mut file, place, value.clone());
        assert!(!is_taken(&file), "the check takes {place} = {value}");
        assert!(!validator.is_valid(&file), "the schema takes {place} = {value}");
    }
}

#[test]
fn what_the_schema_requires_the_check_requires_too() {
    let validator = validator();
    for place in [
        "/backends",
        "/backends/0/name",
        "/backends/0/endpoint",
        "/products/0/name",
        "/products/0/limits/token_quota/tokens",
        "/products/0/limits/token_quota/period",
        "/products/0/limits/budget/amount",
        "/products/0/limits/budget/period",
        "/prices/0/input_per_million",
        "/callers/entra/tenants",
        "/callers/entra/audiences",
        "/callers/entra/applications/0/client_id",
        "/callers/entra/applications/0/subscription",
    ] {
        let mut file = azure();
        let (parent, name) = place.rsplit_once('/').unwrap();
        let parent = file.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        parent.remove(name).unwrap_or_else(|| panic!("{place} is not in the example"));
        assert!(!is_taken(&file) && !validator.is_valid(&file), "{place}");
    }
}

/// Every field tells its reader what it is.
#[test]
fn every_field_has_a_description() {
    let schema = schema();
    let mut structs = vec![("the file", &schema)];
    structs.extend(schema["$defs"].as_object().unwrap().iter().map(|(name, schema)| (name.as_str(), schema)));
    for (name, schema) in structs {
        for (field, property) in schema["properties"].as_object().into_iter().flatten() {
            assert!(property["description"].is_string(), "{name}.{field}: {property}");
            assert!(property.get("format").is_none() && property.get("default").is_none(), "{property}");
        }
    }
}

fn put(file: &mut Value, place: &str, value: Value) {
    let (parent, name) = place.rsplit_once('/').unwrap();
    let parent = file.pointer_mut(parent).unwrap_or_else(|| panic!("{place} is not in the example"));
    match parent {
        Value::Array(items) => items[name.parse::<usize>().unwrap()] = value,
        parent => parent[name] = value,
    }
}

fn check(arguments: &[&str], file: Option<&Path>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().args(["config", "check"]).args(arguments);
    match file {
        Some(file) => command.env("TOLLGATE_CONFIG", file),
        None => &mut command,
    };
    command.output().unwrap()
}

#[test]
fn what_key_vault_would_not_take_is_refused_unless_it_is_for_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.json");
    let mut large = azure();
    large["$schema"] = "x".repeat(25_000).into();
    large["currency"] = "dollars".into();
    std::fs::write(&path, large.to_string()).unwrap();
    let name = path.to_str().unwrap();
    for arguments in [&[name][..], &["--for", "secret", name]] {
        let told = check(arguments, None);
        let text = String::from_utf8(told.stderr).unwrap();
        assert_eq!(told.status.code(), Some(1), "{text}");
        assert!(text.contains("Key Vault takes 25000 for a secret"), "{text}");
        assert!(text.contains("currency: three capital letters"), "every fault at once: {text}");
    }
    // For a file it is only faulty where it is faulty.
    for (arguments, file) in [(&["--for", "file", name][..], None), (&[], Some(path.as_path()))] {
        let text = String::from_utf8(check(arguments, file).stderr).unwrap();
        assert!(text.contains("1 fault\n  currency"), "{text}");
    }
    std::fs::write(&path, format!("{:#}{}", azure(), " ".repeat(25_000))).unwrap();
    let told = check(&[name], None);
    let text = String::from_utf8(told.stderr).unwrap();
    assert!(text.contains("minified") && text.contains("and fits"), "{text}");
    assert!(check(&[], Some(&path)).status.success());
    assert!(check(&["examples/azure.json"], None).status.success());
}

#[test]
fn a_key_in_the_clear_is_for_files_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gateway.json");
    let mut literal = azure();
    literal["backends"][1]["auth"] = json!({"kind": "api_key", "value": "not-a-key"});
    std::fs::write(&path, literal.to_string()).unwrap();
    let name = path.to_str().unwrap();
    let told = check(&["--for", "secret", name], None);
    let text = String::from_utf8(told.stderr).unwrap();
    assert_eq!(told.status.code(), Some(1), "{text}");
    assert!(text.contains("backends[1].auth.value") && !text.contains("not-a-key"), "{text}");
    assert!(check(&["--for", "file", name], None).status.success());
    assert!(check(&[name], None).status.success());
}

#[test]
fn the_schema_is_printed_as_json() {
    let printed =
        Command::new(env!("CARGO_BIN_EXE_tollgate")).env_clear().args(["config", "schema"]).output().unwrap();
    assert!(printed.status.success());
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(printed, schema());
    assert_eq!(printed["$schema"], "https://json-schema.org/draft/2020-12/schema");
}
