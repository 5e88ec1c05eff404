//! Callers and admins without a key: what their Entra tokens open, and what they do not.

mod attacks;
mod keys;
mod provider;
mod self_service;

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio_util::sync::DropGuard;
use tollgate::config::catalog::Catalog;
use tollgate::domain::usage::UsageEvent;
use tollgate::ports::{Receipt, UsageSink};
use tollgate::simulator::Knobs;

use crate::azure::issuer::{AUDIENCE, Issuer, TENANT, token, with};
use crate::support::{ADMIN_KEY, Answer, CHAT, TestGateway, ask, configuration, resource};

/// A gateway that takes tokens of one tenant; each binding has a subscription of its own.
pub(super) struct Rig {
    pub(super) gateway: TestGateway,
    pub(super) issuer: Issuer,
    pub(super) subscriptions: Vec<String>,
    _resource: DropGuard,
}

const KINDS: [&str; 4] = ["application", "user", "group", "role"];

impl Rig {
    pub(super) async fn start() -> Self {
        let issuer = Issuer::start().await;
        let (address, stop) = resource(Knobs::default()).await;
        let mut configuration = configuration(address);
        let settings = [("TOLLGATE_ENTRA_AUTHORITY", issuer.authority())];
        let gateway = TestGateway::with_settings(address, &configuration, &settings).await;
        let mut subscriptions = Vec::new();
        for kind in KINDS {
            let application = json!({"name": kind, "product": "standard"});
            let answer = gateway.manage("POST", "/subscriptions", Some(&application)).await;
            subscriptions.push(answer.json()["id"].as_str().unwrap().to_owned());
        }
        configuration["callers"] = json!({"entra": {
            "tenants": [TENANT], "audiences": [AUDIENCE, "11111111-2222-3333-4444-555555555555"],
            "applications": [{"client_id": "CLIENT-1", "subscription": subscriptions[0]},
                             {"client_id": "client-gone", "subscription": "never-issued"}],
            "users": [{"object_id": "User-1", "subscription": subscriptions[1]}],
            "groups": [{"object_id": "Group-1", "subscription": subscriptions[2]}],
            "app_roles": [{"role": "Chat.Use", "subscription": subscriptions[3]}],
        }});
        let rig = Self { gateway, issuer, subscriptions, _resource: stop };
        rig.hold(&configuration);
        rig
    }

    fn hold(&self, configuration: &Value) {
        let config = &self.gateway.app.proxy.config;
        let catalog = Catalog::parse(&configuration.to_string(), "test").unwrap();
        config.hold(catalog, config.standing());
    }

    /// The claims of the bound application's own token, changed.
    pub(super) fn claims(&self, changes: &Value) -> Value {
        let now_s = self.gateway.app.proxy.clock.now().0 / 1_000;
        with(&self.issuer.claims(now_s), changes)
    }

    /// Of the bound application, good.
    pub(super) fn token(&self) -> String {
        token(&self.claims(&json!({})))
    }

    /// A chat completion with this token.
    pub(super) async fn chat(&self, token: &str) -> Answer {
        self.chat_with(&[("authorization", &format!("Bearer {token}"))]).await
    }

    pub(super) async fn chat_with(&self, headers: &[(&str, &str)]) -> Answer {
        let body = json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string();
        self.gateway.send("POST", CHAT, headers, Some(body)).await
    }
}

/// Keeps every event.
#[derive(Default)]
struct Kept(Mutex<Vec<UsageEvent>>);

impl UsageSink for Kept {
    fn record(&self, event: UsageEvent) -> Receipt {
        self.0.lock().unwrap().push(event);
        Box::pin(std::future::ready(Ok(())))
    }
}

#[tokio::test]
async fn applications_people_groups_and_roles_use_the_subscriptions_that_they_are_bound_to() {
    let rig = Rig::start().await;
    let kept = Arc::new(Kept::default());
    let address = rig.gateway.serve_with(kept.clone()).await;
    let v1 = json!({
        "ver": "1.0", "iss": format!("https://sts.windows.net/{TENANT}/"), "azp": null, "appid": "client-1",
    });
    for (changes, bound, end_user) in [
        (json!({}), 0, None),
        (v1, 0, None),
        (json!({"idtyp": "app", "oid": null}), 0, None),
        (json!({"aud": "11111111-2222-3333-4444-555555555555"}), 0, None),
        // The application goes before the person, and the person is recorded.
        (json!({"scp": "use", "oid": "user-1"}), 0, Some("user-1")),
        (json!({"azp": "other", "scp": "use", "oid": "USER-1"}), 1, Some("user-1")),
        (
            json!({"azp": "other", "scp": "use", "oid": "user-2", "groups": ["x", "group-1"]}),
            2,
            Some("user-2"),
        ),
        (json!({"azp": "other", "groups": ["group-1"]}), 2, None),
        (json!({"azp": "other", "roles": ["Chat.Use"]}), 3, None),
    ] {
        let bearer = format!("Bearer {}", token(&rig.claims(&changes)));
        let body = json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string();
        let url = format!("http://{address}{CHAT}");
        let headers = [("authorization", bearer.as_str())];
        let answer = ask(&rig.gateway.client, "POST", &url, &headers, Some(body)).await;
        assert_eq!(answer.status, 200, "{changes}: {}", answer.body);
        let event = kept.0.lock().unwrap().pop().unwrap();
        assert_eq!(event.subscription_id.as_str(), rig.subscriptions[bound], "{changes}");
        assert_eq!(event.end_user.as_deref(), end_user, "{changes}");
        let received = rig.gateway.received().await.to_string();
        assert!(!received.contains(&bearer[7..40]), "the token went on: {received}");
    }
    assert_eq!(rig.issuer.asked(), [TENANT], "the keys were fetched once");
}

#[tokio::test]
async fn a_genuine_token_that_nothing_binds_is_told_so() {
    let rig = Rig::start().await;
    for (changes, text) in [
        (json!({"azp": "other"}), "bound to a subscription"),
        (json!({"azp": "other", "oid": "user-1"}), "bound to a subscription"),
        (json!({"azp": "other", "hasgroups": true}), "too many"),
        (json!({"azp": "client-gone"}), "unknown, suspended or expired"),
    ] {
        let answer = rig.chat(&token(&rig.claims(&changes))).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_api_key"), "{changes}");
        assert!(answer.body.contains(text), "{}", answer.body);
    }
    assert_eq!(rig.gateway.counts().await["requests"], 0);
}

#[tokio::test]
async fn a_gateway_that_is_not_set_up_for_tokens_says_so_and_asks_nobody() {
    let rig = Rig::start().await;
    rig.hold(&configuration(rig.gateway.resource));
    let answer = rig.chat(&rig.token()).await;
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("callers.entra"), "{}", answer.body);
    assert!(rig.issuer.asked().is_empty());
}

#[tokio::test]
async fn a_configuration_that_ceases_to_take_a_token_holds_at_once() {
    let rig = Rig::start().await;
    let token = rig.token();
    assert_eq!(rig.chat(&token).await.status, 200);
    let mut without = configuration(rig.gateway.resource);
    without["callers"] = json!({"entra": {"tenants": [TENANT], "audiences": ["api://another"]}});
    rig.hold(&without);
    assert_eq!(rig.chat(&token).await.status, 401);
}

#[tokio::test]
async fn of_several_credentials_the_first_that_is_valid_serves() {
    let rig = Rig::start().await;
    let good = format!("Bearer {}", rig.token());
    let bad = format!("Bearer {}", token(&rig.claims(&json!({"exp": 1}))));
    let key = rig.gateway.key.as_str();
    let issued = format!("Bearer {key}");
    for (headers, status) in [
        (vec![("api-key", "junk"), ("authorization", good.as_str())], 200),
        (vec![("authorization", bad.as_str()), ("authorization", good.as_str())], 200),
        (vec![("authorization", bad.as_str()), ("api-key", key)], 200),
        (vec![("authorization", bad.as_str()), ("authorization", issued.as_str())], 200),
        // A token is a bearer, and nothing else.
        (vec![("api-key", &good[7..])], 401),
        (vec![("authorization", &good[7..])], 401),
        (vec![("api-key", "junk"), ("authorization", bad.as_str())], 401),
    ] {
        let answer = rig.chat_with(&headers).await;
        assert_eq!(answer.status, status, "{headers:?}: {}", answer.body);
    }
    // What is wrong with the token is told, not that the junk is no key.
    let answer = rig.chat_with(&[("api-key", "junk"), ("authorization", &bad)]).await;
    assert!(answer.body.contains("has expired"), "{}", answer.body);
}

#[tokio::test]
async fn the_admin_role_opens_management_and_nothing_less_does() {
    let rig = Rig::start().await;
    let ask = async |bearer: &str| {
        rig.gateway.send("GET", "/subscriptions", &[("authorization", bearer)], None).await
    };
    let with_roles = |changes: Value| format!("Bearer {}", token(&rig.claims(&changes)));
    for changes in [
        json!({"roles": ["Tollgate.Admin"]}),
        json!({"roles": ["Chat.Use", "Tollgate.Admin"], "scp": "use", "azp": "not bound"}),
    ] {
        let answer = ask(&with_roles(changes)).await;
        assert_eq!((answer.status, answer.json()["items"].as_array().unwrap().len()), (200, 5));
    }
    for changes in [
        json!({}),
        json!({"roles": ["Chat.Use", "tollgate.admin"]}),
        json!({"groups": ["Tollgate.Admin"], "scp": "Tollgate.Admin"}),
    ] {
        let answer = ask(&with_roles(changes.clone())).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "admin_role_missing"), "{changes}");
    }
    for changes in [json!({"aud": "api://other"}), json!({"exp": 1}), json!({"tid": "another"})] {
        let answer = ask(&with_roles(with(&changes, &json!({"roles": ["Tollgate.Admin"]})))).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_api_key"), "{changes}");
    }
    assert_eq!(ask(&format!("Bearer {ADMIN_KEY}")).await.status, 200, "the key goes on to work");
    assert_eq!(ask("Bearer").await.status, 401);
}
