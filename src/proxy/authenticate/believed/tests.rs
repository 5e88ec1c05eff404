use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::domain::ids::Name;
use crate::domain::units::UnixMillis;

/// Time that a test sets.
#[derive(Default)]
struct SetClock(Mutex<Duration>);

impl SetClock {
    fn advance(&self, by: Duration) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for SetClock {
    fn now(&self) -> UnixMillis {
        UnixMillis(0)
    }

    fn elapsed(&self) -> Duration {
        *self.0.lock().unwrap()
    }
}

/// A store that counts its looks and may be down.
struct Store {
    clock: Arc<SetClock>,
    believed: Believed<u8>,
    looks: AtomicU64,
    says: Mutex<Says>,
}

#[derive(Clone, Copy, PartialEq)]
enum Says {
    Itself,
    Nobody,
    Down,
    Nothing,
}

impl Store {
    fn new() -> Self {
        let clock = Arc::new(SetClock::default());
        let believed = Believed::with_room_for(10, clock.clone());
        Self { clock, believed, looks: AtomicU64::new(0), says: Mutex::new(Says::Itself) }
    }

    fn says(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn advance(&self, seconds: u64) {
        self.clock.advance(Duration::from_secs(seconds));
    }

    async fn look(&self) -> Result<Option<Subscription>, Unavailable> {
        let number = self.looks.fetch_add(1, Ordering::SeqCst);
        let says = *self.says.lock().unwrap();
        match says {
            Says::Itself => Ok(Some(subscription(&number.to_string()))),
            Says::Nobody => Ok(None),
            Says::Down => Err(Unavailable { what: "the store", source: "down".into() }),
            Says::Nothing => std::future::pending().await,
        }
    }

    /// The number of the look that is believed; `None` for nobody.
    async fn get(&self, key: u8) -> Result<Option<String>, Unavailable> {
        let found = self.believed.get(&key, || self.look()).await?;
        Ok(found.map(|found| found.name.clone()))
    }

    async fn number(&self) -> String {
        self.get(1).await.unwrap().unwrap()
    }
}

fn subscription(name: &str) -> Subscription {
    serde_json::from_value(json!({
        "id": "sub-1", "name": name, "product": "p", "state": "active", "owner": null, "cost_center": null,
        "limits": {}, "notes": null, "tags": {}, "created_at": "2026-01-01T00:00:00Z", "expires_at": null,
        "last_used_at": null, "primary_key_hint": "aaaa", "secondary_key_hint": "bbbb",
    }))
    .unwrap()
}

fn id(text: &str) -> SubscriptionId {
    Name::new(text).unwrap()
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_believed_even_if_the_look_was_under_way() {
    let store = Store::new();
    let look = || async {
        if store.looks.load(Ordering::SeqCst) == 0 {
            store.believed.forget(&id("sub-1"));
        }
        store.look().await
    };
    let found = store.believed.get(&1, look).await.unwrap().unwrap();
    assert_eq!(found.name, "1");
    assert_eq!(store.number().await, "1");
    store.believed.forget(&id("sub-2"));
    assert_eq!(store.number().await, "1");
    store.believed.forget(&id("sub-1"));
    assert_eq!(store.number().await, "2");
}

#[tokio::test]
async fn more_changes_than_are_remembered_make_everything_be_read_again() {
    let store = Store::new();
    assert_eq!(store.number().await, "0");
    for number in 0..=MAX_CHANGES {
        store.believed.forget(&id(&format!("other-{number}")));
    }
    assert_eq!(store.number().await, "1");
    assert_eq!(store.number().await, "1");
}

#[tokio::test]
async fn a_failed_look_is_not_believed() {
    let store = Store::new();
    store.says(Says::Down);
    assert_eq!(store.get(1).await.unwrap_err().what, "the store");
    store.says(Says::Itself);
    assert_eq!(store.number().await, "1");
}

#[tokio::test]
async fn what_nobody_confirms_is_read_again_after_four_seconds_and_what_is_confirmed_after_minutes() {
    let store = Store::new();
    assert_eq!(store.number().await, "0");
    store.advance(3);
    assert_eq!(store.number().await, "0");
    store.advance(1);
    assert_eq!(store.number().await, "1");
    for _ in 0..90 {
        store.advance(3);
        store.believed.confirm(store.clock.elapsed());
        assert_eq!(store.number().await, "1");
    }
    store.advance(30);
    store.believed.confirm(store.clock.elapsed());
    assert_eq!(store.number().await, "2");
}

#[tokio::test]
async fn what_is_doubted_is_read_again_at_once_or_stands_in() {
    let store = Store::new();
    assert_eq!(store.number().await, "0");
    store.advance(100);
    store.believed.confirm(store.clock.elapsed());
    store.believed.doubt(store.clock.elapsed());
    store.says(Says::Down);
    assert_eq!(store.number().await, "0");
    store.says(Says::Itself);
    store.advance(5);
    store.believed.confirm(store.clock.elapsed());
    assert_eq!(store.number().await, "2");
    assert_eq!(store.number().await, "2");
}

#[tokio::test]
async fn while_the_store_is_down_the_known_go_on_for_ten_minutes_and_the_unknown_do_not() {
    let store = Store::new();
    assert_eq!(store.number().await, "0");
    store.says(Says::Nobody);
    assert_eq!(store.get(2).await.unwrap(), None);
    store.says(Says::Down);
    for _ in 0..119 {
        store.advance(5);
        assert_eq!(store.number().await, "0");
        // It may have been issued meanwhile.
        assert!(store.get(2).await.is_err());
        assert!(store.get(3).await.is_err());
    }
    store.advance(5);
    assert!(store.get(1).await.is_err());
    store.says(Says::Itself);
    assert!(store.get(1).await.unwrap().is_some());
}

#[tokio::test]
async fn what_has_changed_never_stands_in() {
    let store = Store::new();
    assert_eq!(store.number().await, "0");
    store.says(Says::Down);
    store.advance(5);
    assert_eq!(store.number().await, "0");
    store.believed.forget(&id("sub-1"));
    assert!(store.get(1).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_waited_for_by_one_call_in_five_seconds() {
    let store = Store::new();
    assert_eq!(store.number().await, "0");
    store.says(Says::Nothing);
    store.advance(5);
    let began = tokio::time::Instant::now();
    for _ in 0..100 {
        assert_eq!(store.number().await, "0");
    }
    assert_eq!(began.elapsed(), PATIENCE);
    // Once others have seen that it answers again, it is asked at once.
    store.says(Says::Itself);
    store.believed.confirm(store.clock.elapsed());
    store.advance(5);
    assert_eq!(store.number().await, "2");
}
