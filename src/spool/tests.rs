use serde_json::json;

use super::*;

fn event(number: u16) -> UsageEvent {
    serde_json::from_value(json!({
        "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
        "time": "2026-11-21T09:00:00.123Z", "subscription_id": "s", "product": "p",
        "operation": "chat.completions", "deployment": "d", "backend": "b", "status": 200,
        "outcome": "completed", "usage": {"source": "reported", "input_tokens": 1, "output_tokens": 2},
    }))
    .unwrap()
}

fn events(numbers: std::ops::Range<u16>) -> Vec<UsageEvent> {
    numbers.map(event).collect()
}

fn whole(part: &mut Part) -> Lines {
    part.read(usize::MAX).unwrap()
}

/// Delivers all that is there, and says what it was.
fn delivered(spool: &Spool) -> Vec<UsageEvent> {
    let mut all = Vec::new();
    while let Some(mut part) = spool.oldest(&BTreeSet::new()).unwrap() {
        all.extend(whole(&mut part).events);
        part.delivered().unwrap();
    }
    all
}

#[test]
fn what_waits_is_found_until_it_is_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(folder.path());
    assert_eq!(delivered(&spool), []);
    spool.keep(&events(1..3)).unwrap();
    for _ in 0..2 {
        let mut part = Spool::new(folder.path()).oldest(&BTreeSet::new()).unwrap().unwrap();
        assert_eq!(whole(&mut part).events, events(1..3));
    }
    spool.keep(&events(3..4)).unwrap();
    assert_eq!(delivered(&Spool::new(folder.path())), events(1..4));
    assert_eq!(delivered(&spool), []);
}

#[test]
fn a_line_that_was_cut_short_costs_no_other_and_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(folder.path());
    spool.keep(&events(1..2)).unwrap();
    let waiting = folder.path().join("spool").join(WAITING);
    OpenOptions::new().append(true).open(waiting).unwrap().write_all(b"{\"schema\":\"toll").unwrap();
    spool.keep(&events(2..3)).unwrap();
    let mut part = spool.oldest(&BTreeSet::new()).unwrap().unwrap();
    let lines = whole(&mut part);
    assert_eq!((lines.events, lines.unreadable.len()), (events(1..3), 1));
    spool.put_aside(&lines.unreadable).unwrap();
    let aside = std::fs::read_to_string(folder.path().join("spool").join(REJECTED)).unwrap();
    assert_eq!(aside.trim(), "{\"schema\":\"toll");
}

#[test]
fn a_part_is_one_processs_until_that_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Spool::new(folder.path()), Spool::new(folder.path()));
    one.keep(&events(1..2)).unwrap();
    let part = one.oldest(&BTreeSet::new()).unwrap().unwrap();
    one.keep(&events(2..3)).unwrap();
    let mut of_other = other.oldest(&BTreeSet::new()).unwrap().unwrap();
    assert_eq!(whole(&mut of_other).events, events(2..3));
    assert!(other.oldest(&BTreeSet::new()).unwrap().is_none());
    drop(part);
    let mut again = other.oldest(&BTreeSet::new()).unwrap().unwrap();
    assert_eq!(whole(&mut again).events, events(1..2));
}

#[test]
fn it_is_many_small_parts_read_piece_by_piece_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::new(folder.path());
    let all = events(0..6_000);
    for some in all.chunks(500) {
        spool.keep(some).unwrap();
    }
    let parts = std::fs::read_dir(folder.path().join("spool")).unwrap();
    let sizes: Vec<u64> = parts.map(|part| part.unwrap().metadata().unwrap().len()).collect();
    assert!(sizes.len() > 3 && sizes.iter().all(|bytes| *bytes <= PART_BYTES), "{sizes:?}");
    let mut found = Vec::new();
    while let Some(mut part) = spool.oldest(&BTreeSet::new()).unwrap() {
        loop {
            let lines = part.read(100).unwrap();
            if lines.is_empty() {
                break;
            }
            assert!(lines.events.len() <= 100);
            found.extend(lines.events);
        }
        part.delivered().unwrap();
    }
    assert!(found == all);
}

#[test]
fn a_full_spool_takes_nothing_until_a_part_was_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let spool = Spool::of_at_most(folder.path(), 4_000);
    let mut kept = 0;
    let full = loop {
        match spool.keep(&events(kept..kept + 1)) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, NotKept::Full { max_bytes: 4_000 }), "{full}");
    assert!((5..20).contains(&kept), "{kept}");
    // What is put aside is not counted.
    spool.reject(&events(0..20)).unwrap();
    assert_eq!(delivered(&spool), events(0..kept));
    spool.keep(&events(0..1)).unwrap();
}

#[test]
fn what_the_disk_does_not_take_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spool"), "a file where the folder should be").unwrap();
    let error = Spool::new(folder.path()).keep(&events(0..1)).unwrap_err();
    assert!(matches!(error, NotKept::Disk(_)), "{error}");
}
