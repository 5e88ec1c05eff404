//! Every operation of management, in a line or two each. A test holds this list against the routes.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::domain::audit::Record;
use crate::domain::subscription::Subscription;
use crate::ledger::report::Totals;
use crate::ports::Group;
use crate::routes::subscriptions::form::{NewForm, Page, PatchForm};
use crate::routes::{audit, dead_letters, reports};

pub(super) struct Operation {
    pub(super) id: &'static str,
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    /// The form of the query, its members inline.
    pub(super) query: Option<fn(&mut SchemaGenerator) -> Value>,
    pub(super) body: Option<fn(&mut SchemaGenerator) -> Value>,
    /// It may also come without its body.
    pub(super) body_is_optional: bool,
    /// What it may be besides JSON: a media type.
    pub(super) body_may_be: Option<&'static str>,
    /// The status when all is well, and what comes with it.
    pub(super) answer: fn(&mut SchemaGenerator) -> (&'static str, Answer),
    /// Needs no key.
    pub(super) is_open: bool,
    /// Takes an idempotency key.
    pub(super) once: bool,
}

pub(super) enum Answer {
    Nothing,
    Json(Value),
    JsonOrCsv(Value),
}

/// What most operations have: a key, and nothing else.
const PLAIN: Operation = Operation {
    id: "",
    method: "get",
    path: "",
    summary: "",
    query: None,
    body: None,
    body_is_optional: false,
    body_may_be: None,
    answer: |_| ("200", Answer::Nothing),
    is_open: false,
    once: false,
};

pub(super) const OPERATIONS: &[Operation] = &[
    Operation {
        id: "issueSubscription",
        method: "post",
        path: "/subscriptions",
        summary: "Issues a subscription. Its two keys are in this answer and never shown again: a replay of the \
                  same request has the same id and no keys.",
        body: Some(schema::<NewForm>),
        answer: |written| ("201", Answer::Json(issued(written))),
        once: true,
        ..PLAIN
    },
    Operation {
        id: "listSubscriptions",
        path: "/subscriptions",
        summary: "Subscriptions in the order of their ids. Those that have ended only with state=ended.",
        query: Some(members::<Page>),
        answer: |written| ("200", Answer::Json(list_of(&schema::<Subscription>(written)))),
        ..PLAIN
    },
    Operation {
        id: "findSubscription",
        path: "/subscriptions/{id}",
        summary: "One subscription, without its keys: a hint is the last four characters of each.",
        answer: |written| ("200", Answer::Json(schema::<Subscription>(written))),
        ..PLAIN
    },
    Operation {
        id: "changeSubscription",
        method: "patch",
        path: "/subscriptions/{id}",
        summary: "Changes the fields that are given; null clears. 409 once it has ended.",
        body: Some(schema::<PatchForm>),
        answer: |written| ("200", Answer::Json(schema::<Subscription>(written))),
        ..PLAIN
    },
    Operation {
        id: "endSubscription",
        method: "delete",
        path: "/subscriptions/{id}",
        summary: "Ends it for good; its usage stays. To end it again is no fault.",
        answer: |_| ("204", Answer::Nothing),
        ..PLAIN
    },
    Operation {
        id: "replaceKey",
        method: "post",
        path: "/subscriptions/{id}/keys/{slot}",
        summary: "A new key for that slot, shown this once. The other key goes on working.",
        answer: |_| {
            let key =
                json!({"type": "object", "required": ["key"], "properties": {"key": {"type": "string"}}});
            ("200", Answer::Json(key))
        },
        ..PLAIN
    },
    Operation {
        id: "reportUsage",
        path: "/reports/usage",
        summary: "Tokens by kind, requests and cost, in groups. Comes as CSV for `Accept: text/csv`.",
        query: Some(|_| usage_query()),
        answer: |_| ("200", Answer::JsonOrCsv(usage())),
        ..PLAIN
    },
    Operation {
        id: "reportChargeback",
        path: "/reports/chargeback",
        summary: "Who pays what of a month: by cost centre, subscription and product, provisioned capacity shared out. \
                  Lines add up to the total exactly, and their coins to its coins. Comes as CSV for `Accept: text/csv`.",
        query: Some(|_| chargeback_query()),
        answer: |_| ("200", Answer::JsonOrCsv(reports::chargeback::schema())),
        ..PLAIN
    },
    Operation {
        id: "reportForecast",
        path: "/reports/forecast",
        summary: "Where this month ends, by subscription and in all, with a range; when budgets run out; whether provisioned \
                  capacity would be cheaper.",
        answer: |written| ("200", Answer::Json(schema::<reports::forecast::Answer>(written))),
        ..PLAIN
    },
    Operation {
        id: "reconcile",
        method: "post",
        path: "/reports/reconciliation",
        summary: "Holds a file of Azure's figures against the ledger: the JSON that `az monitor metrics list` prints, or a CSV \
                  export of Cost Management. Changes nothing.",
        query: Some(|_| json!({"properties": {"month": month()}})),
        body: Some(|_| json!({"description": "The file, as it is."})),
        body_may_be: Some("text/csv"),
        answer: |written| ("200", Answer::Json(schema::<reports::reconciliation::Answer>(written))),
        ..PLAIN
    },
    Operation {
        id: "reportBackends",
        path: "/reports/backends",
        summary: "How each backend does, as this instance has met it, and which configuration holds.",
        answer: |_| {
            let backends = json!({
                "type": "object", "required": ["configuration", "items", "next"],
                "properties": {
                    "configuration": {"type": "object"},
                    "items": {"type": "array", "items": {"type": "object", "required": ["name", "state"]}},
                    "next": {"type": "null"},
                },
            });
            ("200", Answer::Json(backends))
        },
        ..PLAIN
    },
    Operation {
        id: "reportAudit",
        path: "/reports/audit",
        summary: "Who changed what, when, from where, what before and after; the newest first.",
        query: Some(members::<audit::Page>),
        answer: |written| ("200", Answer::Json(list_of(&schema::<Record>(written)))),
        ..PLAIN
    },
    Operation {
        id: "reportDeadLetters",
        path: "/reports/dead-letters",
        summary: "Messages that are no usage events, each with the reason, the oldest first; of a message the first 2 KiB.",
        query: Some(members::<dead_letters::Page>),
        answer: |_| ("200", Answer::Json(list_of(&dead_letter()))),
        ..PLAIN
    },
    Operation {
        id: "replayDeadLetters",
        method: "post",
        path: "/reports/dead-letters/replay",
        summary: "Tries to post dead letters again: those that are named, all without a body. What was posted before \
                  counts once.",
        body: Some(schema::<dead_letters::Replay>),
        body_is_optional: true,
        answer: |_| ("200", Answer::Json(replayed())),
        ..PLAIN
    },
    Operation {
        id: "describe",
        path: "/openapi.json",
        summary: "This description; a page for people, for `Accept: text/html`.",
        answer: |_| ("200", Answer::Json(json!({"type": "object"}))),
        is_open: true,
        ..PLAIN
    },
    Operation {
        id: "health",
        path: "/healthz",
        summary: "Whether the gateway is there: always 200 while it is.",
        answer: |_| {
            let health = json!({
                "type": "object", "required": ["status"],
                "properties": {"status": {"enum": ["starting", "ready", "degraded"]}},
            });
            ("200", Answer::Json(health))
        },
        is_open: true,
        ..PLAIN
    },
    Operation {
        id: "root",
        path: "/",
        summary: "Name and version.",
        answer: |_| {
            let root = json!({
                "type": "object", "required": ["name", "version"],
                "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
            });
            ("200", Answer::Json(root))
        },
        is_open: true,
        ..PLAIN
    },
];

/// By reference to the components.
fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

fn members<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    Schema::to_value(T::json_schema(generator))
}

fn list_of(item: &Value) -> Value {
    json!({
        "type": "object", "required": ["items", "next"],
        "properties": {
            "items": {"type": "array", "items": item},
            "next": {"type": ["string", "null"], "description": "For `cursor`; null on the last page."},
        },
    })
}

fn issued(written: &mut SchemaGenerator) -> Value {
    json!({"allOf": [
        schema::<Subscription>(written),
        {"type": "object", "properties": {
            "primary_key": {"type": "string"}, "secondary_key": {"type": "string"},
        }},
    ]})
}

fn month() -> Value {
    json!({
        "type": "string", "pattern": "^\\d{4}-\\d{2}$",
        "description": "A UTC month that has begun, such as 2026-11. Without it, this one.",
    })
}

fn chargeback_query() -> Value {
    json!({"properties": {
        "month": month(),
        "format": {
            "type": "string", "enum": reports::chargeback::FORMATS,
            "description": "`focus` is CSV with the columns of FOCUS 1.2.",
        },
    }})
}

fn dead_letter() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object", "required": ["id", "received_at", "reason", "message"],
        "properties": {
            "id": text, "received_at": {"type": "string", "format": "date-time"}, "reason": text, "message": text,
        },
    })
}

fn replayed() -> Value {
    let count = |text: &str| json!({"type": "integer", "description": text});
    json!({
        "type": "object", "required": ["replayed", "posted", "still_unreadable"],
        "properties": {
            "replayed": count("Letters that could be read now, and are none any more."),
            "posted": count("Events that were not in the ledger before."),
            "still_unreadable": count("Letters that stay."),
        },
    })
}

fn usage_query() -> Value {
    let moment = |text: &str| json!({"type": "string", "description": text});
    json!({"properties": {
        "from": moment("Inclusive; a date or a time. Without it, the beginning of this UTC month."),
        "to": moment("Exclusive; a date or a time. Without it, now."),
        "group_by": {
            "type": "string",
            "description": format!("One or more of {}, with commas between.", Group::ALL.map(Group::word).join(", ")),
        },
    }})
}

fn usage() -> Value {
    let sums = reports::sums(&Totals::default()).into_iter().map(|(name, value)| {
        let schema = match (name, value) {
            // Null where anything has no price.
            ("cost", _) => json!({"type": ["string", "null"]}),
            (_, Value::String(_)) => json!({"type": "string"}),
            _ => json!({"type": "integer"}),
        };
        (name.to_owned(), schema)
    });
    let sums: Map<_, _> = sums.collect();
    let required: Vec<_> = sums.keys().cloned().collect();
    let mut members = sums.clone();
    members.extend(Group::ALL.map(|group| (group.word().to_owned(), json!({"type": ["string", "null"]}))));
    let time = json!({"type": "string", "format": "date-time"});
    json!({
        "type": "object", "required": ["currency", "from", "to", "rows", "total"],
        "properties": {
            "currency": {"type": "string"}, "from": time, "to": time,
            "rows": {"type": "array", "items": {
                "type": "object", "required": required, "properties": members,
            }},
            "total": {"type": "object", "required": required, "properties": sums},
        },
    })
}

pub(super) fn refusal() -> Value {
    let text = json!({"type": ["string", "null"]});
    json!({
        "type": "object", "required": ["error"],
        "properties": {"error": {
            "type": "object", "required": ["code", "message", "type", "param"],
            "properties": {
                "code": {"type": "string"}, "message": {"type": "string"}, "type": {"type": "string"}, "param": text,
            },
        }},
    })
}
