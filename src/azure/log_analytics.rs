//! Rows into a table of Log Analytics, by the Logs Ingestion API with the gateway's own token.
//!
//! Never tries again by itself but once after a 401, and never says in a failure what a row holds. When to
//! send, and what to do with what is not taken, is decided where the rows are kept.
//!
//! Source: <https://learn.microsoft.com/azure/azure-monitor/logs/logs-ingestion-api-overview>.

use std::io::Write as _;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use url::Url;
use uuid::Uuid;

use super::entra::{TokenFailure, Tokens};
use super::{cloud, transport};
use crate::config::settings::{Cloud, Logs};
use crate::ports::{LogFailure, LogRow, LogSink};

const API_VERSION: &str = "2023-01-01";
/// A call takes 1 MiB, compressed and not: <https://learn.microsoft.com/azure/azure-monitor/service-limits>. What is
/// left is for a measure that is not ours.
const MAX_BYTES: usize = 950_000;
/// A megabyte over a slow line, and the service's own time.
const SEND: Duration = Duration::from_secs(15);
/// A refusal is a few hundred bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;
const WHAT: &str = "Log Analytics";

/// One stream of a data collection rule.
pub struct LogAnalytics {
    client: reqwest::Client,
    tokens: Tokens,
    scope: &'static str,
    rule_id: String,
    stream: String,
    url: Url,
}

impl LogAnalytics {
    pub fn new(logs: &Logs, in_cloud: Cloud, tokens: Tokens, client: reqwest::Client) -> Self {
        let Logs { endpoint, rule_id, stream } = logs.clone();
        let mut url = endpoint;
        // Each was checked to be a name: nothing in them ends a part of a path.
        url.set_path(&format!("/dataCollectionRules/{rule_id}/streams/{stream}"));
        url.set_query(Some(&format!("api-version={API_VERSION}")));
        Self { client, tokens, scope: cloud::facts(in_cloud).logs_scope, rule_id, stream, url }
    }

    async fn ask(&self, body: &Bytes) -> Result<(StatusCode, HeaderMap, Vec<u8>), LogFailure> {
        let token = self.tokens.token(self.scope).await.map_err(|failure| match failure {
            TokenFailure::Refused(text) => LogFailure::Refused(text.to_string()),
            TokenFailure::Passing(_) => unavailable(None, failure),
        })?;
        let request = self
            .client
            .post(self.url.clone())
            .timeout(SEND)
            .header(AUTHORIZATION, token.bearer())
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip")
            .header("x-ms-client-request-id", Uuid::now_v7().to_string())
            .body(body.clone());
        transport::answer(request, MAX_ANSWER_BYTES).await.map_err(|error| unavailable(None, error))
    }

    fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> LogFailure {
        let Complaint { code, message } = complaint(body);
        let said = transport::in_one_line(&format!("{code} {message}"));
        let Self { rule_id, stream, .. } = self;
        let host = self.url.host_str().unwrap_or_default();
        match status.as_u16() {
            400 if is_about_the_address(&code) => LogFailure::Refused(format!(
                "{host} does not know the stream {stream} of the rule {rule_id}: check TOLLGATE_LOGS_STREAM and \
                 TOLLGATE_LOGS_RULE_ID. {said}"
            )),
            400 => LogFailure::BadRows(said),
            401 => LogFailure::Refused(format!(
                "{host} does not take the gateway's token: the rule must be of the identity's own tenant, and of \
                 the cloud that TOLLGATE_CLOUD names. {said}"
            )),
            403 => LogFailure::Refused(format!(
                "the gateway's identity may not send to the rule {rule_id}: give it the role Monitoring Metrics \
                 Publisher on the rule (`az role assignment create --role \"Monitoring Metrics Publisher\" --assignee \
                 PRINCIPAL-ID --scope RULE-RESOURCE-ID`; it takes up to half an hour to hold). {said}"
            )),
            404 => LogFailure::Refused(format!(
                "{host} does not know the rule {rule_id} with the stream {stream}: TOLLGATE_LOGS_RULE_ID is the \
                 rule's immutable id, TOLLGATE_LOGS_ENDPOINT the rule's own endpoint or one in its region. {said}"
            )),
            413 => LogFailure::TooLarge,
            408 | 429 | 500.. => unavailable(retry_after(headers), format!("{status}: {said}")),
            _ => LogFailure::Refused(format!("{host} refuses what it is sent: {status}: {said}")),
        }
    }
}

#[async_trait]
impl LogSink for LogAnalytics {
    fn max_bytes(&self) -> usize {
        // The brackets around the rows.
        MAX_BYTES - 2
    }

    async fn send(&self, rows: &[LogRow]) -> Result<(), LogFailure> {
        let body = body(rows).await?;
        let (mut status, mut headers, mut answer) = self.ask(&body).await?;
        if status == StatusCode::UNAUTHORIZED && self.tokens.renew(self.scope).await {
            (status, headers, answer) = self.ask(&body).await?;
        }
        if status.is_success() { Ok(()) } else { Err(self.failure(status, &headers, &answer)) }
    }
}

/// The rows as one compressed array.
async fn body(rows: &[LogRow]) -> Result<Bytes, LogFailure> {
    let rows: Vec<_> = rows.iter().map(|row| row.json.as_str()).collect();
    let array = format!("[{}]", rows.join(","));
    let compress = move || {
        let mut body = GzEncoder::new(Vec::new(), Compression::fast());
        body.write_all(array.as_bytes())?;
        body.finish()
    };
    let body = tokio::task::spawn_blocking(compress).await.map_err(|error| unavailable(None, error))?;
    body.map(Bytes::from).map_err(|error| unavailable(None, error))
}

fn unavailable(
    retry_after: Option<Duration>,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> LogFailure {
    LogFailure::Unavailable { what: WHAT, retry_after, source: source.into() }
}

/// Whole seconds are what Azure Monitor writes.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Whether a 400 is about rule, stream or version, which no other row would change.
fn is_about_the_address(code: &str) -> bool {
    ["stream", "datacollectionrule", "dcr", "apiversion"]
        .iter()
        .any(|about| code.to_ascii_lowercase().contains(about))
}

/// What a refusal says.
#[derive(Debug, Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

fn complaint(body: &[u8]) -> Complaint {
    #[derive(Deserialize)]
    struct Body {
        error: Complaint,
    }
    serde_json::from_slice::<Body>(body).map(|body| body.error).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_400_about_the_stream_does_not_accuse_the_rows() {
        assert!(is_about_the_address("InvalidStream") && is_about_the_address("InvalidApiVersion"));
        assert!(!is_about_the_address("InvalidPayload") && !is_about_the_address(""));
    }

    #[test]
    fn a_wait_is_whole_seconds_or_not_told() {
        let told =
            |value: &'static str| retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]));
        assert_eq!(told("30"), Some(Duration::from_secs(30)));
        assert_eq!((told("soon"), told("-1"), retry_after(&HeaderMap::new())), (None, None, None));
    }
}
