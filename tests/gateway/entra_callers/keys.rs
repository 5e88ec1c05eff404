//! The published keys: fetched once however many ask, rolled over, and believed while Entra is away.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tollgate::azure::caller_tokens::{EntraTokens, Place, Published};
use tollgate::config::catalog::Catalog;
use tollgate::config::settings::Cloud;
use tollgate::domain::token::Distrust;
use tollgate::domain::units::UnixMillis;
use tollgate::ports::{CallerTokens as _, Clock, TokenRefusal};

use super::Rig;
use crate::azure::issuer::{AUDIENCE, Says, TENANT, jwk, signed};

const MINUTE: Duration = Duration::from_mins(1);

/// Stands still until the test moves it.
#[derive(Default)]
struct StillClock(AtomicU64);

impl StillClock {
    fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

impl Clock for StillClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(self.0.load(Ordering::Relaxed).cast_signed() + 1_000_000_000)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

/// Entra's list, without a network.
struct List {
    says: Mutex<Result<Vec<Value>, String>>,
    asked: AtomicU64,
    /// What an answer waits for.
    gate: Semaphore,
}

#[async_trait]
impl Published for List {
    async fn fetch(&self, tenant: &str) -> Result<Vec<u8>, String> {
        assert_eq!(tenant, TENANT);
        self.asked.fetch_add(1, Ordering::Relaxed);
        drop(self.gate.acquire().await.unwrap());
        self.says.lock().unwrap().clone().map(|keys| json!({"keys": keys}).to_string().into_bytes())
    }
}

struct Bench {
    clock: Arc<StillClock>,
    list: Arc<List>,
    tokens: Arc<EntraTokens>,
    catalog: Catalog,
    tasks: TaskTracker,
}

impl Bench {
    fn new() -> Self {
        let says = Mutex::new(Ok(vec![jwk(0, "k0")]));
        let list = Arc::new(List { says, asked: AtomicU64::new(0), gate: Semaphore::new(1_000) });
        let (clock, tasks) = (Arc::new(StillClock::default()), TaskTracker::new());
        let tokens = EntraTokens::new(
            Place::new(Cloud::UsGov, None),
            list.clone(),
            clock.clone(),
            tasks.clone(),
            CancellationToken::new(),
        );
        let configuration = json!({
            "backends": [{"name": "b", "endpoint": "https://b.example"}],
            "callers": {"entra": {"tenants": [TENANT], "audiences": [AUDIENCE]}},
        });
        let catalog = Catalog::parse(&configuration.to_string(), "test").unwrap();
        Self { clock, list, tokens: Arc::new(tokens), catalog, tasks }
    }

    /// A token of this moment, signed with a key under this id.
    fn token(&self, kid: &str, key: usize) -> String {
        let now_s = self.clock.now().0 / 1_000;
        let claims = json!({
            "iss": format!("https://login.microsoftonline.us/{TENANT}/v2.0"), "ver": "2.0", "tid": TENANT,
            "aud": AUDIENCE, "nbf": now_s, "exp": now_s + 60, "azp": "c",
        });
        signed(&json!({"alg": "RS256", "kid": kid}), &claims, key)
    }

    async fn verify(&self, kid: &str, key: usize) -> Result<String, &'static str> {
        let trust = self.catalog.callers.as_ref().unwrap();
        match self.tokens.verify(&self.token(kid, key), trust).await {
            Ok(identity) => Ok(identity.client_id),
            Err(TokenRefusal::Distrusted(Distrust::UnknownKey)) => Err("unknown key"),
            Err(TokenRefusal::Distrusted(Distrust::Signature)) => Err("signature"),
            Err(TokenRefusal::Unavailable(_)) => Err("unavailable"),
            Err(other) => panic!("{other}"),
        }
    }

    /// What goes on behind the requests, to its end.
    async fn settle(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.tasks.reopen();
    }

    fn says(&self, says: Result<Vec<Value>, &str>) {
        *self.list.says.lock().unwrap() = says.map_err(str::to_owned);
    }

    fn asked(&self) -> u64 {
        self.list.asked.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn a_hundred_callers_of_a_cold_gateway_wait_for_one_question() {
    let bench = Bench::new();
    let held = bench.list.gate.acquire_many(1_000).await.unwrap();
    let all = futures_util::future::join_all((0..100).map(|_| bench.verify("k0", 0)));
    let (verified, ()) = tokio::join!(all, async {
        while bench.asked() == 0 {
            tokio::task::yield_now().await;
        }
        drop(held);
    });
    assert!(verified.iter().all(Result::is_ok));
    assert_eq!(bench.asked(), 1);
}

#[tokio::test]
async fn unknown_keys_are_asked_for_once_in_five_minutes() {
    let bench = Bench::new();
    for n in 0..50 {
        assert_eq!(bench.verify(&format!("unknown-{n}"), 0).await, Err("unknown key"));
    }
    assert_eq!(bench.asked(), 1);
    assert!(bench.verify("k0", 0).await.is_ok(), "a flood keeps nobody out");
    bench.clock.advance(5 * MINUTE);
    for _ in 0..50 {
        assert_eq!(bench.verify("unknown", 0).await, Err("unknown key"));
    }
    assert_eq!(bench.asked(), 2);
}

#[tokio::test]
async fn a_new_key_is_taken_up_and_an_old_one_dropped() {
    let bench = Bench::new();
    assert!(bench.verify("k0", 0).await.is_ok());
    bench.says(Ok(vec![jwk(1, "k1")]));
    bench.clock.advance(5 * MINUTE);
    assert!(bench.verify("k1", 1).await.is_ok(), "an unknown key is looked up");
    assert_eq!(bench.verify("k0", 0).await, Err("unknown key"));
    assert_eq!(bench.asked(), 2);
}

#[tokio::test]
async fn known_keys_are_looked_at_again_behind_the_requests() {
    let bench = Bench::new();
    assert!(bench.verify("k0", 0).await.is_ok());
    bench.says(Ok(vec![jwk(1, "k0")]));
    bench.clock.advance(59 * MINUTE);
    assert!(bench.verify("k0", 0).await.is_ok());
    bench.settle().await;
    assert_eq!(bench.asked(), 1);
    bench.clock.advance(MINUTE);
    let held = bench.list.gate.acquire_many(1_000).await.unwrap();
    for _ in 0..10 {
        assert!(bench.verify("k0", 0).await.is_ok(), "nobody waits for it");
    }
    drop(held);
    bench.settle().await;
    assert_eq!(bench.asked(), 2);
    assert_eq!(bench.verify("k0", 0).await, Err("signature"), "the key was replaced");
    assert!(bench.verify("k0", 1).await.is_ok());
}

#[tokio::test]
async fn while_entra_is_away_known_keys_go_on_for_a_day_and_nobody_is_called_wrong() {
    let bench = Bench::new();
    assert!(bench.verify("k0", 0).await.is_ok());
    for failure in [Err("down"), Ok(vec![]), Ok(vec![json!({"kty": "EC"})])] {
        bench.says(failure);
        bench.clock.advance(5 * MINUTE);
        assert_eq!(bench.verify("unknown", 0).await, Err("unavailable"));
        assert!(bench.verify("k0", 0).await.is_ok());
    }
    let asked = bench.asked();
    for _ in 0..50 {
        assert_eq!(bench.verify("unknown", 0).await, Err("unavailable"));
    }
    assert_eq!(bench.asked(), asked, "a flood is no flood at Entra");
    bench.clock.advance(23 * 60 * MINUTE);
    assert!(bench.verify("k0", 0).await.is_ok());
    bench.settle().await;
    bench.clock.advance(60 * MINUTE);
    assert_eq!(bench.verify("k0", 0).await, Err("unavailable"));
    bench.says(Ok(vec![jwk(0, "k0")]));
    bench.clock.advance(Duration::from_secs(1));
    assert!(bench.verify("k0", 0).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn entra_that_never_answers_holds_up_nobody_for_longer_than_five_seconds() {
    let bench = Bench::new();
    let held = bench.list.gate.acquire_many(1_000).await.unwrap();
    let began = tokio::time::Instant::now();
    assert_eq!(bench.verify("k0", 0).await, Err("unavailable"));
    assert_eq!(began.elapsed().as_secs(), 5);
    drop(held);
    assert_eq!(bench.verify("k0", 0).await, Err("unavailable"), "those who come next are not held up at all");
    bench.clock.advance(Duration::from_secs(1));
    assert!(bench.verify("k0", 0).await.is_ok());
}

#[tokio::test]
async fn a_caller_whose_key_cannot_be_looked_up_is_told_to_come_again() {
    let rig = Rig::start().await;
    for says in [
        Says::Status(500),
        Says::Status(429),
        Says::Text("<html>".to_owned()),
        Says::Text("x".repeat(2 * 1024 * 1024)),
    ] {
        // Each of its own: a failure answers those who come in the second after it.
        let rig = Rig::start().await;
        rig.issuer.says(says);
        let answer = rig.chat(&rig.token()).await;
        assert_eq!((answer.status, answer.code().as_str()), (503, "gateway_unavailable"), "{}", answer.body);
        assert_eq!(answer.header("retry-after"), "1");
        // A key in another header serves all the same.
        let bearer = format!("Bearer {}", rig.token());
        let both = [("authorization", bearer.as_str()), ("api-key", rig.gateway.key.as_str())];
        assert_eq!(rig.chat_with(&both).await.status, 200);
    }
    assert_eq!(rig.chat(&rig.token()).await.status, 200);
    rig.issuer.says(Says::Hangs);
    assert_eq!(rig.chat(&rig.token()).await.status, 200, "a known key needs nobody");
}
