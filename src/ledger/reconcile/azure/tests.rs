use time::macros::date;

use super::*;

const METRICS: &str = r#"{
  "cost": 0, "interval": "P1D", "namespace": "Microsoft.CognitiveServices/accounts", "resourceregion": "eastus",
  "value": [
    {"id": "/subscriptions/0/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/Contoso-East/providers/Microsoft.Insights/metrics/ProcessedPromptTokens",
     "name": {"localizedValue": "Processed Prompt Tokens", "value": "ProcessedPromptTokens"}, "unit": "Count",
     "timeseries": [
       {"metadatavalues": [{"name": {"localizedValue": "modeldeploymentname", "value": "modeldeploymentname"}, "value": "Chat-EU"}],
        "data": [{"timeStamp": "2026-03-01T00:00:00Z", "total": 1200.0}, {"timeStamp": "2026-03-02T00:00:00+00:00", "total": null, "average": 1.0}]},
       {"metadatavalues": [], "data": [{"timeStamp": "2026-03-01T00:00:00Z", "total": 7.0}]}]},
    {"id": "/subscriptions/0/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/Contoso-East/providers/Microsoft.Insights/metrics/Latency",
     "name": {"value": "Latency"}, "timeseries": [{"data": [{"timeStamp": "2026-03-01T00:00:00Z", "total": 99.0}]}]}
  ]}"#;

#[test]
fn metrics_are_read_as_azure_cli_prints_them() {
    let file = read(METRICS.as_bytes()).unwrap();
    assert_eq!(
        (file.kind, file.has_tokens, file.has_requests, file.currency.as_ref()),
        (FileKind::Metrics, true, false, None)
    );
    let of = |deployment: Option<&str>, input_tokens| Figure {
        resource: "contoso-east".to_owned(),
        deployment: deployment.map(str::to_owned),
        day: Some(date!(2026 - 03 - 01)),
        input_tokens,
        ..Figure::default()
    };
    assert_eq!(file.figures, [of(Some("chat-eu"), 1_200), of(None, 7)]);
    let twice = read(format!("\u{feff} [{METRICS},{METRICS}]").as_bytes()).unwrap();
    assert_eq!(twice.figures.len(), 4, "one for each of several resources");
}

const ID: &str =
    "/subscriptions/0/resourcegroups/g/providers/Microsoft.CognitiveServices/accounts/Contoso-East";

#[test]
fn exports_are_read_whatever_their_columns_are_called() {
    let modern = format!(
        "date,meterName,quantity,unitOfMeasure,costInBillingCurrency,billingCurrency,ResourceId\n\
         03/01/2026,gpt 4o Inp glbl Tokens,1.5,1K,0.0037,USD,{ID}\n\
         2026-03-01,gpt 4o cached Inp glbl Tokens,2,1M,1E-4,USD,{ID}\n\
         2026-03-02,gpt 4o Outp glbl Tokens,3,1K,0.03,USD,{ID}\n\
         2026-03-02,Provisioned Managed,24,1 Hour,24,USD,{ID}\n\
         2026-03-02,P10 Disk,1,1,5,USD,/subscriptions/0/providers/Microsoft.Compute/disks/d\n"
    );
    let file = read(modern.as_bytes()).unwrap();
    assert_eq!(
        (file.kind, file.currency.as_deref(), file.has_tokens),
        (FileKind::CostExport, Some("USD"), true)
    );
    let seen: Vec<_> = file
        .figures
        .iter()
        .map(|figure| {
            (figure.day.unwrap().day(), figure.input_tokens, figure.output_tokens, figure.cost.to_string())
        })
        .collect();
    let expected =
        [(1, 1_500, 0, "0.0037"), (1, 2_000_000, 0, "0.0001"), (2, 0, 3_000, "0.03"), (2, 0, 0, "24")];
    assert_eq!(seen, expected.map(|(day, input, output, cost)| (day, input, output, cost.to_owned())));
    for header in [
        "UsageDateTime,InstanceId,PreTaxCost,Currency",
        "Date,ResourceId,Cost,BillingCurrencyCode",
        "ChargePeriodStart,ResourceId,BilledCost,BillingCurrency",
        "Usage Date,Instance Name,Cost,Currency",
    ] {
        let file = read(format!("{header}\n2026-03-01T00:00:00Z,{ID},1.25,EUR\n").as_bytes()).unwrap();
        let [one] = file.figures.as_slice() else { panic!("{header}: {file:?}") };
        assert_eq!(
            (one.cost.to_string(), one.day),
            ("1.25".to_owned(), Some(date!(2026 - 03 - 01))),
            "{header}"
        );
    }
}

#[test]
fn what_is_no_such_file_is_told_so() {
    for (text, why) in [
        ("", "it is empty"),
        ("{}", "value[]"),
        ("[1]", "value[]"),
        (r#"{"value": []}"#, "none of the metrics"),
        (r#"{"value": [{"id": "x", "name": {"value": "GeneratedTokens"}}]}"#, "no id of a metric"),
        ("<html>", "no column of resources"),
        ("ResourceId,Tags\n", "no column of costs"),
        ("ResourceId,Cost\n/providers/Microsoft.CognitiveServices/accounts/a,lots\n", "line 2"),
        ("a,b\n\u{0}\n", "no column"),
    ] {
        let told = read(text.as_bytes()).unwrap_err().to_string();
        assert!(told.contains(why), "{text}: {told}");
    }
    assert!(read(b"ResourceId,Cost\n\xff\xfe,1\n").is_err());
}
