//! Delivered batches are posted once; reports add them up.

use serde_json::{Value, json};
use tollgate::domain::units::UnixMillis;
use tollgate::ports::{DeadLetter, Postings};

use crate::support::{Answer, Process, TestGateway, configuration};

mod rating;

pub(crate) const HOST: [(&str, &str); 2] =
    [("user-agent", "Azure-Functions-Host/4.1037"), ("x-azure-functions-invocationid", "5d8b2a10")];

fn event(number: u32, changes: &Value) -> Value {
    let mut event = json!({
        "schema": "tollgate.usage.v1", "id": format!("0192a000-0000-7000-8000-{number:012}"),
        "time": "2026-03-10T09:30:00.123Z", "subscription_id": "s1", "product": "standard",
        "cost_center": "4711", "operation": "chat.completions", "deployment": "gpt-4o-mini",
        "model": "gpt-4o-mini-2024-07-18", "backend": "sim", "status": 200, "outcome": "completed",
        "usage": {"source": "reported", "input_tokens": 12, "cached_input_tokens": 4, "output_tokens": 34},
    });
    event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    event
}

async fn deliver(gateway: &TestGateway, events: &[Value]) -> Answer {
    let events: Vec<_> = events.iter().map(Value::to_string).collect();
    let body = json!({"Data": {"events": json!(events).to_string()}, "Metadata": {}}).to_string();
    gateway.send("POST", "/token-accounting", &HOST, Some(body)).await
}

#[tokio::test]
async fn a_batch_counts_once_however_often_it_comes() {
    let gateway = TestGateway::start().await;
    let batch: Vec<_> = (0..150).map(|number| event(number, &json!({}))).collect();
    let overlapping: Vec<_> = (100..200).rev().map(|number| event(number, &json!({}))).collect();
    for events in [&batch, &batch, &overlapping, &overlapping] {
        let answer = deliver(&gateway, events).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
        assert!(answer.json().is_object());
    }
    let total = gateway.usage("from=2026-03-01&to=2026-04-01").await["total"].clone();
    assert_eq!((&total["requests"], &total["input_tokens"]), (&json!(200), &json!(2_400)));
    // 200 requests of (8 x 0.15 + 4 x 0.075 + 34 x 0.60) / 1,000,000
    assert_eq!(total["cost"], "0.00438");
}

#[tokio::test]
async fn a_bad_message_goes_to_the_dead_letters_once_and_the_rest_count() {
    let gateway = TestGateway::start().await;
    let mut batch: Vec<_> = (0..99).map(|number| event(number, &json!({}))).collect();
    batch.insert(50, json!({"not": "an event"}));
    for _ in 0..2 {
        assert_eq!(deliver(&gateway, &batch).await.status, 200);
    }
    assert_eq!(gateway.usage("from=2026-03-01").await["total"]["requests"], 99);
    let url = format!("sqlite://{}", gateway.folder().join("ledger.db").display());
    let pool = sqlx::SqlitePool::connect(&url).await.unwrap();
    let letters: Vec<(String, String)> =
        sqlx::query_as("SELECT message, reason FROM dead_letters").fetch_all(&pool).await.unwrap();
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].0, r#"{"not":"an event"}"#);
}

#[tokio::test]
async fn a_message_that_is_nothing_but_brackets_does_not_end_the_process() {
    let gateway = TestGateway::start().await;
    let endless = "[".repeat(100_000) + &"]".repeat(100_000);
    let messages = json!([event(1, &json!({})).to_string(), endless]).to_string();
    let body = json!({"Data": {"events": messages}, "Metadata": {}}).to_string();
    let answer = gateway.send("POST", "/token-accounting", &HOST, Some(body)).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(gateway.usage("from=2026-03-01").await["total"]["requests"], 1);
}

#[tokio::test]
async fn only_the_host_may_deliver() {
    let gateway = TestGateway::start().await;
    let body = json!({"Data": {"events": json!([event(1, &json!({})).to_string()]).to_string()}}).to_string();
    let with = |extra: &[(&'static str, &'static str)]| [&HOST[..], extra].concat();
    for headers in [
        vec![],
        vec![HOST[0]],
        vec![HOST[1]],
        vec![("user-agent", "curl Azure-Functions-Host/4.1"), HOST[1]],
        with(&[("x-ms-invocation-id", "1")]),
        with(&[("x-forwarded-for", "1.2.3.4")]),
        with(&[("X-Forwarded-Host", "gateway.example")]),
    ] {
        let answer = gateway.send("POST", "/token-accounting", &headers, Some(body.clone())).await;
        assert_eq!(answer.status, 404, "{headers:?}");
    }
    assert_eq!(gateway.usage("from=2026-03-01").await["total"]["requests"], 0);
}

#[tokio::test]
async fn usage_is_grouped_and_what_has_no_price_says_so() {
    let gateway = TestGateway::start().await;
    let events = [
        event(1, &json!({})),
        event(2, &json!({"time": "2026-03-11T00:00:00Z", "cost_center": null})),
        event(3, &json!({"deployment": "mystery", "subscription_id": "s2"})),
        event(
            4,
            &json!({"deployment": "mystery", "status": 429, "outcome": "backend_failed",
                          "usage": {"source": "none", "input_tokens": 0, "output_tokens": 0}}),
        ),
    ];
    assert_eq!(deliver(&gateway, &events).await.status, 200);
    let report = gateway.usage("from=2026-03-01&to=2026-04-01&group_by=deployment,day").await;
    assert_eq!(report["currency"], "USD");
    let rows = report["rows"].as_array().unwrap();
    let row = |deployment: &str, day: &str| {
        rows.iter().find(|row| row["deployment"] == deployment && row["day"] == day).unwrap()
    };
    assert_eq!(rows.len(), 3);
    assert_eq!(row("gpt-4o-mini", "2026-03-11")["cost"], "0.0000219");
    let mystery = row("mystery", "2026-03-10");
    assert_eq!((&mystery["cost"], &mystery["priced_cost"]), (&Value::Null, &json!("0")));
    assert_eq!((&mystery["requests"], &mystery["unpriced_requests"]), (&json!(2), &json!(1)));
    let total = &report["total"];
    assert_eq!((&total["cost"], &total["priced_cost"]), (&Value::Null, &json!("0.0000438")));
    // `to` is exclusive, `from` inclusive.
    let day = gateway.usage("from=2026-03-11T00:00:00Z&to=2026-03-11T00:00:00.001Z").await;
    assert_eq!(day["total"]["requests"], 1);
    let none = gateway.usage("from=2026-03-10&to=2026-03-10").await;
    assert_eq!((&none["total"]["requests"], &none["rows"]), (&json!(0), &json!([])));
}

#[tokio::test]
async fn provisioned_capacity_costs_nothing_by_the_token() {
    let resource = crate::support::resource(tollgate::simulator::Knobs::default()).await;
    let mut configuration = crate::support::configuration(resource.0);
    configuration["backends"][0]["billing"] =
        json!({"kind": "provisioned", "units": 50, "hourly_price_per_unit": "1.00"});
    let gateway = TestGateway::with(resource.0, &configuration).await;
    deliver(&gateway, &[event(1, &json!({})), event(2, &json!({"backend": "another"}))]).await;
    let report = gateway.usage("from=2026-03-01&group_by=backend").await;
    let rows = report["rows"].as_array().unwrap();
    assert_eq!((&rows[0]["backend"], &rows[0]["cost"]), (&json!("another"), &json!("0.0000219")));
    assert_eq!((&rows[1]["backend"], &rows[1]["cost"]), (&json!("sim"), &json!("0")));
}

#[tokio::test]
async fn a_report_can_be_had_as_csv_that_no_spreadsheet_runs() {
    let gateway = TestGateway::start().await;
    let formula = json!({"cost_center": "=HYPERLINK(\"x\")"});
    deliver(&gateway, &[event(1, &formula), event(2, &json!({"cost_center": "a,b \"c\""}))]).await;
    let bearer = format!("Bearer {}", crate::support::ADMIN_KEY);
    let headers = [("authorization", bearer.as_str()), ("accept", "text/csv")];
    let path = "/reports/usage?from=2026-03-01&group_by=cost_center";
    let answer = gateway.send("GET", path, &headers, None).await;
    assert!(answer.header("content-type").starts_with("text/csv"));
    insta::assert_snapshot!(answer.body, @r#"
    cost_center,requests,estimated_requests,input_tokens,cached_input_tokens,output_tokens,reasoning_tokens,cost,priced_cost,unpriced_requests,audio_input_tokens,audio_output_tokens,cache_write_tokens,images,currency
    "'=HYPERLINK(""x"")",1,0,12,4,34,0,0.0000219,0.0000219,0,0,0,0,0,USD
    "a,b ""c""",1,0,12,4,34,0,0.0000219,0.0000219,0,0,0,0,0,USD
    "#);
}

#[tokio::test]
async fn a_faulty_question_is_told_its_parameter() {
    let gateway = TestGateway::start().await;
    for (query, param) in [
        ("group_by=color", "group_by"),
        ("from=yesterday", "from"),
        ("to=2026-13-01", "to"),
        ("from=2026-03-02&to=2026-03-01", "from"),
        ("form=2026-03-02", "form"),
    ] {
        let answer = gateway.manage("GET", &format!("/reports/usage?{query}"), None).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["param"]),
            (400, &json!(param)),
            "{}",
            answer.body
        );
    }
}

#[tokio::test]
async fn dead_letters_that_can_be_read_now_are_posted_once_and_the_rest_stay() {
    let gateway = TestGateway::start().await;
    deliver(&gateway, &[json!({"not": "an event"}), event(1, &json!({}))]).await;
    // What an earlier version could not read.
    let letter = |number: u8, message: String| tollgate::ports::DeadLetter {
        id: [number; 32],
        received_at: UnixMillis(1_700_000_000_000),
        reason: "not a usage event".to_owned(),
        message,
    };
    let texts = json!([event(3, &json!({})).to_string(), event(4, &json!({})).to_string()]).to_string();
    let batch = json!({"Data": {"events": texts}, "Metadata": {}}).to_string();
    let dead_letters = vec![
        letter(1, event(1, &json!({})).to_string()),
        letter(2, event(2, &json!({})).to_string()),
        letter(3, batch),
    ];
    let postings = tollgate::ports::Postings { dead_letters, ..tollgate::ports::Postings::default() };
    gateway.app.ledger.store.post(&postings).await.unwrap();
    let only = gateway.app.ledger.replay(Some(&[[2; 32]])).await.unwrap();
    assert_eq!((only.replayed, only.new, only.unreadable), (1, 1, 0));
    let rest = gateway.app.ledger.replay(None).await.unwrap();
    assert_eq!((rest.replayed, rest.new, rest.unreadable), (2, 2, 1));
    assert_eq!(gateway.usage("from=2026-03-01").await["total"]["requests"], 4);
    let left = gateway.app.ledger.dead_letters(None, 10).await.unwrap();
    assert_eq!(
        left.iter().map(|letter| letter.message.as_str()).collect::<Vec<_>>(),
        [r#"{"not":"an event"}"#]
    );
}

/// A dead letter, as an earlier version would have left it.
fn letter(number: u8, message: &str) -> DeadLetter {
    DeadLetter {
        id: [number; 32],
        received_at: UnixMillis(1_800_000_000_000 + i64::from(number)),
        reason: "not a usage event: of another version".to_owned(),
        message: message.to_owned(),
    }
}

#[tokio::test]
async fn dead_letters_are_listed_in_pages_and_replayed_once_they_can_be_read() {
    let gateway = TestGateway::start().await;
    let long = "x".repeat(10_000);
    let messages =
        [event(1, &json!({})).to_string(), long, event(2, &json!({})).to_string(), "{}".to_owned()];
    let letters = (1..).zip(&messages).map(|(number, message)| letter(number, message)).collect();
    let postings = Postings { dead_letters: letters, ..Postings::default() };
    gateway.app.ledger.store.post(&postings).await.unwrap();
    let replay = async |body: Option<Value>| {
        let answer = gateway.manage("POST", "/reports/dead-letters/replay", body.as_ref()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        answer.json()
    };

    let mut ids = Vec::new();
    let mut page = "/reports/dead-letters?limit=3".to_owned();
    loop {
        let list = gateway.manage("GET", &page, None).await.json();
        for item in list["items"].as_array().unwrap() {
            assert!(item["message"].as_str().unwrap().len() <= 2_048);
            assert!(item["received_at"].as_str().unwrap().starts_with("2027-01-15T"), "{item}");
            ids.push(item["id"].as_str().unwrap().to_owned());
        }
        let Some(next) = list["next"].as_str() else { break };
        page = format!("/reports/dead-letters?limit=3&cursor={next}");
    }
    assert_eq!(ids, ["01", "02", "03", "04"].map(|byte| byte.repeat(32)));

    let one = replay(Some(json!({"ids": [ids[2], "f".repeat(64)]}))).await;
    assert_eq!(one, json!({"replayed": 1, "posted": 1, "still_unreadable": 0}));
    // One of them came once more meanwhile.
    deliver(&gateway, &[event(1, &json!({}))]).await;
    assert_eq!(replay(None).await, json!({"replayed": 1, "posted": 0, "still_unreadable": 2}));
    assert_eq!(replay(Some(json!({"ids": []}))).await["still_unreadable"], 0);
    let left = gateway.manage("GET", "/reports/dead-letters", None).await.json();
    assert_eq!(left["items"].as_array().unwrap().len(), 2);
    assert_eq!(gateway.usage("from=2026-03-01").await["total"]["requests"], 2);

    for body in [json!({"ids": ["0"]}), json!({"all": true})] {
        let answer = gateway.manage("POST", "/reports/dead-letters/replay", Some(&body)).await;
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "invalid_request_error"),
            "{}",
            answer.body
        );
    }
    for cursor in ["1", "1-ff", "x"] {
        let answer = gateway.manage("GET", &format!("/reports/dead-letters?cursor={cursor}"), None).await;
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
}

#[tokio::test]
async fn a_delivery_of_any_size_is_taken_in_in_bounded_memory() {
    const MESSAGES: u32 = 80;
    let folder = tempfile::tempdir().unwrap();
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let process = Process::serve(folder.path(), &configuration(nowhere)).await;
    let before = process.peak_bytes();
    let message = |number| {
        let text = event(number, &json!({"from_a_later_version": "\"\\".repeat(50_000)})).to_string();
        // JSON in a string, in a list, in a string: the inside of the outer string.
        let twice = json!(json!(text).to_string()).to_string();
        let comma = if number == 0 { "" } else { "," };
        Ok::<_, std::io::Error>(format!("{comma}{}", &twice[1..twice.len() - 1]))
    };
    let begun = std::iter::once(Ok("{\"Data\":{\"events\":\"[".to_owned()));
    let ended = std::iter::once(Ok("]\"},\"Metadata\":{}}".to_owned()));
    let body = begun.chain((0..MESSAGES).map(message)).chain(ended);
    let body_bytes: usize = message(1).unwrap().len() * MESSAGES as usize;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client
        .post(format!("http://{}/token-accounting", process.address))
        .header(HOST[0].0, HOST[0].1)
        .header(HOST[1].0, HOST[1].1)
        .body(reqwest::Body::wrap_stream(futures_util::stream::iter(body)));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let grown = process.peak_bytes() - before;
    assert!(grown < 16 * 1024 * 1024, "{grown} bytes more for a delivery of {body_bytes}");
    assert!(body_bytes > 40 * 1024 * 1024, "{body_bytes}");
    let report = process.manage("GET", "/reports/usage?from=2026-03-01", None).await.json();
    assert_eq!(report["total"]["requests"], MESSAGES);
}

#[tokio::test]
async fn what_others_call_things_is_cut_to_what_a_database_keeps() {
    let gateway = TestGateway::start().await;
    let long = json!({"model": "m\u{0}".repeat(3_000), "cost_center": "é".repeat(3_000), "end_user": "x".repeat(100_000)});
    assert_eq!(deliver(&gateway, &[event(1, &long), event(2, &json!({}))]).await.status, 200);
    let report = gateway.usage("from=2026-03-01&group_by=model,cost_center").await;
    let rows = report["rows"].as_array().unwrap();
    let cut = rows.iter().find(|row| row["cost_center"] == "é".repeat(512)).unwrap();
    assert_eq!((&cut["model"], &cut["requests"]), (&json!("m?".repeat(256)), &json!(1)));
}
