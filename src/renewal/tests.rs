use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;

use super::*;
use crate::config::catalog::Backend;
use crate::domain::units::UnixMillis;
use crate::ports::{BackendFailure, BackendReply, Call};

/// The clock of a test that moves tokio's.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> UnixMillis {
        UnixMillis(i64::try_from(self.elapsed().as_millis()).unwrap())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[derive(Clone, Debug)]
enum Says {
    Value(&'static str),
    Nothing,
    Forbidden,
    Down(Option<u64>),
    Hangs,
}

/// A vault that says what a test told it to say.
#[derive(Default)]
struct Vault {
    says: Mutex<BTreeMap<String, Says>>,
    reads: AtomicUsize,
    /// When the configuration was asked for.
    asked_at: Mutex<Vec<Instant>>,
}

impl Vault {
    fn says(&self, name: &str, what: Says) {
        self.says.lock().unwrap().insert(name.to_owned(), what);
    }
}

#[async_trait]
impl Secrets for Vault {
    async fn read(&self, name: &str) -> Result<Option<Secret>, SecretFailure> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if name == "tollgate-config" {
            self.asked_at.lock().unwrap().push(Instant::now());
        }
        let says = self.says.lock().unwrap().get(name).cloned().unwrap_or(Says::Nothing);
        let down = |after: Option<u64>| SecretFailure::Unavailable {
            what: "Key Vault",
            retry_after: after.map(Duration::from_secs),
            source: "503".into(),
        };
        match says {
            // Its version is what it says, as each version of a secret is another one.
            Says::Value(value) => Ok(Some(Secret { value: value.into(), version: Some(value.to_owned()) })),
            Says::Nothing => Ok(None),
            Says::Forbidden => Err(SecretFailure::Refused("give it the role".to_owned())),
            Says::Down(after) => Err(down(after)),
            Says::Hangs => {
                tokio::time::sleep(Duration::from_secs(10)).await;
                Err(down(None))
            }
        }
    }
}

/// Backends that are prepared, and never asked.
#[derive(Default)]
struct Prepared(AtomicUsize);

#[async_trait]
impl Backends for Prepared {
    async fn send(&self, _call: Call<'_>) -> Result<BackendReply, BackendFailure> {
        unreachable!("a renewal asks no backend")
    }

    async fn renew_sign_in(&self, _backend: &Backend) -> bool {
        unreachable!("a renewal asks no backend")
    }

    async fn prepare(&self, _catalog: &Catalog) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

struct Rig {
    vault: Arc<Vault>,
    config: Arc<Live>,
    backends: Arc<Prepared>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

const FIRST: &str = r#"{"backends": [{"name": "first", "endpoint": "https://first.openai.azure.com"}]}"#;
const KEYED: &str = r#"{"backends": [{"name": "keyed", "endpoint": "https://keyed.openai.azure.com",
    "auth": {"kind": "api_key", "secret": "key-one"}}]}"#;
const LITERAL: &str = r#"{"backends": [{"name": "x", "endpoint": "https://x.openai.azure.com", "weight": 0,
    "auth": {"kind": "api_key", "value": "hush"}}]}"#;

/// Begins to keep up with a vault that says this of the configuration.
fn start(says: Says) -> Rig {
    let rig = prepare(Live::default());
    rig.vault.says("tollgate-config", says);
    rig.keep_up(Some(Place { secret: "tollgate-config".to_owned(), shown: "the vault".to_owned() }));
    rig
}

fn prepare(config: Live) -> Rig {
    Rig {
        vault: Arc::default(),
        config: Arc::new(config),
        backends: Arc::default(),
        stop: CancellationToken::new(),
        tasks: TaskTracker::new(),
    }
}

impl Rig {
    fn keep_up(&self, place: Option<Place>) {
        let renewal = Renewal {
            config: self.config.clone(),
            clock: Arc::new(Paused(Instant::now())),
            secrets: self.vault.clone(),
            backends: self.backends.clone(),
            tasks: self.tasks.clone(),
            place,
        };
        self.tasks.spawn(renewal.keep_up(self.stop.clone()));
    }

    fn holds(&self) -> Option<String> {
        Some(self.config.catalog().ok()?.backends[0].name.to_string())
    }

    fn secret(&self, name: &str) -> Option<String> {
        Some(self.config.secret(name).ok()?.expose_secret().to_owned())
    }

    fn trouble(&self) -> Option<Cause> {
        Some(self.config.standing().trouble?.cause)
    }
}

async fn wait(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_holds_within_a_minute_whole_and_its_tokens_are_got() {
    let rig = start(Says::Value(FIRST));
    wait(1).await;
    assert_eq!((rig.holds().as_deref(), rig.trouble()), (Some("first"), None));
    assert_eq!(rig.config.standing().version.as_deref(), Some(FIRST));
    let under_way = rig.config.catalog().unwrap();
    rig.vault.says("key-one", Says::Value("k1"));
    rig.vault.says("tollgate-config", Says::Value(KEYED));
    wait(30).await;
    assert_eq!((rig.holds().as_deref(), rig.secret("key-one").as_deref()), (Some("keyed"), Some("k1")));
    assert_eq!(under_way.backends[0].name.as_str(), "first", "a request keeps what it began with");
    // Once with nothing, once for each that holds.
    assert_eq!(rig.backends.0.load(Ordering::SeqCst), 2);
}

#[tokio::test(start_paused = true)]
async fn a_faulty_one_is_refused_whole_and_the_last_good_one_stays() {
    let rig = start(Says::Value(FIRST));
    wait(1).await;
    rig.vault.says("tollgate-config", Says::Value(LITERAL));
    wait(30).await;
    assert_eq!(rig.holds().as_deref(), Some("first"));
    let Some(Cause::Faulty { version, faults }) = rig.trouble() else { panic!("{:?}", rig.trouble()) };
    assert_eq!(version.as_deref(), Some(LITERAL));
    let told = faults.to_string();
    assert!(told.contains("backends[0].weight") && told.contains("backends[0].auth.value"), "{told}");
    assert!(!told.contains("hush"), "{told}");
    // Out of reach for a while, and back: it is as faulty as before.
    rig.vault.says("tollgate-config", Says::Down(None));
    wait(60).await;
    assert!(matches!(rig.trouble(), Some(Cause::Unreadable(_))), "{:?}", rig.trouble());
    rig.vault.says("tollgate-config", Says::Value(LITERAL));
    wait(30).await;
    assert!(matches!(rig.trouble(), Some(Cause::Faulty { .. })), "{:?}", rig.trouble());
    rig.vault.says("tollgate-config", Says::Value(KEYED));
    wait(30).await;
    assert_eq!((rig.holds().as_deref(), rig.trouble()), (Some("keyed"), None));
}

#[tokio::test(start_paused = true)]
async fn trouble_lasts_from_when_it_was_met_first() {
    let rig = start(Says::Forbidden);
    wait(200).await;
    let standing = rig.config.standing();
    assert_eq!((rig.holds(), standing.source.as_str()), (None, "the vault"));
    let trouble = standing.trouble.unwrap();
    assert_eq!(
        (trouble.since, trouble.cause),
        (UnixMillis(0), Cause::Unreadable("give it the role".to_owned()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_is_down_is_tried_soon_and_then_every_half_minute() {
    let rig = start(Says::Down(None));
    wait(100).await;
    let asked = rig.vault.asked_at.lock().unwrap().clone();
    let pauses: Vec<_> = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    rig.vault.says("tollgate-config", Says::Value(FIRST));
    wait(30).await;
    assert_eq!((rig.holds().as_deref(), rig.trouble()), (Some("first"), None));
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_says_when_to_come_again_is_left_alone_until_then() {
    let rig = start(Says::Down(Some(7)));
    wait(20).await;
    let asked = rig.vault.asked_at.lock().unwrap().clone();
    let pauses: Vec<_> = asked.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(pauses, [7, 7]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_configuration_is_told_with_the_command_that_writes_it() {
    let rig = start(Says::Nothing);
    wait(1).await;
    let Some(Cause::Unreadable(why)) = rig.trouble() else { panic!("{:?}", rig.trouble()) };
    assert!(why.contains("az keyvault secret set --name tollgate-config"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn secrets_are_read_again_and_stay_while_the_vault_is_down() {
    let rig = start(Says::Value(KEYED));
    rig.vault.says("key-one", Says::Value("k1"));
    wait(1).await;
    assert_eq!(rig.secret("key-one").as_deref(), Some("k1"));
    rig.vault.says("key-one", Says::Value("k2"));
    wait(30).await;
    assert_eq!(rig.secret("key-one").as_deref(), Some("k2"));
    for down in [Says::Down(None), Says::Forbidden, Says::Hangs] {
        rig.vault.says("key-one", down);
        wait(60).await;
        assert_eq!(rig.secret("key-one").as_deref(), Some("k2"));
    }
    rig.vault.says("key-one", Says::Nothing);
    wait(60).await;
    assert_eq!((rig.secret("key-one"), rig.holds().as_deref()), (None, Some("keyed")), "its backend alone");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_a_backend_refused_is_looked_at_soon_but_not_for_each_request() {
    let rig = start(Says::Value(KEYED));
    rig.vault.says("key-one", Says::Value("k1"));
    wait(1).await;
    rig.vault.says("key-one", Says::Value("k2"));
    let before = rig.vault.reads.load(Ordering::SeqCst);
    for _ in 0..100 {
        rig.config.call_for_a_look();
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert_eq!(rig.secret("key-one").as_deref(), Some("k2"));
    assert_eq!(rig.vault.reads.load(Ordering::SeqCst) - before, 2, "one look");
}

#[tokio::test(start_paused = true)]
async fn a_files_configuration_stays_and_its_secrets_come_from_the_vault() {
    let catalog = Catalog::parse(KEYED, "a file").unwrap();
    let rig = prepare(Live::holding(catalog, "a file", UnixMillis(0)));
    rig.vault.says("key-one", Says::Value("k1"));
    rig.vault.says("tollgate-config", Says::Value(FIRST));
    rig.keep_up(None);
    wait(90).await;
    assert_eq!((rig.holds().as_deref(), rig.secret("key-one").as_deref()), (Some("keyed"), Some("k1")));
    assert!(rig.vault.asked_at.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_vault_to_look_at_nothing_is_looked_at_and_it_ends_with_the_gateway() {
    let catalog = Catalog::parse(FIRST, "a file").unwrap();
    let rig = prepare(Live::holding(catalog, "a file", UnixMillis(0)));
    rig.keep_up(None);
    rig.tasks.close();
    rig.tasks.wait().await;
    let rig = start(Says::Hangs);
    wait(1).await;
    rig.stop.cancel();
    rig.tasks.close();
    rig.tasks.wait().await;
}
