//! What happens to connections, on real ones.

use tollgate::simulator::Kind;

use super::*;

#[tokio::test]
async fn a_refused_or_reset_request_gets_no_answer() {
    let listening = Listening::new(Knobs::default()).await;
    for words in ["refuse", "reset"] {
        for body in [hello(), streamed(&json!({}))] {
            assert_eq!(listening.all(words, &body).await, "", "{words}");
        }
    }
    let counts = listening.resource.counts().await;
    assert_eq!(counts["total"]["unanswered"], 4);
}

#[tokio::test]
async fn a_stream_is_cut_after_so_many_events_and_has_no_end() {
    let listening = Listening::new(Knobs::default()).await;
    for events in [0, 1, 4] {
        let all = listening.all(&format!("cut-after={events}"), &streamed(&json!({}))).await;
        let (head, body) = all.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
        assert_eq!(body.matches("data: ").count(), events);
        assert!(!all.ends_with("0\r\n\r\n"), "{all}");
    }
    // Its events are the filter's, the role, five tokens, the end and `[DONE]`.
    let mut whole = listening.ask("cut-after=20", &streamed(&json!({}))).await;
    assert!(read_until(&mut whole, "\r\n0\r\n\r\n").await.contains("[DONE]"));
    let counts = listening.resource.counts().await;
    assert_eq!((&counts["total"]["cut"], &counts["total"]["streams_open"]), (&json!(3), &json!(0)));
    assert_eq!(counts["total"]["unreported"]["completion_tokens"], 2 + 5);
}

#[tokio::test]
async fn a_whole_reply_is_cut_in_its_middle() {
    let listening = Listening::new(Knobs::default()).await;
    let all = listening.all("cut", &hello()).await;
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    assert_eq!(body.len(), length.parse::<usize>().unwrap() / 2);
    let all = listening.all("cut-after=0", &hello()).await;
    assert!(all.starts_with("HTTP/1.1 200 OK") && all.ends_with("\r\n\r\n"), "{all}");
    assert_eq!(listening.resource.counts().await["total"]["cut"], 2);
}

#[tokio::test]
async fn a_stalled_answer_stays_silent_until_the_client_goes() {
    let listening = Listening::new(Knobs::default()).await;
    let mut stalled = listening.ask("stall-after=3", &streamed(&json!({}))).await;
    let read = read_until(&mut stalled, "\"delta\":{\"content\":\"").await;
    assert!(read.contains("\"delta\":{\"content\":\""));
    let mut halved = listening.ask("stall-after=1", &hello()).await;
    read_until(&mut halved, "{\"choices\"").await;
    let silent = listening.ask("stall", &hello()).await;
    listening.once("/simulator/last", |last| last["headers"]["x-simulate"][0] == "stall").await;
    let counts = listening.resource.counts().await;
    assert_eq!((&counts["total"]["streams_open"], &counts["total"]["cancelled"]), (&json!(1), &json!(0)));
    drop((stalled, silent, halved));
    let counts = listening.counts_once(|counts| counts["total"]["cancelled"] == 3).await;
    assert_eq!(counts["total"]["streams_open"], 0);
}

#[tokio::test]
async fn a_client_that_hangs_up_between_two_tokens_is_noticed_at_once() {
    let listening = Listening::new(Knobs { tokens_per_second: 0.01, ..Knobs::default() }).await;
    // Said at once but for the tokens, of which the first takes 100 s: longer than this test has.
    let mut connection = listening.ask("tokens-per-chunk=1", &streamed(&json!({}))).await;
    read_until(&mut connection, "\"role\":\"assistant\"").await;
    drop(connection);
    let counts = listening.counts_once(|counts| counts["total"]["cancelled"] == 1).await;
    assert_eq!(counts["total"]["streams_open"], 0);
    assert_eq!(counts["total"]["unreported"]["prompt_tokens"], 11);
    assert_eq!(counts["total"]["cancelled_completion_tokens"], 0);
}

#[tokio::test]
async fn a_share_of_requests_fails_as_the_seed_says() {
    let ends = async |seed| {
        let faults = vec![Kind::ServerError, Kind::Throttled, Kind::Reset, Kind::Cut];
        let listening = Listening::new(Knobs { fault_share: 0.5, seed, faults, ..Knobs::default() }).await;
        let mut ends = Vec::new();
        for _ in 0..40 {
            let all = listening.all("ttft-ms=0", &streamed(&json!({}))).await;
            ends.push(match all.get(9..12) {
                None => "reset",
                Some("200") if all.ends_with("\r\n0\r\n\r\n") => "whole",
                Some("200") => "cut",
                Some("429") => "429",
                Some(_) => "500",
            });
        }
        ends
    };
    let (first, again, other) = (ends(7).await, ends(7).await, ends(8).await);
    assert_eq!(first, again);
    assert_ne!(first, other);
    for end in ["whole", "reset", "cut", "429", "500"] {
        assert!(first.contains(&end), "no {end} in {first:?}");
    }
}

#[tokio::test]
async fn a_filtered_reply_ends_where_the_filter_caught_it() {
    let resource = Resource::new(Knobs::default());
    let whole = resource.told("filtered-after=2", CHAT, &with(hello(), &json!({"max_tokens": 30}))).await;
    assert_eq!(whole.json()["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(whole.json()["usage"]["completion_tokens"], 2);
    let streamed = resource.told("filtered-after=2", CHAT, &streamed(&json!({"max_tokens": 30}))).await;
    let last = streamed.chunks().pop().unwrap()["choices"][0].clone();
    assert_eq!(last["finish_reason"], "content_filter");
    assert_eq!(last["content_filter_results"]["violence"]["filtered"], true);
}

#[tokio::test]
async fn a_malformed_event_is_no_json_and_the_others_are() {
    let resource = Resource::new(Knobs::default());
    let answer = resource.told("malformed-after=3", CHAT, &streamed(&json!({}))).await;
    let events = answer.events();
    let bad: Vec<_> = (0..events.len() - 1)
        .filter(|index| serde_json::from_str::<Value>(&events[*index]).is_err())
        .collect();
    assert_eq!(bad, [3]);
    assert_eq!(events.last().unwrap(), "[DONE]");
}

#[tokio::test]
async fn provisioned_capacity_says_in_milliseconds_when_there_is_room() {
    let resource = Resource::new(Knobs { requests_per_second: Some(2.0), ..Knobs::default() });
    assert_eq!(resource.post(CHAT, &hello()).await.status, 200);
    let busy = resource.post(CHAT, &hello()).await;
    assert_eq!(busy.status, 429);
    let wait: u64 = busy.header("retry-after-ms").parse().unwrap();
    assert!((1..=500).contains(&wait), "{wait}");
    assert_eq!(busy.header("retry-after"), "1");
    assert_eq!(resource.counts().await["capacity"]["granted"], 1.0);
}
