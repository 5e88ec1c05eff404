//! What lies in the spool gets out of it, whatever is in its way.

use super::*;

fn append(folder: &std::path::Path, name: &str, text: &str) {
    use std::io::Write as _;
    let file = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("spool").join(name));
    file.unwrap().write_all(text.as_bytes()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_hub_gets_live_events_again_after_an_outage_and_the_spool_gets_empty_beside_them() {
    // How long it takes, and how many come every so many milliseconds.
    for (takes, events, every) in [(1_200, 50, 100), (1_200, 1, 2), (1_450, 1, 50)] {
        let takes = Duration::from_millis(takes);
        let rig = Rig::start_with(Says::Refuses, AtOnce { always: 4, when_many_wait: 16 }).await;
        let receipts: Vec<_> = (0..5_000).map(|number| rig.record(number)).collect();
        for receipt in receipts {
            receipt.await.unwrap();
        }
        rig.says(Says::TakesAfter(takes));
        let (mut number, mut standings) = (5_000, vec![Standing::Spooling]);
        let (begun, mut receipts) = (Instant::now(), Vec::new());
        while begun.elapsed() < Duration::from_secs(30) {
            receipts.extend((number..number + events).map(|number| rig.record(number)));
            number += events;
            tokio::time::sleep(Duration::from_millis(every)).await;
            standings.push(rig.standing());
        }
        standings.dedup();
        let [spooling, waiting, flowing] = [Standing::Spooling, Standing::Waiting, Standing::Flowing];
        assert_eq!(standings, [spooling, waiting, flowing], "{takes:?}, {events} every {every} ms");
        for receipt in receipts {
            receipt.await.unwrap();
        }
        let mut took = rig.took();
        took.sort_unstable();
        assert_eq!(took, (0..number).collect::<Vec<_>>());
    }
}

#[tokio::test(start_paused = true)]
async fn half_a_line_that_cannot_be_put_aside_costs_no_event_and_is_tried_again() {
    let rig = Rig::with(Says::Takes, |folder| {
        let spool = Spool::new(folder);
        spool.keep(&(0..400).map(event).collect::<Vec<_>>()).unwrap();
        append(folder, "waiting.jsonl", "{\"schema\":\"toll");
        spool.keep(&(400..800).map(event).collect::<Vec<_>>()).unwrap();
        std::fs::create_dir(folder.join("spool/rejected.jsonl")).unwrap();
        spool
    });
    rig.until_took(800).await;
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(
        (rig.standing(), rig.parts()),
        (Standing::Waiting, 1),
        "it is not gone before it is put aside"
    );
    std::fs::remove_dir(rig.folder.path().join("spool/rejected.jsonl")).unwrap();
    rig.until(Standing::Flowing).await;
    assert_eq!((rig.lines("rejected.jsonl"), rig.parts()), (1, 0));
    assert_eq!(rig.took(), (0..800).collect::<Vec<_>>(), "nothing was sent twice");
}

#[tokio::test(start_paused = true)]
async fn a_part_that_cannot_be_read_is_not_in_the_way_and_is_tried_again() {
    let rig = Rig::with(Says::Takes, |folder| {
        let spool = Spool::new(folder);
        spool.keep(&[event(0)]).unwrap();
        // It is opened and cannot be read.
        std::fs::create_dir(folder.join("spool/taken-0.jsonl")).unwrap();
        spool
    });
    rig.until_took(1).await;
    rig.until(Standing::Waiting).await;
    std::fs::remove_dir(rig.folder.path().join("spool/taken-0.jsonl")).unwrap();
    append(rig.folder.path(), "taken-0.jsonl", &serde_json::to_string(&event(1)).unwrap());
    rig.until(Standing::Flowing).await;
    assert_eq!(rig.took(), [0, 1]);
}

#[tokio::test(start_paused = true)]
async fn what_another_process_left_is_found_without_a_restart() {
    let rig = Rig::start(Says::Takes).await;
    rig.until(Standing::Flowing).await;
    Spool::new(rig.folder.path()).keep(&[event(0)]).unwrap();
    rig.until_took(1).await;
    assert_eq!(rig.took(), [0]);
}
