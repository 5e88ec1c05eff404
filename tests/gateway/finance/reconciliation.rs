//! Azure's figures beside ours.

use serde_json::{Value, json};

use super::{deliver, event, gateway};
use crate::support::{self, Answer, TestGateway};

const ACCOUNTS: &str = "/subscriptions/0/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts";

async fn used() -> TestGateway {
    let gateway = gateway(|configuration| {
        configuration["backends"] = json!([
            {"name": "east", "endpoint": "https://Contoso-East.openai.azure.com", "deployments": {"gpt-4o-mini": "mini-eu"}},
            {"name": "ptu", "endpoint": "https://contoso-ptu.openai.azure.com",
             "billing": {"kind": "provisioned", "units": 1, "hourly_price_per_unit": "1"}},
        ]);
    })
    .await;
    let east = json!({"backend": "east"});
    let estimated = json!({"backend": "east", "usage": {"source": "estimated", "input_tokens": 500, "output_tokens": 20}});
    let events = [
        event(1, "2026-03-01T10:00:00Z", &east),
        event(2, "2026-03-02T10:00:00Z", &estimated),
        event(3, "2026-03-20T10:00:00Z", &east),
        event(4, "2026-03-02T10:00:00Z", &json!({"backend": "ptu"})),
    ];
    deliver(&gateway, &events).await;
    gateway
}

async fn compare(gateway: &TestGateway, file: &str) -> Answer {
    let bearer = format!("Bearer {}", support::ADMIN_KEY);
    let path = "/reports/reconciliation?month=2026-03";
    gateway.send("POST", path, &[("authorization", &bearer)], Some(file.to_owned())).await
}

fn metric(name: &str, resource: &str, deployment: &str, days: &[(&str, u64)]) -> Value {
    let data: Vec<_> = days
        .iter()
        .map(|(day, total)| json!({"timeStamp": format!("{day}T00:00:00Z"), "total": total}))
        .collect();
    json!({
        "id": format!("{ACCOUNTS}/{resource}/providers/Microsoft.Insights/metrics/{name}"), "name": {"value": name},
        "timeseries": [{"metadatavalues": [{"name": {"value": "modeldeploymentname"}, "value": deployment}], "data": data}],
    })
}

#[tokio::test]
async fn metrics_are_held_against_the_ledger_by_deployment_and_day() {
    let gateway = used().await;
    let file = json!({"value": [
        metric("ProcessedPromptTokens", "contoso-east", "mini-eu", &[("2026-03-01", 1_000_000), ("2026-03-02", 100_500)]),
        metric("GeneratedTokens", "contoso-east", "mini-eu", &[("2026-03-02", 20), ("2026-04-01", 5)]),
        metric("ProcessedPromptTokens", "contoso-ptu", "gpt-4o-mini", &[("2026-03-02", 1_000_000)]),
        metric("ProcessedPromptTokens", "elsewhere", "chat", &[("2026-03-02", 3)]),
    ]});
    let answer = compare(&gateway, &file.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let report = answer.json();
    assert_eq!((&report["file"], &report["outside"]), (&json!("metrics"), &json!(1)));
    assert_eq!(
        report["days"],
        json!(["2026-03-01", "2026-03-02"]),
        "what the file does not have is not compared"
    );
    let [east, ptu, elsewhere] = report["lines"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(
        (&east["backends"], &east["deployment"], &east["agrees"]),
        (&json!(["east"]), &json!("mini-eu"), &json!(false))
    );
    assert_eq!(
        (&east["ours"]["input_tokens"], &east["azure"]["input_tokens"]),
        (&json!(1_000_500), &json!(1_100_500))
    );
    let difference = &east["difference"];
    assert_eq!(
        (&difference["input_tokens"], &difference["tokens_percent"]),
        (&json!(-100_000), &json!("-9.09"))
    );
    let said: Vec<_> = east["explanations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| text.as_str().unwrap().split(':').next().unwrap())
        .collect();
    assert_eq!(said, ["not_through_gateway", "estimated"]);
    assert_eq!(
        (&east["days"][0]["ours"]["input_tokens"], &east["days"][1]["azure"]["output_tokens"]),
        (&json!(1_000_000), &json!(20))
    );
    assert_eq!((&ptu["agrees"], &ptu["explanations"]), (&json!(true), &json!([])));
    assert_eq!((&elsewhere["backends"], &elsewhere["agrees"]), (&json!([]), &json!(false)));
}

#[tokio::test]
async fn a_cost_export_is_held_against_costs_with_their_capacity() {
    let gateway = used().await;
    let export = |currency: &str| {
        format!(
            "Date,MeterName,Quantity,UnitOfMeasure,CostInBillingCurrency,BillingCurrencyCode,ResourceId\n\
             03/01/2026,gpt 4o mini Inp glbl Tokens,1000,1K,0.16,{currency},{ACCOUNTS}/Contoso-East\n\
             03/02/2026,Provisioned,24,1 Hour,48,{currency},{ACCOUNTS}/contoso-ptu\n"
        )
    };
    let report = compare(&gateway, &export("USD")).await.json();
    let [east, ptu] = report["lines"].as_array().unwrap().as_slice() else { panic!("{report}") };
    assert_eq!(
        (&east["ours"]["cost"], &east["azure"]["cost"], &east["difference"]["cost_percent"]),
        (&json!("0.150087"), &json!("0.16"), &json!("-6.2"))
    );
    assert_eq!((&ptu["ours"]["cost"], &ptu["azure"]["cost"]), (&json!("48"), &json!("48")));
    let euros = compare(&gateway, &export("EUR")).await.json();
    let line = &euros["lines"][0];
    assert_eq!((&line["ours"]["cost"], &line["difference"]["cost"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_file_of_another_sort_is_refused_with_what_was_expected() {
    let gateway = used().await;
    for file in ["", "hello", "{\"value\": 5}", "a,b\n1,2\n"] {
        let answer = compare(&gateway, file).await;
        assert_eq!((answer.status, answer.code()), (400, "invalid_request_error".to_owned()), "{file}");
        assert!(answer.body.contains("az monitor metrics list"), "{}", answer.body);
    }
    let path = "/reports/reconciliation?month=2026-03";
    assert_eq!(gateway.send("POST", path, &[], Some("{}".into())).await.status, 401);
}
