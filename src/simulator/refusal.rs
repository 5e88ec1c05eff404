//! Every way in which an Azure OpenAI resource says no, in its own bodies and headers.
//!
//! The front door answers with `code` and `message` alone, the model behind it with all four members:
//! clients tell them apart, so the two shapes are not mixed here.

use axum::body::Body;
use axum::response::Response;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{Value, json};

/// A refusal, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    status: u16,
    body: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// The members stand in the order that each of the two writes them in.
#[derive(Serialize)]
#[serde(untagged)]
enum Error<'a> {
    Door {
        code: &'a str,
        message: &'a str,
    },
    Model {
        message: &'a str,
        #[serde(rename = "type")]
        kind: Option<&'a str>,
        param: Option<&'a str>,
        code: Option<&'a str>,
        #[serde(flatten)]
        filtered: Option<Filtered>,
    },
}

#[derive(Serialize)]
struct Filtered {
    status: u16,
    innererror: Inner,
}

#[derive(Serialize)]
struct Inner {
    code: &'static str,
    content_filter_result: Value,
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Error<'a>,
}

/// The refusals that a request may ask for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Name {
    BadKey,
    NoToken,
    PermissionDenied,
    KeyAuthDisabled,
    PublicAccessDisabled,
    VirtualNetwork,
    ResourceNotFound,
    DeploymentNotFound,
    ContentFilter,
    StreamOptions,
    Timeout,
    Throttled,
    ServerError,
    Unavailable,
}

impl Name {
    const ALL: [(&str, Self); 14] = [
        ("bad-key", Self::BadKey),
        ("no-token", Self::NoToken),
        ("permission-denied", Self::PermissionDenied),
        ("key-auth-disabled", Self::KeyAuthDisabled),
        ("public-access-disabled", Self::PublicAccessDisabled),
        ("virtual-network", Self::VirtualNetwork),
        ("resource-not-found", Self::ResourceNotFound),
        ("deployment-not-found", Self::DeploymentNotFound),
        ("content-filter", Self::ContentFilter),
        ("stream-options", Self::StreamOptions),
        ("timeout", Self::Timeout),
        ("throttled", Self::Throttled),
        ("server-error", Self::ServerError),
        ("unavailable", Self::Unavailable),
    ];

    pub(super) fn of(name: &str) -> Option<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == name);
        found.map(|(_, name)| *name)
    }
}

const BAD_KEY: &str = "Access denied due to invalid subscription key or wrong API endpoint. Make \
    sure to provide a valid key for an active subscription and use a correct regional API endpoint \
    for your resource.";
const NO_TOKEN: &str = "Access token is missing, invalid, audience is incorrect \
    (https://cognitiveservices.azure.com), or have expired.";
const VIRTUAL_NETWORK: &str = "Access denied due to Virtual Network/Firewall rules.";
const NO_DEPLOYMENT: &str = "The API deployment for this resource does not exist. If you created \
    the deployment within the last 5 minutes, please wait a moment and try again.";
const FILTERED: &str = "The response was filtered due to the prompt triggering Azure OpenAI's \
    content management policy. Please modify your prompt and retry. To learn more about our content \
    filtering policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766";
const NOT_JSON: &str = "We could not parse the JSON body of your request. (HINT: This likely means \
    you aren't using your HTTP library correctly. The OpenAI API expects a JSON payload, but what was \
    sent was not valid JSON.)";
const SERVER_ERROR: &str =
    "The server had an error processing your request. Sorry about that! You can retry your request.";
const UNAVAILABLE: &str =
    "The service is temporarily unable to process your request. Please try again later.";

impl Refusal {
    fn new(status: u16, error: Error) -> Self {
        let body = serde_json::to_string(&Envelope { error }).expect("texts and numbers can be written");
        Self { status, body, headers: Vec::new() }
    }

    /// The front door's shape.
    fn door(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, Error::Door { code, message })
    }

    /// The model's shape, for what is wrong with the request.
    pub(super) fn invalid(message: &str, param: Option<&str>, code: Option<&str>) -> Self {
        let kind = Some("invalid_request_error");
        Self::new(400, Error::Model { message, kind, param, code, filtered: None })
    }

    pub(super) fn status(&self) -> u16 {
        self.status
    }

    /// What Azure says with this status.
    pub(super) fn of_status(status: u16) -> Self {
        let name = match status {
            401 => Name::BadKey,
            403 => Name::PublicAccessDisabled,
            404 => Name::DeploymentNotFound,
            408 => Name::Timeout,
            429 => Name::Throttled,
            500 => Name::ServerError,
            503 => Name::Unavailable,
            400 => return Self::invalid("The request is invalid.", None, None),
            other => {
                let known = StatusCode::from_u16(other).ok();
                let reason = known.and_then(|status| status.canonical_reason());
                return Self::door(other, &other.to_string(), reason.unwrap_or("Error"));
            }
        };
        Self::named(name)
    }

    pub(super) fn named(name: Name) -> Self {
        match name {
            Name::BadKey => Self::door(401, "401", BAD_KEY),
            Name::NoToken => Self::door(401, "401", NO_TOKEN),
            Name::PermissionDenied => {
                Self::door(401, "PermissionDenied", "Principal does not have access to API/Operation.")
            }
            Name::KeyAuthDisabled => Self::door(
                403,
                "AuthenticationTypeDisabled",
                "Key based authentication is disabled for this resource.",
            ),
            Name::PublicAccessDisabled => {
                Self::door(403, "403", "Public access is disabled. Please configure private endpoint.")
            }
            Name::VirtualNetwork => Self::door(403, "403", VIRTUAL_NETWORK)
                .with("policy-id", HeaderValue::from_static("ThrowExceptionDueToTrafficDenied")),
            Name::ResourceNotFound => Self::door(404, "404", "Resource not found"),
            Name::DeploymentNotFound => Self::door(404, "DeploymentNotFound", NO_DEPLOYMENT),
            Name::ContentFilter => Self::content_filter(),
            Name::StreamOptions => Self::unknown_argument("stream_options"),
            Name::Timeout => Self::door(408, "Timeout", "The operation was timeout."),
            Name::Throttled => Self::throttled("ChatCompletions_Create", "2024-10-21", "token", 10),
            Name::ServerError => Self::server_error(),
            Name::Unavailable => Self::door(503, "ServiceUnavailable", UNAVAILABLE),
        }
    }

    pub(super) fn not_json() -> Self {
        Self::invalid(NOT_JSON, None, None)
    }

    pub(super) fn unknown_argument(name: &str) -> Self {
        let message = format!("Unrecognized request argument supplied: {name}");
        Self::invalid(&message, None, None)
    }

    pub(super) fn unknown_parameter(param: &str) -> Self {
        Self::invalid(&format!("Unknown parameter: '{param}'."), Some(param), Some("unknown_parameter"))
    }

    pub(super) fn no_response(id: &str) -> Self {
        let error = Error::Model {
            message: &format!("Response with id '{id}' not found."),
            kind: Some("invalid_request_error"),
            param: None,
            code: None,
            filtered: None,
        };
        Self::new(404, error)
    }

    pub(super) fn no_previous_response(id: &str) -> Self {
        let message = format!("Previous response with id '{id}' not found.");
        Self::invalid(&message, Some("previous_response_id"), Some("previous_response_not_found"))
    }

    /// The version is older than the operation.
    pub(super) fn not_in_this_version() -> Self {
        let message =
            "Azure OpenAI Responses API is enabled only for api-version 2025-03-01-preview and later";
        Self::door(400, "BadRequest", message)
    }

    pub(super) fn missing(param: &str) -> Self {
        let message = format!("Missing required parameter: '{param}'.");
        Self::invalid(&message, Some(param), Some("missing_required_parameter"))
    }

    pub(super) fn wrong_type(param: &str, expected: &str, got: &Value) -> Self {
        let got = match got {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(number) if number.is_f64() => "a decimal",
            Value::Number(_) => "an integer",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        let message = format!("Invalid type for '{param}': expected {expected}, but got {got} instead.");
        Self::invalid(&message, Some(param), Some("invalid_type"))
    }

    pub(super) fn invalid_value(param: &str, message: &str) -> Self {
        Self::invalid(message, Some(param), Some("invalid_value"))
    }

    pub(super) fn too_long(limit: u64, tokens: u64, param: &str) -> Self {
        let message = format!(
            "This model's maximum context length is {limit} tokens. However, your messages resulted \
             in {tokens} tokens. Please reduce the length of the {param}."
        );
        Self::invalid(&message, Some(param), Some("context_length_exceeded"))
    }

    pub(super) fn body_too_large() -> Self {
        Self::door(413, "413", "Request entity too large")
    }

    /// `limit` is what was used up: `token` or `call`.
    pub(super) fn throttled(operation: &str, version: &str, limit: &str, seconds: u64) -> Self {
        let message = format!(
            "Requests to the {operation} Operation under Azure OpenAI API version {version} have \
             exceeded {limit} rate limit of your current OpenAI S0 pricing tier. Please retry after \
             {seconds} seconds. Please go here: https://aka.ms/oai/quotaincrease if you would like to \
             further increase the default rate limit."
        );
        Self::door(429, "429", &message)
            .with_numbers(&[("retry-after", seconds), ("retry-after-ms", seconds * 1000)])
    }

    /// These headers as well.
    pub(super) fn with_numbers(mut self, headers: &[(&'static str, u64)]) -> Self {
        for (name, value) in headers {
            self = self.with(name, HeaderValue::from(*value));
        }
        self
    }

    /// In milliseconds, how soon to come back.
    pub(super) fn with_wait_ms(self, millis: u64) -> Self {
        let name = HeaderName::from_static("retry-after-ms");
        let seconds = HeaderName::from_static("retry-after");
        self.with_retry_headers(&[(name, millis.into()), (seconds, millis.div_ceil(1000).into())])
    }

    /// These headers, and no other word on when to come back.
    pub(super) fn with_retry_headers(mut self, headers: &[(HeaderName, HeaderValue)]) -> Self {
        let tells_when = |name: &str| name.starts_with("retry-after") || name.contains("-reset-");
        self.headers.retain(|(name, _)| !tells_when(name.as_str()));
        self.headers.extend(headers.iter().cloned());
        self
    }

    fn with(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    fn content_filter() -> Self {
        let safe = json!({"filtered": false, "severity": "safe"});
        let result = json!({
            "hate": safe, "jailbreak": {"detected": false, "filtered": false}, "self_harm": safe,
            "sexual": safe, "violence": {"filtered": true, "severity": "high"},
        });
        let innererror = Inner { code: "ResponsibleAIPolicyViolation", content_filter_result: result };
        let error = Error::Model {
            message: FILTERED,
            kind: None,
            param: Some("prompt"),
            code: Some("content_filter"),
            filtered: Some(Filtered { status: 400, innererror }),
        };
        Self::new(400, error)
    }

    fn server_error() -> Self {
        let kind = Some("server_error");
        Self::new(500, Error::Model { message: SERVER_ERROR, kind, param: None, code: None, filtered: None })
    }

    pub(super) fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() =
            StatusCode::from_u16(self.status).expect("a refusal's status is from 400 to 599");
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_body_in_the_common_shape() {
        for status in 400..600 {
            let refusal = Refusal::of_status(status);
            assert_eq!(refusal.status(), status);
            let body: Value = serde_json::from_str(&refusal.body).unwrap();
            assert!(body["error"]["message"].is_string(), "{status}");
        }
    }

    #[test]
    fn names_in_the_help_are_those_that_are_known() {
        for (name, _) in Name::ALL {
            assert!(super::super::behaviour::HELP.contains(name), "{name}");
        }
    }
}
