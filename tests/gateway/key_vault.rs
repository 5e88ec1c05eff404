//! The configuration and the backends' keys come from Key Vault.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tollgate::azure::entra::{self, Tokens};
use tollgate::azure::key_vault::KeyVault;
use tollgate::azure::transport;
use tollgate::config::live::{Cause, Live};
use tollgate::config::settings::Settings;
use tollgate::memory::SystemClock;
use tollgate::ports::{SecretFailure, Secrets as _};
use tollgate::simulator::Knobs;

use crate::azure::Keyless;
use crate::azure::identity_endpoint::{self, IdentityEndpoint, token_for};
use crate::azure::vault::{Says, Vault};
use crate::support::{configuration, resource};

const RESOURCE_KEY: &str = "the-resources-key";
const PATIENCE: Duration = Duration::from_secs(20);

/// The adapter, a fake of the vault and one of the app's identity.
struct Rig {
    vault: Vault,
    endpoint: IdentityEndpoint,
    adapter: KeyVault,
}

async fn rig() -> Rig {
    let (vault, endpoint) = (Vault::start().await, IdentityEndpoint::start(None).await);
    let values: BTreeMap<_, _> = settings(&vault, &endpoint).into_iter().collect();
    let settings = Settings::read(&values).unwrap();
    let client = transport::client().unwrap();
    let source = entra::source(&settings, client.clone());
    let clock = Arc::new(SystemClock::start());
    let tokens = Tokens::new(source, clock, TaskTracker::new(), CancellationToken::new());
    let url = settings.key_vault.as_ref().unwrap();
    let adapter = KeyVault::new(url, settings.cloud, tokens, client).unwrap();
    Rig { vault, endpoint, adapter }
}

fn settings(vault: &Vault, endpoint: &IdentityEndpoint) -> Vec<(&'static str, String)> {
    let mut settings = endpoint.settings().to_vec();
    settings.push(("TOLLGATE_KEY_VAULT_URL", vault.url()));
    settings
}

impl Rig {
    async fn value(&self) -> Option<String> {
        let secret = self.adapter.read("a-secret").await.unwrap()?;
        Some(secret.value.expose_secret().to_owned())
    }

    /// The failure's text for an operator, or `None` and how long to wait when it may pass.
    async fn failure(&self) -> Result<String, Option<Duration>> {
        match self.adapter.read("a-secret").await.unwrap_err() {
            SecretFailure::Refused(text) => Ok(text),
            SecretFailure::Unavailable { retry_after, .. } => Err(retry_after),
        }
    }
}

#[tokio::test]
async fn the_newest_version_is_read_with_the_apps_own_token() {
    let rig = rig().await;
    assert_eq!(rig.value().await, None, "what is not there is no failure");
    rig.vault.set("a-secret", "one");
    let first = rig.adapter.read("a-secret").await.unwrap().unwrap();
    assert_eq!(first.value.expose_secret(), "one");
    rig.vault.set("a-secret", "two");
    let second = rig.adapter.read("a-secret").await.unwrap().unwrap();
    assert_eq!(second.value.expose_secret(), "two");
    assert!(first.version.is_some() && first.version != second.version, "{first:?} {second:?}");
    assert_eq!(rig.endpoint.asked(), ["https://vault.azure.net"]);
    assert_eq!((rig.vault.complaints(), rig.endpoint.complaints()), (vec![], vec![]));
    assert!(!format!("{second:?}").contains("two"));
}

#[tokio::test]
async fn who_may_not_read_is_told_what_to_mend() {
    let rig = rig().await;
    for (inner, wanted) in [
        ("ForbiddenByRbac", "the role Key Vault Secrets User"),
        ("AccessDenied", "the role Key Vault Secrets User"),
        ("ForbiddenByFirewall", "network rules"),
        ("ForbiddenByConnection", "privatelink.vaultcore.azure.net"),
        ("SecretDisabled", "az keyvault secret set-attributes"),
    ] {
        rig.vault.says(Some(Says::Forbidden(inner)));
        let text = rig.failure().await.expect(inner);
        assert!(text.contains(wanted) && text.contains("a-secret") | text.contains("127.0.0.1"), "{text}");
        assert!(!text.contains('\n'), "a line of the log: {text}");
    }
}

#[tokio::test]
async fn what_may_pass_is_told_from_what_will_not() {
    let rig = rig().await;
    for (says, wait_s) in [
        (Says::Throttled(7), Some(7)),
        (Says::Status(500), None),
        (Says::Status(503), None),
        (Says::Garbage, None),
    ] {
        rig.vault.says(Some(says));
        assert_eq!(rig.failure().await, Err(wait_s.map(Duration::from_secs)), "{says:?}");
    }
    rig.vault.says(Some(Says::Garbage));
    let told = tollgate::ports::with_causes(&rig.adapter.read("a-secret").await.unwrap_err());
    assert!(!told.contains("half of a sec"), "{told}");
}

#[tokio::test]
async fn a_vault_that_hangs_is_given_up() {
    let rig = rig().await;
    rig.vault.says(Some(Says::Hangs));
    let reading = rig.adapter.read("a-secret");
    let hanging = async {
        rig.vault.hangs().await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(11)).await;
    };
    let (read, ()) = tokio::join!(reading, hanging);
    assert!(matches!(read, Err(SecretFailure::Unavailable { .. })), "{read:?}");
}

#[tokio::test]
async fn a_token_that_the_vault_refuses_is_renewed() {
    let rig = rig().await;
    rig.vault.set("a-secret", "one");
    assert_eq!(rig.value().await.as_deref(), Some("one"));
    rig.vault.refuse(token_for("https://vault.azure.net", 1));
    assert_eq!(rig.value().await.as_deref(), Some("one"));
    assert_eq!(rig.endpoint.asked().len(), 2);
}

#[tokio::test]
async fn an_app_without_an_identity_is_told_so_when_it_reads() {
    let rig = rig().await;
    rig.endpoint.always(Some(identity_endpoint::Says::Status(400)));
    let text = rig.failure().await.unwrap();
    assert!(text.contains("az functionapp identity assign"), "{text}");
}

/// A gateway that is told nothing but where its vault is.
struct Whole {
    gateway: Keyless,
    vault: Vault,
    _endpoint: IdentityEndpoint,
    resource: std::net::SocketAddr,
    _resource: DropGuard,
    _folder: TempDir,
}

async fn whole(says: Option<Says>, config: impl FnOnce(&mut Value)) -> Whole {
    let knobs = Knobs { require_key: vec![RESOURCE_KEY.to_owned()], ..Knobs::default() };
    let (address, stop) = resource(knobs).await;
    let (vault, endpoint) = (Vault::start().await, IdentityEndpoint::start(None).await);
    let mut file = configuration(address);
    file["backends"][0]["auth"] = json!({"kind": "api_key", "secret": "resource-key"});
    config(&mut file);
    vault.set("tollgate-config", file.to_string());
    vault.set("resource-key", RESOURCE_KEY);
    vault.says(says);
    let folder = tempfile::tempdir().unwrap();
    let gateway = Keyless::start(folder.path(), Live::default(), &settings(&vault, &endpoint)).await;
    Whole { gateway, vault, _endpoint: endpoint, resource: address, _resource: stop, _folder: folder }
}

impl Whole {
    async fn health(&self) -> String {
        let answer = self.gateway.get("/healthz").await;
        assert_eq!(answer.status, 200);
        answer.json()["status"].as_str().unwrap().to_owned()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Live) -> bool) {
        let config = &self.gateway.app.proxy.config;
        let so = async {
            while !is_so(config) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, so)
            .await
            .unwrap_or_else(|_| panic!("{what}: {:?}", config.standing()));
    }
}

#[tokio::test]
async fn a_gateway_serves_with_what_its_vault_has_and_no_key_outside_it() {
    let whole = whole(None, |_| {}).await;
    whole.until("it holds", |config| config.catalog().is_ok()).await;
    assert_eq!(whole.health().await, "ready");
    let key = whole.gateway.key().await;
    let answer = whole.gateway.chat(&key).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let standing = whole.gateway.app.proxy.config.standing();
    assert_eq!(standing.source, "the secret `tollgate-config` of 127.0.0.1");
    assert!(standing.version.is_some() && standing.since.is_some());
    assert_eq!(whole.vault.complaints(), [""; 0]);
}

#[tokio::test]
async fn without_a_vault_that_answers_it_lives_refuses_calls_and_keeps_trying() {
    let whole = whole(Some(Says::Forbidden("ForbiddenByRbac")), |_| {}).await;
    whole.until("it says why", |config| config.standing().trouble.is_some()).await;
    assert_eq!((whole.health().await.as_str(), whole.gateway.get("/").await.status), ("starting", 200));
    let answer = whole.gateway.chat("tg_anything").await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "gateway_unavailable"), "{}", answer.body);
    assert_eq!(answer.header("retry-after"), "1");
    assert!(!answer.body.contains("role"), "{}", answer.body);
    whole.vault.says(None);
    whole.until("it is tried again", |config| config.catalog().is_ok()).await;
    assert_eq!(whole.health().await, "ready");
}

#[tokio::test]
async fn a_faulty_configuration_in_the_vault_listens_and_says_what_is_wrong() {
    let whole =
        whole(None, |file| file["backends"][0]["auth"] = json!({"kind": "api_key", "value": "hush"})).await;
    whole.until("it says why", |config| config.standing().trouble.is_some()).await;
    let trouble = whole.gateway.app.proxy.config.standing().trouble.unwrap();
    let Cause::Faulty { faults, .. } = trouble.cause else { panic!("{trouble:?}") };
    assert!(faults.to_string().contains("backends[0].auth.value: is for local files"), "{faults}");
    assert_eq!(whole.health().await, "starting");
    assert_eq!(whole.gateway.chat("tg_anything").await.code(), "gateway_unavailable");
}

#[tokio::test]
async fn a_key_that_is_missing_makes_its_own_backend_unusable_and_no_other() {
    let whole = whole(None, |file| {
        let mut other = file["backends"][0].clone();
        other["name"] = json!("missing-its-key");
        other["auth"]["secret"] = json!("not-there");
        file["backends"].as_array_mut().unwrap().insert(0, other);
    })
    .await;
    whole.until("it holds", |config| config.catalog().is_ok()).await;
    let key = whole.gateway.key().await;
    let answer = whole.gateway.chat(&key).await;
    assert_eq!((answer.status, answer.header("x-tollgate-backend")), (200, "sim"), "{}", answer.body);
    assert_eq!(whole.resource.ip().to_string(), "127.0.0.1");
}

/// What Azure's own libraries for Python send is taken by the fakes: so the gateway is not tested against
/// its own mistakes.
#[tokio::test]
#[ignore = "needs Python with Azure's libraries: TOLLGATE_TEST_PYTHON"]
#[expect(clippy::disallowed_methods, reason = "a test of whole processes has their environment")]
async fn the_fakes_take_what_azures_own_libraries_send() {
    let interpreter = std::env::var("TOLLGATE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    for client_id in [None, Some("the-client")] {
        let (vault, endpoint) = (Vault::start().await, IdentityEndpoint::start(client_id).await);
        vault.set("a-secret", "its value");
        let mut command = tokio::process::Command::new(&interpreter);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/keyless.py"));
        command
            .args([vault.url().as_str(), "a-secret", "https://cognitiveservices.azure.com"])
            .args(client_id);
        command.envs(endpoint.settings()).env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
        let output = tokio::time::timeout(PATIENCE, command.output()).await.unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(said["value"], "its value");
        assert_eq!(said["token"], token_for("https://cognitiveservices.azure.com", 1));
        assert_eq!((vault.complaints(), endpoint.complaints()), (vec![], vec![]));
    }
}
