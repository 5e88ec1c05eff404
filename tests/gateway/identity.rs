//! A gateway that has no key: it signs in to its backends with its own identity.

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::DropGuard;
use tollgate::config::catalog::Catalog;
use tollgate::config::live::Live;
use tollgate::domain::units::UnixMillis;
use tollgate::simulator::Knobs;

use crate::azure::Keyless;
use crate::azure::entra::{self, Entra};
use crate::azure::identity_endpoint::{IdentityEndpoint, Says, token_for};
use crate::support::{configuration, resource};

const OPENAI: &str = "https://cognitiveservices.azure.com";

/// A gateway before a resource that takes one bearer alone.
struct Rig {
    gateway: Keyless,
    key: String,
    _resource: DropGuard,
    _folder: TempDir,
}

async fn rig(bearer: &str, auth: Value, settings: &[(&'static str, String)]) -> Rig {
    let (address, stop) =
        resource(Knobs { require_bearer: Some(bearer.to_owned()), ..Knobs::default() }).await;
    let mut configuration = configuration(address);
    configuration["backends"][0]["auth"] = auth;
    let catalog = Catalog::parse(&configuration.to_string(), "test").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let live = Live::holding(catalog, "test", UnixMillis(0));
    let gateway = Keyless::start(folder.path(), live, settings).await;
    let key = gateway.key().await;
    Rig { gateway, key, _resource: stop, _folder: folder }
}

#[tokio::test]
async fn the_apps_managed_identity_signs_in_and_nothing_else_is_needed() {
    let endpoint = IdentityEndpoint::start(None).await;
    let rig = rig(&token_for(OPENAI, 1), json!({}), &endpoint.settings()).await;
    for _ in 0..3 {
        let answer = rig.gateway.chat(&rig.key).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    assert_eq!(endpoint.asked(), [OPENAI], "one question serves all");
    assert_eq!(endpoint.complaints(), [""; 0]);
}

#[tokio::test]
async fn a_user_assigned_identity_and_a_clouds_own_audience_are_asked_for() {
    let endpoint = IdentityEndpoint::start(Some("the-client")).await;
    let mut settings = endpoint.settings().to_vec();
    settings.push(("AZURE_CLIENT_ID", "the-client".to_owned()));
    settings.push(("TOLLGATE_CLOUD", "usgov".to_owned()));
    let of_cloud = "https://cognitiveservices.azure.us";
    let rig = rig(&token_for(of_cloud, 1), json!({"kind": "entra"}), &settings).await;
    assert_eq!(rig.gateway.chat(&rig.key).await.status, 200);
    assert_eq!((endpoint.asked(), endpoint.complaints()), (vec![of_cloud.to_owned()], vec![]));
}

#[tokio::test]
async fn a_backends_own_audience_goes_before_the_clouds() {
    let endpoint = IdentityEndpoint::start(None).await;
    let auth = json!({"kind": "entra", "audience": "https://ai.azure.com/.default"});
    let rig = rig(&token_for("https://ai.azure.com", 1), auth, &endpoint.settings()).await;
    assert_eq!(rig.gateway.chat(&rig.key).await.status, 200);
}

#[tokio::test]
async fn a_token_that_a_backend_refuses_is_renewed_once_and_the_caller_sees_nothing() {
    let endpoint = IdentityEndpoint::start(None).await;
    // The first one has gone bad before its time.
    let rig = rig(&token_for(OPENAI, 2), json!({}), &endpoint.settings()).await;
    let answer = rig.gateway.chat(&rig.key).await;
    assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (200, "2"), "{}", answer.body);
    assert_eq!(rig.gateway.chat(&rig.key).await.header("x-tollgate-attempts"), "1");
    assert_eq!(endpoint.asked().len(), 2);
}

#[tokio::test]
async fn fifty_requests_whose_token_went_bad_are_served_after_one_renewal() {
    let endpoint = IdentityEndpoint::start(None).await;
    let rig = rig(&token_for(OPENAI, 2), json!({}), &endpoint.settings()).await;
    let answers = futures_util::future::join_all((0..50).map(|_| rig.gateway.chat(&rig.key))).await;
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(endpoint.asked().len(), 2);
}

#[tokio::test]
async fn a_role_that_is_missing_does_not_ask_for_tokens_again_and_again() {
    let endpoint = IdentityEndpoint::start(None).await;
    let rig = rig("no token is this", json!({}), &endpoint.settings()).await;
    for _ in 0..10 {
        let answer = rig.gateway.chat(&rig.key).await;
        assert_eq!((answer.status, answer.code().as_str()), (502, "backend_misconfigured"));
    }
    assert_eq!(endpoint.asked().len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_gives_the_same_token_again_is_believed() {
    let endpoint = IdentityEndpoint::start(None).await;
    let rig = rig("no token is this", json!({}), &endpoint.settings()).await;
    endpoint.always(Some(Says::TheSame));
    let answer = rig.gateway.chat(&rig.key).await;
    assert_eq!((answer.status, answer.header("x-tollgate-attempts")), (502, "1"), "{}", answer.body);
}

#[tokio::test]
async fn a_hiccup_of_the_endpoint_is_not_noticed() {
    for says in [Says::Status(500), Says::Status(429), Says::Garbage, Says::Stale] {
        let endpoint = IdentityEndpoint::start(None).await;
        endpoint.next([says]);
        let rig = rig("", json!({}), &endpoint.settings()).await;
        assert_eq!(rig.gateway.chat(&rig.key).await.status, 200, "{says:?}");
        assert_eq!(endpoint.asked().len(), 2, "{says:?}");
    }
}

#[tokio::test]
async fn while_no_token_can_be_had_callers_are_told_that_no_backend_is_available() {
    for says in [Says::Status(500), Says::Garbage, Says::Stale] {
        let endpoint = IdentityEndpoint::start(None).await;
        endpoint.always(Some(says));
        let rig = rig("", json!({}), &endpoint.settings()).await;
        let answer = rig.gateway.chat(&rig.key).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "no_backend_available"), "{says:?}");
        assert_eq!(answer.header("x-tollgate-attempts"), "0", "the backend has seen nothing");
    }
}

#[tokio::test]
async fn an_app_without_an_identity_is_the_operators_matter_and_callers_see_nothing_of_it() {
    let endpoint = IdentityEndpoint::start(Some("another-client")).await;
    let rig = rig("", json!({}), &endpoint.settings()).await;
    let answer = rig.gateway.chat(&rig.key).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_misconfigured"), "{}", answer.body);
    assert!(!answer.body.contains("identity"), "{}", answer.body);
}

#[tokio::test]
async fn a_kubernetes_service_account_is_exchanged_for_a_token() {
    let entra = Entra::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, entra::ASSERTION).unwrap();
    let settings = [
        ("AZURE_FEDERATED_TOKEN_FILE", file.display().to_string()),
        ("AZURE_TENANT_ID", entra::TENANT.to_owned()),
        ("AZURE_CLIENT_ID", entra::CLIENT.to_owned()),
        ("TOLLGATE_ENTRA_AUTHORITY", format!("http://{}", entra.address)),
    ];
    let rig = rig(&token_for(OPENAI, 1), json!({}), &settings).await;
    let answer = rig.gateway.chat(&rig.key).await;
    assert_eq!(answer.status, 200, "{} {:?}", answer.body, entra.asked.lock().unwrap());
    assert_eq!(entra.asked.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_service_account_that_nobody_trusts_is_the_operators_matter() {
    let entra = Entra::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "another service account's").unwrap();
    let settings = [
        ("AZURE_FEDERATED_TOKEN_FILE", file.display().to_string()),
        ("AZURE_TENANT_ID", entra::TENANT.to_owned()),
        ("AZURE_CLIENT_ID", entra::CLIENT.to_owned()),
        ("TOLLGATE_ENTRA_AUTHORITY", format!("http://{}", entra.address)),
    ];
    let rig = rig("", json!({}), &settings).await;
    let answer = rig.gateway.chat(&rig.key).await;
    assert_eq!((answer.status, answer.code().as_str()), (502, "backend_misconfigured"), "{}", answer.body);
}

#[tokio::test]
async fn a_request_does_not_wait_long_for_a_token_that_another_backend_needs_not() {
    // It takes questions, and never answers one.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/msi/token", silent.local_addr().unwrap());
    let settings = [("IDENTITY_ENDPOINT", endpoint), ("IDENTITY_HEADER", "made-up".to_owned())];
    let (address, _stop) = resource(Knobs::default()).await;
    let mut configuration = configuration(address);
    let keyless = json!({"name": "keyless", "endpoint": format!("http://{address}"), "priority": 1});
    let mut open = configuration["backends"][0].clone();
    open["priority"] = json!(2);
    configuration["backends"] = json!([keyless, open]);
    let catalog = Catalog::parse(&configuration.to_string(), "test").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let live = Live::holding(catalog, "test", UnixMillis(0));
    let gateway = Keyless::start(folder.path(), live, &settings).await;
    let key = gateway.key().await;
    for _ in 0..5 {
        let answer = gateway.chat(&key).await;
        assert_eq!((answer.status, answer.header("x-tollgate-backend")), (200, "sim"), "{}", answer.body);
        assert_eq!(answer.header("x-tollgate-attempts"), "1");
    }
    let report = gateway.app.proxy.pool.report(&gateway.app.proxy.config.catalog().unwrap());
    assert_eq!(report[0].failures.get("no_token"), Some(&3), "then it rests");
}
