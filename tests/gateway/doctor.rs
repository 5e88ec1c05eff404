//! The doctor, before simulated resources and fakes of what this machine has not.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use serde_json::{Value, json};
use tollgate::doctor::{Finding, Level};
use tollgate::simulator::Knobs;

use self::fakes::{App, HOST, Names, PRINCIPAL, Surroundings, certified};
use crate::support::{listener, resource};

mod fakes;
mod keyless;

fn with(backend: &Value) -> Value {
    let mut backend = backend.clone();
    backend["name"] = "eastus".into();
    json!({"backends": [backend]})
}

fn entra(address: SocketAddr) -> Value {
    let deployments = json!({"gpt-4o-mini": "gpt-4o-mini-ptu"});
    with(&json!({"endpoint": format!("http://{address}"), "deployments": deployments}))
}

fn codes<'f>(findings: &'f [Finding], kind: &str) -> Vec<(Level, &'f str)> {
    let of_kind = findings.iter().filter(|finding| finding.subject.kind == kind);
    of_kind.map(|finding| (finding.level, finding.code)).collect()
}

fn finding<'f>(findings: &'f [Finding], code: &str) -> &'f Finding {
    let found = findings.iter().find(|finding| finding.code == code);
    found.unwrap_or_else(|| panic!("`{code}` is not among {findings:#?}"))
}

fn mend<'f>(findings: &'f [Finding], code: &str) -> &'f str {
    finding(findings, code).mend.as_deref().unwrap_or_default()
}

#[tokio::test]
async fn a_keyless_backend_in_order_has_no_fault() {
    let knobs = Knobs { require_bearer: Some(String::new()), ..Knobs::default() };
    let (address, _stop) = resource(knobs).await;
    let findings = Surroundings::default().examine(Some(&entra(address))).await;
    let all_ok = findings.iter().all(|finding| finding.level == Level::Ok);
    assert!(all_ok, "{findings:#?}");
    let expected = [(Level::Ok, "reached"), (Level::Ok, "deployment"), (Level::Ok, "keys_disabled")];
    assert_eq!(codes(&findings, "backend"), expected);
    let token = finding(&findings, "token").to_string();
    assert!(token.contains(PRINCIPAL) && token.contains("tenant-1"), "{token}");
}

#[tokio::test]
async fn keys_that_still_open_a_keyless_backend_are_warned_of() {
    let knobs = Knobs {
        require_bearer: Some(String::new()),
        require_key: vec!["the-key".to_owned()],
        ..Knobs::default()
    };
    let (address, _stop) = resource(knobs).await;
    let findings = Surroundings::default().examine(Some(&entra(address))).await;
    assert_eq!(finding(&findings, "keys_enabled").level, Level::Warn);
    assert!(mend(&findings, "keys_enabled").contains("disableLocalAuth=true"));
}

#[tokio::test]
async fn each_refusal_of_a_backend_comes_with_what_mends_it() {
    for (error, code, words) in [
        ("permission-denied", "role_missing", &["az role assignment create --assignee 11111111-2222"][..]),
        ("no-token", "token_refused", &["TOLLGATE_CLOUD"]),
        ("key-auth-disabled", "keys_disabled", &["\"kind\": \"entra\""]),
        ("public-access-disabled", "public_access_disabled", &["privatelink.openai.azure.com"]),
        ("virtual-network", "virtual_network", &["network-rule add", "privatelink.openai.azure.com"]),
        ("deployment-not-found", "deployment_missing", &["`deployments` of backend `eastus`"]),
        ("resource-not-found", "api_version_refused", &["--api-version"]),
    ] {
        let (address, _stop) = resource(Knobs { always: format!("error={error}"), ..Knobs::default() }).await;
        let findings = Surroundings::default().examine(Some(&entra(address))).await;
        assert_eq!(finding(&findings, code).level, Level::Fault, "{error}");
        for word in words {
            assert!(mend(&findings, code).contains(word), "{error}: {findings:#?}");
        }
    }
}

#[tokio::test]
async fn a_backend_that_is_busy_or_failing_is_no_fault_of_the_operator() {
    for (error, level, code) in [
        ("throttled", Level::Ok, "deployment"),
        ("server-error", Level::Warn, "failing"),
        ("unavailable", Level::Warn, "failing"),
    ] {
        let (address, _stop) = resource(Knobs { always: format!("error={error}"), ..Knobs::default() }).await;
        let findings = Surroundings::default().examine(Some(&entra(address))).await;
        assert_eq!(finding(&findings, code).level, level, "{error}");
    }
}

#[tokio::test]
async fn only_what_is_mapped_must_be_there() {
    let knobs = Knobs { deployments: vec!["gpt-4o".to_owned()], ..Knobs::default() };
    let (address, _stop) = resource(knobs).await;
    let mut configuration = with(&json!({"endpoint": format!("http://{address}"), "auth": {"kind": "none"}}));
    configuration["products"] = json!([{"name": "p", "deployments": ["gpt-4o", "gpt-9"]}]);
    let findings = Surroundings::default().examine(Some(&configuration)).await;
    assert_eq!(codes(&findings, "identity"), [], "nobody signs in here");
    assert_eq!(finding(&findings, "deployment_missing").level, Level::Warn);
    assert!(finding(&findings, "deployment").what.contains("`gpt-4o`"));
    configuration["backends"][0]["deployments"] = json!({"gpt-4o": "gpt-4o", "gpt-9": "gone"});
    let findings = Surroundings::default().examine(Some(&configuration)).await;
    assert_eq!(finding(&findings, "deployment_missing").level, Level::Fault);
}

#[tokio::test]
async fn a_backend_without_a_token_or_a_listener_is_told_and_asked_no_further() {
    let (address, stop) = resource(Knobs::default()).await;
    let surroundings = Surroundings { identity: App(None), ..Surroundings::default() };
    let findings = surroundings.examine(Some(&entra(address))).await;
    assert_eq!(codes(&findings, "identity"), [(Level::Fault, "no_token")]);
    assert_eq!(codes(&findings, "backend"), [(Level::Ok, "reached"), (Level::Warn, "not_examined")]);
    drop(stop);
    let nobody = listener().await.local_addr().unwrap();
    let findings = Surroundings::default().examine(Some(&entra(nobody))).await;
    assert_eq!(codes(&findings, "backend"), [(Level::Fault, "no_connection")]);
}

#[tokio::test]
async fn a_name_must_resolve_and_to_a_private_address_where_one_is_expected() {
    let private = json!({"endpoint": format!("https://{HOST}:1"), "private_endpoint": true});
    for (address, expected) in [
        (None, &[(Level::Fault, "name_unresolved")][..]),
        (Some("20.42.65.85"), &[(Level::Fault, "not_private")]),
        (Some("127.0.0.2"), &[(Level::Ok, "name_private"), (Level::Fault, "no_connection")]),
    ] {
        let names = Names(address.map(|address| (HOST, address)).into_iter().collect());
        let surroundings = Surroundings { names, ..Surroundings::default() };
        let findings = surroundings.examine(Some(&with(&private))).await;
        assert_eq!(codes(&findings, "backend"), expected);
        if expected.len() == 1 {
            assert!(mend(&findings, expected[0].1).contains("privatelink.openai.azure.com"), "{findings:#?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn it_comes_to_an_end_though_nobody_answers() {
    let hanging = || Surroundings { hangs: true, ..Surroundings::default() };
    let keyed = json!({"endpoint": format!("https://{HOST}"), "auth": {"kind": "api_key", "secret": "a"}});
    for (backend, code) in
        [(json!({"endpoint": format!("https://{HOST}")}), "no_token"), (keyed, "key_vault_unreachable")]
    {
        let findings = hanging().examine(Some(&with(&backend))).await;
        for code in ["database_silent", "name_unresolved", code] {
            assert_eq!(finding(&findings, code).level, Level::Fault);
        }
    }
    assert_eq!(finding(&hanging().examine(None).await, "no_token").level, Level::Fault);
}

#[tokio::test]
async fn names_that_no_certificate_or_token_fits_are_told_before_anything_is_sent() {
    for (endpoint, code, word) in [
        ("https://contoso-eastus.privatelink.openai.azure.com", "privatelink_name", HOST),
        ("https://eastus.api.cognitive.microsoft.com", "wrong_endpoint", "own subdomain"),
    ] {
        let findings = Surroundings::default().examine(Some(&with(&json!({"endpoint": endpoint})))).await;
        assert_eq!(codes(&findings, "backend"), [(Level::Fault, code)]);
        assert!(mend(&findings, code).contains(word), "{findings:#?}");
    }
}

#[tokio::test]
async fn what_answers_without_tls_where_tls_should_be_is_told() {
    let (address, _stop) = resource(Knobs::default()).await;
    let client = reqwest::Client::builder().no_proxy().resolve(HOST, address).build().unwrap();
    let names = Names(BTreeMap::from([(HOST, "127.0.0.1")]));
    let endpoint = json!({"endpoint": format!("https://{HOST}:{}", address.port())});
    let surroundings = Surroundings { names, client, ..Surroundings::default() };
    let findings = surroundings.examine(Some(&with(&endpoint))).await;
    assert_eq!(codes(&findings, "backend").last(), Some(&(Level::Fault, "no_answer")), "{findings:#?}");
}

#[tokio::test]
async fn a_certificate_must_be_good_for_the_name() {
    for (name, trusted, expected) in [
        (HOST, true, (Level::Ok, "reached")),
        ("contoso-eastus.cognitiveservices.azure.com", true, (Level::Fault, "wrong_certificate")),
        (HOST, false, (Level::Fault, "bad_certificate")),
    ] {
        let (address, client) = certified(name, trusted).await;
        let names = Names(BTreeMap::from([(HOST, "127.0.0.1")]));
        let endpoint = json!({"endpoint": format!("https://{HOST}:{}", address.port())});
        let surroundings = Surroundings { names, client, ..Surroundings::default() };
        let findings = surroundings.examine(Some(&with(&endpoint))).await;
        assert!(codes(&findings, "backend").contains(&expected), "{name}: {findings:#?}");
    }
}

#[tokio::test]
async fn a_vault_that_does_not_give_the_configuration_is_told_with_the_role_or_the_command() {
    for (values, code, words) in [
        (
            vec![],
            "secret_missing",
            &["az keyvault secret set --vault-name contoso --name tollgate-config"][..],
        ),
        (
            vec![("tollgate-config", None)],
            "role_missing",
            &["Key Vault Secrets User", "--assignee 11111111-2222"],
        ),
        (vec![("tollgate-config", Some("{}".to_owned()))], "configuration_faulty", &["config check"]),
    ] {
        let findings = Surroundings::vault(values).examine(None).await;
        assert_eq!(finding(&findings, code).level, Level::Fault);
        for word in words {
            assert!(mend(&findings, code).contains(word), "{findings:#?}");
        }
    }
    assert_eq!(finding(&Surroundings::default().examine(None).await, "no_configuration").level, Level::Fault);
}

#[tokio::test]
async fn keys_come_from_the_vault_and_are_used_and_never_told() {
    let (address, _stop) =
        resource(Knobs { require_key: vec!["hush-key".to_owned()], ..Knobs::default() }).await;
    let backend = |name: &str, secret: &str| {
        json!({"name": name, "endpoint": format!("http://{address}"), "deployments": {"a": "a"},
               "auth": {"kind": "api_key", "secret": secret}})
    };
    let configuration = json!({"backends": [backend("good", "good-key"), backend("bad", "bad-key"),
        backend("none", "gone"), backend("far", "far"), backend("off", "off")]});
    let findings = Surroundings::vault([
        ("tollgate-config", Some(configuration.to_string())),
        ("good-key", Some("hush-key".to_owned())),
        ("bad-key", Some("hush-other".to_owned())),
        ("far", None),
        ("off", None),
    ])
    .examine(None)
    .await;
    let of = |name: &str| {
        let of_name = findings.iter().rfind(|finding| finding.subject.name.as_deref() == Some(name));
        of_name.map(|finding| (finding.level, finding.code)).unwrap()
    };
    assert_eq!(of("good"), (Level::Ok, "deployment"));
    assert_eq!(of("bad"), (Level::Fault, "key_refused"));
    assert_eq!(of("none"), (Level::Warn, "not_examined"));
    assert_eq!(finding(&findings, "secret_missing").level, Level::Fault);
    assert!(mend(&findings, "key_vault_unreachable").contains("privatelink.vaultcore.azure.net"));
    assert_eq!(mend(&findings, "secret_refused"), "enable the secret");
    // A file may name secrets too, and needs a vault for them.
    let findings = Surroundings::default().examine(Some(&configuration)).await;
    assert_eq!(finding(&findings, "no_key_vault").level, Level::Fault);
}

fn process(folder: &Path, settings: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().env("TOLLGATE_DATA_DIR", folder).envs(settings.iter().copied());
    let output = command.arg("doctor").args(arguments).output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn the_command_ends_with_1_on_a_fault_and_prints_json_for_programs() {
    let folder = tempfile::tempdir().unwrap();
    let knobs = Knobs { deployments: vec!["gpt-4o-mini".to_owned()], ..Knobs::default() };
    let (address, _stop) = resource(knobs).await;
    let file = folder.path().join("gateway.json");
    let mut configuration = with(&json!({"endpoint": format!("http://{address}"), "auth": {"kind": "none"},
                                         "deployments": {"gpt-4o-mini": "gpt-4o-mini"}}));
    std::fs::write(&file, configuration.to_string()).unwrap();
    let settings = [("TOLLGATE_CONFIG", file.to_str().unwrap())];
    let ask = async |arguments: &'static [&'static str]| {
        let (folder, settings) = (folder.path().to_owned(), settings.map(|(n, v)| (n, v.to_owned())));
        let asked = tokio::task::spawn_blocking(move || {
            let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
            process(&folder, &settings, arguments)
        });
        asked.await.unwrap()
    };
    let (code, told) = ask(&[]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.ends_with("0 faults, 0 warnings\n"), "{told}");
    configuration["backends"][0]["deployments"]["gpt-9"] = "gone".into();
    std::fs::write(&file, configuration.to_string()).unwrap();
    let (code, told) = ask(&["--json"]).await;
    assert_eq!(code, Some(1), "{told}");
    let told =
        told.replace(folder.path().to_str().unwrap(), "FOLDER").replace(&address.to_string(), "ADDRESS");
    let told: Value = serde_json::from_str(&told).unwrap();
    let findings: Vec<_> = told["findings"].as_array().unwrap().iter().map(Value::to_string).collect();
    insta::assert_snapshot!(findings.join("\n"), @r#"
    {"about":"settings","code":"settings","level":"ok","mend":null,"message":"every setting can be read","name":null}
    {"about":"data folder","code":"data_dir_writable","level":"ok","mend":null,"message":"FOLDER can be written to","name":null}
    {"about":"database","code":"database_opens","level":"ok","mend":null,"message":"FOLDER/tollgate.db is not there yet: the first start makes it","name":null}
    {"about":"configuration","code":"configuration_good","level":"ok","mend":null,"message":"FOLDER/gateway.json has no fault; it names 1 backend","name":null}
    {"about":"backend","code":"reached","level":"ok","mend":null,"message":"127.0.0.1 answers, without TLS","name":"eastus"}
    {"about":"backend","code":"deployment_missing","level":"fault","mend":"create it, or map the callers' name to what is there in `deployments` of backend `eastus`: `az cognitiveservices account deployment list --name RESOURCE --resource-group GROUP --query \"[].name\" -o tsv`","message":"127.0.0.1 has no deployment `gone`","name":"eastus"}
    {"about":"backend","code":"deployment","level":"ok","mend":null,"message":"lets the gateway in; it has the deployment `gpt-4o-mini`","name":"eastus"}
    "#);
    assert_eq!((&told["faults"], &told["warnings"]), (&json!(1), &json!(0)));
}

#[test]
fn faulty_settings_and_a_database_that_azure_would_lose_are_faults() {
    let folder = tempfile::tempdir().unwrap();
    let reference = "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/hush)";
    let (code, told) = process(folder.path(), &[("TOLLGATE_ADMIN_KEY", reference)], &[]);
    assert_eq!(code, Some(1), "{told}");
    assert!(
        told.contains("fault  settings: TOLLGATE_ADMIN_KEY is an unresolved Key Vault reference"),
        "{told}"
    );
    assert!(!told.contains("hush"), "{told}");
    let azure = [
        ("WEBSITE_INSTANCE_ID", "1"),
        ("WEBSITE_SITE_NAME", "app"),
        ("TOLLGATE_CONFIG", "examples/gateway.json"),
    ];
    let (code, told) = process(folder.path(), &azure, &["--json"]);
    assert_eq!(code, Some(1), "{told}");
    for fault in ["sqlite_on_azure", "no_event_hub"] {
        assert!(told.contains(fault), "{told}");
    }
    let nowhere = [("TOLLGATE_DATA_DIR", "/proc/nowhere"), ("TOLLGATE_CONFIG", "/nowhere/gateway.json")];
    let (_, told) = process(folder.path(), &nowhere, &["--json"]);
    assert!(told.contains("data_dir_unwritable") && told.contains("configuration_unreadable"), "{told}");
    // A file that is no database.
    std::fs::write(folder.path().join("tollgate.db"), "no database".repeat(100)).unwrap();
    let (_, told) = process(folder.path(), &[], &["--json"]);
    assert!(told.contains("database_unusable"), "{told}");
}
