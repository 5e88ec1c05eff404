//! People who keep subscriptions of their own, and see nobody else's.

use serde_json::{Value, json};

use super::Rig;
use crate::azure::issuer::{AUDIENCE, TENANT, token};
use crate::support::{Answer, CHAT, configuration};

/// With a product that people issue to themselves.
async fn rig() -> Rig {
    let rig = Rig::start().await;
    hold(&rig, true);
    rig
}

fn hold(rig: &Rig, self_service: bool) {
    let mut configuration = configuration(rig.gateway.resource);
    let own = json!({"name": "own", "self_service": self_service});
    configuration["products"].as_array_mut().unwrap().push(own);
    configuration["callers"] = json!({"entra": {"tenants": [TENANT], "audiences": [AUDIENCE]}});
    rig.hold(&configuration);
}

/// Somebody who is signed in.
struct Person<'r> {
    rig: &'r Rig,
    bearer: String,
}

impl<'r> Person<'r> {
    fn new(rig: &'r Rig, object_id: &str) -> Self {
        let claims = rig.claims(&json!({"scp": "use", "oid": object_id, "azp": "portal"}));
        Self { rig, bearer: format!("Bearer {}", token(&claims)) }
    }

    async fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let headers = [("authorization", self.bearer.as_str())];
        self.rig.gateway.send(method, path, &headers, body.map(|body| body.to_string())).await
    }

    async fn issue(&self, body: Value) -> Answer {
        self.ask("POST", "/subscriptions", Some(body)).await
    }

    async fn names(&self) -> Vec<String> {
        let items = self.ask("GET", "/subscriptions", None).await.json()["items"].clone();
        items.as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
    }
}

fn mine(name: &str) -> Value {
    json!({"name": name, "product": "own"})
}

async fn call(rig: &Rig, key: &str) -> u16 {
    let body = json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string();
    rig.gateway.send("POST", CHAT, &[("api-key", key)], Some(body)).await.status
}

#[tokio::test]
async fn a_person_issues_rotates_and_ends_what_is_their_own() {
    let rig = rig().await;
    let alice = Person::new(&rig, "ALICE");
    let issued = alice.issue(mine("laptop")).await;
    assert_eq!(issued.status, 201, "{}", issued.body);
    let issued = issued.json();
    assert_eq!(issued["owner"], "alice");
    assert_eq!(call(&rig, issued["primary_key"].as_str().unwrap()).await, 200);
    let path = format!("/subscriptions/{}", issued["id"].as_str().unwrap());
    assert_eq!(alice.ask("GET", &path, None).await.json()["name"], "laptop");
    assert_eq!(alice.names().await, ["laptop"]);

    let key = alice.ask("POST", &format!("{path}/keys/primary"), None).await.json()["key"].clone();
    assert_eq!(call(&rig, key.as_str().unwrap()).await, 200);
    assert_eq!(call(&rig, issued["primary_key"].as_str().unwrap()).await, 401);

    let audit = rig.gateway.manage("GET", "/reports/audit", None).await.json()["items"][0].clone();
    assert_eq!((&audit["actor"]["kind"], &audit["actor"]["object_id"]), (&json!("person"), &json!("alice")));
    assert_eq!(alice.ask("DELETE", &path, None).await.status, 204);
    assert_eq!(call(&rig, key.as_str().unwrap()).await, 401);
    assert!(alice.names().await.is_empty());
}

#[tokio::test]
async fn what_is_somebody_elses_is_not_there() {
    let rig = rig().await;
    let (alice, bob) = (Person::new(&rig, "alice"), Person::new(&rig, "bob"));
    let of_alice = alice.issue(mine("of alice")).await.json()["id"].clone();
    bob.issue(mine("of bob")).await;
    // An admin's, of a product that is not self-service, whoever it is said to belong to.
    let given = json!({"name": "given", "product": "standard", "owner": "bob"});
    let given = rig.gateway.manage("POST", "/subscriptions", Some(&given)).await.json()["id"].clone();

    assert_eq!(bob.names().await, ["of bob"]);
    let listed = bob.ask("GET", "/subscriptions?owner=alice&product=own", None).await.json();
    assert!(listed["items"].as_array().unwrap().iter().all(|item| item["owner"] == "bob"), "{listed}");
    for id in [&of_alice, &given, &json!(rig.subscriptions[0]), &json!("nobodys")] {
        let path = format!("/subscriptions/{}", id.as_str().unwrap());
        for (method, path) in
            [("GET", path.clone()), ("DELETE", path.clone()), ("POST", format!("{path}/keys/secondary"))]
        {
            let answer = bob.ask(method, &path, None).await;
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (404, "subscription_not_found"),
                "{method} {path}"
            );
        }
    }
    // The same idempotency key of another person is another request.
    let headers =
        |person: &Person<'_>| [("authorization", person.bearer.clone()), ("idempotency-key", "k".into())];
    let mut ids = Vec::new();
    for person in [&alice, &bob] {
        let headers = headers(person);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = Some(mine("same").to_string());
        let answer = rig.gateway.send("POST", "/subscriptions", &headers, body).await;
        ids.push(answer.json()["primary_key"].as_str().unwrap().to_owned());
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_person_gives_themselves_nothing_that_others_pay_for() {
    let rig = rig().await;
    let alice = Person::new(&rig, "alice");
    for (change, status, code, param) in [
        (json!({"owner": "bob"}), 400, "invalid_request_error", "owner"),
        (json!({"cost_center": "4711"}), 400, "invalid_request_error", "cost_center"),
        (json!({"limits": {"tokens_per_minute": 9}}), 400, "invalid_request_error", "limits"),
        (json!({"product": "standard"}), 403, "product_not_self_service", ""),
        (json!({"product": "none"}), 400, "invalid_request_error", "product"),
    ] {
        let mut body = mine("greedy");
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = alice.issue(body).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{change}: {}", answer.body);
        assert_eq!(answer.json()["error"]["param"].as_str().unwrap_or_default(), param, "{change}");
    }
    let issued = alice.issue(mine("one")).await.json();
    let path = format!("/subscriptions/{}", issued["id"].as_str().unwrap());
    for (method, path, body) in [
        ("PATCH", path.as_str(), Some(json!({"limits": {"tokens_per_minute": 1_000_000}}))),
        ("PATCH", path.as_str(), Some(json!({"state": "active"}))),
        ("GET", "/reports/usage", None),
        ("GET", "/reports/audit", None),
        ("GET", "/reports/backends", None),
    ] {
        let answer = alice.ask(method, path, body).await;
        assert_eq!((answer.status, answer.code().as_str()), (403, "admin_role_missing"), "{method} {path}");
    }
    for n in 1..20 {
        assert_eq!(alice.issue(mine(&format!("number {n}"))).await.status, 201);
    }
    let answer = alice.issue(mine("one too many")).await;
    assert_eq!((answer.status, answer.code().as_str()), (409, "too_many_subscriptions"), "{}", answer.body);
}

#[tokio::test]
async fn an_application_or_a_gateway_without_self_service_gets_nothing() {
    let rig = rig().await;
    let application = format!("Bearer {}", rig.token());
    let ask = async |bearer: &str| {
        let body = Some(mine("mine").to_string());
        rig.gateway.send("POST", "/subscriptions", &[("authorization", bearer)], body).await
    };
    assert_eq!(ask(&application).await.status, 403);
    let alice = Person::new(&rig, "alice");
    let issued = alice.issue(mine("one")).await.json();
    // The operator has changed their mind.
    hold(&rig, false);
    let answer = alice.ask("GET", &format!("/subscriptions/{}", issued["id"].as_str().unwrap()), None).await;
    assert_eq!((answer.status, answer.code().as_str()), (403, "admin_role_missing"));
    assert_eq!(alice.issue(mine("two")).await.status, 403);
    assert_eq!(call(&rig, issued["primary_key"].as_str().unwrap()).await, 200, "what was issued stays");
}
