//! Streams through the host's proxy.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Response, StatusCode};

use super::super::app::Mode;
use super::super::backend::{Backend, INPUT_TOKENS, OUTPUT_TOKENS, PIECES};
use super::super::rig::{Rig, Used, hello, hello_streamed};

/// Reads on until this many pieces of text have been seen.
async fn read_until(response: &mut Response, pieces: usize) -> String {
    let mut text = String::new();
    while text.matches("tick").count() < pieces {
        let chunk = response.chunk().await.unwrap().expect("the stream goes on");
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    text
}

#[tokio::test]
async fn each_chunk_arrives_before_the_next_one_is_sent() {
    let rig = Rig::before(Backend::gated().await, Mode::Proxying).await;
    let issued = rig.issue().await;
    rig.backend.gate.add_permits(1);
    let mut response = rig.chat(&issued.key, &hello_streamed()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/event-stream"));
    assert!(!response.headers().contains_key("content-length"));
    assert_eq!(read_until(&mut response, 1).await.matches("tick").count(), 1);
    for _ in 1..PIECES {
        // The backend is not told to go on until this chunk is here.
        rig.backend.gate.add_permits(1);
        assert_eq!(read_until(&mut response, 1).await.matches("tick").count(), 1);
    }
    assert!(response.text().await.unwrap().ends_with("data: [DONE]\n\n"));
    let used = Used { requests: 1, input: INPUT_TOKENS, output: OUTPUT_TOKENS };
    assert_eq!(rig.used(&issued).await, used);
}

#[tokio::test]
async fn a_client_that_leaves_stops_the_backend_within_a_second_and_is_counted_once() {
    let rig = Rig::before(Backend::gated().await, Mode::Proxying).await;
    let issued = rig.issue().await;
    rig.backend.gate.add_permits(5);
    let mut response = rig.chat(&issued.key, &hello_streamed()).send().await.unwrap();
    read_until(&mut response, 5).await;
    rig.backend.until_open(1).await;
    drop(response);
    tokio::time::timeout(Duration::from_secs(1), rig.backend.until_open(0))
        .await
        .expect("the backend works on");
    let used = rig.until_used(&issued, 1).await;
    assert_eq!(used.requests, 1);
    assert!(used.input > 0 && used.output > 0 && used.output < 5 * 6, "{used:?}");
    // Nothing more comes: the next request is the second.
    rig.backend.gate.add_permits(PIECES);
    rig.chat(&issued.key, &hello()).send().await.unwrap().bytes().await.unwrap();
    assert_eq!(rig.used(&issued).await.requests, 2);
}

#[tokio::test]
async fn killed_the_moment_a_client_has_its_last_byte_no_usage_is_lost() {
    let mut rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    for round in 1..=8 {
        let body = if round % 2 == 0 { hello() } else { hello_streamed() };
        let response = rig.chat(&issued.key, &body).send().await.unwrap();
        if round % 2 == 0 {
            response.bytes().await.unwrap();
        } else {
            let mut stream = response.bytes_stream();
            let mut text = String::new();
            while !text.contains("[DONE]") {
                text.push_str(&String::from_utf8_lossy(&stream.next().await.unwrap().unwrap()));
            }
        }
        rig.replace_instance().await;
        let used = Used { requests: round, input: round * INPUT_TOKENS, output: round * OUTPUT_TOKENS };
        assert_eq!(rig.used(&issued).await, used, "round {round}");
    }
}
