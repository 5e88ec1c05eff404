//! Who may call, how they prove it, and what of it goes on.

use serde_json::{Value, json};
use tollgate::domain::units::UnixMillis;
use tollgate::proxy::Refusal;

use crate::support::{CHAT, TestGateway};

fn hello() -> String {
    json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string()
}

#[tokio::test]
async fn every_way_to_present_a_key_is_taken_and_none_goes_on() {
    let gateway = TestGateway::start().await;
    let key = gateway.key.as_str();
    let bearer = format!("Bearer {key}");
    let in_query = format!("{CHAT}&subscription-key={key}&code=host-key");
    for (path, headers) in [
        (CHAT, vec![("api-key", key)]),
        (CHAT, vec![("Ocp-Apim-Subscription-Key", key)]),
        (CHAT, vec![("Authorization", bearer.as_str())]),
        (in_query.as_str(), vec![]),
        // SDKs send junk beside the good one.
        (CHAT, vec![("api-key", ""), ("Authorization", bearer.as_str())]),
        (CHAT, vec![("api-key", "junk"), ("Ocp-Apim-Subscription-Key", key)]),
        (CHAT, vec![("api-key", key), ("Authorization", "Bearer junk"), ("x-functions-key", "host-key")]),
    ] {
        let answer = gateway.send("POST", path, &headers, Some(hello())).await;
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.body);
        let received = gateway.received().await.to_string();
        for secret in [key, "junk", "host-key", "code=", "subscription-key"] {
            assert!(!received.contains(secret), "`{secret}` went on: {received}");
        }
    }
}

#[tokio::test]
async fn without_a_valid_key_nothing_reaches_a_backend() {
    let gateway = TestGateway::start().await;
    let typo = format!("{}x", &gateway.key[..gateway.key.len() - 1]);
    let unknown = tollgate::domain::key::make().unwrap();
    let unknown = secrecy::ExposeSecret::expose_secret(&unknown);
    let basic = format!("Basic {}", gateway.key);
    for headers in [
        vec![],
        vec![("api-key", "")],
        vec![("api-key", typo.as_str())],
        vec![("api-key", unknown)],
        vec![("authorization", basic.as_str())],
        vec![("x-functions-key", gateway.key.as_str())],
    ] {
        let answer = gateway.send("POST", CHAT, &headers, Some(hello())).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_api_key"), "{headers:?}");
        assert!(!answer.header("x-request-id").is_empty());
        assert!(!answer.header("apim-request-id").is_empty());
        assert_eq!(answer.header("x-tollgate-attempts"), "0");
    }
    assert_eq!(gateway.counts().await["requests"], 0);
    assert_eq!(gateway.usage("").await["total"]["requests"], 0);
}

#[tokio::test]
async fn an_expired_subscription_is_refused() {
    let gateway = TestGateway::start().await;
    let expires = UnixMillis(gateway.app.proxy.clock.now().0 + 3_600_000);
    let application = json!({"name": "brief", "product": "standard", "expires_at": expires});
    let key = gateway.issue(&application).await;
    assert_eq!(gateway.send("POST", CHAT, &[("api-key", &key)], Some(hello())).await.status, 200);
    let keys = &gateway.app.proxy.keys;
    assert!(keys.caller(&key, UnixMillis(expires.0 - 1)).await.is_ok());
    assert!(matches!(keys.caller(&key, expires).await, Err(Refusal::InvalidKey)));
}

#[tokio::test]
async fn what_a_product_does_not_allow_is_refused() {
    let gateway = TestGateway::start().await;
    let key = gateway.issue(&json!({"name": "n", "product": "narrow"})).await;
    let refused = gateway.send("POST", CHAT, &[("api-key", &key)], Some(hello())).await;
    assert_eq!((refused.status, refused.code().as_str()), (403, "deployment_not_allowed"));
    let allowed = CHAT.replace("gpt-4o-mini", "gpt-4o");
    assert_eq!(gateway.send("POST", &allowed, &[("api-key", &key)], Some(hello())).await.status, 200);
}

#[tokio::test]
async fn a_deployment_that_no_backend_has_does_not_exist() {
    let resource = crate::support::resource(tollgate::simulator::Knobs::default()).await;
    let mut configuration = crate::support::configuration(resource.0);
    configuration["backends"][0]["deployments"] = json!({"gpt-4o": "gpt-4o-ptu", "gpt-4o-mini": "mini"});
    let gateway = TestGateway::with(resource.0, &configuration).await;
    let answer =
        gateway.send("POST", &CHAT.replace("mini", "max"), &[("api-key", &gateway.key)], Some(hello())).await;
    assert_eq!((answer.status, answer.code().as_str()), (404, "DeploymentNotFound"));
    // The others go on under the backend's own name, in either shape.
    assert_eq!(gateway.chat(&json!({"messages": []}), "").await.status, 400);
    let path = gateway.received().await["path"].clone();
    assert_eq!(path, "/openai/deployments/mini/chat/completions");
    let body = json!({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    let v1 = gateway.send("POST", "/v1/chat/completions", &[("api-key", &gateway.key)], Some(body)).await;
    assert_eq!(v1.status, 200, "{}", v1.body);
    let received = gateway.received().await;
    assert_eq!(received["path"], "/openai/v1/chat/completions");
    let body: Value = serde_json::from_str(received["body"].as_str().unwrap()).unwrap();
    assert_eq!(body["model"], "gpt-4o-ptu");
    // And are reported under the callers' name.
    let rows = gateway.usage("group_by=deployment").await["rows"].clone();
    assert!(rows.as_array().unwrap().iter().any(|row| row["deployment"] == "gpt-4o"), "{rows}");
}

#[tokio::test]
async fn every_shape_of_the_path_reaches_its_operation() {
    let gateway = TestGateway::start().await;
    let key = [("api-key", gateway.key.as_str())];
    let body = |extra: Value| {
        let mut body = json!({"model": "gpt-4o-mini"});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        Some(body.to_string())
    };
    for prefix in ["/openai/deployments/gpt-4o-mini", "/deployments/gpt-4o-mini", "/openai/v1", "/v1"] {
        let query = if prefix.contains("deployments") { "?api-version=2024-10-21" } else { "" };
        for (operation, extra) in [
            ("chat/completions", json!({"messages": [{"role": "user", "content": "hi"}]})),
            ("completions", json!({"prompt": "hi"})),
            ("embeddings", json!({"input": "hi"})),
        ] {
            let path = format!("{prefix}/{operation}{query}");
            let answer = gateway.send("POST", &path, &key, body(extra)).await;
            assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        }
    }
    assert_eq!(gateway.total(12).await["requests"], 12);
}

#[tokio::test]
async fn no_trick_of_the_path_reaches_a_backend() {
    let gateway = TestGateway::start().await;
    let body = r#"{"model":"gpt-4o-mini","messages":[{"role":"user","content":"hi"}]}"#;
    for target in [
        "/openai/v1/../../simulator/counts",
        "/openai/v1/%2e%2e/simulator/counts",
        "/openai/v1/chat%2fcompletions",
        "/openai/v1//chat/completions",
        "//openai/v1/chat/completions",
        "/openai/v1/chat/completions/",
        "/openai/v1/chat/completions%00",
        "/openai/v1/chat\\completions",
        "/openai/deployments/..%2f..%2fsimulator/chat/completions",
        "/openai/deployments/a/b/chat/completions",
        "/openai/v1/models",
        "/openai/v1/files",
        "/simulator/counts",
    ] {
        let (key, length) = (&gateway.key, body.len());
        let answer = gateway
            .raw(
                format!(
                    "POST {target} HTTP/1.1\r\nhost: x\r\napi-key: {key}\r\nconnection: close\r\n\
                     content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
                )
                .as_bytes(),
            )
            .await;
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(matches!(status, "404" | "400"), "{target}: {answer}");
    }
    // An absolute URI names the same path, and nothing else of it counts.
    let answer = gateway
        .raw(
            format!(
                "POST http://elsewhere.example/openai/v1/chat/completions HTTP/1.1\r\nhost: elsewhere.example\r\n\
                 api-key: {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                gateway.key,
                body.len()
            )
            .as_bytes(),
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(gateway.counts().await["requests"], 1);
    assert_eq!(gateway.received().await["path"], "/openai/v1/chat/completions");
}

#[tokio::test]
async fn the_callers_trace_goes_on_and_one_begins_without() {
    let gateway = TestGateway::start().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("api-key", gateway.key.as_str()), ("traceparent", trace)];
    gateway.send("POST", CHAT, &headers, Some(hello())).await;
    let sent = gateway.received().await["headers"]["traceparent"][0].as_str().unwrap().to_owned();
    assert!(sent.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && sent != trace, "{sent}");
    gateway.send("POST", CHAT, &headers[..1], Some(hello())).await;
    let began = gateway.received().await["headers"]["traceparent"][0].as_str().unwrap().to_owned();
    assert!(began.len() == 55 && began[..36] != sent[..36], "{began}");
}

#[tokio::test]
async fn management_asks_for_the_admin_key() {
    let gateway = TestGateway::start().await;
    let key = format!("Bearer {}", gateway.key);
    for headers in [vec![], vec![("authorization", "Bearer wrong")], vec![("authorization", key.as_str())]] {
        for (method, path) in [
            ("GET", "/subscriptions"),
            ("POST", "/subscriptions"),
            ("GET", "/subscriptions/x"),
            ("GET", "/reports/usage"),
        ] {
            let answer = gateway.send(method, path, &headers, Some("{}".to_owned())).await;
            assert_eq!(answer.status, 401, "{method} {path} {headers:?}");
        }
    }
    for path in ["/", "/healthz"] {
        assert_eq!(gateway.send("GET", path, &[], None).await.status, 200);
    }
}

#[tokio::test]
async fn a_subscription_is_shown_without_its_keys_and_its_database_has_none() {
    let gateway = TestGateway::start().await;
    let application = json!({
        "name": "Team Ä \u{1F600}", "product": "standard", "owner": "a@example.com", "cost_center": "4711",
        "limits": {"requests_per_minute": 5, "budget": {"amount": "10.50", "period": "month"}},
    });
    let issued = gateway.manage("POST", "/subscriptions", Some(&application)).await.json();
    let keys = ["primary_key", "secondary_key"].map(|slot| issued[slot].as_str().unwrap().to_owned());
    assert!(keys.iter().all(|key| key.starts_with("tg_")) && keys[0] != keys[1]);
    for key in &keys {
        assert_eq!(gateway.send("POST", CHAT, &[("api-key", key)], Some(hello())).await.status, 200);
    }
    let id = issued["id"].as_str().unwrap();
    let found = gateway.manage("GET", &format!("/subscriptions/{id}"), None).await;
    let listed = gateway.manage("GET", "/subscriptions?limit=500", None).await;
    assert_eq!(found.json()["limits"]["budget"]["amount"], "10.50");
    assert_eq!(found.json()["primary_key_hint"], keys[0][keys[0].len() - 4..]);
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 2);
    let on_disk: Vec<u8> = std::fs::read_dir(gateway.folder())
        .unwrap()
        .filter_map(|entry| std::fs::read(entry.unwrap().path()).ok())
        .flatten()
        .collect();
    for key in &keys {
        assert!(!found.body.contains(key.as_str()) && !listed.body.contains(key.as_str()));
        assert!(memchr::memmem::find(&on_disk, key.as_bytes()).is_none(), "a key is on the disk");
    }
}

#[tokio::test]
async fn lists_are_paged_in_the_order_of_issue() {
    let gateway = TestGateway::start().await;
    for number in 0..5 {
        gateway.issue(&json!({"name": format!("s{number}"), "product": "standard"})).await;
    }
    let (mut names, mut path) = (Vec::new(), "/subscriptions?limit=2".to_owned());
    loop {
        let page = gateway.manage("GET", &path, None).await.json();
        names.extend(page["items"].as_array().unwrap().iter().map(|item| item["name"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/subscriptions?limit=2&cursor={next}");
    }
    assert_eq!(names, ["test", "s0", "s1", "s2", "s3", "s4"]);
}

#[tokio::test]
async fn the_hosts_own_key_in_the_query_changes_nothing() {
    let gateway = TestGateway::start().await;
    for path in ["/subscriptions?code=host-key", "/subscriptions?limit=2&code=a", "/reports/usage?code=a"] {
        let answer = gateway.manage("GET", path, None).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn an_id_that_cannot_be_one_is_refused_as_everything_is() {
    let gateway = TestGateway::start().await;
    for path in ["/subscriptions/%ff", "/subscriptions/a%2Fb", "/subscriptions/..%2f"] {
        let answer = gateway.manage("GET", path, None).await;
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}: {}", answer.body);
    }
}

#[tokio::test]
async fn issuing_once_is_issuing_once() {
    let gateway = TestGateway::start().await;
    let bearer = format!("Bearer {}", crate::support::ADMIN_KEY);
    let headers = [("authorization", bearer.as_str()), ("idempotency-key", "abc")];
    let issue = |name: &str| {
        let body = json!({"name": name, "product": "standard"}).to_string();
        gateway.send("POST", "/subscriptions", &headers, Some(body))
    };
    let first = issue("once").await;
    let again = issue("once").await;
    assert_eq!((again.status, again.header("idempotency-replayed")), (201, "true"));
    assert_eq!(again.json()["id"], first.json()["id"]);
    assert_eq!(again.json()["primary_key"], Value::Null);
    assert_eq!(issue("other").await.status, 409);
    let listed = gateway.manage("GET", "/subscriptions", None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_faulty_application_is_told_its_field_and_changes_nothing() {
    let gateway = TestGateway::start().await;
    for (body, field) in [
        (r#"{"product":"standard"}"#, "name"),
        (r#"{"name":"x","product":"gold"}"#, "product"),
        (r#"{"name":" ","product":"standard"}"#, "name"),
        (r#"{"name":5,"product":"standard"}"#, "name"),
        (r#"{"name":"x","product":"standard","owner":"a\u0000b"}"#, "owner"),
        (r#"{"name":"x","product":"standard","color":"red"}"#, "color"),
        (r#"{"name":"x","product":"standard","expires_at":"2020-01-01T00:00:00Z"}"#, "expires_at"),
        (r#"{"name":"x","product":"standard","limits":{"requests_per_minute":0}}"#, "requests_per_minute"),
        (
            r#"{"name":"x","product":"standard","limits":{"budget":{"amount":1.5,"period":"month"}}}"#,
            "limits.budget",
        ),
        ("{", ""),
    ] {
        let bearer = format!("Bearer {}", crate::support::ADMIN_KEY);
        let headers = [("authorization", bearer.as_str())];
        let answer = gateway.send("POST", "/subscriptions", &headers, Some(body.to_owned())).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
        assert!(
            answer.json()["error"]["message"].as_str().unwrap().contains(field),
            "{body}: {}",
            answer.body
        );
    }
    let listed = gateway.manage("GET", "/subscriptions", None).await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn while_it_starts_it_says_so_and_the_rest_waits() {
    use tollgate::routes::Start;
    let gateway = TestGateway::start().await;
    let (ready, starting) = tokio::sync::watch::channel(Start::UnderWay);
    let listener = crate::support::listener().await;
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stop = tokio_util::sync::CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let router = tollgate::routes::starting(starting);
    tokio_util::task::TaskTracker::new().spawn(tollgate::server::serve(listener, router, stop));
    let get = async |path: &str| {
        crate::support::ask(&gateway.client, "GET", &format!("{url}{path}"), &[], None).await
    };
    assert_eq!(get("/").await.status, 200);
    assert_eq!(get("/healthz").await.json()["status"], "starting");
    let waiting = get("/subscriptions");
    let made = async {
        tokio::task::yield_now().await;
        ready.send_replace(Start::Done(tollgate::routes::router(gateway.app.clone())));
    };
    assert_eq!(tokio::join!(waiting, made).0.status, 401);
    // On the same connection, which was there before.
    assert_eq!(get("/healthz").await.json()["status"], "ready");
}
