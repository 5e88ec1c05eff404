//! What knowing a caller costs: no look-up for a known key, one for an unknown one, none for what cannot be one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tollgate::domain::audit::{Author, Record};
use tollgate::domain::ids::SubscriptionId;
use tollgate::domain::key::{self, KeyHash};
use tollgate::domain::subscription::{Change, Subscription};
use tollgate::domain::units::UnixMillis;
use tollgate::ports::{AuditQuery, Changed, Created, ListQuery, New, Once, Subscriptions, Unavailable};
use tollgate::proxy::Keys;

use crate::support::TestGateway;

/// A store that counts its look-ups by key.
struct Counting {
    store: Arc<dyn Subscriptions>,
    looks: AtomicU64,
}

impl Counting {
    fn looks(&self) -> u64 {
        self.looks.swap(0, Ordering::SeqCst)
    }
}

#[async_trait]
impl Subscriptions for Counting {
    async fn by_key(&self, key: &KeyHash) -> Result<Option<Subscription>, Unavailable> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        self.store.by_key(key).await
    }

    async fn find(&self, id: &SubscriptionId) -> Result<Option<Subscription>, Unavailable> {
        self.store.find(id).await
    }

    async fn list(&self, query: &ListQuery) -> Result<Vec<Subscription>, Unavailable> {
        self.store.list(query).await
    }

    async fn create(&self, new: &New<'_>, author: &Author) -> Result<Created, Unavailable> {
        self.store.create(new, author).await
    }

    async fn asked_before(&self, once: &Once) -> Result<Option<Created>, Unavailable> {
        self.store.asked_before(once).await
    }

    async fn forget_requests(&self, before: UnixMillis) -> Result<u64, Unavailable> {
        self.store.forget_requests(before).await
    }

    async fn change(
        &self,
        id: &SubscriptionId,
        change: &Change,
        author: &Author,
    ) -> Result<Changed, Unavailable> {
        self.store.change(id, change, author).await
    }

    async fn touch(&self, uses: &[(SubscriptionId, UnixMillis)]) -> Result<(), Unavailable> {
        self.store.touch(uses).await
    }

    async fn audit(&self, query: &AuditQuery) -> Result<Vec<Record>, Unavailable> {
        self.store.audit(query).await
    }
}

fn counting(gateway: &TestGateway) -> (Arc<Counting>, Keys) {
    let issuing = &gateway.app.issuing;
    let store = Arc::new(Counting { store: Arc::clone(&issuing.store), looks: AtomicU64::new(0) });
    (Arc::clone(&store), Keys::new(issuing.hasher.clone(), store, Arc::clone(&gateway.app.proxy.clock)))
}

#[tokio::test]
async fn the_store_is_asked_once_for_a_key_however_many_callers_bring_it() {
    let gateway = TestGateway::start().await;
    let (store, keys) = counting(&gateway);
    let now = gateway.app.proxy.clock.now();
    let callers = (0..200).map(|_| keys.caller(&gateway.key, now));
    assert!(futures_util::future::join_all(callers).await.iter().all(Result::is_ok));
    assert_eq!(store.looks(), 1);
    let unknown = key::make().unwrap();
    let callers = (0..200).map(|_| keys.caller(unknown.expose_secret(), now));
    assert!(futures_util::future::join_all(callers).await.iter().all(Result::is_err));
    assert_eq!(store.looks(), 1);
}

#[tokio::test]
async fn what_cannot_be_a_key_is_never_looked_up() {
    let gateway = TestGateway::start().await;
    let (store, keys) = counting(&gateway);
    let now = gateway.app.proxy.clock.now();
    let typo = format!("{}x", &gateway.key[..gateway.key.len() - 1]);
    let long = "a".repeat(100_000);
    for junk in ["sk-placeholder", "EMPTY", "null", typo.as_str(), &long, "ä", "0123456789abcdef"] {
        assert!(keys.caller(junk, now).await.is_err());
    }
    assert_eq!(store.looks(), 0);
}

#[tokio::test]
async fn a_flood_of_unknown_keys_does_not_drive_out_the_known_one() {
    let gateway = TestGateway::start().await;
    let (store, keys) = counting(&gateway);
    let now = gateway.app.proxy.clock.now();
    // A caller that calls is known for more than one reason.
    for _ in 0..50 {
        assert!(keys.caller(&gateway.key, now).await.is_ok());
    }
    assert_eq!(store.looks(), 1);
    for number in 0..2_000 {
        assert!(keys.caller(&format!("{number:032x}"), now).await.is_err());
        assert!(keys.caller(&gateway.key, now).await.is_ok());
    }
    // One for each unknown key, and a few for the known one, whose 4 s may have passed meanwhile.
    let looks = store.looks();
    assert!((2_000..2_100).contains(&looks), "{looks}");
}

/// Says how many callers one core knows in a second; 10,000 are wanted. Built with `--release` it says what counts.
#[tokio::test]
#[ignore = "needs a core for itself"]
#[expect(clippy::disallowed_methods, reason = "a measurement of the real time")]
async fn ten_thousand_callers_a_second_are_known_on_one_core() {
    const CALLS: u32 = 200_000;
    let gateway = TestGateway::start().await;
    let mut issued = Vec::new();
    for number in 0..100 {
        issued.push(gateway.issue(&json!({"name": format!("s{number}"), "product": "standard"})).await);
    }
    let catalog = gateway.app.proxy.catalog().unwrap();
    let headers: Vec<_> = issued
        .iter()
        .map(|key| http::HeaderMap::from_iter([("api-key".parse().unwrap(), key.parse().unwrap())]))
        .collect();
    let began = std::time::Instant::now();
    for call in 0..CALLS {
        let headers = &headers[call as usize % headers.len()];
        let now = gateway.app.proxy.clock.now();
        assert!(gateway.app.proxy.caller(&catalog, headers, None, now).await.is_ok());
    }
    let rate = f64::from(CALLS) / began.elapsed().as_secs_f64();
    println!("{rate:.0} callers a second are known on one core");
}
