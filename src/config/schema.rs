//! The JSON Schema of the gateway configuration, for editors.
//!
//! It is made of the structs that read the file, so it cannot know another field than they do. It
//! tells the form alone: whether names resolve, and what stands twice, is for
//! [`super::catalog::Catalog::parse`].

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{Transform, transform_subschemas};
use serde_json::{Value, json};

use super::file::File;

/// `https`, or `http` on this machine; nothing behind the host.
pub(super) const ENDPOINT: &str = r"^(https://[^/?#@\s]+|http://(127(\.\d+){3}|localhost|\[::1\])(:\d+)?)/?$";

/// The schema, of the draft 2020-12.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with_transform(Plain);
    settings.into_generator().into_root_schema_for::<File>().to_value()
}

/// What serde takes and nobody should write, and what Rust alone means, is left out.
#[derive(Clone, Debug)]
struct Plain;

impl Transform for Plain {
    fn transform(&mut self, schema: &mut Schema) {
        transform_subschemas(self, schema);
        let Some(members) = schema.as_object_mut() else { return };
        // `null` is read as absent.
        if let Some(Value::Array(kinds)) = members.get_mut("type") {
            kinds.retain(|kind| kind != "null");
            if let [kind] = kinds.as_slice() {
                let kind = kind.clone();
                members.insert("type".to_owned(), kind);
            }
        }
        if let Some(Value::Array(choices)) = members.get_mut("anyOf") {
            choices.retain(|choice| choice["type"] != "null");
            if let [Value::Object(only)] = choices.as_slice() {
                let only = only.clone();
                members.remove("anyOf");
                for (name, value) in only {
                    members.entry(name).or_insert(value);
                }
            }
        }
        members.remove("format");
        members.remove("default");
        // Comments are broken into lines where the source ends them.
        if let Some(Value::String(text)) = members.get_mut("description") {
            *text = text.replace('\n', " ");
        }
    }
}

fn kind_is(kind: &str) -> Value {
    json!({"properties": {"kind": {"const": kind}}, "required": ["kind"]})
}

/// A key belongs to the kind `api_key`, an audience to `entra`.
pub(super) fn auth_goes_together(schema: &mut Schema) {
    schema.insert(
        "allOf".to_owned(),
        json!([
            {"if": kind_is("api_key"),
             "then": {"oneOf": [{"required": ["secret"]}, {"required": ["value"]}],
                      "properties": {"audience": false}},
             "else": {"properties": {"secret": false, "value": false}}},
            {"if": kind_is("none"), "then": {"properties": {"audience": false}}},
        ]),
    );
}

/// Units and their price belong to the kind `provisioned`.
pub(super) fn billing_goes_together(schema: &mut Schema) {
    schema.insert(
        "allOf".to_owned(),
        json!([
            {"if": kind_is("provisioned"), "then": {"required": ["units", "hourly_price_per_unit"]},
             "else": {"properties": {"units": false, "hourly_price_per_unit": false}}},
        ]),
    );
}

/// A price that named nothing would apply to everything.
pub(super) fn price_names_something(schema: &mut Schema) {
    let one_of = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| json!({"required": [name]})).collect();
        json!({"anyOf": names})
    };
    let all = [one_of(&["deployment", "model", "backend"]), one_of(&["input_per_million", "image_each"])];
    schema.insert("allOf".to_owned(), all.to_vec().into());
}
