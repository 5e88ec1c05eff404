//! What rows cost: by the price book of the moment that they were posted, and anew when somebody says so.

use serde_json::{Value, json};

use super::{deliver, event};
use crate::support::TestGateway;

fn priced(configuration: &mut Value, input: &str) {
    configuration["prices"] =
        json!([{"model": "m", "input_per_million": input, "output_per_million": "1", "image_each": "0.5"}]);
}

#[tokio::test]
async fn another_price_book_changes_the_past_only_when_somebody_says_so() {
    let resource = crate::support::resource(tollgate::simulator::Knobs::default()).await;
    let mut configuration = crate::support::configuration(resource.0);
    priced(&mut configuration, "1");
    let gateway = TestGateway::with(resource.0, &configuration).await;
    let million =
        json!({"model": "m", "usage": {"source": "reported", "input_tokens": 1_000_000, "output_tokens": 0}});
    let other = json!({"model": "another", "usage": million["usage"]});
    deliver(&gateway, &[event(1, &million), event(2, &million), event(3, &other)]).await;
    let cost = async || {
        let total = gateway.usage("from=2026-03-01&to=2026-04-01").await["total"].clone();
        (total["priced_cost"].clone(), total["unpriced_requests"].clone())
    };
    assert_eq!(cost().await, (json!("2"), json!(1)));
    priced(&mut configuration, "3");
    let catalog = tollgate::config::catalog::Catalog::parse(&configuration.to_string(), "a test").unwrap();
    let config = &gateway.app.ledger.config;
    config.hold(catalog, config.standing());
    deliver(&gateway, &[event(4, &million)]).await;
    assert_eq!(cost().await, (json!("5"), json!(1)), "what is posted now is rated by what holds now");
    let (from, to) = (time::macros::date!(2026 - 03 - 01), time::macros::date!(2026 - 04 - 01));
    let preview = gateway.app.ledger.preview_rerating(from, to).await.unwrap();
    assert_eq!((preview.before.cost.to_string(), preview.after.cost.to_string()), ("5".into(), "9".into()));
    let [line] = preview.lines.as_slice() else { panic!("{preview:?}") };
    assert_eq!((line.model.as_deref(), line.requests), (Some("m"), 2));
    assert_eq!(cost().await, (json!("5"), json!(1)), "a preview changes nothing");
    assert_eq!(gateway.app.ledger.rerate(from, to).await.unwrap(), 2);
    assert_eq!(cost().await, (json!("9"), json!(1)));
    let preview = gateway.app.ledger.preview_rerating(from, to).await.unwrap();
    assert_eq!((preview.lines.len(), preview.before), (0, preview.after));
    assert_eq!(gateway.app.ledger.rerate(from, to).await.unwrap(), 0);
}

#[tokio::test]
async fn what_it_costs_does_not_depend_on_what_it_is_grouped_with() {
    let resource = crate::support::resource(tollgate::simulator::Knobs::default()).await;
    let mut configuration = crate::support::configuration(resource.0);
    configuration["prices"] = json!([{"backend": "sim", "input_per_million": "1", "cached_input_per_million": "0.5",
                                      "audio_input_per_million": "40"}]);
    let gateway = TestGateway::with(resource.0, &configuration).await;
    let used = |number: u32, subscription: &str, usage: Value| {
        event(number, &json!({"subscription_id": subscription, "usage": usage}))
    };
    let events = [
        used(
            1,
            "s1",
            json!({"source": "reported", "input_tokens": 100, "cached_input_tokens": 100,
                             "audio_input_tokens": 100, "output_tokens": 0}),
        ),
        used(2, "s2", json!({"source": "reported", "input_tokens": 100, "output_tokens": 0})),
        // The price has none for output, nor for images.
        used(3, "s3", json!({"source": "reported", "input_tokens": 100, "output_tokens": 7})),
        used(4, "s4", json!({"source": "reported", "input_tokens": 100, "output_tokens": 0, "images": 1})),
    ];
    assert_eq!(deliver(&gateway, &events).await.status, 200);
    for group_by in ["", "&group_by=subscription", "&group_by=deployment,hour"] {
        let total = gateway.usage(&format!("from=2026-03-01{group_by}")).await["total"].clone();
        assert_eq!(
            (&total["priced_cost"], &total["unpriced_requests"]),
            (&json!("0.00015"), &json!(2)),
            "{group_by}"
        );
    }
}

#[tokio::test]
async fn days_whose_rows_are_gone_keep_their_totals() {
    let gateway = TestGateway::start().await;
    deliver(&gateway, &[event(1, &json!({"deployment": "mystery"})), event(2, &json!({}))]).await;
    let url = format!("sqlite://{}", gateway.folder().join("ledger.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    sqlx::query("DELETE FROM usage_events WHERE deployment = 'mystery'").execute(&pool).await.unwrap();
    let day = time::macros::date!(2026 - 03 - 10);
    let change = tollgate::ports::Rerating {
        deployment: "mystery".to_owned(),
        model: None,
        backend: "sim".to_owned(),
        is_provisioned: true,
        rate: None,
    };
    let refused = gateway.app.ledger.ratings.rerate(day, &[change]).await.unwrap_err();
    let why = tollgate::ports::with_causes(&refused);
    assert!(why.contains("dropped cannot be rated anew"), "{why}");
    assert_eq!(gateway.usage("from=2026-03-01").await["total"]["requests"], 2);
}
