use std::time::Duration;

use http::{HeaderMap, Method};

use super::*;
use crate::domain::ids::{Name, RequestId};
use crate::domain::trace::Trace;

fn incoming(path: &str, body: &str) -> Incoming {
    asked(&Method::POST, path, body)
}

fn asked(method: &Method, path: &str, body: &str) -> Incoming {
    let id = RequestId::draw();
    Incoming {
        id,
        trace: Trace::of_request(None, id),
        address: Address::parse(method, path).unwrap(),
        query: None,
        headers: HeaderMap::new(),
        body: Bytes::copy_from_slice(body.as_bytes()),
        began: Duration::ZERO,
    }
}

const CHAT: &str = "/openai/deployments/gpt-4o/chat/completions";
const V1_CHAT: &str = "/openai/v1/chat/completions";
const RESPONSES: &str = "/openai/v1/responses";

/// The body that goes on to a backend which calls the deployment `own`.
fn sent(path: &str, body: &str, own: &str) -> String {
    let ask = ask(&incoming(path, body)).unwrap();
    let body = ask.body_for(&Name::new(own).unwrap(), ask.needs_injection());
    String::from_utf8(body.to_vec()).unwrap()
}

#[test]
fn a_body_goes_on_as_it_came_where_nothing_must_change() {
    for body in [
        r#" {"messages" : [ ], "unknown":{"a":[1,2.50,"\u00e9"]} } "#,
        r#"{"messages":[],"stream":false}"#,
        r#"{"messages":[],"stream":true,"stream_options":{"x":1, "include_usage": true}}"#,
        r#"{"model":"anything at all","messages":[]}"#,
        r#"{"messages":[],"prompt":{"id":"p"},"input":7}"#,
    ] {
        assert_eq!(sent(CHAT, body, "own"), body);
    }
}

#[test]
fn a_field_of_another_operation_is_the_callers_own() {
    let body = r#"{"input":"hi","messages":"none","n":"many","stream":"yes","stream_options":1}"#;
    assert_eq!(sent("/openai/deployments/e/embeddings", body, "own"), body);
}

#[test]
fn usage_is_asked_for_where_the_caller_did_not() {
    for (body, expected) in [
        (
            r#"{"messages":[],"stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"messages":[],"stream":true}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":null}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#"{"messages":[],"stream_options":{ },"stream":true}"#,
            r#"{"messages":[],"stream_options":{"include_usage":true },"stream":true}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"x":{"include_usage":true}}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":true,"x":{"include_usage":true}}}"#,
        ),
        (
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage": false}}"#,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage": true}}"#,
        ),
    ] {
        assert_eq!(sent(CHAT, body, "gpt-4o"), expected);
    }
}

#[test]
fn the_model_is_mapped_and_nothing_else_changes() {
    let body = r#"{ "metadata":{"model":"gpt-4o"}, "model" : "gpt-4o" , "messages":[], "stream":true}"#;
    assert_eq!(
        sent(V1_CHAT, body, "gpt-4o-ptu"),
        r#"{"stream_options":{"include_usage":true}, "metadata":{"model":"gpt-4o"}, "model" : "gpt-4o-ptu" , "messages":[], "stream":true}"#
    );
}

#[test]
fn what_no_backend_would_serve_is_refused_with_the_fields_name() {
    for (path, body, message) in [
        (CHAT, "", "must be a JSON object"),
        (CHAT, "[]", "must be a JSON object"),
        (CHAT, "{", "not JSON: line 1"),
        (CHAT, r#"{"messages":[]} {"#, "not JSON"),
        (CHAT, r#"{"messages":[],"messages":[]}"#, "`messages`"),
        (CHAT, "{}", "`messages` is missing"),
        (CHAT, r#"{"messages":"hi"}"#, "`messages` must be"),
        (CHAT, r#"{"messages":["hi"]}"#, "`messages` must be"),
        (CHAT, r#"{"messages":[],"stream":"yes"}"#, "`stream` must be"),
        (CHAT, r#"{"messages":[],"stream":true,"stream_options":3}"#, "`stream_options` must be"),
        (
            CHAT,
            r#"{"messages":[],"stream":true,"stream_options":{"include_usage":1}}"#,
            "include_usage` must",
        ),
        (CHAT, r#"{"messages":[],"max_tokens":-1}"#, "`max_tokens` must be"),
        (V1_CHAT, r#"{"messages":[]}"#, "`model` is missing"),
        (V1_CHAT, r#"{"messages":[],"model":null}"#, "`model` must be"),
        ("/v1/embeddings", r#"{"model":"e"}"#, "`input` is missing"),
        ("/v1/embeddings", r#"{"model":"e","input":7}"#, "`input` must be"),
        (RESPONSES, r#"{"input":"hi"}"#, "`model` is missing"),
        (RESPONSES, r#"{"model":"m","input":7}"#, "`input` must be"),
        (RESPONSES, r#"{"model":"m","previous_response_id":"../x"}"#, "`previous_response_id`: an id has"),
        (RESPONSES, r#"{"model":"m","previous_response_id":7}"#, "`previous_response_id` must be"),
        (RESPONSES, r#"{"model":"m","input":"hi","background":true}"#, "`background` must be false"),
    ] {
        let refusal = ask(&incoming(path, body)).expect_err(body).to_string();
        assert!(refusal.contains(message), "{refusal}");
    }
    let mut latin1 = incoming(CHAT, "");
    latin1.body = Bytes::from_static(b"{\"messages\":[],\"user\":\"\xe9\"}");
    assert_eq!(ask(&latin1).unwrap_err().to_string(), "the body is not UTF-8");
}

#[test]
fn a_model_that_cannot_be_a_deployment_does_not_exist() {
    let refusal = ask(&incoming(V1_CHAT, r#"{"messages":[],"model":"../x"}"#)).unwrap_err();
    assert!(matches!(refusal, Refusal::DeploymentNotFound(name) if name == "../x"));
}

#[test]
fn a_stream_of_responses_is_never_asked_for_its_usage() {
    for body in [
        r#"{"model":"gpt-4o","input":"hi","stream":true}"#,
        r#"{"model":"gpt-4o","input":[],"stream":true,"stream_options":{"include_obfuscation":false}}"#,
        r#"{"model":"gpt-4o","prompt":{"id":"p"},"n":"mine","background":false,"previous_response_id":null}"#,
    ] {
        for path in [RESPONSES, "/openai/responses"] {
            assert_eq!(sent(path, body, "gpt-4o"), body);
            assert_eq!(sent(path, body, "own"), body.replace("gpt-4o", "own"));
        }
    }
}

#[test]
fn what_a_request_belongs_to_is_found() {
    let read = |body: &str| ask(&incoming(RESPONSES, body)).unwrap();
    let first = read(r#"{"model":"m","input":"hi"}"#);
    assert_eq!((first.belongs_to, first.is_kept), (None, true));
    let next = read(r#"{"model":"m","input":"hi","previous_response_id":"resp_1","store":false}"#);
    assert_eq!((next.belongs_to.unwrap().as_str(), next.is_kept), ("resp_1", false));
    for (method, path) in [
        (Method::GET, "/openai/v1/responses/resp_1"),
        (Method::DELETE, "/openai/responses/resp_1"),
        (Method::POST, "/v1/responses/resp_1/cancel"),
        (Method::GET, "/v1/responses/resp_1/input_items"),
    ] {
        let item = ask(&asked(&method, path, "")).unwrap();
        assert_eq!(item.belongs_to.as_ref().map(ItemId::as_str), Some("resp_1"), "{path}");
        assert_eq!((item.deployment.as_str(), item.is_kept), (UNKNOWN, false));
        assert!(item.body_for(&Name::new("own").unwrap(), false).is_empty());
    }
}
