//! The description as a page that needs nothing else: no script, no font, no other address.

use std::fmt::Write as _;

use serde_json::Value;

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
    <meta name=\"viewport\" content=\"width=device-width\"><title>Tollgate management</title><style>\
    body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}\
    h2{font-size:1em;margin:2em 0 0;border-top:1px solid #ccc;padding-top:1em}code,pre{font:14px/1.4 monospace}\
    pre{background:#f4f4f4;padding:1em;overflow:auto}b{text-transform:uppercase}td{padding:.1em 1em .1em 0;\
    vertical-align:top}@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}pre{background:#262626}}\
    </style>";

pub(super) fn of(description: &Value) -> String {
    let info = &description["info"];
    let mut page = format!(
        "{HEAD}<h1>{} {}</h1><p>{} The same for programs: <code>curl -s …/openapi.json</code>. Everything but what \
         is marked as open wants <code>Authorization: Bearer</code> with the admin key, or with an Entra token that \
         has the app role <code>Tollgate.Admin</code>; for one's own subscriptions of self-service products any \
         token of one's own does.</p>",
        escaped(&info["title"]),
        escaped(&info["version"]),
        escaped(&info["description"])
    );
    for (path, operations) in members(&description["paths"]) {
        for (method, operation) in members(operations) {
            section(&mut page, path, method, operation);
        }
    }
    page.push_str("<h2>Schemas</h2>");
    for (name, schema) in members(&description["components"]["schemas"]) {
        let id = escaped(&Value::from(name.as_str()));
        // Writing into a string does not fail.
        let _ = write!(page, "<details id=\"{id}\"><summary>{id}</summary>{}</details>", pretty(schema));
    }
    page
}

fn section(page: &mut String, path: &str, method: &str, operation: &Value) {
    let open = if operation["security"].is_array() { " (open)" } else { "" };
    let path = escaped(&Value::from(path));
    let _ = write!(page, "<h2><code><b>{method}</b> {path}</code>{open}</h2>");
    let _ = write!(page, "<p>{}</p><table>", escaped(&operation["summary"]));
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, place) = (escaped(&parameter["name"]), escaped(&parameter["in"]));
        let text = escaped(&parameter["description"]);
        let _ = write!(page, "<tr><td><code>{name}</code><td>{place}<td>{text}");
    }
    page.push_str("</table>");
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    if !body.is_null() {
        let _ = write!(page, "<details><summary>Body</summary>{}</details>", pretty(body));
    }
    for (status, answer) in members(&operation["responses"]) {
        let schema = &answer["content"]["application/json"]["schema"];
        let shown = if schema.is_null() { String::new() } else { pretty(schema) };
        let _ = write!(page, "<details><summary>{status}</summary>{shown}</details>");
    }
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn pretty(value: &Value) -> String {
    format!("<pre>{}</pre>", escape(&format!("{value:#}")))
}

fn escaped(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
