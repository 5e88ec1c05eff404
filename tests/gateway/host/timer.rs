//! The host's timer: one call, whenever a test says that it is time.

use serde_json::{Value, json};
use tokio::sync::watch;

use super::app::App;
use super::client::{BoxError, Client};
use super::function::Trigger;
use super::hub::{Failure, judge, port, request};
use super::process::State;

/// What the host knows of a timer's past; it writes it into each call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Past {
    /// It ran as it should have.
    Regular,
    /// No instance was there when it was time.
    Late,
    /// It never ran: its dates are the first of all.
    None,
    /// Nobody watches it.
    Unknown,
}

pub(super) const PASTS: [Past; 4] = [Past::Regular, Past::Late, Past::None, Past::Unknown];

#[derive(Debug)]
pub(super) struct Timer {
    function: String,
    binding: String,
    handler: watch::Receiver<State>,
    client: Client,
}

impl Timer {
    pub(super) fn new(app: &App, function: &str, handler: watch::Receiver<State>) -> Self {
        let Trigger::Timer { name } = &app.function(function).trigger else {
            panic!("`{function}` is not triggered by a timer");
        };
        Self { function: function.to_owned(), binding: name.clone(), handler, client: Client::new() }
    }

    /// One call, judged as the host judges it. It is never repeated.
    pub(super) async fn fire(&self, past: Past) -> Result<Value, Failure> {
        let no_answer = |error: BoxError| Failure::NoAnswer(error.to_string());
        let ended = || Failure::NoAnswer("it has ended".to_owned());
        let port = port(&self.handler).await.ok_or_else(ended)?;
        let request = request(port, &self.function, &self.body(past)).map_err(no_answer)?;
        let response = self.client.send(request).await.map_err(|error| no_answer(error.into()))?;
        judge(response).await
    }

    fn body(&self, past: Past) -> Value {
        let status = match past {
            Past::Unknown => Value::Null,
            Past::None => json!({"Last": "0001-01-01T00:00:00", "Next": "0001-01-01T00:00:00+00:00",
                                 "LastUpdated": "0001-01-01T00:00:00"}),
            Past::Regular | Past::Late => json!({
                "Last": "2026-09-01T11:55:00.0012+00:00", "Next": "2026-09-01T12:00:00+00:00",
                "LastUpdated": "2026-09-01T11:55:00.0012+00:00",
            }),
        };
        let timer = json!({"Schedule": {"AdjustForDST": true}, "ScheduleStatus": status,
                           "IsPastDue": matches!(past, Past::Late)});
        let sys = json!({"MethodName": self.function, "UtcNow": "2026-09-01T12:00:05.1234567Z",
                         "RandGuid": "5d8b2a10-9f53-4c3e-8a55-0d5c7b0e2f11"});
        json!({"Data": {&self.binding: timer}, "Metadata": {"sys": sys}})
    }
}
