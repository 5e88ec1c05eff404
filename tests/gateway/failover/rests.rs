//! Who rests, for how long, and what ends it.

use std::time::Duration;

use serde_json::json;
use tollgate::simulator::Knobs;

use super::rig::{Rig, hello};

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test]
async fn a_busy_backend_spills_one_request_when_its_wait_is_short() {
    let rig = Rig::of(&["ptu", "paygo"]).await;
    rig.always("ptu", "status=429,retry-after-ms=200").await;
    for _ in 0..3 {
        let answer = rig.chat(false).await;
        assert_eq!((answer.status, answer.header("x-tollgate-backend")), (200, "paygo"));
        assert_eq!(answer.header("x-tollgate-attempts"), "2");
    }
    // Each of them was offered to it first, and so is the next one.
    assert_eq!(rig.asked("ptu").await, 3);
    rig.always("ptu", "").await;
    assert_eq!(rig.server().await, "ptu");
}

#[tokio::test]
async fn a_backend_throttled_for_30_s_is_asked_once_in_20_requests_and_then_by_one_at_a_time() {
    let rig = Rig::of(&["ptu", "paygo"]).await;
    rig.clock.stop();
    rig.always("ptu", "status=429,retry-after=30").await;
    for number in 0..20 {
        let answer = rig.chat(number % 2 == 0).await;
        assert_eq!((answer.status, answer.header("x-tollgate-backend")), (200, "paygo"));
    }
    assert_eq!(rig.asked("ptu").await, 1);
    rig.clock.advance(s(29));
    assert_eq!(rig.server().await, "paygo");
    assert_eq!(rig.asked("ptu").await, 1);
    // Its time is over: one request looks, and takes long; the others do not wait for it.
    rig.clock.advance(s(2));
    rig.always("ptu", "ttft-ms=1500").await;
    let looking = rig.chat(false);
    let others = async {
        while rig.report("ptu").await["in_flight"] != 1 {
            tokio::task::yield_now().await;
        }
        for _ in 0..5 {
            assert_eq!(rig.server().await, "paygo");
        }
        assert_eq!(rig.asked("ptu").await, 1, "the one who looks is not answered yet");
    };
    let (looked, ()) = tokio::join!(looking, others);
    assert_eq!(looked.header("x-tollgate-backend"), "ptu");
    assert_eq!(rig.server().await, "ptu");
}

#[tokio::test]
async fn when_the_one_who_looks_hangs_up_the_next_one_looks() {
    let rig = Rig::of(&["ptu", "paygo"]).await;
    rig.always("ptu", "status=429,retry-after=30").await;
    assert_eq!(rig.server().await, "paygo");
    rig.always("ptu", "stall").await;
    for stream in [true, false] {
        rig.clock.advance(s(31));
        let is_asked = async {
            while rig.report("ptu").await["in_flight"] != 1 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = rig.chat(stream) => panic!("somebody answered: {}", answer.body),
            () = is_asked => {}
        }
        // The gateway notices a moment later.
        while rig.report("ptu").await["in_flight"] != 0 {
            tokio::task::yield_now().await;
        }
    }
    rig.always("ptu", "").await;
    assert_eq!(rig.server().await, "ptu");
    // Both who hung up are in the ledger, and what was asked of the backend is not lost.
    assert_eq!(rig.gateway.total(4).await["requests"], 4);
}

#[tokio::test]
async fn every_spelling_of_a_wait_rests_as_it_should() {
    for (headers, rests) in [
        ("retry-after=7", 7),
        ("retry-after-ms=7000", 7),
        ("retry-after-ms=-1,retry-after=7", 7),
        ("reset-tokens=7", 7),
        ("misspelt-reset-tokens=7", 7),
        ("misspelt-reset-requests=3,misspelt-reset-tokens=7", 7),
        ("retry-after=86400", 60),
        ("reset-requests=86400", 60),
        // What says nothing of use is 10 s.
        ("retry-after=-1", 10),
        ("reset-tokens=-1", 10),
        ("no-retry-after", 10),
    ] {
        let rig = Rig::of(&["first", "second"]).await;
        rig.clock.stop();
        rig.always("first", &format!("status=429,no-retry-after,{headers}")).await;
        assert_eq!(rig.server().await, "second", "{headers}");
        rig.always("first", "").await;
        rig.clock.advance(s(rests - 1));
        assert_eq!(rig.server().await, "second", "{headers}");
        rig.clock.advance(s(1));
        assert_eq!(rig.server().await, "first", "{headers}");
    }
}

#[tokio::test]
async fn a_wait_of_nothing_diverts_only_the_request_that_met_it() {
    for headers in ["retry-after=0", "retry-after-ms=0", "reset-tokens=0"] {
        let rig = Rig::of(&["first", "second"]).await;
        rig.clock.stop();
        rig.always("first", &format!("status=429,no-retry-after,{headers}")).await;
        assert_eq!(rig.server().await, "second", "{headers}");
        rig.always("first", "").await;
        assert_eq!(rig.server().await, "first", "{headers}");
    }
}

#[tokio::test]
async fn when_all_are_throttled_the_caller_hears_of_the_soonest_and_nobody_is_asked_again() {
    let rig = Rig::of(&["first", "second", "third"]).await;
    for (backend, wait) in [("first", 30), ("second", 20), ("third", 40)] {
        rig.always(backend, &format!("status=429,retry-after={wait}")).await;
    }
    let wait = async |attempts: &str, at_most: u64| {
        let answer = rig.chat(true).await;
        assert_eq!((answer.status, answer.code().as_str()), (429, "backends_throttled"));
        assert_eq!(answer.header("x-tollgate-attempts"), attempts);
        let wait: u64 = answer.header("retry-after-ms").parse().unwrap();
        assert!(wait <= at_most * 1000 && wait > (at_most - 5) * 1000, "{wait} of {at_most} s");
        assert_eq!(answer.header("retry-after"), wait.div_ceil(1000).to_string());
    };
    wait("3", 20).await;
    wait("0", 20).await;
    rig.clock.advance(s(10));
    wait("0", 10).await;
    for backend in ["first", "second", "third"] {
        assert_eq!(rig.asked(backend).await, 1, "{backend}");
    }
    // What reached nobody is no usage.
    assert_eq!(rig.gateway.total(1).await["requests"], 1);
}

#[tokio::test]
async fn three_faults_in_a_row_make_a_backend_rest_and_two_do_not() {
    let rig = Rig::of(&["first", "second"]).await;
    for (faults, asked) in [(2, 2), (20, 3)] {
        let before = rig.asked("first").await;
        rig.always("first", "status=503").await;
        for _ in 0..faults {
            assert_eq!(rig.server().await, "second");
        }
        assert_eq!(rig.asked("first").await - before, asked);
        rig.always("first", "").await;
        if faults == 20 {
            assert_eq!(rig.server().await, "second");
            rig.clock.advance(s(10));
        }
        assert_eq!(rig.server().await, "first");
    }
}

/// A backend that is well for a while and then is not, over and over: each time it is found out by
/// three requests, and each time by one that it still is not well; no caller notices.
#[tokio::test]
async fn a_backend_that_flaps_for_60_s_costs_no_caller_anything() {
    let rig = Rig::of(&["flapping", "steady"]).await;
    rig.clock.stop();
    let mut asked_in_vain = 0;
    for second in 0..60 {
        let is_down = second % 30 < 15;
        rig.always("flapping", if is_down { "reset" } else { "" }).await;
        for _ in 0..2 {
            let before = rig.books("flapping").await["unanswered"].as_u64().unwrap();
            let answer = rig.chat(second % 2 == 0).await;
            assert_eq!(answer.status, 200, "second {second}: {}", answer.body);
            asked_in_vain += rig.books("flapping").await["unanswered"].as_u64().unwrap() - before;
        }
        rig.clock.advance(s(1));
    }
    // Two times down: three faults, and one look each 10 s.
    assert_eq!(asked_in_vain, 2 * (3 + 1));
    assert_eq!(rig.gateway.total(120).await["requests"], 120);
    assert!(rig.books("flapping").await["by_status"]["200"].as_u64().unwrap() > 20);
}

#[tokio::test]
async fn a_backend_that_rests_because_it_failed_is_asked_when_nobody_else_is_left() {
    let rig = Rig::of(&["sole"]).await;
    rig.always("sole", "status=500").await;
    for _ in 0..5 {
        assert_eq!(rig.chat(false).await.code(), "no_backend_available");
    }
    assert_eq!((rig.asked("sole").await, &rig.report("sole").await["state"]), (5, &json!("resting")));
    rig.always("sole", "").await;
    assert_eq!(rig.server().await, "sole");
    assert_eq!(rig.report("sole").await["state"], "ready");
}

/// Whatever happened, in whatever order, and however many callers hung up over it: no backend is left
/// behind as one that somebody looks at, and nothing stays in flight.
#[tokio::test]
async fn behind_any_chaos_every_backend_comes_back() {
    let names = ["one", "two", "three"];
    let knobs = |seed| Knobs { fault_share: 0.6, seed, ttft_ms: 3, ..Knobs::default() };
    let rig =
        Rig::before((0..).zip(names).map(|(seed, name)| (name, knobs(seed))).collect(), |configuration| {
            configuration["timeouts"] = json!({"first_byte": 0.4, "stream_first_byte": 0.4, "idle": 0.4});
            for backend in configuration["backends"].as_array_mut().unwrap() {
                backend["priority"] = json!(1);
            }
        })
        .await;
    for _ in 0..8 {
        // Some wait for their answer, and some do not.
        let chats = (0_u64..24).map(|number| {
            let patience = Duration::from_millis(if number % 2 == 0 { 2 * number } else { 2_000 });
            tokio::time::timeout(patience, rig.chat(number % 3 == 0))
        });
        futures_util::future::join_all(chats).await;
        rig.clock.advance(s(7));
    }
    let settled = async {
        for name in names {
            while rig.report(name).await["in_flight"] != 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    };
    tokio::time::timeout(s(20), settled).await.expect("nothing stays in flight");
    rig.clock.advance(s(61));
    let mut servers = Vec::new();
    for _ in 0..6 {
        let answer = rig.gateway.chat(&hello(false), "healthy").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        servers.push(answer.header("x-tollgate-backend").to_owned());
    }
    for name in names {
        assert_eq!(servers.iter().filter(|server| *server == name).count(), 2, "{servers:?}");
        assert_eq!(rig.report(name).await["state"], "ready");
    }
}
