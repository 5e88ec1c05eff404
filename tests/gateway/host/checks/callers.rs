//! What callers see through the host.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::super::app::Mode;
use super::super::backend::{INPUT_TOKENS, OUTPUT_TOKENS, PIECES};
use super::super::rig::{CHAT, Rig, Used, hello, hello_streamed};

const BOTH: [Mode; 2] = [Mode::Proxying, Mode::Forwarding];
const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn every_route_of_the_data_plane_answers_in_both_modes() {
    for mode in BOTH {
        let rig = Rig::start(mode).await;
        let issued = rig.issue().await;
        for (path, target) in [
            (CHAT, CHAT),
            ("/deployments/gpt-4o-mini/chat/completions?api-version=2024-10-21", CHAT),
            ("/openai/v1/chat/completions", "/openai/v1/chat/completions"),
            ("/v1/chat/completions", "/openai/v1/chat/completions"),
        ] {
            let response =
                rig.ask(Method::POST, path).bearer_auth(&issued.key).json(&hello()).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path} in {mode:?}");
            let reply: Value = response.json().await.unwrap();
            assert_eq!(reply["usage"]["prompt_tokens"], INPUT_TOKENS, "{path} in {mode:?}");
            assert_eq!(rig.backend.seen().last().unwrap().target, target, "{path} in {mode:?}");
        }
        let used = Used { requests: 4, input: 4 * INPUT_TOKENS, output: 4 * OUTPUT_TOKENS };
        assert_eq!(rig.used(&issued).await, used, "{mode:?}");
    }
}

#[tokio::test]
async fn a_query_with_repeated_keys_and_encoded_slashes_reaches_the_backend_as_it_was() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let query = "&x=1&x=2&y=a%2Fb%20c";
    let response = rig
        .ask(Method::POST, &format!("{CHAT}{query}"))
        .header("api-key", &issued.key)
        .json(&hello())
        .send()
        .await;
    assert_eq!(response.unwrap().status(), StatusCode::OK);
    assert_eq!(rig.backend.seen()[0].target, format!("{CHAT}{query}"));
}

#[tokio::test]
async fn a_deployment_name_with_an_encoded_slash_never_becomes_a_path() {
    for mode in BOTH {
        let rig = Rig::start(mode).await;
        let issued = rig.issue().await;
        for name in ["gpt-4o-mini%2F..%2Fadmin", "%2e%2e", "gpt-4o-mini%00"] {
            let path = format!("/openai/deployments/{name}/chat/completions?api-version=2024-10-21");
            let response =
                rig.ask(Method::POST, &path).header("api-key", &issued.key).json(&hello()).send().await;
            let status = response.unwrap().status();
            assert!(status.is_client_error(), "{path} got {status}");
        }
        assert_eq!(rig.backend.seen().len(), 0, "{mode:?}");
    }
}

#[tokio::test]
async fn a_repeated_query_key_joined_by_commas_is_read_as_both() {
    let rig = Rig::start(Mode::Forwarding).await;
    let issued = rig.issue().await;
    rig.chat(&issued.key, &hello()).send().await.unwrap().bytes().await.unwrap();
    let path = "/reports/usage?group_by=subscription&group_by=deployment";
    let report: Value = rig.admin(Method::GET, path).send().await.unwrap().json().await.unwrap();
    assert_eq!(report["rows"][0]["deployment"], "gpt-4o-mini", "{report}");
    assert_eq!(report["rows"][0]["subscription"], issued.id.as_str(), "{report}");
}

#[tokio::test]
async fn a_stream_read_to_its_end_by_forwarding_is_still_whole_and_counted() {
    let rig = Rig::start(Mode::Forwarding).await;
    let issued = rig.issue().await;
    let text = rig.chat(&issued.key, &hello_streamed()).send().await.unwrap().text().await.unwrap();
    assert_eq!(text.matches("tick").count(), PIECES);
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    let used = Used { requests: 1, input: INPUT_TOKENS, output: OUTPUT_TOKENS };
    assert_eq!(rig.used(&issued).await, used);
}

#[tokio::test]
async fn a_chunked_body_is_taken_and_one_that_the_host_lost_is_refused_clearly() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let body = hello().to_string();
    let (head, tail) = body.split_at(20);
    let pieces = [head.to_owned(), tail.to_owned()].map(Ok::<_, std::io::Error>);
    let chunked = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let response =
        rig.ask(Method::POST, CHAT).header("api-key", &issued.key).body(chunked).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    let rig = Rig::start(Mode::Forwarding).await;
    let issued = rig.issue().await;
    let response = rig.ask(Method::POST, CHAT).header("api-key", &issued.key).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::BAD_REQUEST);
    let refusal: Value = response.json().await.unwrap();
    assert_eq!(refusal["error"]["code"], "invalid_request_error", "{refusal}");
    assert_eq!(rig.backend.seen().len(), 0);
}

#[tokio::test]
async fn redirects_head_and_bodyless_answers_pass() {
    for mode in BOTH {
        let mut rig = Rig::start(mode).await;
        rig.client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let issued = rig.issue().await;
        for status in [204, 302, 304] {
            let path = format!("{CHAT}&answer={status}");
            let asked = rig.ask(Method::POST, &path).header("api-key", &issued.key).json(&hello());
            let response = asked.send().await.unwrap();
            assert_eq!(response.status(), status, "{mode:?}");
            assert_eq!(response.headers()["location"], "/openai/elsewhere", "{mode:?}");
            assert_eq!(response.headers()["etag"], "\"1\"", "{mode:?}");
            assert_eq!(response.text().await.unwrap(), "", "{mode:?}");
        }
        assert_eq!(rig.backend.seen().len(), 3, "a redirect was followed in {mode:?}");
        let head = rig.ask(Method::HEAD, "/healthz").send().await.unwrap();
        assert_eq!(head.status(), StatusCode::OK, "{mode:?}");
        assert_eq!(head.text().await.unwrap(), "", "{mode:?}");
        let wrong = rig.ask(Method::DELETE, "/healthz").send().await.unwrap();
        assert_eq!(wrong.status(), StatusCode::METHOD_NOT_ALLOWED, "{mode:?}");
    }
}

#[tokio::test]
async fn nothing_that_matters_is_in_a_header_that_the_host_takes_off() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    for body in [hello(), hello_streamed()] {
        let response = rig.chat(&issued.key, &body).send().await.unwrap();
        for name in ["x-request-id", "x-tollgate-backend", "x-tollgate-attempts", "content-type"] {
            assert!(response.headers().contains_key(name), "{name} of {:?}", response.headers());
        }
        for name in ["connection", "keep-alive", "upgrade", "trailer"] {
            assert!(!response.headers().contains_key(name), "{name} of {:?}", response.headers());
        }
        response.bytes().await.unwrap();
    }
}

/// A chat request of this many bytes.
fn sized(bytes: usize) -> String {
    let frame = json!({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": ""}]}).to_string();
    frame.replace("\"content\":\"\"", &format!("\"content\":\"{}\"", "x".repeat(bytes - frame.len())))
}

#[tokio::test]
async fn twenty_megabytes_pass_and_more_than_a_hundred_are_refused() {
    for mode in BOTH {
        let rig = Rig::start(mode).await;
        let issued = rig.issue().await;
        let large = sized(20 * MIB);
        let asked =
            rig.ask(Method::POST, CHAT).header("api-key", &issued.key).body(large).send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::OK, "{mode:?}");
        assert_eq!(rig.backend.seen()[0].body_bytes, 20 * MIB, "{mode:?}");

        // Straight to the handler, as a host with a higher limit would pass it.
        let url = rig.handler_url(CHAT).await;
        let whole = rig.client.post(&url).header("api-key", &issued.key).body(sized(100 * MIB)).send().await;
        assert_eq!(whole.unwrap().status(), StatusCode::OK, "{mode:?}");
        let refused =
            rig.client.post(&url).header("api-key", &issued.key).body(sized(100 * MIB + 1)).send().await;
        // It may have hung up before the body was written to its end.
        if let Ok(refused) = refused {
            assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE, "{mode:?}");
        }
        assert_eq!(rig.backend.seen().len(), 2, "{mode:?}");
    }
}

#[tokio::test]
async fn what_the_host_sends_twice_is_done_once() {
    let rig = Rig::start(Mode::Proxying).await;
    let asked = json!({"name": "team", "product": "standard"});
    let post = |body: &Value| {
        rig.admin(Method::POST, "/subscriptions")
            .header("idempotency-key", "one-and-the-same")
            .json(body)
            .send()
    };
    let first = post(&asked).await.unwrap();
    assert_eq!(first.status(), StatusCode::CREATED);
    let first: Value = first.json().await.unwrap();
    let again = post(&asked).await.unwrap();
    assert_eq!(again.status(), StatusCode::CREATED);
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    let again: Value = again.json().await.unwrap();
    assert_eq!(again["id"], first["id"]);
    assert!(again["primary_key"].is_null(), "a key was shown twice");
    let other = post(&json!({"name": "other", "product": "standard"})).await.unwrap();
    assert_eq!(other.status(), StatusCode::CONFLICT);

    // A GET under the same invocation id, as the proxy re-sends it after a reset.
    let url = rig.handler_url("/reports/usage").await;
    for _ in 0..2 {
        let get = rig.client.get(&url).bearer_auth(super::super::rig::ADMIN_KEY);
        let response =
            get.header("x-ms-invocation-id", "5d8b2a10").header("x-forwarded-for", "127.0.0.1").send();
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    }
}

#[tokio::test]
async fn the_hosts_own_keys_are_neither_needed_nor_read_nor_passed_on() {
    for mode in BOTH {
        let rig = Rig::start(mode).await;
        let issued = rig.issue().await;
        let path = format!("{CHAT}&code=the-functions-key");
        let asked =
            rig.ask(Method::POST, &path).header("api-key", &issued.key).header("x-functions-key", "another");
        assert_eq!(asked.json(&hello()).send().await.unwrap().status(), StatusCode::OK, "{mode:?}");
        let seen = rig.backend.seen().remove(0);
        assert_eq!(seen.target, CHAT, "{mode:?}");
        for name in ["x-functions-key", "api-key", "authorization", "x-forwarded-for", "x-ms-invocation-id"] {
            assert!(!seen.headers.contains_key(name), "{name} in {:?}", seen.headers);
        }
        let theirs = seen.headers.keys().any(|name| name.as_str().starts_with("x-azure-functions"));
        assert!(!theirs, "{:?}", seen.headers);
        let alone =
            rig.ask(Method::POST, &path).header("x-functions-key", "another").json(&hello()).send().await;
        assert_eq!(alone.unwrap().status(), StatusCode::UNAUTHORIZED, "{mode:?}");
        let text = rig.host.handler().output.text();
        assert!(!text.contains("the-functions-key") && !text.contains("another"), "{text}");
    }
}

#[tokio::test]
async fn a_trace_goes_on_to_the_backend_and_one_is_begun_where_there_is_none() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    let traced =
        rig.chat(&issued.key, &hello()).header("traceparent", format!("00-{TRACE}-00f067aa0ba902b7-01"));
    traced.send().await.unwrap().bytes().await.unwrap();
    rig.chat(&issued.key, &hello()).send().await.unwrap().bytes().await.unwrap();
    let seen = rig.backend.seen();
    let trace = |index: usize| {
        let parent = seen[index].headers.get("traceparent").expect("a backend is always told the trace");
        parent.to_str().unwrap().split('-').nth(1).unwrap().to_owned()
    };
    assert_eq!(trace(0), TRACE);
    let begun = trace(1);
    assert!(
        begun.len() == 32 && begun != TRACE && begun.bytes().all(|digit| digit.is_ascii_hexdigit()),
        "{begun}"
    );
}
