use std::collections::VecDeque;
use std::sync::Mutex;

use async_trait::async_trait;
use serde_json::json;
use tokio::sync::Semaphore;

use super::*;
use crate::ports::Undelivered;

mod leftovers;

fn event(number: u64) -> UsageEvent {
    serde_json::from_value(json!({
        "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
        "time": "2026-11-21T09:00:00.123Z", "subscription_id": "s", "product": "p",
        "operation": "chat.completions", "deployment": "d", "backend": "b", "status": 200,
        "outcome": "completed", "usage": {"source": "reported", "input_tokens": 1, "output_tokens": number},
    }))
    .unwrap()
}

/// How a batch is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Says {
    Takes,
    TakesAfter(Duration),
    /// When the test says so.
    Waits,
    Hangs,
    Busy(Option<Duration>),
    Refuses,
    TakesAllButOdd,
}

struct Hub {
    next: Mutex<VecDeque<Says>>,
    then: Mutex<Says>,
    calls: Mutex<Vec<(Instant, Vec<u64>)>>,
    took: Mutex<Vec<u64>>,
    go: Semaphore,
}

#[async_trait]
impl UsageDestination for Hub {
    fn name(&self) -> &'static str {
        "the hub"
    }

    async fn send(&self, events: &[UsageEvent]) -> Result<Vec<UsageEvent>, Undelivered> {
        let numbers: Vec<u64> = events.iter().map(|event| event.usage.output_tokens).collect();
        self.calls.lock().unwrap().push((Instant::now(), numbers.clone()));
        let says = self.next.lock().unwrap().pop_front().unwrap_or(*self.then.lock().unwrap());
        match says {
            Says::Takes => {}
            Says::TakesAfter(pause) => tokio::time::sleep(pause).await,
            Says::Waits => self.go.acquire().await.unwrap().forget(),
            Says::Hangs => std::future::pending().await,
            Says::Busy(retry_after) => {
                let source = "busy".into();
                return Err(Undelivered::Unavailable { what: "the hub", retry_after, source });
            }
            Says::Refuses => return Err(Undelivered::Refused("the role is missing".to_owned())),
            Says::TakesAllButOdd => {
                let (odd, even): (Vec<_>, Vec<_>) =
                    events.iter().cloned().partition(|event| event.usage.output_tokens % 2 == 1);
                self.took.lock().unwrap().extend(even.iter().map(|event| event.usage.output_tokens));
                return Ok(odd);
            }
        }
        self.took.lock().unwrap().extend(numbers);
        Ok(Vec::new())
    }
}

struct Rig {
    hub: Arc<Hub>,
    publisher: Option<Publisher>,
    tasks: TaskTracker,
    folder: tempfile::TempDir,
}

impl Rig {
    async fn start(then: Says) -> Self {
        Self::start_with(then, AT_ONCE).await
    }

    async fn start_with(then: Says, at_once: AtOnce) -> Self {
        let rig = Self::of(then, at_once, Spool::new);
        // The look for what an earlier process left is over.
        tokio::time::sleep(Duration::from_millis(10)).await;
        rig
    }

    fn with(then: Says, spool: impl FnOnce(&std::path::Path) -> Spool) -> Self {
        Self::of(then, AT_ONCE, spool)
    }

    fn of(then: Says, at_once: AtOnce, spool: impl FnOnce(&std::path::Path) -> Spool) -> Self {
        let hub = Arc::new(Hub {
            next: Mutex::default(),
            then: Mutex::new(then),
            calls: Mutex::default(),
            took: Mutex::default(),
            go: Semaphore::new(0),
        });
        let (folder, tasks) = (tempfile::tempdir().unwrap(), TaskTracker::new());
        let destination = Arc::clone(&hub) as Arc<dyn UsageDestination>;
        let publisher = Some(Publisher::start(destination, at_once, spool(folder.path()), &tasks));
        Self { hub, publisher, tasks, folder }
    }

    fn record(&self, number: u64) -> Receipt {
        self.publisher.as_ref().unwrap().record(event(number))
    }

    fn standing(&self) -> Standing {
        self.publisher.as_ref().unwrap().standing()
    }

    fn says(&self, says: Says) {
        *self.hub.then.lock().unwrap() = says;
    }

    fn calls(&self) -> Vec<Vec<u64>> {
        self.hub.calls.lock().unwrap().iter().map(|(_, numbers)| numbers.clone()).collect()
    }

    fn took(&self) -> Vec<u64> {
        self.hub.took.lock().unwrap().clone()
    }

    async fn until(&self, standing: Standing) {
        let reached = async {
            while self.standing() != standing {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_mins(2), reached).await;
        reached.unwrap_or_else(|_| panic!("it stays {:?} and never comes to {standing:?}", self.standing()));
    }

    async fn until_calls(&self, count: usize) {
        while self.hub.calls.lock().unwrap().len() < count {
            tokio::task::yield_now().await;
        }
    }

    async fn until_took(&self, count: usize) {
        let took = async {
            while self.took().len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let took = tokio::time::timeout(Duration::from_mins(10), took).await;
        took.unwrap_or_else(|_| panic!("it took {:?}", self.took()));
    }

    /// How many parts the spool has.
    fn parts(&self) -> usize {
        let files = std::fs::read_dir(self.folder.path().join("spool")).unwrap();
        files.filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with("taken")).count()
    }

    /// The lines of a file of the spool.
    fn lines(&self, name: &str) -> usize {
        let text = std::fs::read_to_string(self.folder.path().join("spool").join(name));
        text.unwrap_or_default().lines().filter(|line| !line.is_empty()).count()
    }
}

const AT_ONCE: AtOnce = AtOnce { always: 4, when_many_wait: 4 };

#[tokio::test(start_paused = true)]
async fn a_receipt_comes_with_the_acknowledgement_and_all_that_waits_shares_the_next_batch() {
    let rig = Rig::start(Says::Waits).await;
    let mut first = Vec::new();
    for number in 0..4 {
        first.push(rig.record(number));
        rig.until_calls(first.len()).await;
    }
    let rest: Vec<_> = (4..104).map(|number| rig.record(number)).collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(rig.calls().len(), 4, "no more than four are under way");
    let mut one = pending(first.pop().unwrap()).await;
    rig.hub.go.add_permits(4);
    one.as_mut().await.unwrap();
    for receipt in first {
        receipt.await.unwrap();
    }
    rig.until_calls(5).await;
    rig.hub.go.add_permits(1);
    for receipt in rest {
        receipt.await.unwrap();
    }
    assert_eq!(rig.calls()[4], (4..104).collect::<Vec<_>>());
    assert_eq!((rig.calls().len(), rig.standing()), (5, Standing::Flowing));
    assert!(!rig.folder.path().join("spool").exists(), "nothing was ever written to the disk");
}

/// A receipt that is not there yet.
async fn pending(mut receipt: Receipt) -> Receipt {
    let early = tokio::time::timeout(Duration::from_millis(10), receipt.as_mut()).await;
    assert!(early.is_err(), "the receipt came before the acknowledgement");
    receipt
}

#[tokio::test(start_paused = true)]
async fn a_silent_hub_costs_a_reply_two_seconds_and_those_that_follow_none() {
    let rig = Rig::start(Says::Hangs).await;
    let begun = Instant::now();
    rig.record(0).await.unwrap();
    assert_eq!(begun.elapsed().as_secs(), 2);
    for number in 1..20 {
        rig.record(number).await.unwrap();
    }
    assert_eq!((begun.elapsed().as_secs(), rig.standing()), (2, Standing::Spooling));
    rig.says(Says::Takes);
    rig.until(Standing::Flowing).await;
    assert_eq!(rig.took(), (0..20).collect::<Vec<_>>(), "oldest first");
    let calls = rig.calls().len();
    rig.record(20).await.unwrap();
    assert_eq!((rig.took().len(), rig.calls().len()), (21, calls + 1), "it does not go through the spool");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_waited_for_its_turn_has_waited_two_seconds_in_all() {
    let rig = Rig::start(Says::Hangs).await;
    let begun = Instant::now();
    let mut all: Vec<_> = (0..4).map(|number| rig.record(number)).collect();
    rig.until_calls(1).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    all.extend((4..40).map(|number| rig.record(number)));
    for receipt in all {
        receipt.await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_millis(3_600), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn one_failure_that_may_pass_is_not_noticed() {
    let rig = Rig::start(Says::Takes).await;
    rig.hub.next.lock().unwrap().push_back(Says::Busy(None));
    rig.record(1).await.unwrap();
    assert_eq!((rig.calls().len(), rig.took(), rig.standing()), (2, vec![1], Standing::Flowing));
    assert!(!rig.folder.path().join("spool").exists());
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_must_mend_is_not_waited_for() {
    let rig = Rig::start(Says::Refuses).await;
    let begun = Instant::now();
    rig.record(1).await.unwrap();
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert_eq!((rig.standing(), rig.lines("waiting.jsonl")), (Standing::Spooling, 1));
    rig.says(Says::Takes);
    rig.until(Standing::Flowing).await;
    assert_eq!(rig.took(), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_asks_to_be_left_alone_is() {
    let rig = Rig::start(Says::Busy(Some(Duration::from_secs(30)))).await;
    rig.record(1).await.unwrap();
    tokio::time::sleep(Duration::from_secs(29)).await;
    assert_eq!(rig.calls().len(), 1);
    rig.says(Says::Takes);
    rig.until(Standing::Flowing).await;
    assert_eq!((rig.calls().len(), rig.took()), (2, vec![1]));
}

#[tokio::test(start_paused = true)]
async fn a_hub_that_is_down_is_asked_ever_more_rarely() {
    let rig = Rig::start(Says::Refuses).await;
    rig.record(1).await.unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let begun = rig.hub.calls.lock().unwrap()[0].0;
    let at: Vec<_> =
        rig.hub.calls.lock().unwrap().iter().map(|(at, _)| at.duration_since(begun).as_secs()).collect();
    assert_eq!(at, [0, 1, 2, 4, 8, 16, 26, 36, 46, 56]);
}

#[tokio::test(start_paused = true)]
async fn replies_do_not_wait_for_a_hub_that_is_too_slow_for_them() {
    let rig = Rig::start(Says::TakesAfter(Duration::from_secs(3))).await;
    rig.record(0).await.unwrap();
    for number in 1..5 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let begun = Instant::now();
        rig.record(number).await.unwrap();
        assert!(begun.elapsed() < Duration::from_millis(100), "{:?}", begun.elapsed());
    }
    rig.until(Standing::Flowing).await;
    assert_eq!(rig.took(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_process_left_is_sent_at_the_start() {
    let rig = Rig::with(Says::Takes, |folder| {
        let spool = Spool::new(folder);
        for some in (0..1_000).collect::<Vec<_>>().chunks(100) {
            spool.keep(&some.iter().copied().map(event).collect::<Vec<_>>()).unwrap();
        }
        spool
    });
    while rig.took().len() < 1_000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    rig.until(Standing::Flowing).await;
    assert_eq!(rig.took(), (0..1_000).collect::<Vec<_>>());
    assert!(rig.calls().iter().all(|numbers| numbers.len() <= BATCH));
}

#[tokio::test(start_paused = true)]
async fn what_nothing_takes_is_held_and_no_request_may_begin() {
    let rig = Rig::with(Says::Refuses, |folder| Spool::of_at_most(folder, 1_000));
    for number in 0..2 {
        rig.record(number).await.unwrap();
    }
    let error = rig.record(2).await.unwrap_err();
    assert_eq!(error.what, "the spool");
    rig.until(Standing::Full).await;
    rig.says(Says::Takes);
    rig.until(Standing::Flowing).await;
    let mut took = rig.took();
    took.sort_unstable();
    assert_eq!(took, [0, 1, 2]);
    rig.record(3).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_takes_events_again_is_enough_to_go_on() {
    let rig = Rig::with(Says::Refuses, |folder| {
        std::fs::write(folder.join("spool"), "in the way").unwrap();
        Spool::new(folder)
    });
    rig.record(1).await.unwrap_err();
    rig.until(Standing::Full).await;
    std::fs::remove_file(rig.folder.path().join("spool")).unwrap();
    rig.until(Standing::Spooling).await;
    assert_eq!(rig.lines("waiting.jsonl"), 1);
}

#[tokio::test(start_paused = true)]
async fn what_will_never_be_taken_is_put_aside_and_not_in_the_way() {
    let rig = Rig::start(Says::TakesAllButOdd).await;
    let receipts: Vec<_> = (0..10).map(|number| rig.record(number)).collect();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!((rig.took().len(), rig.lines("rejected.jsonl"), rig.standing()), (5, 5, Standing::Flowing));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_process_leaves_nothing_in_memory() {
    for says in [Says::Hangs, Says::Refuses, Says::Takes] {
        let mut rig = Rig::start(says).await;
        let receipts: Vec<_> = (0..1_000).map(|number| rig.record(number)).collect();
        rig.until_calls(1).await;
        let begun = Instant::now();
        rig.publisher = None;
        rig.tasks.close();
        rig.tasks.wait().await;
        assert!(begun.elapsed() < Duration::from_secs(1), "{says:?}: {:?}", begun.elapsed());
        for receipt in receipts {
            receipt.await.unwrap();
        }
        let spool = Spool::new(rig.folder.path());
        let mut kept = 0;
        while let Some(mut part) = spool.oldest(&std::collections::BTreeSet::new()).unwrap() {
            kept += part.read(usize::MAX).unwrap().events.len();
            part.delivered().unwrap();
        }
        assert_eq!(rig.took().len() + kept, 1_000, "{says:?}");
    }
}
