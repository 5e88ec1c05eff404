//! Who pays what of a month.

use serde_json::{Value, json};

use super::{as_csv, deliver, event, gateway, hold, report};
use crate::support::{self, TestGateway};

/// A month that is over: 31 days, and prices for two of three backends.
async fn march() -> TestGateway {
    let gateway = gateway(|configuration| {
        configuration["backends"].as_array_mut().unwrap().push(json!({
            "name": "ptu", "endpoint": "http://127.0.0.1:9", "auth": {"kind": "none"},
            "billing": {"kind": "provisioned", "units": 2, "hourly_price_per_unit": "1.00",
                        "tokens_per_minute_per_unit": 25_000},
        }));
    })
    .await;
    let id = report(&gateway, "/subscriptions").await["items"][0]["id"].clone();
    let ptu = |more: &Value| {
        let mut changes = json!({"backend": "ptu"});
        changes.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        changes
    };
    let events = [
        event(1, "2026-02-28T23:59:59.999Z", &json!({})),
        event(2, "2026-03-01T00:00:00Z", &json!({"subscription_id": id})),
        event(3, "2026-03-31T23:59:59.999Z", &json!({"subscription_id": id, "cost_center": null})),
        event(4, "2026-04-01T00:00:00Z", &json!({})),
        event(5, "2026-03-02T09:30:00Z", &json!({"deployment": "new", "model": null})),
        // Two units take 3,000,000 tokens in an hour.
        event(6, "2026-03-03T09:00:00Z", &ptu(&json!({}))),
        event(
            7,
            "2026-03-03T09:59:59.999Z",
            &ptu(&json!({"cost_center": "a,b", "subscription_id": "team-2"})),
        ),
        event(
            8,
            "2026-03-03T10:00:00Z",
            &ptu(&json!({"usage": {"source": "none", "input_tokens": 0, "output_tokens": 0}})),
        ),
    ];
    deliver(&gateway, &events).await;
    gateway
}

#[tokio::test]
async fn a_month_is_charged_to_who_used_it_and_adds_up() {
    let gateway = march().await;
    let report = report(&gateway, "/reports/chargeback?month=2026-03").await;
    assert_eq!(
        (&report["from"], &report["to"]),
        (&json!("2026-03-01T00:00:00.000Z"), &json!("2026-04-01T00:00:00.000Z"))
    );
    let lines: Vec<_> = report["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            [
                "kind",
                "cost_center",
                "subscription_name",
                "backend",
                "usage_cost",
                "provisioned_cost",
                "cost_rounded",
            ]
            .map(text)
            .join(" ")
        })
        .collect();
    let expected = [
        "usage - test - 0.15 0 0.15",
        "usage 4711 test - 0.15 0 0.15",
        "usage 4711 - - 0 0.666666667 0.67",
        "usage a,b - - 0 0.666666667 0.67",
        "unpriced 4711 - sim - - -",
        // 744 hours, less the two thirds of one that were used.
        "idle - - ptu 0 1486.666666666 1486.66",
    ];
    assert_eq!(lines, expected);
    let unpriced = &report["lines"][4];
    assert_eq!((&unpriced["deployment"], &unpriced["reason"]), (&json!("new"), &json!("no_price")));
    assert_eq!((&unpriced["input_tokens"], &unpriced["unpriced_requests"]), (&json!(1_000_000), &json!(1)));
    let total = &report["total"];
    assert_eq!((&total["cost"], &total["cost_rounded"]), (&json!("1488.3"), &json!("1488.30")));
    assert_eq!((&total["usage_cost"], &total["idle_cost"]), (&json!("0.3"), &json!("1486.666666666")));
    assert_eq!((&total["requests"], &total["unpriced_requests"]), (&json!(6), &json!(1)));
    let centers: Vec<_> =
        report["cost_centers"].as_array().unwrap().iter().map(|center| center["cost"].clone()).collect();
    assert_eq!(centers, ["0.15", "0.816666667", "0.666666667"]);
}

#[tokio::test]
async fn the_chargeback_can_be_had_as_csv() {
    let gateway = march().await;
    let answer = as_csv(&gateway, "/reports/chargeback?month=2026-03").await;
    assert_eq!(answer.header("content-disposition"), "attachment; filename=\"chargeback-2026-03.csv\"");
    let mut reader = csv::Reader::from_reader(answer.body.as_bytes());
    let header = reader.headers().unwrap().clone();
    let at = |name: &str| header.iter().position(|column| column == name).unwrap();
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    assert_eq!((rows.len(), rows[0].len()), (6, header.len()));
    assert_eq!((&rows[3][at("cost_center")], &rows[3][at("cost")]), ("a,b", "0.666666667"));
    assert_eq!((&rows[4][at("kind")], &rows[4][at("cost")]), ("unpriced", ""));
    assert_eq!((&rows[5][at("currency")], &rows[5][at("subscription")]), ("USD", ""));
}

#[tokio::test]
async fn the_columns_of_focus_are_all_there_and_cost_the_same() {
    let gateway = march().await;
    let path = "/reports/chargeback?month=2026-03&format=focus";
    let answer = gateway.manage("GET", path, None).await;
    assert!(answer.header("content-type").starts_with("text/csv"), "{}", answer.body);
    let mut reader = csv::Reader::from_reader(answer.body.as_bytes());
    let header = reader.headers().unwrap().clone();
    // What version 1.2 calls mandatory.
    let mandatory = [
        "BilledCost",
        "BillingAccountId",
        "BillingAccountName",
        "BillingCurrency",
        "BillingPeriodEnd",
        "BillingPeriodStart",
        "ChargeCategory",
        "ChargeClass",
        "ChargeDescription",
        "ChargePeriodEnd",
        "ChargePeriodStart",
        "ContractedCost",
        "EffectiveCost",
        "InvoiceIssuerName",
        "ListCost",
        "PricingQuantity",
        "PricingUnit",
        "ProviderName",
        "PublisherName",
        "ServiceCategory",
        "ServiceName",
    ];
    let at =
        |name: &str| header.iter().position(|column| column == name).unwrap_or_else(|| panic!("no {name}"));
    let rows: Vec<_> = reader.records().map(Result::unwrap).collect();
    for row in &rows {
        for name in mandatory {
            assert!(!row[at(name)].is_empty() || name == "ChargeClass", "{name} in {row:?}");
        }
        let known: Value = serde_json::from_str(&row[at("Tags")]).unwrap();
        assert!(known.is_object());
    }
    let cost = |row: &csv::StringRecord| row[at("BilledCost")].parse::<rust_decimal::Decimal>().unwrap();
    assert_eq!(rows.iter().map(cost).sum::<rust_decimal::Decimal>().to_string(), "1488.300000000");
    let idle = rows.iter().find(|row| &row[at("x_ChargeKind")] == "idle").unwrap();
    assert_eq!((&idle[at("CapacityReservationStatus")], &idle[at("PricingUnit")]), ("Unused", "Hours"));
    assert_eq!((&idle[at("PricingQuantity")], &idle[at("ConsumedQuantity")]), ("743.333333333", ""));
    assert_eq!(&rows[0][at("BillingPeriodStart")], "2026-03-01T00:00:00Z");
}

#[tokio::test]
async fn a_price_changes_at_midnight_in_utc() {
    let gateway = gateway(|configuration| {
        configuration["prices"] = json!([
            {"model": "gpt-4o-mini-2024-07-18", "input_per_million": "1", "effective_from": "2026-01-01"},
            {"model": "gpt-4o-mini-2024-07-18", "input_per_million": "0", "effective_from": "2026-03-15"},
        ]);
    })
    .await;
    let events = [
        event(1, "2026-03-14T23:59:59.999Z", &json!({})),
        event(2, "2026-03-15T00:00:00Z", &json!({"subscription_id": "free"})),
        event(3, "2026-03-15T01:30:00+02:00", &json!({})),
    ];
    deliver(&gateway, &events).await;
    let report = report(&gateway, "/reports/chargeback?month=2026-03").await;
    let costs: Vec<_> = report["lines"].as_array().unwrap().iter().map(|line| line["cost"].clone()).collect();
    assert_eq!((costs, &report["total"]["unpriced_requests"]), (vec![json!("0"), json!("2")], &json!(0)));
}

#[tokio::test]
async fn another_currency_leaves_what_was_rated_before_unpriced_until_it_is_rated_anew() {
    let gateway = march().await;
    let mut euros = support::configuration("127.0.0.1:9".parse().unwrap());
    euros["currency"] = json!("EUR");
    hold(&gateway, &euros);
    let before = report(&gateway, "/reports/chargeback?month=2026-03").await;
    assert_eq!((&before["currency"], &before["total"]["cost"]), (&json!("EUR"), &json!("0")));
    let reasons: Vec<_> =
        before["lines"].as_array().unwrap().iter().map(|line| line["reason"].clone()).collect();
    assert!(
        reasons.contains(&json!("other_currency")) && reasons.contains(&json!("capacity_not_configured")),
        "{reasons:?}"
    );
    let days = (time::macros::date!(2026 - 03 - 01), time::macros::date!(2026 - 04 - 01));
    gateway.app.ledger.rerate(days.0, days.1).await.unwrap();
    let after = report(&gateway, "/reports/chargeback?month=2026-03").await;
    assert_eq!(after["total"]["usage_cost"], "0.3");
    // An empty price book is one, too: nothing has a price, and nothing is lost.
    euros["prices"] = json!([]);
    hold(&gateway, &euros);
    gateway.app.ledger.rerate(days.0, days.1).await.unwrap();
    let none = report(&gateway, "/reports/chargeback?month=2026-03").await;
    assert_eq!((&none["total"]["requests"], &none["total"]["unpriced_requests"]), (&json!(6), &json!(5)));
}

#[tokio::test]
async fn a_month_that_is_none_or_has_not_begun_is_refused_with_its_name() {
    let gateway = gateway(|_| {}).await;
    for (query, param) in [
        ("month=2026-13", "month"),
        ("month=9999-01", "month"),
        ("month=2026-03-01", "month"),
        ("month=2026-03&month=2026-04", "month"),
        ("format=xml", "format"),
        ("from=2026-03-01", "from"),
    ] {
        let answer = gateway.manage("GET", &format!("/reports/chargeback?{query}"), None).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(param)),
            "{}",
            answer.body
        );
    }
    let this = report(&gateway, "/reports/chargeback").await;
    assert_eq!((&this["lines"], &this["total"]["cost"]), (&json!([]), &json!("0")));
    assert_eq!(gateway.send("GET", "/reports/chargeback", &[], None).await.status, 401);
}
