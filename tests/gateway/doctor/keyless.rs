//! The whole command without any key: managed identity, Key Vault, a backend that takes tokens alone.

use std::path::Path;

use serde_json::{Value, json};
use tollgate::simulator::Knobs;

use super::process;
use crate::azure::event_hub::EventHub;
use crate::azure::identity_endpoint::{self, IdentityEndpoint};
use crate::azure::issuer::{self, Issuer, TENANT};
use crate::azure::log_ingestion::LogIngestion;
use crate::azure::vault::{self, Vault};
use crate::support::{configuration, resource};

/// Runs the command with these settings; its exit code and the codes of what it found amiss.
async fn ask(folder: &Path, settings: &[(&'static str, String)]) -> (Option<i32>, Vec<String>) {
    let (folder, settings) = (folder.to_owned(), settings.to_vec());
    let asked = tokio::task::spawn_blocking(move || {
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        process(&folder, &settings, &["--json"])
    });
    let (code, told) = asked.await.unwrap();
    for secret in ["the-endpoints-own-secret", "hush"] {
        assert!(!told.contains(secret), "{told}");
    }
    let told: Value = serde_json::from_str(&told).unwrap();
    let amiss = told["findings"].as_array().unwrap().iter().filter(|finding| finding["level"] != "ok");
    (code, amiss.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect())
}

#[tokio::test]
async fn the_command_signs_in_and_reads_the_vault_as_the_gateway_does() {
    let (endpoint, vault) = (IdentityEndpoint::start(None).await, Vault::start().await);
    let (keyless, _one) = resource(Knobs { require_bearer: Some(String::new()), ..Knobs::default() }).await;
    let (keyed, _two) = resource(Knobs { require_key: vec!["hush".to_owned()], ..Knobs::default() }).await;
    let deployments = json!({"gpt-4o-mini": "gpt-4o-mini"});
    let issuer = Issuer::start().await;
    let callers = json!({"entra": {"tenants": [TENANT], "audiences": ["api://tollgate"]}});
    let configuration = json!({"callers": callers, "backends": [
        {"name": "keyless", "endpoint": format!("http://{keyless}"), "deployments": deployments},
        {"name": "keyed", "endpoint": format!("http://{keyed}"), "deployments": deployments,
         "auth": {"kind": "api_key", "secret": "the-key"}},
    ]});
    vault.set("tollgate-config", configuration.to_string());
    vault.set("the-key", "hush");
    let folder = tempfile::tempdir().unwrap();
    let mut settings = endpoint.settings().to_vec();
    settings.push(("TOLLGATE_KEY_VAULT_URL", vault.url()));
    settings.push(("TOLLGATE_ENTRA_AUTHORITY", issuer.authority()));

    assert_eq!(ask(folder.path(), &settings).await, (Some(0), vec![]));
    vault.says(Some(vault::Says::Forbidden("ForbiddenByRbac")));
    assert_eq!(ask(folder.path(), &settings).await, (Some(1), vec!["role_missing".to_owned()]));
    vault.says(Some(vault::Says::Forbidden("ForbiddenByFirewall")));
    assert_eq!(ask(folder.path(), &settings).await, (Some(1), vec!["secret_refused".to_owned()]));
    vault.says(Some(vault::Says::Status(503)));
    assert_eq!(ask(folder.path(), &settings).await, (Some(1), vec!["key_vault_unreachable".to_owned()]));
    vault.says(None);
    endpoint.always(Some(identity_endpoint::Says::Status(400)));
    assert_eq!(ask(folder.path(), &settings).await, (Some(1), vec!["no_token".to_owned()]));
    endpoint.always(None);
    for says in [issuer::Says::Status(400), issuer::Says::Text("{}".to_owned())] {
        issuer.says(says);
        assert_eq!(ask(folder.path(), &settings).await, (Some(1), vec!["no_signing_keys".to_owned()]));
    }
    assert_eq!((endpoint.complaints(), vault.complaints()), (vec![], vec![]));
}

#[tokio::test]
async fn the_event_hub_is_asked_as_the_gateway_does_and_gets_no_event() {
    let (endpoint, hub) = (IdentityEndpoint::start(None).await, EventHub::start().await);
    let (resource, _stop) = resource(Knobs::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.json");
    std::fs::write(&file, configuration(resource).to_string()).unwrap();
    let mut settings = [&endpoint.settings()[..], &hub.settings()].concat();
    settings.push(("TOLLGATE_CONFIG", file.display().to_string()));
    let amiss = async |settings: &[(&'static str, String)]| ask(folder.path(), settings).await.1;

    let before = amiss(&settings).await;
    assert!(before.iter().all(|code| !code.contains("event_hub")), "{before:?}");
    // Nothing in it that could be taken: the fake refuses such a batch, as far as it comes.
    hub.refuse_the_newest_token();
    let after = amiss(&settings).await;
    assert!(after.iter().all(|code| !code.contains("event_hub")), "the next token is another: {after:?}");
    endpoint.always(Some(identity_endpoint::Says::Status(400)));
    assert!(amiss(&settings).await.contains(&"event_hub_refuses".to_owned()));
    endpoint.always(None);
    let elsewhere = ("USAGE_EVENTHUB_NAME", "another".to_owned());
    let wrong: Vec<_> = settings.iter().cloned().chain([elsewhere]).collect();
    assert!(amiss(&wrong).await.contains(&"event_hub_refuses".to_owned()));
    let nobody = ("TOLLGATE_EVENT_HUB_ENDPOINT", "http://127.0.0.1:1".to_owned());
    let wrong: Vec<_> = settings.iter().cloned().chain([nobody]).collect();
    assert!(amiss(&wrong).await.contains(&"event_hub_unreachable".to_owned()));
    let foreign = ("UsageEventHub__fullyQualifiedNamespace", "contoso.example.com".to_owned());
    let wrong = settings.iter().filter(|(name, _)| !name.contains("HUB_ENDPOINT")).cloned();
    let wrong: Vec<_> = wrong.chain([foreign]).collect();
    assert!(amiss(&wrong).await.contains(&"wrong_namespace".to_owned()));
    assert_eq!(hub.events(), Vec::<String>::new());
}

#[tokio::test]
async fn log_analytics_is_asked_as_the_gateway_does_and_gets_no_row() {
    let (endpoint, logs) = (IdentityEndpoint::start(None).await, LogIngestion::start().await);
    let (resource, _stop) = resource(Knobs::default()).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.json");
    std::fs::write(&file, configuration(resource).to_string()).unwrap();
    let mut settings = [&endpoint.settings()[..], &logs.settings()].concat();
    settings.push(("TOLLGATE_CONFIG", file.display().to_string()));
    let amiss = async |more: Option<(&'static str, &str)>| {
        let more = more.map(|(name, value)| (name, value.to_owned()));
        let mut codes = ask(folder.path(), &settings.iter().cloned().chain(more).collect::<Vec<_>>()).await.1;
        codes.retain(|code| code.contains("log"));
        codes
    };

    assert_eq!(amiss(None).await, Vec::<String>::new());
    for wrong in [("TOLLGATE_LOGS_RULE_ID", "dcr-ffff"), ("TOLLGATE_LOGS_STREAM", "Custom-Other")] {
        assert_eq!(amiss(Some(wrong)).await, ["log_analytics_refuses"]);
    }
    for (address, code) in [
        ("http://127.0.0.1:1", "log_analytics_unreachable"),
        ("https://usage.westeurope-1.ingest.monitor.azure.us", "wrong_logs_endpoint"),
    ] {
        assert_eq!(amiss(Some(("TOLLGATE_LOGS_ENDPOINT", address))).await, [code]);
    }
    endpoint.always(Some(identity_endpoint::Says::Status(400)));
    assert_eq!(amiss(None).await, ["log_analytics_refuses"]);
    assert!(logs.rows().is_empty());
}
