//! Where the month ends.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::app::App;
use tollgate::domain::units::UnixMillis;
use tollgate::ledger::Ledger;
use tollgate::ports::Clock;
use tollgate::routes;
use tower::ServiceExt as _;

use super::{deliver, event, gateway, report};
use crate::support::{self, TestGateway};

/// A calendar that stands still.
struct At(UnixMillis);

impl Clock for At {
    fn now(&self) -> UnixMillis {
        self.0
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// The report as it is at a moment.
async fn at(gateway: &TestGateway, moment: &str) -> Value {
    let clock = Arc::new(At(UnixMillis::parse(moment).unwrap()));
    let ledger = Arc::new(Ledger { clock, ..Ledger::clone(&gateway.app.ledger) });
    let app = App { ledger, ..gateway.app.clone() };
    let request = http::Request::get("/reports/forecast")
        .header("authorization", format!("Bearer {}", support::ADMIN_KEY))
        .body(axum::body::Body::empty())
        .unwrap();
    let response = routes::router(app).oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

fn amount(value: &Value) -> f64 {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

/// A subscription that uses 0.15 a day from February on, with a budget of 3.00; and capacity for 0.10 an hour.
async fn spending() -> (TestGateway, String) {
    let gateway = gateway(|configuration| {
        configuration["backends"].as_array_mut().unwrap().push(json!({
            "name": "ptu", "endpoint": "http://127.0.0.1:9", "auth": {"kind": "none"},
            "billing": {"kind": "provisioned", "units": 1, "hourly_price_per_unit": "0.10",
                        "tokens_per_minute_per_unit": 1_000},
        }));
    })
    .await;
    let limits = json!({"budget": {"amount": "3.00", "period": "month"}});
    gateway.issue(&json!({"name": "spends", "product": "standard", "limits": limits})).await;
    let items = report(&gateway, "/subscriptions").await["items"].clone();
    let found = items.as_array().unwrap().iter().find(|item| item["name"] == "spends").unwrap().clone();
    let id = found["id"].as_str().unwrap().to_owned();
    let days = (1..=28)
        .map(|day| format!("2026-02-{day:02}"))
        .chain((1..=11).map(|day| format!("2026-03-{day:02}")));
    let of_day = |(number, day): (u32, String)| {
        event(number, &format!("{day}T06:00:00Z"), &json!({"subscription_id": id}))
    };
    let events: Vec<_> = (1..).zip(days).map(of_day).collect();
    deliver(&gateway, &events).await;
    let on_capacity = json!({"subscription_id": id, "backend": "ptu",
                             "usage": {"source": "reported", "input_tokens": 30_000, "output_tokens": 0}});
    deliver(&gateway, &[event(1_000, "2026-03-05T10:00:00Z", &on_capacity)]).await;
    (gateway, id)
}

#[tokio::test]
async fn a_month_is_foreseen_with_its_budget_and_its_capacity() {
    let (gateway, id) = spending().await;
    let report = at(&gateway, "2026-03-11T12:00:00Z").await;
    let total = &report["total"];
    // 11 days of 0.15; 10.5 of 31 days of capacity.
    assert_eq!((&total["usage_so_far"], &total["provisioned_so_far"]), (&json!("1.65"), &json!("25.2")));
    assert_eq!((&total["so_far"], &total["provisioned_month_end"]), (&json!("26.85"), &json!("74.40")));
    assert_eq!(total["basis"], "weekdays");
    // Half a day and 20 whole ones are to come.
    let end = amount(&total["usage_month_end"]);
    assert!((end - (1.65 + 20.5 * 0.15)).abs() < 0.1, "{end}");
    assert!((amount(&total["month_end"]) - end - 74.40).abs() < 0.001);
    assert!(
        amount(&total["low"]) <= amount(&total["month_end"])
            && amount(&total["month_end"]) <= amount(&total["high"])
    );
    assert!(total["backtest"]["windows"].as_u64().unwrap() > 5, "{total}");
    let [one] = report["subscriptions"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&one["subscription"], &one["subscription_name"]), (&json!(id), &json!("spends")));
    // Half of one hour at 0.10, and the same of the rest of the month.
    assert_eq!((&one["provisioned_so_far"], &one["provisioned_month_end"]), (&json!("0.05"), &json!("0.15")));
    let budget = &one["budget"];
    assert_eq!((&budget["amount"], &budget["spent_share"]), (&json!("3.00"), &json!("0.55")));
    // 1.35 are left: a half day and then nine, at 0.15 a day.
    assert!(
        ["2026-03-19", "2026-03-20", "2026-03-21"].map(|day| json!(day)).contains(&budget["runs_out_on"]),
        "{budget}"
    );
}

#[tokio::test]
async fn a_budget_that_is_spent_says_when_it_was_and_one_that_lasts_says_nothing() {
    let (gateway, _) = spending().await;
    let early = at(&gateway, "2026-02-10T00:00:00Z").await;
    let budget = &early["subscriptions"][0]["budget"];
    assert!(budget["runs_out_on"].as_str().unwrap() > "2026-02-18", "{budget}");
    let late = at(&gateway, "2026-02-28T23:59:59Z").await;
    let budget = &late["subscriptions"][0]["budget"];
    assert_eq!((&budget["runs_out_on"], &budget["spent_share"]), (&json!("2026-02-20"), &json!("1.4")));
    let next = at(&gateway, "2026-03-01T00:00:00Z").await;
    assert_eq!(next["total"]["usage_so_far"], "0", "another month, another budget");
}

#[tokio::test]
async fn whether_capacity_would_be_cheaper_is_reckoned_aloud() {
    let (gateway, _) = spending().await;
    let report = at(&gateway, "2026-03-11T12:00:00Z").await;
    let [load] = report["provisioned_advice"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!((&load["backend"], &load["provisioned_is"]), (&json!("sim"), &json!("dearer")));
    // 28 days of 0.15, for 730 hours.
    assert_eq!(load["pay_as_you_go_month"], "4.56");
    assert!(load["arithmetic"].as_str().unwrap().contains("0.10 USD an hour"), "{load}");
    let [capacity] = report["provisioned_capacity"].as_array().unwrap().as_slice() else {
        panic!("{report}")
    };
    assert_eq!((&capacity["capacity_month"], &capacity["pays"]), (&json!("73.00"), &json!(false)));
}

#[tokio::test]
async fn without_any_usage_nothing_is_foreseen() {
    let gateway = gateway(|_| {}).await;
    let report = report(&gateway, "/reports/forecast").await;
    let total = &report["total"];
    assert_eq!((&total["basis"], &total["month_end"]), (&json!("nothing"), &json!("0.00")));
    assert_eq!((&report["subscriptions"], &report["provisioned_advice"]), (&json!([]), &json!([])));
    let refused = gateway.manage("GET", "/reports/forecast?month=2026-03", None).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!("month")));
}
