//! Tokens that nobody should have been given, and lists of keys that nobody should believe.

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::Rig;
use crate::azure::issuer::{Says, TENANT, base64, jwk, modulus, signed, token, with};

const HEADER: &str = r#"{"typ":"JWT","alg":"RS256","kid":"k0"}"#;

fn header(changes: &Value) -> Value {
    with(&serde_json::from_str(HEADER).unwrap(), changes)
}

/// Refused as one who proved nothing, with this in the message; nothing reached a backend.
async fn refused(rig: &Rig, token: &str, because: &str, what: &str) {
    let answer = rig.chat(token).await;
    let told = (answer.status, answer.code());
    assert_eq!(told, (401, "invalid_api_key".to_owned()), "{what}: {}", answer.body);
    assert!(answer.body.contains(because), "{what}: {}", answer.body);
    // The same at the door of management.
    let bearer = format!("Bearer {token}");
    let answer = rig.gateway.send("GET", "/subscriptions", &[("authorization", &bearer)], None).await;
    assert_eq!(answer.status, 401, "{what}");
    assert_eq!(rig.gateway.counts().await["requests"], 0, "{what}");
}

#[tokio::test]
async fn claims_that_are_not_entras_for_this_gateway_open_nothing() {
    let rig = Rig::start().await;
    let now_s = rig.gateway.app.proxy.clock.now().0 / 1_000;
    let authority = rig.issuer.authority();
    for (changes, because) in [
        (json!({"iss": format!("{authority}/another/v2.0")}), "issuer"),
        (json!({"iss": format!("https://evil.example/{TENANT}/v2.0")}), "issuer"),
        // Of version 1 with the issuer of version 2, and the other way round.
        (json!({"ver": "1.0", "appid": "client-1"}), "issuer"),
        (json!({"iss": format!("https://sts.windows.net/{TENANT}/")}), "issuer"),
        (json!({"iss": format!("https://login.microsoftonline.com/{TENANT}/v2.0")}), "issuer"),
        (json!({"aud": "api://another"}), "audience"),
        (json!({"aud": "https://cognitiveservices.azure.com"}), "audience"),
        (json!({"tid": "e1be8d2f-4ee2-4d0c-9f8a-2e1f0c1f7a11"}), "tenant"),
        (json!({"tid": "../../evil"}), "tenant"),
        (json!({"exp": now_s - 61}), "expired"),
        (json!({"nbf": now_s + 120}), "not valid yet"),
        (json!({"iss": null}), "`iss`"),
        (json!({"aud": null}), "`aud`"),
        (json!({"tid": null}), "`tid`"),
        (json!({"ver": null}), "`ver`"),
        (json!({"exp": null}), "`exp`"),
        (json!({"nbf": null}), "`nbf`"),
        (json!({"azp": null}), "`azp`"),
        (json!({"exp": "9999999999"}), "read"),
        (json!({"exp": 1e300}), "read"),
    ] {
        let token = token(&rig.claims(&changes));
        refused(&rig, &token, because, &changes.to_string()).await;
    }
    assert_eq!(rig.chat(&rig.token()).await.status, 200, "the right one does");
}

#[tokio::test]
async fn no_trick_with_the_algorithm_or_the_signature_opens_anything() {
    let rig = Rig::start().await;
    let claims = rig.claims(&json!({"roles": ["Tollgate.Admin"]}));
    let parts = |header: &Value, signature: &[u8]| {
        let (header, claims) = (header.to_string(), claims.to_string());
        format!("{}.{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()), base64(signature))
    };
    for alg in ["none", "None", "NONE", ""] {
        refused(&rig, &parts(&header(&json!({"alg": alg})), b""), "read", alg).await;
    }
    // The public key as the secret of HS256, in the forms in which it is at hand.
    let hs256 = header(&json!({"alg": "HS256"}));
    for secret in [modulus(0), base64(&modulus(0)).into_bytes(), jwk(0, "k0").to_string().into_bytes()] {
        let unsigned = parts(&hs256, b"");
        let message = unsigned.trim_end_matches('.').as_bytes();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message);
        refused(&rig, &parts(&hs256, signature.as_ref()), "RS256", "HS256").await;
    }
    for alg in ["RS384", "PS256", "ES256"] {
        refused(&rig, &signed(&header(&json!({"alg": alg})), &claims, 0), "RS256", alg).await;
    }
    refused(&rig, &signed(&header(&json!({})), &claims, 1), "signature", "another key").await;
    refused(&rig, &parts(&header(&json!({})), b""), "signature", "none at all").await;
    refused(&rig, &parts(&header(&json!({})), &[0; 256]), "signature", "zeros").await;
    // Its own key in its header, or where to get it.
    for changes in [
        json!({"jwk": {"kty": "RSA", "n": base64(&modulus(1)), "e": "AQAB"}}),
        json!({"jku": format!("{}/evil/discovery/v2.0/keys", rig.issuer.authority())}),
        json!({"x5u": rig.issuer.authority()}),
    ] {
        refused(&rig, &signed(&header(&changes), &claims, 1), "signature", &changes.to_string()).await;
    }
    let crit = header(&json!({"crit": ["exp"]}));
    refused(&rig, &signed(&crit, &claims, 0), "read", "crit").await;
    // Other claims behind the same signature.
    let good = token(&claims);
    let (head, tail) = good.rsplit_once('.').unwrap();
    let (head, _) = head.split_once('.').unwrap();
    let other = base64(rig.claims(&json!({"oid": "user-1"})).to_string().as_bytes());
    refused(&rig, &format!("{head}.{other}.{tail}"), "signature", "other claims").await;
    assert_eq!(rig.issuer.asked(), [TENANT]);
}

#[tokio::test]
async fn a_key_id_is_a_name_and_never_a_path_or_a_question() {
    let rig = Rig::start().await;
    let claims = rig.claims(&json!({}));
    let huge = "k".repeat(5_000);
    for kid in [
        "../../../../dev/null",
        "/etc/passwd",
        "k0' OR '1'='1",
        "k0\"; DROP TABLE subscriptions; --",
        "https://evil.example/keys",
        "K0",
        "k0 ",
        "k0\u{0}",
        "%6b0",
        &huge,
    ] {
        refused(&rig, &signed(&header(&json!({"kid": kid})), &claims, 0), "signing key", kid).await;
    }
    refused(&rig, &signed(&header(&json!({"kid": null})), &claims, 0), "`kid`", "none").await;
    refused(&rig, &signed(&header(&json!({"kid": ""})), &claims, 0), "`kid`", "empty").await;
    refused(&rig, &signed(&header(&json!({"kid": 7})), &claims, 0), "read", "a number").await;
    assert_eq!(rig.issuer.asked(), [TENANT], "however many unknown ids come");
}

#[tokio::test]
async fn what_is_no_token_opens_nothing() {
    let rig = Rig::start().await;
    let long = rig.claims(&json!({"padding": "x".repeat(13_000)}));
    refused(&rig, &token(&long), "16 KiB", "too long").await;
    let nested = format!("{}1{}", "[".repeat(5_000), "]".repeat(5_000));
    let nested = format!("{}.{}.x", base64(HEADER.as_bytes()), base64(nested.as_bytes()));
    let double = format!(r#"{{"tid":"other","tid":"{TENANT}"}}"#);
    let double = format!("{}.{}.x", base64(HEADER.as_bytes()), base64(double.as_bytes()));
    for junk in ["..", "a.b.c", "e30.e30.", "e30.e30.e30", "\u{e4}.b.c", nested.as_str(), double.as_str()] {
        let answer = rig.chat(junk).await;
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_api_key"), "{}", answer.body);
    }
    assert!(rig.issuer.asked().is_empty());
}

#[tokio::test]
async fn headers_that_claim_to_know_the_caller_are_not_believed() {
    let rig = Rig::start().await;
    let principal = base64(br#"{"auth_typ":"aad","claims":[{"typ":"roles","val":"Tollgate.Admin"}]}"#);
    let headers = [
        ("x-ms-client-principal", principal.as_str()),
        ("x-ms-client-principal-id", "user-1"),
        ("x-ms-client-principal-name", "somebody@contoso.com"),
        ("x-ms-client-principal-idp", "aad"),
        ("x-ms-token-aad-access-token", &rig.token()),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "localhost"),
    ];
    assert_eq!(rig.chat_with(&headers).await.status, 401);
    assert_eq!(rig.gateway.send("GET", "/subscriptions", &headers, None).await.status, 401);
    // Beside a good token they change nothing, and do not go on.
    let bearer = format!("Bearer {}", rig.token());
    let mut all = headers.to_vec();
    all.push(("authorization", &bearer));
    assert_eq!(rig.chat_with(&all).await.status, 200);
    let received = rig.gateway.received().await.to_string();
    for name in ["client-principal", "token-aad", "x-forwarded"] {
        assert!(!received.contains(name), "{name} went on: {received}");
    }
}

#[tokio::test]
async fn a_key_of_another_tenant_signs_nothing_here() {
    let rig = Rig::start().await;
    let mut foreign = jwk(1, "foreign");
    foreign["issuer"] = json!("https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0");
    rig.issuer.says(Says::Keys(vec![jwk(0, "k0"), foreign]));
    let token = signed(&header(&json!({"kid": "foreign"})), &rig.claims(&json!({})), 1);
    refused(&rig, &token, "signing key", "another tenant's").await;
    assert_eq!(rig.chat(&rig.token()).await.status, 200);
}

#[tokio::test]
async fn a_list_with_thousands_of_keys_and_junk_is_read_for_what_is_good_in_it() {
    let rig = Rig::start().await;
    let mut keys: Vec<_> =
        (0..5_000).map(|n| json!({"kty": "oct", "kid": format!("j{n}"), "k": "AAAA"})).collect();
    keys.extend([json!(null), json!([]), json!({"kty": "RSA", "kid": "k0"}), jwk(0, "k0"), jwk(1, "k0")]);
    rig.issuer.says(Says::Keys(keys));
    assert_eq!(rig.chat(&rig.token()).await.status, 200);
}

#[tokio::test]
async fn a_redirect_to_other_keys_is_not_followed() {
    let (rig, other) = (Rig::start().await, Rig::start().await);
    other.issuer.says(Says::Keys(vec![jwk(1, "k0")]));
    let elsewhere = format!("{}/{TENANT}/discovery/v2.0/keys", other.issuer.authority());
    rig.issuer.says(Says::RedirectTo(elsewhere));
    let answer = rig.chat(&signed(&header(&json!({})), &rig.claims(&json!({})), 1)).await;
    assert_eq!((answer.status, answer.code().as_str()), (503, "gateway_unavailable"), "{}", answer.body);
    assert!(other.issuer.asked().is_empty());
}
