use super::*;

fn made(schema: &Value) -> Value {
    instance(schema, &mut Dice::new(7))
}

#[test]
fn every_kind_of_value_fits_its_schema() {
    let schema = json!({
        "type": "object", "additionalProperties": false,
        "required": ["name", "age", "share", "ok", "kind", "fixed", "tags", "maybe", "when"],
        "properties": {
            "name": {"type": "string", "minLength": 30, "maxLength": 40},
            "age": {"type": "integer", "minimum": 18, "maximum": 20},
            "share": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            "ok": {"type": "boolean"},
            "kind": {"enum": ["a", "b"]},
            "fixed": {"const": 3},
            "tags": {"type": "array", "items": {"type": "string"}, "minItems": 3},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
            "when": {"type": ["string", "null"], "format": "date"},
        },
    });
    let made = made(&schema);
    let length = made["name"].as_str().unwrap().chars().count();
    assert!((30..=40).contains(&length), "{made}");
    assert!((18..=20).contains(&made["age"].as_i64().unwrap()), "{made}");
    let share = made["share"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0, "{made}");
    assert!(made["ok"].is_boolean() && made["maybe"].is_i64(), "{made}");
    assert!(made["kind"] == "a" || made["kind"] == "b", "{made}");
    assert_eq!(made["fixed"], 3);
    assert_eq!(made["tags"].as_array().unwrap().len(), 3);
    assert_eq!(made["when"], "2024-11-20");
    assert_eq!(made.as_object().unwrap().len(), 9);
}

#[test]
fn references_are_followed_and_recursion_ends() {
    let schema = json!({
        "$ref": "#/$defs/Node",
        "$defs": {"Node": {
            "type": "object", "required": ["value", "next", "children"],
            "properties": {
                "value": {"type": "integer"},
                "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                "children": {"type": "array", "maxItems": 1, "items": {"$ref": "#/$defs/Node"}},
            },
        }},
    });
    let made = made(&schema);
    assert!(made["value"].is_i64() && made["next"].is_object(), "{made}");
    assert!(made["children"][0]["value"].is_i64(), "{made}");
}

#[test]
fn a_schema_that_demands_endless_values_is_answered() {
    let schema = json!({
        "type": "object", "required": ["again"], "properties": {"again": {"$ref": "#"}},
    });
    assert!(made(&schema).is_object());
    assert!(made(&json!({"$ref": "#"})).is_null());
    let names: Vec<_> = (0..10).map(|name| name.to_string()).collect();
    let again = |name: &String| (name.clone(), json!({"$ref": "#"}));
    let properties: Map<_, _> = names.iter().map(again).collect();
    let wide = json!({"type": "object", "required": names, "properties": properties});
    assert!(made(&wide).to_string().len() < 1_000_000);
}

#[test]
fn bounds_of_integers_are_kept() {
    for (schema, least, most, unit) in [
        (json!({"type": "integer", "minimum": 5}), 5, i64::MAX, 1),
        (json!({"type": "integer", "maximum": -5}), i64::MIN, -5, 1),
        (json!({"type": "integer", "minimum": 7, "maximum": 7}), 7, 7, 1),
        (json!({"type": "integer", "exclusiveMinimum": 0, "multipleOf": 10}), 1, 110, 10),
    ] {
        let made = made(&schema).as_i64().unwrap();
        assert!((least..=most).contains(&made) && made % unit == 0, "{made}");
    }
}

#[test]
fn arguments_are_an_object_whatever_the_schema_says() {
    let mut dice = Dice::new(1);
    assert_eq!(arguments(&Value::Null, &mut dice), json!({}));
    assert_eq!(arguments(&json!({"type": "string"}), &mut dice), json!({}));
}
