//! Entra as an issuer of tokens to callers: it publishes keys, and what it signs can be anything.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio_util::sync::DropGuard;

use super::serve;

pub(crate) const TENANT: &str = "7b795fb9-09d3-42f4-a494-38864f99ba3c";
pub(crate) const AUDIENCE: &str = "api://tollgate";

/// Made once for all tests: a key of this size takes a moment.
static KEYS: LazyLock<[KeyPair; 2]> =
    LazyLock::new(|| [(); 2].map(|()| KeyPair::generate(KeySize::Rsa2048).unwrap()));

/// How the list of keys is answered.
#[derive(Clone)]
pub(crate) enum Says {
    /// These keys, of any tenant but `foreign`.
    Keys(Vec<Value>),
    Text(String),
    Status(u16),
    RedirectTo(String),
    /// Nothing at all.
    Hangs,
}

#[derive(Clone)]
pub(crate) struct Issuer {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _stop: Arc<DropGuard>,
}

struct Shared {
    says: Mutex<Says>,
    asked: Mutex<Vec<String>>,
}

impl Issuer {
    /// Publishes the first key as `k0`.
    pub(crate) async fn start() -> Self {
        let says = Mutex::new(Says::Keys(vec![jwk(0, "k0")]));
        let shared = Arc::new(Shared { says, asked: Mutex::default() });
        let routes = Router::new().route("/{tenant}/discovery/v2.0/keys", get(keys));
        let (address, stop) = serve(routes.with_state(Arc::clone(&shared))).await;
        Self { address, shared, _stop: Arc::new(stop) }
    }

    pub(crate) fn authority(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn says(&self, says: Says) {
        *self.shared.says.lock().unwrap() = says;
    }

    /// The tenants whose keys were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.shared.asked.lock().unwrap().clone()
    }

    /// The claims of an application's own token, of version 2, good for an hour.
    pub(crate) fn claims(&self, now_s: i64) -> Value {
        json!({
            "iss": format!("{}/{TENANT}/v2.0", self.authority()), "ver": "2.0", "tid": TENANT, "aud": AUDIENCE,
            "iat": now_s, "nbf": now_s, "exp": now_s + 3_600, "azp": "client-1", "azpacr": "1",
            "oid": "principal-1", "sub": "principal-1", "uti": "x",
        })
    }
}

async fn keys(State(shared): State<Arc<Shared>>, Path(tenant): Path<String>) -> Response {
    shared.asked.lock().unwrap().push(tenant);
    let says = shared.says.lock().unwrap().clone();
    match says {
        Says::Keys(keys) => axum::Json(json!({"keys": keys})).into_response(),
        Says::Text(text) => text.into_response(),
        Says::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Says::RedirectTo(url) => (StatusCode::FOUND, [("location", url)]).into_response(),
        Says::Hangs => std::future::pending().await,
    }
}

/// The modulus of one of the keys, as it is published.
pub(crate) fn modulus(key: usize) -> Vec<u8> {
    // PKCS #1 of 2,048 bits: two heads, a zero, the modulus, and 65537 at the end.
    let der = KEYS[key].public_key().as_ref();
    assert_eq!((der.len(), &der[265..]), (270, &[2, 3, 1, 0, 1][..]));
    der[9..265].to_vec()
}

/// One of the keys under an id, as Entra publishes it.
pub(crate) fn jwk(key: usize, kid: &str) -> Value {
    json!({
        "kty": "RSA", "use": "sig", "kid": kid, "x5t": kid, "n": base64(&modulus(key)), "e": "AQAB",
        "issuer": "https://login.microsoftonline.com/{tenantid}/v2.0",
    })
}

pub(crate) fn base64(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A token with any header, signed with one of the keys in any case.
pub(crate) fn signed(header: &Value, claims: &Value, key: usize) -> String {
    let message =
        format!("{}.{}", base64(header.to_string().as_bytes()), base64(claims.to_string().as_bytes()));
    let mut signature = vec![0; KEYS[key].public_modulus_len()];
    KEYS[key].sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", base64(&signature))
}

/// A token as Entra makes it.
pub(crate) fn token(claims: &Value) -> String {
    signed(&json!({"typ": "JWT", "alg": "RS256", "kid": "k0"}), claims, 0)
}

/// A claim set with some of its claims changed; null takes one away.
pub(crate) fn with(claims: &Value, changes: &Value) -> Value {
    let mut claims = claims.as_object().unwrap().clone();
    for (name, value) in changes.as_object().unwrap() {
        claims.remove(name);
        if !value.is_null() {
            claims.insert(name.clone(), value.clone());
        }
    }
    Value::Object(claims)
}
