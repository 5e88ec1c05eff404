//! The timer's calls: what they do, and that two at once do nothing twice.

use reqwest::StatusCode;
use serde_json::json;
use tollgate::ports::{Entry, LedgerStore as _, Outbox as _, Postings};
use tollgate::sql::sqlite::Database;

use super::super::app::Mode;
use super::super::backend::Backend;
use super::super::front::HOST_VERSION;
use super::super::function::Trigger;
use super::super::hub::Failure;
use super::super::rig::Rig;
use super::super::timer::{PASTS, Past};
use crate::azure::identity_endpoint::IdentityEndpoint;
use crate::azure::log_ingestion::{LogIngestion, Says};

/// An app with Log Analytics, and the ledger as another instance has it.
struct Around {
    rig: Rig,
    ledger: Database,
    endpoint: LogIngestion,
    settings: Vec<(&'static str, String)>,
    _identity: IdentityEndpoint,
}

async fn around() -> Around {
    let (endpoint, identity) = (LogIngestion::start().await, IdentityEndpoint::start(None).await);
    let settings = [&endpoint.settings()[..], &identity.settings()].concat();
    let rig = Rig::with(Backend::start().await, Mode::Proxying, &settings).await;
    rig.host.handler().ready().await;
    let ledger = Database::open(&rig.ledger_file()).await.unwrap();
    Around { rig, ledger, endpoint, settings, _identity: identity }
}

impl Around {
    /// Another instance posts events, and dies before it sends them.
    async fn post(&self, numbers: std::ops::Range<u32>) {
        let entry = |number| {
            let event = json!({
                "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
                "time": "2026-03-10T09:30:00.123Z", "subscription_id": "s1", "product": "standard",
                "operation": "chat.completions", "deployment": "gpt-4o-mini", "backend": "scripted",
                "status": 200, "outcome": "completed",
                "usage": {"source": "reported", "input_tokens": 12, "output_tokens": 34},
            });
            Entry { event: serde_json::from_value(event).unwrap(), is_provisioned: false, rate: None }
        };
        let postings = Postings { entries: numbers.map(entry).collect(), ship: true, ..Postings::default() };
        self.ledger.post(&postings).await.unwrap();
    }
}

#[tokio::test]
async fn the_timer_sends_what_nobody_else_sent_whatever_the_host_knows_of_its_past() {
    let around = around().await;
    let timer = around.rig.timer();
    for (turn, past) in (0..).zip(PASTS) {
        around.post(turn * 10..turn * 10 + 10).await;
        let answer = timer.fire(past).await.unwrap_or_else(|failure| panic!("{past:?}: {failure}"));
        // Some may have been sent by the instance that has just started.
        assert!(answer["Logs"][0].as_str().unwrap().contains("rows were sent"), "{answer}");
        let came = usize::try_from(turn).unwrap() * 10 + 10;
        assert_eq!((around.endpoint.rows().len(), around.endpoint.ids().len()), (came, came));
    }
}

#[tokio::test]
async fn two_timers_at_once_send_each_row_once() {
    let around = around().await;
    let database = format!("sqlite://{}", around.rig.ledger_file().display());
    let settings = [&around.settings[..], &[("TOLLGATE_DATABASE_URL", database)]].concat();
    let another = Rig::with(Backend::start().await, Mode::Proxying, &settings).await;
    around.post(0..4_000).await;
    let (timer, other) = (around.rig.timer(), another.timer());
    let (one, two, three) =
        tokio::join!(timer.fire(Past::Regular), timer.fire(Past::Late), other.fire(Past::None));
    assert!(one.is_ok() && two.is_ok() && three.is_ok());
    assert_eq!((around.endpoint.rows().len(), around.endpoint.ids().len()), (4_000, 4_000));
    assert_eq!(around.ledger.waiting().await.unwrap(), 0);
}

#[tokio::test]
async fn a_step_that_fails_stops_no_other_and_the_host_is_told() {
    let around = around().await;
    around.endpoint.always(Some(Says::Status(403)));
    around.post(0..10).await;
    let failure = around.rig.timer().fire(Past::Regular).await.unwrap_err();
    assert!(matches!(failure, Failure::Status(500)), "{failure}");
    let log = around.rig.host.handler().output.stdout().join("\n");
    assert!(log.contains("upkeep: ") && log.contains("Monitoring Metrics Publisher"), "{log}");
    assert_eq!(around.ledger.waiting().await.unwrap(), 10);
}

#[tokio::test]
async fn nobody_but_the_host_starts_the_upkeep() {
    let rig = Rig::start(Mode::Proxying).await;
    let url = rig.handler_url("/upkeep").await;
    let genuine = [
        ("user-agent", format!("Azure-Functions-Host/{HOST_VERSION}")),
        ("x-azure-functions-invocationid", "5d8b2a10".to_owned()),
    ];
    let forwarded = ("x-forwarded-for", "10.0.0.1".to_owned());
    for (headers, status) in [
        (vec![], StatusCode::NOT_FOUND),
        (genuine[..1].to_vec(), StatusCode::NOT_FOUND),
        ([&genuine[..], &[forwarded]].concat(), StatusCode::NOT_FOUND),
        (genuine.to_vec(), StatusCode::OK),
    ] {
        let request = rig.client.post(&url).json(&json!({"Data": {"timer": {}}}));
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value));
        assert_eq!(request.send().await.unwrap().status(), status, "{headers:?}");
    }
}

#[tokio::test]
async fn the_upkeep_is_a_timer_of_the_package() {
    let rig = Rig::start(Mode::Proxying).await;
    assert!(matches!(rig.host.app.function("upkeep").trigger, Trigger::Timer { .. }));
}
