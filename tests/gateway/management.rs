//! Subscriptions from their issue to their end, and who is said to have done it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{ADMIN_KEY, Answer, CHAT, TestGateway};

mod attacks;
mod known;

fn hello() -> String {
    json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string()
}

async fn call(gateway: &TestGateway, key: &str) -> u16 {
    gateway.send("POST", CHAT, &[("api-key", key)], Some(hello())).await.status
}

async fn issue(gateway: &TestGateway, application: &Value) -> Value {
    let answer = gateway.manage("POST", "/subscriptions", Some(application)).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.json()
}

async fn patch(gateway: &TestGateway, id: &Value, body: &Value) -> Answer {
    gateway.manage("PATCH", &format!("/subscriptions/{}", id.as_str().unwrap()), Some(body)).await
}

#[tokio::test]
async fn every_field_can_be_given_changed_and_cleared() {
    let gateway = TestGateway::start().await;
    let issued = issue(
        &gateway,
        &json!({
            "name": "one", "product": "standard", "owner": "o", "cost_center": "c", "notes": "first\nsecond",
            "tags": {"team": "a"}, "limits": {"requests_per_minute": 5}, "expires_at": "2999-01-01T00:00:00Z",
        }),
    )
    .await;
    assert_eq!((&issued["notes"], &issued["tags"]["team"]), (&json!("first\nsecond"), &json!("a")));
    assert_eq!(issued["last_used_at"], Value::Null);
    let change = json!({
        "name": "two", "product": "narrow", "owner": "p", "cost_center": "d", "notes": "n",
        "tags": {"stage": "b"}, "limits": {"tokens_per_minute": 6}, "expires_at": "2998-01-01T00:00:00Z",
    });
    let changed = patch(&gateway, &issued["id"], &change).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    for (member, value) in change.as_object().unwrap() {
        let shown = &changed.json()[member];
        let same = if member == "expires_at" { "2998-01-01T00:00:00.000Z" == shown } else { shown == value };
        assert!(same, "{member}: {shown}");
    }
    let nothing = patch(&gateway, &issued["id"], &json!({})).await;
    assert_eq!(nothing.json(), changed.json());
    let clear = json!({
        "owner": null, "cost_center": null, "notes": null, "tags": null, "limits": null, "expires_at": null,
    });
    let cleared = patch(&gateway, &issued["id"], &clear).await.json();
    for member in ["owner", "cost_center", "notes", "expires_at"] {
        assert_eq!(cleared[member], Value::Null, "{member}");
    }
    assert_eq!((&cleared["tags"], &cleared["limits"]), (&json!({}), &json!({})));
    let found =
        gateway.manage("GET", &format!("/subscriptions/{}", issued["id"].as_str().unwrap()), None).await;
    assert_eq!(found.json(), cleared);
    assert!(!found.body.contains("tg_") && found.json().get("primary_key").is_none());
}

#[tokio::test]
async fn a_faulty_change_is_told_its_field_and_changes_nothing() {
    let gateway = TestGateway::start().await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let many: serde_json::Map<_, _> = (0..51).map(|n| (format!("t{n}"), json!("v"))).collect();
    for (body, field) in [
        (json!({"name": null}), "name"),
        (json!({"name": ""}), "name"),
        (json!({"name": "x".repeat(257)}), "name"),
        (json!({"product": "gold"}), "product"),
        (json!({"product": null}), "product"),
        (json!({"state": "ended"}), "state"),
        (json!({"state": "Active"}), "state"),
        (json!({"state": null}), "state"),
        (json!({"owner": 5}), "owner"),
        (json!({"notes": "a\u{0}b"}), "notes"),
        (json!({"notes": "x".repeat(4097)}), "notes"),
        (json!({"tags": ["a"]}), "tags"),
        (json!({"tags": {"a": 1}}), "tags.a"),
        (json!({"tags": {"": "x"}}), "tags"),
        (json!({"tags": many}), "tags"),
        (json!({"expires_at": "2020-01-01T00:00:00Z"}), "expires_at"),
        (json!({"expires_at": "soon"}), "expires_at"),
        (json!({"limits": {"tokens_per_minute": 0}}), "limits.tokens_per_minute"),
        (json!({"limits": {"rpm": 5}}), "limits.rpm"),
        (json!({"id": "other"}), "id"),
        (json!({"primary_key": "tg_mine"}), "primary_key"),
        (json!({"name": "good", "last_used_at": null}), "last_used_at"),
        (json!(["name"]), ""),
    ] {
        let answer = patch(&gateway, &issued["id"], &body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert!(
            answer.json()["error"]["message"].as_str().unwrap().contains(field),
            "{body}: {}",
            answer.body
        );
    }
    let items = gateway.manage("GET", "/subscriptions", None).await.json()["items"].clone();
    assert_eq!(items[1]["name"], "one");
    let unknown = gateway.manage("PATCH", "/subscriptions/nobody", Some(&json!({"name": "x"}))).await;
    assert_eq!((unknown.status, unknown.code().as_str()), (404, "subscription_not_found"));
}

#[tokio::test]
async fn suspended_is_refused_at_once_and_active_is_served_at_once() {
    let gateway = TestGateway::start().await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let key = issued["primary_key"].as_str().unwrap();
    for (state, status) in [("active", 200), ("suspended", 401), ("active", 200), ("suspended", 401)] {
        assert_eq!(patch(&gateway, &issued["id"], &json!({"state": state})).await.json()["state"], state);
        assert_eq!(call(&gateway, key).await, status, "{state}");
    }
    assert_eq!(call(&gateway, issued["secondary_key"].as_str().unwrap()).await, 401);
}

#[tokio::test]
async fn what_is_taken_away_here_is_gone_within_five_seconds_elsewhere() {
    let gateway = TestGateway::start().await;
    let other = gateway.serve_with(Arc::clone(&gateway.app.proxy.usage)).await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let key = issued["primary_key"].as_str().unwrap();
    let elsewhere = async || {
        let url = format!("http://{other}{CHAT}");
        crate::support::ask(&gateway.client, "POST", &url, &[("api-key", key)], Some(hello())).await.status
    };
    assert_eq!(elsewhere().await, 200);
    patch(&gateway, &issued["id"], &json!({"state": "suspended"})).await;
    let began = tokio::time::Instant::now();
    while elsewhere().await == 200 {
        assert!(began.elapsed() < Duration::from_secs(5), "still served");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_key_is_replaced_while_the_other_goes_on() {
    let gateway = TestGateway::start().await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let path = |slot: &str| format!("/subscriptions/{}/keys/{slot}", issued["id"].as_str().unwrap());
    let [first, second] =
        ["primary_key", "secondary_key"].map(|slot| issued[slot].as_str().unwrap().to_owned());
    assert_eq!((call(&gateway, &first).await, call(&gateway, &second).await), (200, 200));
    let replaced = gateway.manage("POST", &path("primary"), None).await;
    assert_eq!((replaced.status, replaced.json().as_object().unwrap().len()), (200, 1), "{}", replaced.body);
    let fresh = replaced.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(call(&gateway, &first).await, 401);
    assert_eq!((call(&gateway, &fresh).await, call(&gateway, &second).await), (200, 200));
    // A body, as some clients send with every POST, changes nothing.
    let replaced = gateway.manage("POST", &path("secondary"), Some(&json!({}))).await;
    assert_eq!(call(&gateway, &second).await, 401);
    assert_eq!(call(&gateway, replaced.json()["key"].as_str().unwrap()).await, 200);
    for path in [path("tertiary"), "/subscriptions/nobody/keys/primary".to_owned()] {
        assert_eq!(gateway.manage("POST", &path, None).await.status, 404, "{path}");
    }
    assert_eq!(gateway.manage("GET", &path("primary"), None).await.status, 405);
}

#[tokio::test]
async fn what_was_ended_stays_ended_and_its_usage_stays() {
    let gateway = TestGateway::start().await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let (id, key) = (issued["id"].as_str().unwrap(), issued["primary_key"].as_str().unwrap());
    assert_eq!(call(&gateway, key).await, 200);
    gateway.total(1).await;
    let path = format!("/subscriptions/{id}");
    for _ in 0..2 {
        let ended = gateway.manage("DELETE", &path, None).await;
        assert_eq!((ended.status, ended.body.as_str()), (204, ""));
        assert_eq!(call(&gateway, key).await, 401);
    }
    assert_eq!(gateway.manage("DELETE", "/subscriptions/nobody", None).await.status, 404);
    assert_eq!(gateway.manage("GET", &path, None).await.json()["state"], "ended");
    for (method, path) in [("PATCH", path.clone()), ("POST", format!("{path}/keys/primary"))] {
        let refused = gateway.manage(method, &path, Some(&json!({"state": "active"}))).await;
        assert_eq!((refused.status, refused.code().as_str()), (409, "subscription_ended"), "{method}");
    }
    let ids = async |query: &str| {
        let listed = gateway.manage("GET", &format!("/subscriptions{query}"), None).await.json();
        let items = listed["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert!(!ids("").await.contains(&id.to_owned()));
    assert_eq!(ids("?state=ended").await, [id]);
    assert_eq!(gateway.usage("group_by=subscription").await["rows"][0]["subscription"], id);
}

#[tokio::test]
async fn lists_are_filtered_and_a_wrong_filter_is_told() {
    let gateway = TestGateway::start().await;
    for (name, product, owner) in
        [("a", "standard", "me"), ("b", "narrow", "me"), ("c", "narrow", "you & me")]
    {
        issue(&gateway, &json!({"name": name, "product": product, "owner": owner})).await;
    }
    let names = async |query: &str| {
        let listed = gateway.manage("GET", &format!("/subscriptions?{query}"), None).await.json();
        let items = listed["items"].as_array().unwrap().clone();
        items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("product=narrow").await, "b c");
    assert_eq!(names("owner=me").await, "a b");
    assert_eq!(names("owner=you+%26+me&state=active").await, "c");
    assert_eq!(names("owner=me&product=narrow&limit=1").await, "b");
    assert_eq!(names("state=suspended").await, "");
    for query in ["state=asleep", "color=red", "limit=0", "limit=501", "cursor=a%2Fb", "product=%20"] {
        let refused = gateway.manage("GET", &format!("/subscriptions?{query}"), None).await;
        assert_eq!(refused.status, 400, "{query}: {}", refused.body);
    }
}

#[tokio::test]
async fn a_repeated_request_is_the_same_one_when_its_end_has_come_meanwhile() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {ADMIN_KEY}");
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "k")];
    let soon = tollgate::domain::units::UnixMillis(gateway.app.proxy.clock.now().0 + 300);
    let body = json!({"name": "brief", "product": "standard", "expires_at": soon}).to_string();
    let first = gateway.send("POST", "/subscriptions", &headers, Some(body.clone())).await;
    assert_eq!(first.status, 201, "{}", first.body);
    while gateway.app.proxy.clock.now() <= soon {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let again = gateway.send("POST", "/subscriptions", &headers, Some(body.clone())).await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"), "{}", again.body);
    assert_eq!(again.json()["id"], first.json()["id"]);
    let other = gateway.send("POST", "/subscriptions", &headers[..1], Some(body)).await;
    assert_eq!(other.status, 400);
}

#[tokio::test]
async fn the_last_use_is_shown_and_costs_no_request_a_write() {
    let gateway = TestGateway::start().await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let path = format!("/subscriptions/{}", issued["id"].as_str().unwrap());
    let last_used = async || {
        let found = gateway.manage("GET", &path, None).await.json();
        found["last_used_at"].as_str().map(str::to_owned)
    };
    let before = gateway.app.proxy.clock.now();
    for _ in 0..3 {
        assert_eq!(call(&gateway, issued["primary_key"].as_str().unwrap()).await, 200);
    }
    assert_eq!(last_used().await, None);
    gateway.app.proxy.uses.write(&*gateway.app.issuing.store).await;
    let shown = last_used().await.unwrap();
    let shown = tollgate::domain::units::UnixMillis::parse(&shown).unwrap();
    assert!(before <= shown && shown <= gateway.app.proxy.clock.now());
    // A refused call is no use.
    patch(&gateway, &issued["id"], &json!({"state": "suspended"})).await;
    assert_eq!(call(&gateway, issued["primary_key"].as_str().unwrap()).await, 401);
    gateway.app.proxy.uses.write(&*gateway.app.issuing.store).await;
    assert_eq!(last_used().await, Some(shown.to_rfc3339()));
}

#[tokio::test]
async fn the_last_use_is_kept_when_the_process_stops() {
    let folder = tempfile::tempdir().unwrap();
    let (resource, _stop) = crate::support::resource(tollgate::simulator::Knobs::default()).await;
    let configuration = crate::support::configuration(resource);
    let mut process = crate::support::Process::serve(folder.path(), &configuration).await;
    let key = process.issue().await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{}{CHAT}", process.address);
    let answer = crate::support::ask(&client, "POST", &url, &[("api-key", &key)], Some(hello())).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(process.interrupt(), Some(0));
    let process = crate::support::Process::serve(folder.path(), &configuration).await;
    let listed = process.manage("GET", "/subscriptions", None).await.json();
    assert!(listed["items"][0]["last_used_at"].is_string(), "{listed}");
}

#[tokio::test]
async fn the_audit_tells_who_changed_what_and_never_a_key() {
    let gateway = TestGateway::start().await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard", "owner": "me"})).await;
    let id = issued["id"].as_str().unwrap();
    patch(&gateway, &issued["id"], &json!({"state": "suspended", "owner": null})).await;
    patch(&gateway, &issued["id"], &json!({"state": "suspended"})).await;
    patch(&gateway, &issued["id"], &json!({"state": "bogus"})).await;
    let key = gateway.manage("POST", &format!("/subscriptions/{id}/keys/secondary"), None).await.json();
    gateway.manage("DELETE", &format!("/subscriptions/{id}"), None).await;
    let audit = gateway.manage("GET", &format!("/reports/audit?subscription={id}"), None).await;
    let items = audit.json()["items"].as_array().unwrap().clone();
    let actions: Vec<_> = items.iter().map(|item| item["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["ended", "secondary_key_replaced", "changed", "issued"]);
    assert_eq!(items[2]["before"], json!({"state": "active", "owner": "me"}));
    assert_eq!(items[2]["after"], json!({"state": "suspended", "owner": null}));
    assert_eq!((&items[0]["actor"]["kind"], &items[0]["subscription_id"]), (&json!("admin_key"), &json!(id)));
    for secret in [&issued["primary_key"], &issued["secondary_key"], &key["key"], &json!(ADMIN_KEY)] {
        assert!(!audit.body.contains(secret.as_str().unwrap()), "{}", audit.body);
    }
    // Of all subscriptions, by pages, of a time.
    let (mut seen, mut path) = (0, "/reports/audit?limit=2&from=2020-01-01".to_owned());
    loop {
        let page = gateway.manage("GET", &path, None).await.json();
        seen += page["items"].as_array().unwrap().len();
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/reports/audit?limit=2&from=2020-01-01&cursor={next}");
    }
    assert_eq!(seen, 5);
    assert_eq!(gateway.manage("GET", "/reports/audit?to=2020-01-01", None).await.json()["items"], json!([]));
    for query in ["cursor=x", "from=never", "limit=0", "who=me"] {
        assert_eq!(
            gateway.manage("GET", &format!("/reports/audit?{query}"), None).await.status,
            400,
            "{query}"
        );
    }
    assert_eq!(gateway.send("GET", "/reports/audit", &[], None).await.status, 401);
}

#[tokio::test]
async fn the_audits_address_is_what_azures_front_end_says_and_no_callers_word() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {ADMIN_KEY}");
    let bearer = ("authorization", bearer.as_str());
    for (headers, address) in [
        (vec![bearer, ("x-forwarded-for", "203.0.113.7"), ("client-ip", "203.0.113.7")], Value::Null),
        (
            vec![
                bearer,
                ("x-ms-invocation-id", "1"),
                ("client-ip", "203.0.113.9:5"),
                ("x-forwarded-for", "203.0.113.7"),
            ],
            json!("203.0.113.9"),
        ),
    ] {
        let body = json!({"name": "a", "product": "standard"}).to_string();
        let issued = gateway.send("POST", "/subscriptions", &headers, Some(body)).await;
        assert_eq!(issued.status, 201);
        let audit = gateway.manage("GET", "/reports/audit?limit=1", None).await.json();
        assert_eq!(audit["items"][0]["address"], address);
    }
}
