//! Ways in that must not be, by keys.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::domain::actor::Actor;
use tollgate::domain::ids::Name;
use tollgate::domain::subscription::State;
use tollgate::domain::units::UnixMillis;
use tollgate::issuing::{Application, Arrival, Arrived};

use super::{call, hello, issue, patch};
use crate::support::{ADMIN_KEY, CHAT, TestGateway};

#[tokio::test]
async fn a_key_in_the_wrong_case_place_or_wrapping_opens_nothing() {
    let gateway = TestGateway::start().await;
    let key = gateway.key.clone();
    let swapped: String = key
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    let (upper, lower) = (key.to_ascii_uppercase(), key.to_ascii_lowercase());
    let quoted = format!("\"{key}\"");
    let twice = format!("{key},{key}");
    let basic = format!("Basic {key}");
    for (name, value) in [
        ("api-key", swapped.as_str()),
        ("api-key", upper.as_str()),
        ("api-key", lower.as_str()),
        ("api-key", quoted.as_str()),
        ("api-key", twice.as_str()),
        ("api-key", &key[..key.len() - 1]),
        ("api_key", key.as_str()),
        ("x-api-key", key.as_str()),
        ("x-functions-key", key.as_str()),
        ("subscription-key", key.as_str()),
        ("cookie", key.as_str()),
        ("authorization", key.as_str()),
        ("authorization", basic.as_str()),
        ("proxy-authorization", key.as_str()),
    ] {
        let answer = gateway.send("POST", CHAT, &[(name, value)], Some(hello())).await;
        assert_eq!(answer.status, 401, "{name}: {value}");
    }
    for query in ["api-key", "key", "code", "Subscription_Key"] {
        let answer = gateway.send("POST", &format!("{CHAT}&{query}={key}"), &[], Some(hello())).await;
        assert_eq!(answer.status, 401, "{query}");
    }
    assert_eq!(gateway.counts().await["requests"], 0);
}

#[tokio::test]
async fn of_two_credentials_the_first_valid_one_pays() {
    let gateway = TestGateway::start().await;
    let one = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let two = issue(&gateway, &json!({"name": "two", "product": "standard"})).await;
    let off = issue(&gateway, &json!({"name": "off", "product": "standard"})).await;
    patch(&gateway, &off["id"], &json!({"state": "suspended"})).await;
    let [key_one, key_two, key_off] = [&one, &two, &off].map(|of| of["primary_key"].as_str().unwrap());
    let bearer = |key: &str| format!("Bearer {key}");
    let (bearer_one, bearer_two) = (bearer(key_one), bearer(key_two));
    let mut paid = Vec::new();
    for headers in [
        vec![("authorization", bearer_two.as_str()), ("api-key", key_one)],
        vec![("ocp-apim-subscription-key", key_two), ("authorization", bearer_one.as_str())],
        vec![("api-key", key_off), ("ocp-apim-subscription-key", key_one)],
    ] {
        assert_eq!(gateway.send("POST", CHAT, &headers, Some(hello())).await.status, 200, "{headers:?}");
        paid.push(());
        gateway.total(paid.len() as u64).await;
    }
    let rows = gateway.usage("group_by=subscription").await["rows"].clone();
    for (subscription, requests) in [(&one, 2), (&two, 1)] {
        let row = rows.as_array().unwrap().iter().find(|row| row["subscription"] == subscription["id"]);
        assert_eq!(row.unwrap()["requests"], requests, "{rows}");
    }
}

#[tokio::test]
async fn a_key_manages_nothing_and_the_admin_key_calls_nothing() {
    let gateway = TestGateway::start().await;
    let issued = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    let path = format!("/subscriptions/{}", issued["id"].as_str().unwrap());
    let bearer = format!("Bearer {}", issued["primary_key"].as_str().unwrap());
    for (method, path) in [
        ("GET", "/subscriptions"),
        ("POST", "/subscriptions"),
        ("GET", path.as_str()),
        ("PATCH", path.as_str()),
        ("DELETE", path.as_str()),
        ("POST", &format!("{path}/keys/primary")),
        ("GET", "/reports/audit"),
        ("GET", "/reports/usage"),
        ("GET", "/reports/backends"),
    ] {
        for headers in [
            vec![("authorization", bearer.as_str())],
            vec![("api-key", ADMIN_KEY)],
            vec![("authorization", ADMIN_KEY)],
            vec![("x-functions-key", ADMIN_KEY)],
            vec![("x-ms-client-principal", "eyJyb2xlcyI6WyJUb2xsZ2F0ZS5BZG1pbiJdfQ==")],
            vec![("x-ms-client-principal-id", "admin"), ("x-ms-client-principal-name", "admin")],
            vec![
                ("x-forwarded-for", "127.0.0.1"),
                ("x-real-ip", "127.0.0.1"),
                ("forwarded", "for=127.0.0.1"),
            ],
        ] {
            let answer = gateway.send(method, path, &headers, Some("{}".to_owned())).await;
            assert_eq!(answer.status, 401, "{method} {path} {headers:?}");
        }
    }
    assert_eq!(call(&gateway, ADMIN_KEY).await, 401);
    let principal = [("x-ms-client-principal", "eyJyb2xlcyI6WyJUb2xsZ2F0ZS5BZG1pbiJdfQ==")];
    assert_eq!(gateway.send("POST", CHAT, &principal, Some(hello())).await.status, 401);
}

#[tokio::test]
async fn sql_and_odd_unicode_are_only_text_wherever_they_stand() {
    let gateway = TestGateway::start().await;
    let texts = [
        "'; DROP TABLE subscriptions; --",
        "\" OR 1=1 --",
        "Robert\\'); DELETE FROM audit; --",
        "%27%20OR%201=1",
        "\u{202E}gnp.exe",
        "e\u{301}\u{200D}\u{FEFF}\u{1F469}\u{200D}\u{1F680}",
        "\u{FFFD}\u{10FFFF}",
        &"\u{1F600}".repeat(256),
    ];
    for text in texts {
        let application = json!({
            "name": text, "product": "standard", "owner": text, "cost_center": text, "notes": text,
            "tags": {text: text},
        });
        let issued = issue(&gateway, &application).await;
        for member in ["name", "owner", "cost_center", "notes", "tags"] {
            assert_eq!(issued[member], application[member]);
        }
        let changed = patch(&gateway, &issued["id"], &json!({"notes": null, "name": text})).await;
        assert_eq!(changed.json()["name"], text);
        let mut url = url::Url::parse("http://x/subscriptions").unwrap();
        url.query_pairs_mut().append_pair("owner", text);
        let listed =
            gateway.manage("GET", &format!("/subscriptions?{}", url.query().unwrap()), None).await.json();
        assert_eq!(listed["items"].as_array().unwrap().len(), 1, "{text}");
        for (path, status) in [
            (format!("/subscriptions?cursor={}", url.query().unwrap().replace("owner=", "")), 400),
            (format!("/subscriptions/{}", url.query().unwrap().replace("owner=", "")), 404),
            (format!("/reports/audit?subscription={}", url.query().unwrap().replace("owner=", "")), 400),
        ] {
            assert_eq!(gateway.manage("GET", &path, None).await.status, status, "{path}");
        }
        let Ok(header) = http::HeaderValue::from_bytes(text.as_bytes()) else { continue };
        let answer =
            gateway.client.post(format!("http://{}{CHAT}", gateway.address)).header("api-key", header);
        assert_eq!(answer.body(hello()).send().await.unwrap().status(), 401, "{text}");
    }
    let audit = gateway.manage("GET", "/reports/audit?limit=500", None).await.json();
    assert_eq!(audit["items"].as_array().unwrap().len(), 1 + 2 * texts.len());
}

#[tokio::test]
async fn a_megabyte_of_header_is_refused_and_the_gateway_lives() {
    let gateway = TestGateway::start().await;
    let long = "k".repeat(1024 * 1024);
    for header in [format!("api-key: {long}"), format!("{long}: x"), format!("authorization: Bearer {long}")]
    {
        let request = format!("POST {CHAT} HTTP/1.1\r\nhost: x\r\n{header}\r\ncontent-length: 0\r\n\r\n");
        let mut stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
        // It may be refused, and the connection closed, before all of it was sent.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert_eq!(call(&gateway, &gateway.key).await, 200);
}

#[tokio::test]
async fn what_is_wrong_with_a_key_is_never_told() {
    let gateway = TestGateway::start().await;
    let ended = issue(&gateway, &json!({"name": "one", "product": "standard"})).await;
    gateway.manage("DELETE", &format!("/subscriptions/{}", ended["id"].as_str().unwrap()), None).await;
    let off = issue(&gateway, &json!({"name": "off", "product": "standard"})).await;
    patch(&gateway, &off["id"], &json!({"state": "suspended"})).await;
    let unknown = tollgate::domain::key::make().unwrap();
    let unknown = secrecy::ExposeSecret::expose_secret(&unknown);
    let mut bodies = Vec::new();
    for key in [
        ended["primary_key"].as_str().unwrap(),
        off["primary_key"].as_str().unwrap(),
        unknown,
        "0123456789abcdef0123456789abcdef",
        "junk",
    ] {
        let answer = gateway.send("POST", CHAT, &[("api-key", key)], Some(hello())).await;
        assert_eq!(answer.status, 401);
        bodies.push(answer.json());
    }
    assert!(bodies.iter().all(|body: &Value| *body == bodies[0]), "{bodies:?}");
}

fn digits() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    format!("{:032x}", u128::from_be_bytes(bytes))
}

async fn take_in(gateway: &TestGateway, key: &str) {
    let application = Application::new("moved", Name::new("standard").unwrap());
    let arrival = Arrival {
        id: Name::new("moved").unwrap(),
        application,
        state: State::Active,
        created_at: None,
        primary_key: key.into(),
        secondary_key: digits().into(),
    };
    let author = gateway.app.issuing.author(Actor::CommandLine, None);
    assert_eq!(gateway.app.issuing.take_in(arrival, false, &author).await.unwrap(), Arrived::New);
}

/// How long refusing takes, for keys that share most digits with a good one and for keys that share none.
///
/// The digits are those of a key of API Management: its form has no checksum that a guess must meet.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "it is the time that is judged")]
async fn how_long_a_refusal_takes_says_nothing_of_how_near_a_guess_was() {
    const GUESSES: usize = 1_000;
    let gateway = TestGateway::start().await;
    let good = digits();
    take_in(&gateway, &good).await;
    assert_eq!(call(&gateway, &good).await, 200);
    let keys = &gateway.app.proxy.keys;
    let refusal = async |guess: String| {
        let began = Instant::now();
        assert!(keys.caller(&guess, UnixMillis(1_800_000_000_000)).await.is_err(), "{guess}");
        began.elapsed()
    };
    let mut ratios = Vec::new();
    // A machine that is busy with other things can hide the truth, and not often make it up.
    for _ in 0..5 {
        let (mut near, mut far): (Vec<Duration>, Vec<Duration>) = (Vec::new(), Vec::new());
        for _ in 0..GUESSES {
            let digits = digits();
            // In turns, so that whatever slows one slows the other.
            near.push(refusal(format!("{}{}", &good[..24], &digits[..8])).await);
            far.push(refusal(digits).await);
        }
        near.sort();
        far.sort();
        let ratio = near[GUESSES / 2].as_secs_f64() / far[GUESSES / 2].as_secs_f64();
        if (0.9..1.1).contains(&ratio) {
            return;
        }
        ratios.push(ratio);
    }
    panic!("near guesses take another time than far ones: {ratios:?}");
}
