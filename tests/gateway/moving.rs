//! `tollgate import apim`: applications keep the keys that they have.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{CHAT, Process, ask};

fn key(digit: char) -> String {
    digit.to_string().repeat(32)
}

fn one(name: &str, state: &str, scope: &str, keys: (char, char)) -> Value {
    let service = "/subscriptions/0/resourceGroups/g/providers/Microsoft.ApiManagement/service/s";
    json!({
        "id": format!("{service}/subscriptions/{name}"), "type": "Microsoft.ApiManagement/service/subscriptions",
        "name": name,
        "properties": {
            "ownerId": format!("{service}/users/alice"), "scope": format!("{service}{scope}"),
            "displayName": format!("Team {name} Ä"), "state": state, "createdDate": "2023-05-06T07:08:09.1234567Z",
            "startDate": null, "expirationDate": "2024-01-01T00:00:00Z", "endDate": null, "notificationDate": null,
            "stateComment": null, "allowTracing": false,
        },
        "keys": {"primaryKey": key(keys.0), "secondaryKey": key(keys.1)},
    })
}

fn export() -> Value {
    let mut alone = one("alone", "active", "/apis", ('7', '8'));
    alone["keys"] = json!({});
    let mut own = one("own", "active", "/products/starter", ('9', '9'));
    own["keys"] = json!({"primaryKey": "chosen-by-hand", "secondaryKey": key('e')});
    json!({
        "products": [{"name": "starter"}, {"name": "standard"}, {"name": "gold"}],
        "subscriptions": [
            one("live", "active", "/products/starter", ('a', 'b')),
            one("off", "suspended", "/products/standard", ('c', 'd')),
            one("waits", "submitted", "/products/standard", ('0', '1')),
            one("gone", "cancelled", "/products/standard", ('2', '3')),
            one("old", "expired", "/apis/some-api", ('4', '5')),
            one("has space", "active", "/apis", ('6', 'f')),
            one("golden", "active", "/products/gold", ('7', '8')),
            one("copy", "active", "/products/standard", ('a', '9')),
            one("odd", "dormant", "/products/standard", ('7', '8')),
            alone, own,
        ],
    })
}

/// Answers with the exit code, what became of each line, and all that was printed.
fn import(folder: &Path, more: &[&str]) -> (Option<i32>, Vec<(String, String)>, String) {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .env_clear()
        .env("TOLLGATE_CONFIG", folder.join("gateway.json"))
        .env("TOLLGATE_DATABASE_URL", format!("sqlite://{}", folder.join("ledger.db").display()))
        .env("TOLLGATE_DATA_DIR", folder)
        .args(["import", "apim", "--json", "--product", "starter=narrow", "--default-product", "standard"])
        .args(more)
        .arg(folder.join("export.json"))
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let lines: Value = serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}{err}"));
    let text = |line: &Value, member: &str| line[member].as_str().unwrap().to_owned();
    let lines = lines.as_array().unwrap().iter().map(|line| (text(line, "id"), text(line, "outcome")));
    (output.status.code(), lines.collect(), format!("{out}{err}"))
}

#[tokio::test]
async fn applications_keep_their_keys_and_a_second_time_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (resource, _stop) = crate::support::resource(tollgate::simulator::Knobs::default()).await;
    let configuration = crate::support::configuration(resource);
    std::fs::write(folder.path().join("export.json"), export().to_string()).unwrap();
    // The gateway runs meanwhile, as it would.
    let gateway = Process::serve(folder.path(), &configuration).await;
    let outcome = |new: &str| {
        let of = |outcome: &str, ids: &[&str]| -> Vec<_> {
            ids.iter().map(|id| ((*id).to_owned(), outcome.to_owned())).collect()
        };
        [
            of("configured", &["starter", "standard"]),
            of("missing", &["gold"]),
            of(new, &["live", "off", "waits", "gone", "old", "has space"]),
            of("failed", &["golden"]),
        ]
        .concat()
    };
    let (code, lines, _) = import(folder.path(), &["--dry-run"]);
    assert_eq!((code, &lines[..10]), (Some(1), &outcome("would_import")[..]));
    let listed = gateway.manage("GET", "/subscriptions", None).await.json();
    assert_eq!(listed["items"], json!([]));
    for (turn, new) in ["imported", "unchanged"].into_iter().enumerate() {
        let (code, lines, printed) = import(folder.path(), &[]);
        assert_eq!((code, &lines[..10]), (Some(1), &outcome(new)[..]), "{turn}");
        assert!(lines[10..].iter().all(|(_, outcome)| outcome == "failed"), "{lines:?}");
        for secret in "0123456789abcdef".chars().map(key).chain(["chosen-by-hand".to_owned()]) {
            assert!(!printed.contains(&secret), "{printed}");
        }
        let audit = gateway.manage("GET", "/reports/audit", None).await.json();
        assert_eq!(audit["items"].as_array().unwrap().len(), 6);
        assert_eq!(audit["items"][0]["actor"]["kind"], "command_line");
        assert_eq!(audit["items"][0]["action"], "imported");
    }
    keys_open_what_they_opened(&gateway).await;
    let live = gateway.manage("GET", "/subscriptions/live", None).await.json();
    assert_eq!((&live["name"], &live["owner"]), (&json!("Team live Ä"), &json!("alice")));
    assert_eq!(live["created_at"], "2023-05-06T07:08:09.123Z");
    // There it is for audits alone: it must not end anything here.
    assert_eq!(live["expires_at"], Value::Null);
    assert!(live["notes"].as_str().unwrap().contains("expiration date: 2024-01-01"), "{live}");
    // One that was changed here since stays as it is.
    let change = json!({"name": "renamed"});
    gateway.manage("PATCH", "/subscriptions/live", Some(&change)).await;
    gateway.manage("POST", "/subscriptions/live/keys/primary", None).await;
    let (_, lines, _) = import(folder.path(), &[]);
    assert_eq!(lines[3], ("live".to_owned(), "unchanged".to_owned()));
    assert_eq!(gateway.manage("GET", "/subscriptions/live", None).await.json()["name"], "renamed");
}

async fn keys_open_what_they_opened(gateway: &Process) {
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let narrow = CHAT.replace("gpt-4o-mini", "gpt-4o");
    for (digit, path, status) in [
        ('a', narrow.as_str(), 200),
        ('b', &narrow, 200),
        ('a', CHAT, 403),
        ('c', CHAT, 401),
        ('0', CHAT, 401),
        ('2', CHAT, 401),
        ('4', CHAT, 401),
        ('f', CHAT, 200),
        ('7', CHAT, 401),
    ] {
        let key = key(digit);
        let body = json!({"messages": [{"role": "user", "content": "Say hello."}]}).to_string();
        let url = format!("http://{}{path}", gateway.address);
        let answer = ask(&client, "POST", &url, &[("Ocp-Apim-Subscription-Key", &key)], Some(body)).await;
        assert_eq!(answer.status, status, "{digit} {path}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_file_that_is_no_export_is_told_and_never_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("export.json");
    for text in ["{", "[1]", r#"{"subscriptions": [{"name": "a", "keys": {"primaryKey": 12345678901}}]}"#] {
        std::fs::write(&file, text).unwrap();
        let mut import = std::process::Command::new(env!("CARGO_BIN_EXE_tollgate"));
        let output = import.env_clear().args(["import", "apim"]).arg(&file).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains("is not an export") && !told.contains("12345678901"), "{told}");
    }
}
