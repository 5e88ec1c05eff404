//! What the host writes for a batch of events: every shape of `Data`, and the metadata of extensions
//! old and new.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::function::Shape;

/// An event as it lies in a partition.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) body: Vec<u8>,
    pub(super) sequence: u64,
}

/// Which of the optional keys the extension writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extension {
    /// `TriggerPartitionContext` beside `PartitionContext`, and offsets as strings.
    pub(super) is_recent: bool,
    /// Keys that no version is known to write.
    pub(super) adds_unknown: bool,
}

pub(super) const RECENT: Extension = Extension { is_recent: true, adds_unknown: false };

/// How often this batch has failed so far, and out of how many; written when there is a policy.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempts {
    pub(super) failures: u32,
    pub(super) max: Option<u32>,
}

/// One delivery.
#[derive(Debug)]
pub(super) struct Delivery<'a> {
    pub(super) function: &'a str,
    pub(super) binding: &'a str,
    pub(super) shape: Shape,
    pub(super) partition: usize,
    pub(super) events: &'a [Event],
    pub(super) extension: Extension,
    pub(super) attempts: Option<Attempts>,
}

impl Delivery<'_> {
    pub(super) fn body(&self) -> Value {
        json!({"Data": {self.binding: self.data()}, "Metadata": self.metadata()})
    }

    /// Arrays and strings are serialised once more: a JSON text inside a JSON string.
    fn data(&self) -> Value {
        let texts = || self.events.iter().map(|event| String::from_utf8_lossy(&event.body).into_owned());
        let base64 = || self.events.iter().map(|event| STANDARD.encode(&event.body));
        let one = || {
            assert_eq!(self.events.len(), 1, "cardinality one takes one event");
            &self.events[0].body
        };
        match self.shape {
            Shape::ManyStrings => encoded(&texts().collect::<Vec<_>>()),
            Shape::ManyBinaries => encoded(&base64().collect::<Vec<_>>()),
            Shape::ManyValues => {
                let parse = |event: &super::wire::Event| serde_json::from_slice(&event.body);
                let values: Result<Vec<Value>, _> = self.events.iter().map(parse).collect();
                encoded(
                    &values.expect("without a data type the host itself fails on an event that is not JSON"),
                )
            }
            Shape::OneString => encoded(&String::from_utf8_lossy(one())),
            Shape::OneBinary => Value::String(STANDARD.encode(one())),
        }
    }

    fn metadata(&self) -> Value {
        let mut metadata = match self.shape {
            Shape::OneString | Shape::OneBinary => self.metadata_of_one(),
            _ => self.metadata_of_many(),
        };
        let context = json!({
            "IsCheckpointingAfterInvocation": true,
            "FullyQualifiedNamespace": "contoso.servicebus.windows.net",
            "EventHubName": "usage",
            "ConsumerGroup": "$Default",
            "PartitionId": self.partition.to_string(),
        });
        if self.extension.is_recent {
            metadata.insert("TriggerPartitionContext".to_owned(), context.clone());
        }
        metadata.insert("PartitionContext".to_owned(), context);
        metadata.insert(
            "sys".to_owned(),
            json!({"MethodName": self.function, "UtcNow": "2026-09-01T12:00:05.1234567Z",
                   "RandGuid": "5d8b2a10-9f53-4c3e-8a55-0d5c7b0e2f11"}),
        );
        if self.extension.adds_unknown {
            metadata.insert("SomethingNew".to_owned(), json!({"Deep": [1, {"x": null}]}));
        }
        if let Some(attempts) = self.attempts {
            metadata.insert("RetryContext".to_owned(), retry_context(attempts));
        }
        Value::Object(metadata)
    }

    fn metadata_of_many(&self) -> Map<String, Value> {
        let of_each =
            |value: fn(&Event) -> Value| encoded(&self.events.iter().map(value).collect::<Vec<_>>());
        let mut metadata = Map::from_iter([
            ("PartitionKeyArray".to_owned(), of_each(|_| Value::Null)),
            ("OffsetArray".to_owned(), of_each(|event| offset(event).into())),
            ("SequenceNumberArray".to_owned(), of_each(|event| event.sequence.into())),
            ("EnqueuedTimeUtcArray".to_owned(), of_each(|_| "2026-09-01T12:00:04.321".into())),
            ("PropertiesArray".to_owned(), of_each(|_| json!({}))),
            ("SystemPropertiesArray".to_owned(), of_each(system_properties)),
        ]);
        if self.extension.is_recent {
            metadata.insert("OffsetStringArray".to_owned(), of_each(|event| offset(event).into()));
        }
        metadata
    }

    /// Top-level properties of a JSON event are merged in, over what the host itself writes.
    fn metadata_of_one(&self) -> Map<String, Value> {
        let event = &self.events[0];
        let mut metadata = Map::from_iter([
            ("Offset".to_owned(), encoded(&offset(event))),
            ("SequenceNumber".to_owned(), encoded(&event.sequence)),
            ("EnqueuedTimeUtc".to_owned(), encoded("2026-09-01T12:00:04")),
            ("Properties".to_owned(), json!({})),
            ("SystemProperties".to_owned(), system_properties(event)),
        ]);
        if let Ok(Value::Object(own)) = serde_json::from_slice(&event.body) {
            metadata.extend(own.into_iter().map(|(key, value)| {
                let value = if value.is_object() { value } else { encoded(&value) };
                (key, value)
            }));
        }
        metadata
    }
}

fn encoded(value: &(impl serde::Serialize + ?Sized)) -> Value {
    Value::String(serde_json::to_string(value).expect("every value of a batch is JSON"))
}

fn offset(event: &Event) -> String {
    (8_589_934_592 + event.sequence * 184).to_string()
}

fn system_properties(event: &Event) -> Value {
    json!({"SequenceNumber": event.sequence, "Offset": offset(event), "OffsetString": offset(event),
           "PartitionKey": null, "EnqueuedTimeUtc": "2026-09-01T12:00:04.321"})
}

fn retry_context(attempts: Attempts) -> Value {
    let exception = (attempts.failures > 0).then(|| {
        json!({"ClassName": "Microsoft.Azure.WebJobs.Host.FunctionInvocationException",
               "Message": "Exception while executing function", "Data": null,
               "InnerException": {"ClassName": "System.Net.Http.HttpRequestException",
                                  "Message": "Response status code does not indicate success: 503",
                                  "StackTraceString": "   at System.Net.Http.HttpResponseMessage\n".repeat(40)},
               "StackTraceString": "   at Microsoft.Azure.WebJobs.Host.Executors\n".repeat(40), "HResult": -2_146_233_088})
    });
    json!({"RetryCount": attempts.failures, "MaxRetryCount": attempts.max.map_or(-1, i64::from),
           "Exception": exception, "Instance": null, "State": {}})
}

#[test]
fn data_is_encoded_twice_as_the_host_encodes_it() {
    let event = |body: &str, sequence| Event { body: body.into(), sequence };
    let two = [event(r#"{"v":1,"id":"a"}"#, 1), event(r#"{"v":2}"#, 2)];
    for (shape, events, wire) in [
        (Shape::ManyStrings, &two[..], r#""[\"{\\\"v\\\":1,\\\"id\\\":\\\"a\\\"}\",\"{\\\"v\\\":2}\"]""#),
        (Shape::ManyBinaries, &two, r#""[\"eyJ2IjoxLCJpZCI6ImEifQ==\",\"eyJ2IjoyfQ==\"]""#),
        (Shape::ManyValues, &two[1..], r#""[{\"v\":2}]""#),
        (Shape::OneString, &two[..1], r#""\"{\\\"v\\\":1,\\\"id\\\":\\\"a\\\"}\"""#),
        (Shape::OneBinary, &two[..1], r#""eyJ2IjoxLCJpZCI6ImEifQ==""#),
    ] {
        let delivery = Delivery {
            function: "f",
            binding: "events",
            shape,
            partition: 3,
            events,
            extension: RECENT,
            attempts: None,
        };
        assert_eq!(delivery.body()["Data"]["events"].to_string(), wire, "{shape:?}");
    }
}
