//! `/openapi.json` says what the routes do, all of it and nothing else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::TestGateway;

async fn description(gateway: &TestGateway) -> Value {
    let answer = gateway.send("GET", "/openapi.json", &[], None).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    answer.json()
}

/// Method and path of each route of management, as `routes.rs` mounts them.
fn mounted() -> BTreeSet<(String, String)> {
    let code = std::fs::read_to_string("src/routes.rs").unwrap();
    let mut mounted = BTreeSet::new();
    for route in code.split(".route(").skip(1) {
        let path = route.split('"').nth(1).unwrap().to_owned();
        // Up to the next call on the router.
        let handlers = route.split(".fallback(").next().unwrap();
        for method in ["get", "post", "patch", "delete", "put"] {
            let Some((_, handler)) = handlers.split_once(&format!("{method}(")) else { continue };
            // The host's own calls are no part of management.
            if !handler.starts_with("functions::") {
                mounted.insert((method.to_owned(), path.clone()));
            }
        }
    }
    mounted
}

#[tokio::test]
async fn every_route_of_management_is_described_and_nothing_else_is() {
    let gateway = TestGateway::start().await;
    let description = description(&gateway).await;
    let mut described = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for (path, operations) in description["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            described.insert((method.clone(), path.clone()));
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        }
    }
    assert!(mounted().len() > 8, "src/routes.rs is no longer read");
    assert_eq!(mounted(), described);
}

#[tokio::test]
async fn what_is_described_as_open_is_open_and_the_rest_wants_a_key() {
    let gateway = TestGateway::start().await;
    for (path, operations) in description(&gateway).await["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let path = path.replace("{id}", "nobody").replace("{slot}", "primary");
            let answer = gateway.send(&method.to_uppercase(), &path, &[], None).await;
            let expected = if operation["security"] == json!([]) { 200 } else { 401 };
            assert_eq!(answer.status, expected, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_body_is_described_as_required_exactly_where_none_is_refused() {
    let gateway = TestGateway::start().await;
    let replay = "/reports/dead-letters/replay";
    let description = description(&gateway).await;
    let required = |path: &str| description["paths"][path]["post"]["requestBody"]["required"].clone();
    assert_eq!((required(replay), required("/subscriptions")), (json!(false), json!(true)));
    assert_eq!(gateway.manage("POST", replay, None).await.status, 200);
    assert_eq!(gateway.manage("POST", "/subscriptions", None).await.status, 400);
}

#[tokio::test]
async fn answers_and_refusals_are_as_described() {
    let gateway = TestGateway::start().await;
    gateway.chat(&json!({"messages": [{"role": "user", "content": "Say hello."}]}), "").await;
    gateway.total(1).await;
    let description = description(&gateway).await;
    let application = json!({
        "name": "one", "product": "standard", "owner": "o", "cost_center": null, "notes": "n", "tags": {"a": "b"},
        "limits": {"budget": {"amount": "1.50", "period": "month", "alert_at": [0.5]}},
        "expires_at": "2999-01-01T00:00:00Z",
    });
    check_body(&description, "/subscriptions", "post", &application);
    let issued = gateway.manage("POST", "/subscriptions", Some(&application)).await;
    check(&description, "/subscriptions", "post", "201", &issued.json());
    let id = issued.json()["id"].as_str().unwrap().to_owned();
    let patch = json!({"state": "suspended", "tags": null, "expires_at": null});
    check_body(&description, "/subscriptions/{id}", "patch", &patch);
    let of_one = format!("/subscriptions/{id}");
    let with_key = format!("{of_one}/keys/primary");
    for (method, path, template, body) in [
        ("patch", of_one.as_str(), "/subscriptions/{id}", Some(&patch)),
        ("get", &of_one, "/subscriptions/{id}", None),
        ("get", "/subscriptions?limit=1", "/subscriptions", None),
        ("post", &with_key, "/subscriptions/{id}/keys/{slot}", None),
        ("get", "/reports/audit", "/reports/audit", None),
        ("get", "/reports/usage?group_by=subscription,day", "/reports/usage", None),
        ("get", "/reports/chargeback", "/reports/chargeback", None),
        ("get", "/reports/forecast", "/reports/forecast", None),
        ("get", "/reports/backends", "/reports/backends", None),
        ("get", "/reports/dead-letters", "/reports/dead-letters", None),
        ("post", "/reports/dead-letters/replay", "/reports/dead-letters/replay", None),
        ("get", "/healthz", "/healthz", None),
        ("get", "/", "/", None),
    ] {
        let answer = gateway.manage(&method.to_uppercase(), path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        check(&description, template, method, "200", &answer.json());
    }
    for (method, path, template) in [
        ("get", "/subscriptions?limit=0", "/subscriptions"),
        ("get", "/subscriptions/nobody", "/subscriptions/{id}"),
        ("post", "/subscriptions", "/subscriptions"),
    ] {
        let refused = gateway.manage(&method.to_uppercase(), path, Some(&json!({}))).await;
        assert!(refused.status >= 400, "{method} {path}");
        check(&description, template, method, "default", &refused.json());
    }
}

fn check(description: &Value, path: &str, method: &str, status: &str, answer: &Value) {
    let response = &description["paths"][path][method]["responses"][status];
    valid(description, &response["content"]["application/json"]["schema"], answer);
}

fn check_body(description: &Value, path: &str, method: &str, body: &Value) {
    let body_of = &description["paths"][path][method]["requestBody"];
    valid(description, &body_of["content"]["application/json"]["schema"], body);
}

/// References lead into the components.
fn valid(description: &Value, schema: &Value, instance: &Value) {
    assert!(schema.is_object(), "nothing is described for {instance}");
    let mut schema = schema.clone();
    schema["components"] = description["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let faults: Vec<_> = validator.iter_errors(instance).map(|fault| fault.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?}\n{instance}");
}

/// Schemathesis makes thousands of requests out of the description: those that it allows, and those that it
/// does not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs schemathesis: TOLLGATE_TEST_SCHEMATHESIS"]
#[expect(clippy::disallowed_methods, reason = "where the tool lies is the environment's to say")]
async fn what_the_description_allows_and_forbids_is_what_happens() {
    let program = std::env::var("TOLLGATE_TEST_SCHEMATHESIS").unwrap_or_else(|_| "schemathesis".to_owned());
    let gateway = TestGateway::start().await;
    let run = tokio::process::Command::new(program)
        .args(["run", &format!("http://{}/openapi.json", gateway.address)])
        .args(["--header", &format!("Authorization: Bearer {}", crate::support::ADMIN_KEY)])
        .args(["--phases", "examples,coverage,fuzzing", "--max-time", "30", "--seed", "1", "--no-color"])
        .args(["--checks", "content_type_conformance,response_schema_conformance,status_code_conformance"])
        .args(["--checks", "ignored_auth,not_a_server_error"])
        .current_dir(gateway.folder())
        .env("NO_PROXY", "127.0.0.1")
        .kill_on_drop(true)
        .output();
    let run = tokio::time::timeout(std::time::Duration::from_mins(3), run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}{}", String::from_utf8_lossy(&run.stderr));
    // It did look at all of it.
    let after = |words: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(words)).unwrap_or_default();
        line.trim().split('/').map(|number| number.parse().unwrap()).collect::<Vec<usize>>()
    };
    let [selected, all] = after("Selected:")[..] else { panic!("{said}") };
    assert!(selected > 10 && selected == all && after("Tested:") == [all], "{said}");
}

#[tokio::test]
async fn people_get_a_page_that_needs_nothing_else() {
    let gateway = TestGateway::start().await;
    let accept = [("accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = gateway.send("GET", "/openapi.json", &accept, None).await;
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(page.body.contains("/subscriptions/{id}/keys/{slot}") && page.body.contains("group_by"));
    for elsewhere in ["<script", "http://", "https://", "src=", "@import"] {
        let body = page.body.replace("https://json-schema.org", "");
        assert!(!body.contains(elsewhere), "{elsewhere}");
    }
}
