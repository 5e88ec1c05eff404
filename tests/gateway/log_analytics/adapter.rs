//! How the Logs Ingestion API is spoken, and what its refusals are taken for.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tollgate::domain::ids::RequestId;
use tollgate::ports::{LogFailure, LogRow, LogSink as _};
use uuid::Uuid;

use super::rig::sink;
use crate::azure::identity_endpoint::{IdentityEndpoint, token_for};
use crate::azure::log_ingestion::{LogIngestion, RULE, STREAM, Says};

const AUDIENCE: &str = "https://monitor.azure.com";

fn rows(count: u128) -> Vec<LogRow> {
    let row = |number| {
        let id = Uuid::from_u128(number);
        LogRow { id: RequestId(id), json: format!("{{\"EventId\":\"{id}\"}}") }
    };
    (0..count).map(row).collect()
}

async fn both() -> (LogIngestion, IdentityEndpoint) {
    (LogIngestion::start().await, IdentityEndpoint::start(None).await)
}

#[tokio::test]
async fn rows_travel_compressed_in_one_call_with_an_id_of_its_own() {
    let (endpoint, identity) = both().await;
    let sink = sink(&endpoint, &identity, &[]);
    for _ in 0..2 {
        sink.send(&rows(100)).await.unwrap();
    }
    assert_eq!((endpoint.rows().len(), endpoint.ids().len()), (200, 100));
    let calls = endpoint.calls();
    assert!(calls.len() == 2 && !calls[0].0.is_empty() && calls[0].0 != calls[1].0, "{calls:?}");
    assert_eq!(identity.asked(), [AUDIENCE], "one token serves all calls");
    assert!(endpoint.complaints().is_empty(), "{:?}", endpoint.complaints());
}

#[tokio::test]
async fn as_much_as_a_call_takes_is_taken() {
    let (endpoint, identity) = both().await;
    let sink = sink(&endpoint, &identity, &[]);
    let random = (0..20_000).map(|number: u128| {
        let id = Uuid::new_v4();
        LogRow { id: RequestId(Uuid::from_u128(number)), json: format!("{{\"EventId\":\"{id}\"}}") }
    });
    let mut rows: Vec<_> = random.collect();
    let mut bytes = 0;
    rows.retain(|row| {
        bytes += row.json.len() + 1;
        bytes <= sink.max_bytes()
    });
    sink.send(&rows).await.unwrap();
    assert_eq!(endpoint.rows().len(), rows.len());
    assert!(endpoint.calls()[0].1 > 900_000, "{:?}", endpoint.calls());
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once() {
    let (endpoint, identity) = both().await;
    let sink = sink(&endpoint, &identity, &[]);
    endpoint.refuse_token(token_for(AUDIENCE, 1));
    sink.send(&rows(1)).await.unwrap();
    assert_eq!(endpoint.rows().len(), 1);
    endpoint.refuse_token(token_for(AUDIENCE, 2));
    let failure = sink.send(&rows(1)).await.unwrap_err();
    assert!(matches!(&failure, LogFailure::Refused(text) if text.contains("TOLLGATE_CLOUD")), "{failure}");
    assert_eq!(identity.asked().len(), 2, "a token that is refused again is not replaced at once");
}

#[tokio::test]
async fn what_the_operator_must_mend_is_told_so() {
    let (endpoint, identity) = both().await;
    endpoint.next([Says::Status(403)]);
    let wrong_rule = [("TOLLGATE_LOGS_RULE_ID", "dcr-ffff")];
    let wrong_stream = [("TOLLGATE_LOGS_STREAM", "Custom-Other")];
    for (more, told) in [
        (&[][..], "Monitoring Metrics Publisher"),
        (&wrong_rule, "TOLLGATE_LOGS_RULE_ID"),
        (&wrong_stream, "TOLLGATE_LOGS_STREAM"),
    ] {
        let failure = sink(&endpoint, &identity, more).send(&rows(1)).await.unwrap_err();
        assert!(matches!(&failure, LogFailure::Refused(text) if text.contains(told)), "{told}: {failure}");
    }
}

#[tokio::test]
async fn no_token_goes_to_another_cloud() {
    let (endpoint, identity) = both().await;
    let failure =
        sink(&endpoint, &identity, &[("TOLLGATE_CLOUD", "usgov")]).send(&rows(1)).await.unwrap_err();
    assert!(matches!(failure, LogFailure::Refused(_)), "{failure}");
    assert_eq!(identity.asked()[0], "https://monitor.azure.us");
}

#[tokio::test]
async fn what_may_pass_says_how_long_to_wait() {
    let (endpoint, identity) = both().await;
    let sink = sink(&endpoint, &identity, &[]);
    endpoint.next([Says::Wait(429, 17), Says::Wait(503, 3), Says::Status(500), Says::CutAfterTaking]);
    for wanted in [Some(17), Some(3), None, None] {
        let failure = sink.send(&rows(1)).await.unwrap_err();
        let LogFailure::Unavailable { retry_after, .. } = &failure else { panic!("{failure}") };
        assert_eq!(*retry_after, wanted.map(Duration::from_secs));
    }
    sink.send(&rows(1)).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_or_cannot_be_read_is_the_rows_own_matter() {
    let (endpoint, identity) = both().await;
    let sink = sink(&endpoint, &identity, &[]);
    let large = LogRow { json: format!("{{\"a\":\"{}\"}}", "x".repeat(1_100_000)), ..rows(1).remove(0) };
    assert!(matches!(sink.send(&[large]).await, Err(LogFailure::TooLarge)));
    let unreadable = LogRow { json: "not JSON".to_owned(), ..rows(1).remove(0) };
    assert!(matches!(sink.send(&[unreadable]).await, Err(LogFailure::BadRows(_))));
}

/// What Azure's own library makes of the endpoint.
async fn reference(endpoint: &LogIngestion, identity: &IdentityEndpoint, arguments: [&str; 3]) -> Value {
    #[expect(clippy::disallowed_methods, reason = "a test of whole processes has their environment")]
    let interpreter = std::env::var("TOLLGATE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(interpreter);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/logs.py"));
    command.arg(format!("http://{}", endpoint.address)).args(arguments);
    command.envs(identity.settings()).env("NO_PROXY", "127.0.0.1").kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_mins(1), command.output()).await.unwrap().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The judge of the fake: what it takes from us, it must take from Azure's own library.
#[tokio::test]
#[ignore = "needs Python's azure-monitor-ingestion"]
async fn azures_own_library_finds_the_endpoint_as_azures_own() {
    let (endpoint, identity) = both().await;
    let sent = reference(&endpoint, &identity, [RULE, STREAM, "50"]).await;
    assert_eq!(sent, json!({"error": null}));
    assert_eq!((endpoint.rows().len(), endpoint.ids().len()), (50, 50));
    assert!(endpoint.calls().len() > 2, "three megabytes go in one call: {:?}", endpoint.calls());
    assert!(endpoint.complaints().is_empty(), "{:?}", endpoint.complaints());
    for (arguments, error) in [
        (["dcr-ffff", STREAM, "1"], json!([404, "NotFound"])),
        ([RULE, "Custom-Other", "1"], json!([400, "InvalidStream"])),
    ] {
        assert_eq!(reference(&endpoint, &identity, arguments).await["error"], error);
    }
    for says in [Says::Status(403), Says::Wait(429, 1)] {
        endpoint.next([says]);
        let said = reference(&endpoint, &identity, [RULE, STREAM, "1"]).await;
        assert!(said["error"].is_array(), "{says:?}: {said}");
    }
}
