//! Tokens of a certified provider of `OpenID`, which shares no code with the gateway.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tollgate::config::catalog::Catalog;
use tollgate::simulator::Knobs;

use crate::azure::issuer::{AUDIENCE, TENANT};
use crate::support::{Answer, CHAT, TestGateway, configuration, resource};

const PATIENCE: Duration = Duration::from_mins(1);

struct Provider {
    authority: String,
    token_url: String,
    /// Ends when its standard input does.
    _child: Child,
}

impl Provider {
    async fn start() -> Self {
        let script = format!("{}/tests/clients/issuer.mjs", env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("node");
        command.arg(script).args([TENANT, AUDIENCE]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
        let line = line.expect("is oidc-provider in TOLLGATE_TEST_NODE_MODULES?");
        let said: Value = serde_json::from_str(&line).unwrap();
        let text = |name: &str| said[name].as_str().unwrap().to_owned();
        Self { authority: text("authority"), token_url: text("token"), _child: child }
    }

    /// A token that the provider gives an application for a resource.
    async fn token(&self, client: &reqwest::Client, id: &str, resource: &str) -> String {
        let form = [("grant_type", "client_credentials"), ("resource", resource)];
        let body = serde_urlencoded::to_string(form).unwrap();
        let request = client.post(&self.token_url).basic_auth(id, Some("hush")).body(body);
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        let answer = request.send().await.unwrap().text().await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["access_token"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }
}

#[tokio::test]
#[ignore = "needs Node's oidc-provider"]
async fn a_certified_providers_tokens_open_what_they_should_and_nothing_else() {
    let provider = Provider::start().await;
    let (address, _stop) = resource(Knobs::default()).await;
    let mut configuration = configuration(address);
    let settings = [("TOLLGATE_ENTRA_AUTHORITY", provider.authority.clone())];
    let gateway = TestGateway::with_settings(address, &configuration, &settings).await;
    let application = json!({"name": "application", "product": "standard"});
    let subscription =
        gateway.manage("POST", "/subscriptions", Some(&application)).await.json()["id"].clone();
    configuration["callers"] = json!({"entra": {
        "tenants": [TENANT], "audiences": [AUDIENCE],
        "applications": [{"client_id": "client-1", "subscription": subscription}],
    }});
    let catalog = Catalog::parse(&configuration.to_string(), "test").unwrap();
    let config = &gateway.app.proxy.config;
    config.hold(catalog, config.standing());

    let hello = json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string();
    let ask = async |token: &str, method: &str, path: &str| -> Answer {
        let bearer = format!("Bearer {token}");
        let body = (method == "POST").then(|| hello.clone());
        gateway.send(method, path, &[("authorization", &bearer)], body).await
    };
    let caller = provider.token(&gateway.client, "client-1", AUDIENCE).await;
    let admin = provider.token(&gateway.client, "client-2", AUDIENCE).await;
    let elsewhere = provider.token(&gateway.client, "client-1", "api://elsewhere").await;
    for (token, chat, manage) in [(&caller, 200, 403), (&admin, 401, 200), (&elsewhere, 401, 401)] {
        let answer = ask(token, "POST", CHAT).await;
        assert_eq!(answer.status, chat, "{}", answer.body);
        let answer = ask(token, "GET", "/subscriptions").await;
        assert_eq!(answer.status, manage, "{}", answer.body);
    }
}
