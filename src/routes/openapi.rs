//! `GET /openapi.json`: management, described in OpenAPI 3.1, made of the very types that the routes read and
//! write; and the same as a page for people.
//!
//! Never has a datum of the gateway in it: it needs no key.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, VARY};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

mod operations;
mod page;

use operations::{Answer, OPERATIONS, Operation};

static DESCRIPTION: LazyLock<Value> = LazyLock::new(description);
static TEXT: LazyLock<String> = LazyLock::new(|| DESCRIPTION.to_string());
static PAGE: LazyLock<String> = LazyLock::new(|| page::of(&DESCRIPTION));

/// `GET /openapi.json`: a page for who asks for HTML, as browsers do.
pub(super) async fn show(headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let wants_page = accept.split(',').any(|kind| kind.trim_start().starts_with("text/html"));
    let common = [(VARY, "accept"), (CACHE_CONTROL, "no-cache")];
    if wants_page {
        let headers = [
            (CONTENT_TYPE, "text/html; charset=utf-8"),
            (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        ];
        return (common, headers, PAGE.as_str()).into_response();
    }
    (common, [(CONTENT_TYPE, "application/json")], TEXT.as_str()).into_response()
}

fn description() -> Value {
    let settings = |settings: SchemaSettings| {
        settings.with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    // What is read and what is written differ in what must be there.
    let mut read = settings(SchemaSettings::draft2020_12().for_deserialize()).into_generator();
    let mut written = settings(SchemaSettings::draft2020_12().for_serialize()).into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for operation in OPERATIONS {
        let described = described(operation, &mut read, &mut written);
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method] = described;
    }
    let mut schemas = written.take_definitions(true);
    schemas.extend(read.take_definitions(true));
    schemas.insert("Refusal".to_owned(), operations::refusal());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate management",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Subscriptions, their keys, and reports. Times are RFC 3339 in UTC, money is decimal strings.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"admin": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"admin": {
                "type": "http", "scheme": "bearer",
                "description": "The admin key, or an Entra token with the app role `Tollgate.Admin`. For products with \
                                `self_service` the token of a person does as well, to issue, list, find, rotate \
                                and end what is their own.",
            }},
        },
    })
}

fn described(operation: &Operation, read: &mut SchemaGenerator, written: &mut SchemaGenerator) -> Value {
    let refused = json!({
        "description": "Refused, in the shape that OpenAI's clients read.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Refusal"}}},
    });
    let mut responses = Map::from_iter([("default".to_owned(), refused)]);
    let (status, answer) = (operation.answer)(written);
    responses.insert(status.to_owned(), answered(answer));
    let mut described = json!({
        "operationId": operation.id,
        "summary": operation.summary,
        "parameters": parameters(operation, read),
        "responses": responses,
    });
    if let Some(body) = operation.body {
        let schema = body(read);
        let mut content = json!({"application/json": {"schema": schema}});
        if let Some(media_type) = operation.body_may_be {
            content[media_type] = json!({"schema": {"type": "string"}});
        }
        described["requestBody"] = json!({"required": !operation.body_is_optional, "content": content});
    }
    if operation.is_open {
        described["security"] = json!([]);
    }
    described
}

fn answered(answer: Answer) -> Value {
    match answer {
        Answer::Nothing => json!({"description": "Done."}),
        Answer::Json(schema) => {
            json!({"description": "Done.", "content": {"application/json": {"schema": schema}}})
        }
        Answer::JsonOrCsv(schema) => json!({"description": "Done.", "content": {
            "application/json": {"schema": schema}, "text/csv": {"schema": {"type": "string"}},
        }}),
    }
}

/// Those in the path by its braces, those in the query by the form that reads it.
fn parameters(operation: &Operation, read: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = operation.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = in_path
        .map(|name| {
            let schema = match name {
                "slot" => json!({"type": "string", "enum": ["primary", "secondary"]}),
                _ => json!({"type": "string"}),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    if let Some(query) = operation.query {
        let mut form = query(read);
        let members = form.get_mut("properties").and_then(Value::as_object_mut).map(std::mem::take);
        for (name, mut schema) in members.unwrap_or_default() {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            parameters.push(json!({
                "name": name, "in": "query", "required": false, "schema": schema, "description": description,
            }));
        }
    }
    if operation.once {
        parameters.push(json!({
            "name": "Idempotency-Key", "in": "header", "required": false,
            "schema": {"type": "string", "minLength": 1, "maxLength": 256},
            "description": "The same key with the same body within 24 h is the same request.",
        }));
    }
    parameters
}
