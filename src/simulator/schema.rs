//! A JSON value that fits a JSON Schema, for structured outputs and for the arguments of tools.
//!
//! It knows what strict structured outputs allow (types, `enum`, `const`, `anyOf`, `$ref`, bounds and
//! lengths, common formats) and the usual rest. A `pattern` is not honoured: it would take a generator
//! of its own. Schemas may be recursive; the values must end.

use serde_json::{Map, Number, Value, json};

use super::dice::Dice;
use super::words::phrase;

/// Beyond this only what is required is filled in, and lists are as short as they may be.
const DEEP: usize = 6;
/// A schema that demands endless values is answered with null here.
const TOO_DEEP: usize = 24;
/// Longer lists than this are not filled in, whatever is asked for.
const MAX_ITEMS: u64 = 100;
/// A value has no more parts than these; the rest are null.
const MAX_PARTS: usize = 20_000;

/// A value that fits `schema`.
pub(super) fn instance(schema: &Value, dice: &mut Dice) -> Value {
    Writer { root: schema, dice, left: MAX_PARTS }.value(schema, 0)
}

/// The arguments of a call: an object, whatever the schema says.
pub(super) fn arguments(schema: &Value, dice: &mut Dice) -> Value {
    match instance(schema, dice) {
        Value::Object(arguments) => Value::Object(arguments),
        _ => json!({}),
    }
}

/// An object for a request that asks for any.
pub(super) fn object_of(dice: &mut Dice, words: usize) -> Value {
    json!({"answer": phrase(dice, words), "confidence": 1})
}

struct Writer<'a> {
    root: &'a Value,
    dice: &'a mut Dice,
    /// Parts that may yet be written.
    left: usize,
}

impl Writer<'_> {
    fn value(&mut self, schema: &Value, depth: usize) -> Value {
        if depth > TOO_DEEP || self.left == 0 {
            return Value::Null;
        }
        self.left -= 1;
        if let Some(found) = schema["$ref"].as_str().and_then(|path| self.resolve(path)) {
            return self.value(&found, depth + 1);
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(values) = filled(&schema["enum"]) {
            return values[self.dice.below(values.len())].clone();
        }
        let choices = ["anyOf", "oneOf"];
        if let Some(choices) = choices.iter().find_map(|name| filled(&schema[*name])) {
            let choice = pick(choices, depth);
            return self.value(choice, depth + 1);
        }
        if let Some(parts) = filled(&schema["allOf"]) {
            return self.all_of(parts, depth);
        }
        match kind(schema, depth) {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, depth),
            "integer" => Value::Number(Number::from(self.integer(schema))),
            "number" => self.number(schema),
            "boolean" => Value::Bool(self.dice.below(2) == 0),
            "null" => Value::Null,
            _ => Value::String(self.string(schema)),
        }
    }

    /// `#/$defs/Name`, or `#` for the whole.
    fn resolve(&self, path: &str) -> Option<Value> {
        let pointer = path.strip_prefix('#')?;
        self.root.pointer(pointer).cloned()
    }

    fn all_of(&mut self, parts: &[Value], depth: usize) -> Value {
        let mut whole = Map::new();
        for part in parts {
            match self.value(part, depth + 1) {
                Value::Object(members) => whole.extend(members),
                other if parts.len() == 1 => return other,
                _ => {}
            }
        }
        Value::Object(whole)
    }

    fn object(&mut self, schema: &Value, depth: usize) -> Value {
        let required = filled(&schema["required"]).unwrap_or_default();
        let is_required = |name: &str| required.iter().any(|wanted| wanted == name);
        let mut members = Map::new();
        if let Value::Object(properties) = &schema["properties"] {
            for (name, property) in properties {
                if depth <= DEEP || is_required(name) {
                    members.insert(name.clone(), self.value(property, depth + 1));
                }
            }
        } else if schema["additionalProperties"].is_object() && depth <= DEEP {
            let value = self.value(&schema["additionalProperties"], depth + 1);
            members.insert("key".to_owned(), value);
        }
        Value::Object(members)
    }

    fn array(&mut self, schema: &Value, depth: usize) -> Value {
        if let Some(items) = filled(&schema["prefixItems"]) {
            return items.iter().map(|item| self.value(item, depth + 1)).collect();
        }
        let least = schema["minItems"].as_u64().unwrap_or(0).min(MAX_ITEMS);
        let most = schema["maxItems"].as_u64().unwrap_or(MAX_ITEMS);
        let usual = if depth > DEEP { 0 } else { 2 };
        let items = usual.max(least).min(most);
        (0..items).map(|_| self.value(&schema["items"], depth + 1)).collect()
    }

    fn integer(&mut self, schema: &Value) -> i64 {
        let bound = |name: &str, exclusive: &str, step: i64| {
            let strict = schema[exclusive].as_i64().map(|bound| bound + step);
            strict.or_else(|| whole(&schema[name]))
        };
        let least = bound("minimum", "exclusiveMinimum", 1);
        let most = bound("maximum", "exclusiveMaximum", -1);
        let (least, most) = match (least, most) {
            (None, None) => (0, 100),
            (Some(least), None) => (least, least.saturating_add(100)),
            (None, Some(most)) => (most.saturating_sub(100), most),
            (Some(least), Some(most)) => (least, most.max(least)),
        };
        let steps = usize::try_from(most.saturating_sub(least).min(100)).unwrap_or(0);
        let step = i64::try_from(self.dice.below(steps + 1)).unwrap_or(0);
        let value = least + step;
        match schema["multipleOf"].as_i64() {
            Some(unit) if unit > 0 => {
                let below = value - value.rem_euclid(unit);
                if below < least { below + unit } else { below }
            }
            _ => value,
        }
    }

    fn number(&mut self, schema: &Value) -> Value {
        if schema["multipleOf"].is_number() && schema["multipleOf"].as_i64().is_none() {
            return json!(0);
        }
        let bound = |names: [&str; 2]| names.iter().find_map(|name| schema[*name].as_f64());
        let least = bound(["minimum", "exclusiveMinimum"]);
        let most = bound(["maximum", "exclusiveMaximum"]);
        if schema["multipleOf"].is_number() {
            return json!(self.integer(schema));
        }
        let (least, most) = match (least, most) {
            (None, None) => (0.0, 100.0),
            (Some(least), None) => (least, least + 100.0),
            (None, Some(most)) => (most - 100.0, most),
            (Some(least), Some(most)) => (least, most.max(least)),
        };
        // In the middle half, so that an exclusive bound is never met.
        json!(least + (most - least) * (0.25 + self.dice.share() / 2.0))
    }

    fn string(&mut self, schema: &Value) -> String {
        let id = self.dice.roll();
        let mut text = match schema["format"].as_str() {
            Some("date-time") => return "2024-11-20T09:30:00Z".to_owned(),
            Some("date") => return "2024-11-20".to_owned(),
            Some("time") => return "09:30:00Z".to_owned(),
            Some("duration") => return "PT1H30M".to_owned(),
            Some("email") => return format!("user{}@example.com", id % 1000),
            Some("hostname") => return "www.example.com".to_owned(),
            Some("ipv4") => return "192.0.2.1".to_owned(),
            Some("ipv6") => return "2001:db8::1".to_owned(),
            Some("uri" | "url") => return format!("https://example.com/{}", id % 1000),
            Some("uuid") => {
                let id = (u128::from(id) << 64) | u128::from(self.dice.roll());
                let uuid = uuid::Builder::from_random_bytes(id.to_be_bytes());
                return uuid.into_uuid().to_string();
            }
            _ => {
                let words = 1 + self.dice.below(3);
                phrase(self.dice, words)
            }
        };
        let length = |name: &str| {
            let length = schema[name].as_u64()?;
            usize::try_from(length).ok()
        };
        let least = length("minLength").unwrap_or(0).min(10_000);
        while text.chars().count() < least {
            text.push_str(&phrase(self.dice, 3));
        }
        text.chars().take(length("maxLength").unwrap_or(usize::MAX)).collect()
    }
}

/// The first choice that says something; nothing, if there is such a choice and it is time to end.
fn pick(choices: &[Value], depth: usize) -> &Value {
    let is_null = |choice: &&Value| choice["type"] == "null";
    let null = choices.iter().find(is_null);
    let other = choices.iter().find(|choice| !is_null(choice));
    let first = &choices[0];
    if depth > DEEP { null.or(other).unwrap_or(first) } else { other.unwrap_or(first) }
}

fn kind(schema: &Value, depth: usize) -> &str {
    match &schema["type"] {
        Value::String(kind) => kind,
        Value::Array(kinds) => {
            let kinds: Vec<_> = kinds.iter().filter_map(Value::as_str).collect();
            if depth > DEEP && kinds.contains(&"null") {
                return "null";
            }
            let other = kinds.iter().find(|kind| **kind != "null");
            other.copied().unwrap_or("null")
        }
        _ if schema["properties"].is_object() => "object",
        _ if !schema["items"].is_null() => "array",
        _ => "string",
    }
}

fn filled(list: &Value) -> Option<&[Value]> {
    let list = list.as_array()?;
    (!list.is_empty()).then_some(list)
}

#[expect(clippy::cast_possible_truncation, reason = "a bound beyond an integer's is as good as none")]
fn whole(number: &Value) -> Option<i64> {
    number.as_i64().or_else(|| number.as_f64().map(|number| number.ceil() as i64))
}

#[cfg(test)]
mod tests;
