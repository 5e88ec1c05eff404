//! Envelope mode: HTTP as one JSON document, when neither other mode is on.

use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::client::{Body, BoxError};
use super::front::{Call, Front, HOST_VERSION, plain};
use super::function::Trigger;

pub(super) async fn pass(front: &Front, call: Call) -> Response<Body> {
    match exchange(front, call).await {
        Ok(response) => response,
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn exchange(front: &Front, call: Call) -> Result<Response<Body>, BoxError> {
    let (name, port, invocation) = (call.function.clone(), call.port, call.invocation.clone());
    let Trigger::Http { name: binding, .. } = &front.app.function(&name).trigger else {
        return Err("only HTTP functions have a route".into());
    };
    let wire = wrap(binding, call).await?;
    let request = Request::post(format!("http://127.0.0.1:{port}/{name}"))
        .header("host", format!("127.0.0.1:{port}"))
        .header("user-agent", format!("Azure-Functions-Host/{HOST_VERSION}"))
        .header("content-type", "application/json; charset=utf-8")
        .header("x-azure-functions-hostversion", HOST_VERSION)
        .header("x-azure-functions-invocationid", invocation)
        .body(Full::from(wire.to_string()).map_err(|never| match never {}).boxed_unsync())?;
    let response = front.client.send(request).await?;
    if !response.status().is_success() {
        return Err(format!("the handler answered {}", response.status()).into());
    }
    unwrap(&response.into_body().collect().await?.to_bytes())
}

async fn wrap(binding: &str, call: Call) -> Result<Value, BoxError> {
    let (parts, body) = call.request.into_parts();
    let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
    Ok(json!({
        "Data": {binding: {
            "Url": format!("http://localhost{}", parts.uri),
            "Method": parts.method.as_str(),
            "Query": {},
            "Headers": header_lists(&parts.headers),
            "Params": {},
            "Identities": [],
            "Body": body,
        }},
        "Metadata": {"sys": {"MethodName": call.function, "UtcNow": "2026-09-01T12:00:05.1234567Z"}},
    }))
}

fn header_lists(headers: &HeaderMap) -> Value {
    let lists = headers.keys().map(|name| {
        let values = headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
        (name.to_string(), values.collect::<Value>())
    });
    Value::Object(lists.collect())
}

/// The status may be a number or a text.
fn unwrap(body: &[u8]) -> Result<Response<Body>, BoxError> {
    let answer: Value = serde_json::from_slice(body)?;
    let result = &answer["Outputs"]["res"];
    let code = match &result["statusCode"] {
        Value::String(text) => text.parse()?,
        Value::Number(number) => u16::try_from(number.as_u64().ok_or("no status")?)?,
        _ => return Err(format!("there is no statusCode in {answer}").into()),
    };
    let text = result["body"].as_str().map_or_else(|| result["body"].to_string(), str::to_owned);
    Ok(plain(StatusCode::from_u16(code)?, &text))
}
