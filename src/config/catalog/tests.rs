use super::*;

/// What the README shows, and `CONTRACT` names: every field there is.
const WHOLE: &str = r#"{
  "backends": [
    {"name": "westus-paygo", "endpoint": "https://contoso-westus.openai.azure.com/", "region": "westus",
     "priority": 2, "weight": 1, "auth": {"kind": "api_key", "secret": "westus-key"}},
    {"name": "eastus-ptu", "endpoint": "https://contoso-eastus.openai.azure.com", "region": "eastus",
     "priority": 1, "weight": 1, "auth": {"kind": "entra"}, "private_endpoint": false,
     "deployments": {"gpt-4o-mini": "gpt-4o-mini-ptu"},
     "billing": {"kind": "provisioned", "units": 50, "hourly_price_per_unit": "1.00"}}
  ],
  "products": [
    {"name": "standard", "deployments": ["gpt-4o-mini", "text-embedding-3-small"], "self_service": false,
     "limits": {"requests_per_minute": 600, "tokens_per_minute": 100000, "concurrent_requests": 50,
                "token_quota": {"tokens": 50000000, "period": "month"},
                "budget": {"amount": "500.00", "period": "month", "alert_at": [0.5, 0.8, 1.0]}}}
  ],
  "prices": [
    {"deployment": "gpt-4o-mini", "input_per_million": "0.15", "cached_input_per_million": "0.075",
     "output_per_million": "0.60", "effective_from": "2024-07-18"}
  ],
  "currency": "USD",
  "callers": {"entra": {"tenants": ["TENANT-ID"], "audiences": ["api://tollgate"],
                        "applications": [{"client_id": "APP-ID", "subscription": "SUBSCRIPTION-ID"}]}}
}"#;

fn faults(text: &str) -> Vec<String> {
    Catalog::parse(text, "test").expect_err("has faults").faults.iter().map(ToString::to_string).collect()
}

#[test]
fn deployments_are_resolved_best_backend_first() {
    let catalog = Catalog::parse(WHOLE, "test").unwrap();
    let targets = |name: &str| {
        let deployment = Name::new(name).unwrap();
        let targets = catalog.targets(&deployment);
        targets.map(|t| format!("{}/{}", t.backend.name, t.deployment)).collect::<Vec<_>>()
    };
    assert_eq!(targets("gpt-4o-mini"), ["eastus-ptu/gpt-4o-mini-ptu", "westus-paygo/gpt-4o-mini"]);
    assert_eq!(targets("gpt-4o"), ["westus-paygo/gpt-4o"]);
    assert_eq!(catalog.backends[1].endpoint.as_str(), "https://contoso-westus.openai.azure.com/");
}

#[test]
fn every_fault_is_told_at_once_with_its_place() {
    let told = faults(
        r#"{
        "backends": [
            {"name": "a", "endpoint": "http://example.com", "wieght": 2, "priority": "high"},
            {"name": "a", "endpoint": "https://a.openai.azure.com/openai", "auth": {"kind": "api_key"}},
            {"endpoint": "https://b.openai.azure.com", "auth": {"kind": "none"}, "billing": {"kind": "provisioned"}}
        ],
        "products": [{"name": "p", "deployments": ["x y", 5], "limits": {"requests_per_minute": 0, "token_quota": {"tokens": 5}}}],
        "prices": [{"input_per_million": 0.15}, {"model": "m", "input_per_million": "-1", "effective_from": "July"}],
        "currency": "dollars",
        "extra": 1
    }"#,
    );
    let expected = [
        "backends[0].wieght: unknown field",
        "backends[0].priority: invalid type",
        "backends[0].endpoint: must begin with https://",
        "backends[1].name: `a` stands twice",
        "backends[1].endpoint: ends after the host",
        "backends[1].auth: `api_key` needs",
        "backends[2].name: is missing",
        "backends[2].auth.kind: `none` is for endpoints on",
        "backends[2].billing: `provisioned` needs",
        "products[0].deployments[0]: a name has",
        "products[0].limits.requests_per_minute: must be at least 1",
        "products[0].limits.token_quota: missing field `period`",
        "prices[0]: names no",
        "prices[0].input_per_million: invalid type: floating point `0.15`, expected money as a string",
        "prices[1].input_per_million: invalid value",
        "prices[1].effective_from: not a day",
        "currency: three capital letters",
        "extra: unknown field",
    ];
    for fault in expected {
        assert!(told.iter().any(|line| line.starts_with(fault)), "`{fault}` is not among {told:#?}");
    }
}

#[test]
fn what_is_no_configuration_is_one_fault() {
    for text in ["", "[]", "{", "{}", "5"] {
        assert_eq!(faults(text).len(), 1, "{text}: {:?}", faults(text));
    }
}

#[test]
fn a_faulty_backend_is_told_once_and_not_by_everything_that_names_it() {
    let told = faults(
        r#"{
        "backends": [
            {"name": "a", "endpoint": "ftp://x", "deployments": {"gpt-4o": "g"}},
            {"name": "b", "endpoint": "https://b.example#there", "deployments": {"other": "o"}}
        ],
        "products": [{"name": "p", "deployments": ["gpt-4o", "none"]}],
        "prices": [{"backend": "a", "input_per_million": 0.1}]
    }"#,
    );
    let places: Vec<_> = told.iter().map(|fault| fault.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "prices[0].input_per_million",
            "backends[0].endpoint",
            "backends[1].endpoint",
            "products[0].deployments[1]",
        ],
        "{told:?}"
    );
}

#[test]
fn no_fault_of_a_sign_in_repeats_what_may_be_a_key() {
    for auth in [
        r#""hush""#,
        r#"{"kind": "hush"}"#,
        r#"{"kind": "api_key", "value": 4711}"#,
        r#"{"value": ["hush"]}"#,
    ] {
        let text =
            format!(r#"{{"backends": [{{"name": "a", "endpoint": "https://a.test", "auth": {auth}}}]}}"#);
        let told = Catalog::parse(&text, "test").unwrap_err().to_string();
        assert!(told.contains("backends[0].auth"), "{told}");
        assert!(!told.contains("hush") && !told.contains("4711"), "{told}");
    }
}

#[test]
fn a_file_of_an_editor_that_marks_its_beginning_is_read() {
    let text = "\u{feff}{\"backends\": [{\"name\": \"a\", \"endpoint\": \"https://a.test\"}]}";
    assert_eq!(Catalog::parse(text, "test").unwrap().backends.len(), 1);
}

#[test]
fn a_price_may_hold_for_one_type_of_deployment_alone() {
    let text = r#"{
        "backends": [
            {"name": "zone", "endpoint": "https://a.test", "deployments": {"chat": "chat-eu", "other": "other"},
             "deployment_types": {"chat": "data_zone_standard"}},
            {"name": "plain", "endpoint": "https://b.test"}
        ],
        "prices": [{"model": "m", "input_per_million": "1"},
                   {"model": "m", "deployment_type": "data_zone_standard", "input_per_million": "1.1"}]
    }"#;
    let catalog = Catalog::parse(text, "test").unwrap();
    let input = |backend, deployment| {
        let day = time::macros::date!(2026 - 01 - 01);
        let rate = catalog.rate(Priced { deployment, model: Some("m"), backend, day }).unwrap();
        rate.terms().input_per_million.unwrap().to_string()
    };
    assert_eq!(input("zone", "chat"), "1.1");
    assert_eq!(input("zone", "other"), "1", "its type is not said");
    assert_eq!(input("plain", "chat"), "1");
    assert_eq!(input("gone", "chat"), "1");
}

#[test]
fn faults_of_types_and_of_capacity_are_told() {
    let told = faults(
        r#"{
        "backends": [
            {"name": "a", "endpoint": "https://a.test", "deployments": {"chat": "c"},
             "deployment_types": {"chart": "standard", "chat": "cheap"}},
            {"name": "b", "endpoint": "https://b.test", "billing": {"tokens_per_minute_per_unit": 1}},
            {"name": "c", "endpoint": "https://b.test", "billing": {"kind": "provisioned", "units": 4294967295,
             "hourly_price_per_unit": "79228162514264337593543950335", "tokens_per_minute_per_unit": 0}}
        ],
        "prices": [{"model": "m", "input_per_million": "0.000000001"},
                   {"deployment_type": "standard", "input_per_million": "1"}]
    }"#,
    );
    let expected = [
        "backends[0].deployment_types.chat: unknown variant `cheap`, expected one of `standard`",
        "backends[0].deployment_types.chart: this backend's",
        "backends[1].billing: `units`",
        "backends[2].billing.hourly_price_per_unit: at most",
        "backends[2].billing.tokens_per_minute_per_unit: must be at least 1",
        "prices[0].input_per_million: at most 8 decimals",
        "prices[1]: names no",
    ];
    for fault in expected {
        assert!(told.iter().any(|line| line.starts_with(fault)), "`{fault}` is not among {told:#?}");
    }
}
