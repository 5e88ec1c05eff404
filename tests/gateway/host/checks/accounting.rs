//! The Event Hub trigger's batches.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::super::app::Mode;
use super::super::backend::Backend;
use super::super::function::Shape;
use super::super::hub::{Failure, Hub};
use super::super::rig::{Issued, Rig, Used, hello_streamed};
use super::super::wire::{Attempts, Event, Extension};
use crate::azure::event_hub::{EventHub, Says};
use crate::azure::identity_endpoint::IdentityEndpoint;

const OLD: Extension = Extension { is_recent: false, adds_unknown: false };
const UNKNOWN: Extension = Extension { is_recent: true, adds_unknown: true };

/// The usage event with this number; its id follows from the number.
fn usage(issued: &Issued, number: u64) -> String {
    json!({
        "schema": "tollgate.usage.v1",
        "id": format!("01920000-0000-7000-8000-{number:012x}"),
        "time": "2026-11-21T09:00:00.123Z",
        "subscription_id": issued.id, "product": "standard", "cost_center": "research", "end_user": null,
        "operation": "chat.completions", "deployment": "gpt-4o-mini", "model": "gpt-4o-mini-2024-07-18",
        "api_version": "2024-10-21", "backend": "scripted", "region": "here", "attempts": 1, "status": 200,
        "stream": true, "outcome": "completed", "duration_ms": 812, "first_byte_ms": 240,
        "usage": {"source": "reported", "input_tokens": 10, "cached_input_tokens": 0, "output_tokens": number,
                  "reasoning_tokens": 0},
        "written_by_a_later_version": {"x": [1]},
    })
    .to_string()
}

fn events(issued: &Issued, numbers: std::ops::Range<u64>) -> Vec<Event> {
    numbers.map(|number| Event { body: usage(issued, number).into(), sequence: number }).collect()
}

/// What the events with these numbers come to.
fn total(numbers: std::ops::Range<u64>) -> Used {
    Used {
        requests: numbers.end - numbers.start,
        input: 10 * (numbers.end - numbers.start),
        output: numbers.sum(),
    }
}

#[tokio::test]
async fn every_shape_of_a_batch_is_posted_with_every_extension() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let shapes =
        [Shape::ManyStrings, Shape::ManyBinaries, Shape::ManyValues, Shape::OneString, Shape::OneBinary];
    let mut number = 0;
    for extension in [OLD, super::super::wire::RECENT, UNKNOWN] {
        for shape in shapes {
            for attempts in [None, Some(Attempts { failures: 0, max: None })] {
                let mut listener = rig.listener();
                (listener.shape, listener.extension) = (shape, extension);
                let many = if matches!(shape, Shape::OneString | Shape::OneBinary) { 1 } else { 3 };
                let batch = events(&issued, number..number + many);
                let answer = listener.invoke(3, &batch, attempts).await;
                assert!(answer.is_ok(), "{shape:?} {extension:?}: {answer:?}");
                number += many;
                assert_eq!(rig.used(&issued).await, total(0..number), "{shape:?} {extension:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_batch_of_thirty_megabytes_is_posted_and_answered_as_the_host_wants_it() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let mut batch = events(&issued, 0..100);
    for event in &mut batch {
        let mut body = String::from_utf8(event.body.clone()).unwrap();
        body.insert_str(body.len() - 1, &format!(",\"padding\":\"{}\"", "\\\"x".repeat(30_000)));
        event.body = body.into();
    }
    let started = Instant::now();
    // An empty answer, another media type or anything but an object is an error here.
    let answer = rig.listener().invoke(0, &batch, None).await.unwrap();
    assert!(answer.is_object());
    // The host allows 30 minutes and then kills every request in hand.
    assert!(started.elapsed() < Duration::from_mins(3));
    assert_eq!(rig.used(&issued).await, total(0..100));
}

#[tokio::test]
async fn an_unreadable_event_is_not_a_bad_batch() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let mut batch = events(&issued, 0..10);
    for body in [&b"not json"[..], b"", b"null", b"\xff\xfe", b"{\"schema\":\"tollgate.usage.v9\"}", b"[1,2]"]
    {
        batch.push(Event { body: body.to_vec(), sequence: batch.len() as u64 });
    }
    rig.listener().invoke(0, &batch, None).await.unwrap();
    assert_eq!(rig.used(&issued).await, total(0..10));
}

#[tokio::test]
async fn whatever_is_delivered_again_counts_once() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let hub = Hub::new(4);
    for number in 0..400 {
        hub.publish(usize::try_from(number % 4).unwrap(), usage(&issued, number));
    }
    let mut listener = rig.listener();
    listener.drain(&hub).await;
    assert_eq!(rig.used(&issued).await, total(0..400));
    // Another owner reads again from older checkpoints, in batches that overlap the first ones.
    for (partition, checkpoint) in [(3, 0), (0, 17), (2, 99), (1, 50)] {
        hub.rewind(partition, checkpoint);
    }
    listener.max_batch = 37;
    listener.drain(&hub).await;
    assert_eq!(rig.used(&issued).await, total(0..400));
    // The fifth attempt at a batch that had been posted all the same.
    let batch = events(&issued, 100..200);
    for failures in [0, 5] {
        listener.invoke(2, &batch, Some(Attempts { failures, max: None })).await.unwrap();
    }
    assert_eq!(rig.used(&issued).await, total(0..400));
}

#[tokio::test]
async fn thirty_two_partitions_at_once_and_a_crash_in_their_midst_leave_exact_totals() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let hub = Hub::new(32);
    for number in 0..3200 {
        hub.publish(usize::try_from(number % 32).unwrap(), usage(&issued, number));
    }
    let mut listener = rig.listener();
    listener.max_batch = 10;
    // The instance dies with its handler: no checkpoint is written for what was under way.
    let crash = async {
        rig.until_used(&issued, 300).await;
        rig.host.handler().kill_and_restart().await;
    };
    tokio::select! {
        () = listener.drain(&hub) => panic!("the crash came too late to prove anything"),
        () = crash => {}
    }
    let done: usize = (0..32).map(|partition| hub.checkpoint(partition)).sum();
    assert!(done < 3200);
    // The next owner, with a crash of the handler alone: the batches in hand are retried.
    let ((), ()) = tokio::join!(
        async {
            rig.until_used(&issued, 1500).await;
            rig.host.handler().kill_and_restart().await;
        },
        listener.drain(&hub)
    );
    assert_eq!(rig.used(&issued).await, total(0..3200));
    assert!((0..32).all(|partition| hub.checkpoint(partition) == 100));
}

#[tokio::test]
async fn a_handler_that_is_gone_is_a_failure_that_the_host_repeats() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    rig.host.handler().interrupt().await;
    rig.host.handler().end().await;
    let failure = rig.listener().invoke(0, &events(&issued, 0..1), None).await.unwrap_err();
    assert!(matches!(failure, Failure::NoAnswer(_)), "{failure}");
}

#[tokio::test]
async fn what_the_gateway_publishes_is_what_the_function_posts() {
    let (events, identity) = (EventHub::start().await, IdentityEndpoint::start(None).await);
    let settings = [&events.settings()[..], &identity.settings()].concat();
    let mut rig = Rig::with(Backend::start().await, Mode::Proxying, &settings).await;
    let issued = rig.issue().await;
    // Acknowledged; unknown; and kept on the disk, until another instance sends it.
    for says in [Says::Takes, Says::TakesAndCuts, Says::Status(403)] {
        events.always(says);
        for _ in 0..4 {
            let response = rig.chat(&issued.key, &hello_streamed()).send().await.unwrap();
            assert_eq!(response.status(), 200);
            assert!(response.text().await.unwrap().contains("[DONE]"));
        }
    }
    assert_eq!(rig.used(&issued).await, Used::default(), "nothing is posted but by the function");
    events.always(Says::Takes);
    rig.replace_instance().await;
    events.until(12).await;
    let hub = Hub::new(4);
    for (number, event) in events.events().into_iter().enumerate() {
        hub.publish(number % 4, event);
    }
    rig.listener().drain(&hub).await;
    assert_eq!(rig.used(&issued).await.requests, 12);
    assert_eq!((events.complaints(), identity.complaints()), (vec![], vec![]));
}
