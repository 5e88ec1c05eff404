//! How the handler starts, fails, is killed and stops.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::app::{Mode, Settings};
use super::super::process::{Handler, State};
use super::super::rig::{ADMIN_KEY, CHAT, Rig, Stage, hello, hello_streamed, listing};

/// Nothing listens there.
const NOWHERE: &str = "http://127.0.0.1:9";

#[tokio::test]
async fn it_answers_at_once_without_asking_anyone_and_writes_nothing_into_its_folder() {
    let stage = Stage::new(NOWHERE, Mode::Proxying);
    let before = listing(&stage.root());
    let started = Instant::now();
    let handler = Handler::start(&Arc::new(stage.app()), &stage.settings);
    let (port, _) = handler.ready().await;
    // Its own share is 30 ms; the rest is this machine's.
    assert!(started.elapsed() < Duration::from_secs(5), "ready after {:?}", started.elapsed());
    let response = reqwest::get(format!("http://127.0.0.1:{port}/")).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(listing(&stage.root()), before);
}

#[tokio::test]
async fn it_starts_and_stays_with_everything_it_depends_on_out_of_reach() {
    let mut stage = Stage::new(NOWHERE, Mode::Proxying);
    let down = [("IDENTITY_ENDPOINT", "http://127.0.0.1:9/msi/token"), ("IDENTITY_HEADER", "x")];
    stage.settings.extend(down.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let handler = Handler::start(&Arc::new(stage.app()), &stage.settings);
    let (port, pid) = handler.ready().await;
    for path in ["/", "/healthz"] {
        let response = reqwest::get(format!("http://127.0.0.1:{port}{path}")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    let url = format!("http://127.0.0.1:{port}{CHAT}");
    let refused =
        reqwest::Client::new().post(url).header("api-key", "tg_none").json(&hello()).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(handler.ready().await, (port, pid), "it ended");
}

/// What the host's log shows of a start that cannot succeed.
async fn last_words(change: impl FnOnce(&Path, &mut Settings)) -> String {
    let mut stage = Stage::new(NOWHERE, Mode::Proxying);
    change(stage.folder.path(), &mut stage.settings);
    let handler = Handler::start(&Arc::new(stage.app()), &stage.settings);
    let (end, exits) = handler.end().await;
    assert_eq!(end, State::ShutDown, "it was not a failure: {exits:?}");
    for exit in exits {
        assert!(!matches!(exit, Some(0 | 200) | None), "the host takes {exit:?} for a wish");
    }
    handler.output.text()
}

#[tokio::test]
async fn a_faulty_configuration_ends_it_with_a_failure_that_names_the_fault() {
    let words =
        last_words(|folder, _| fs::write(folder.join("gateway.json"), "{\"backends\": 7}").unwrap()).await;
    assert!(words.contains("backends"), "{words}");
    let words = last_words(|_, settings| {
        settings.insert("TOLLGATE_CONFIG".to_owned(), "/nowhere/gateway.json".to_owned());
    })
    .await;
    assert!(words.contains("/nowhere/gateway.json"), "{words}");
    let words = last_words(|_, settings| {
        let reference = "@Microsoft.KeyVault(SecretUri=https://v.vault.azure.net/secrets/admin)";
        settings.insert("TOLLGATE_ADMIN_KEY".to_owned(), reference.to_owned());
    })
    .await;
    assert!(words.contains("TOLLGATE_ADMIN_KEY"), "{words}");
}

#[tokio::test]
async fn it_logs_one_record_a_line_to_stdout_and_never_a_secret() {
    let rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    rig.chat(&issued.key, &hello()).send().await.unwrap().bytes().await.unwrap();
    rig.chat(&issued.key, &hello_streamed()).send().await.unwrap().bytes().await.unwrap();
    rig.chat("tg_some-other-key", &hello()).send().await.unwrap();
    let query = format!("{CHAT}&subscription-key={}&code=the-functions-key", issued.key);
    rig.ask(Method::POST, &query)
        .header("x-functions-key", "another-key")
        .json(&hello())
        .send()
        .await
        .unwrap();
    rig.host.handler().interrupt().await;
    rig.host.handler().end().await;

    let output = &rig.host.handler().output;
    // The host shows every line of it in red, as an error.
    assert_eq!(output.stderr(), Vec::<String>::new());
    assert!(!output.stdout().is_empty());
    for line in output.stdout() {
        assert!(line.contains(" INFO ") || line.contains(" WARN ") || line.contains("\"level\""), "{line}");
    }
    let text = output.text();
    for secret in
        [&issued.key, ADMIN_KEY, "tg_some-other-key", "the-functions-key", "another-key", "Say hello"]
    {
        assert!(!text.contains(secret), "{secret} in\n{text}");
    }
}

#[tokio::test]
async fn killed_at_any_time_it_starts_again_on_another_port_with_all_it_had_accounted_for() {
    let mut rig = Rig::start(Mode::Proxying).await;
    let issued = rig.issue().await;
    for round in 1..=4 {
        for body in [hello(), hello_streamed()] {
            let response = rig.chat(&issued.key, &body).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            response.bytes().await.unwrap();
        }
        // A stream in hand when it dies may count or not, and must spoil nothing.
        let other = rig.issue().await;
        let cut = rig.chat(&other.key, &hello_streamed()).send().await.unwrap();
        rig.replace_instance().await;
        drop(cut);
        assert_eq!(rig.used(&issued).await.requests, 2 * round, "round {round}");
    }
}

#[tokio::test]
async fn ctrl_c_ends_it_well_within_two_seconds_even_with_a_stream_open() {
    let rig = Rig::before(super::super::backend::Backend::gated().await, Mode::Proxying).await;
    let issued = rig.issue().await;
    rig.backend.gate.add_permits(1);
    let stream = rig.chat(&issued.key, &hello_streamed()).send().await.unwrap();
    let asked = Instant::now();
    assert_eq!(rig.host.handler().interrupt().await, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(2), "it took {:?}", asked.elapsed());
    drop(stream);
}

#[tokio::test]
async fn the_sample_settings_and_the_example_configuration_start_it() {
    let stage = Stage::new(NOWHERE, Mode::Proxying);
    let project = stage.folder.path();
    fs::create_dir(project.join("examples")).unwrap();
    fs::create_dir(project.join("dist")).unwrap();
    fs::rename(stage.root(), project.join("dist/functionapp")).unwrap();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/gateway.json");
    fs::copy(example, project.join("examples/gateway.json")).unwrap();
    let sample = fs::read(project.join("dist/functionapp/local.settings.sample.json")).unwrap();
    let sample: serde_json::Value = serde_json::from_slice(&sample).unwrap();
    // Without it Core Tools takes the file for an encrypted one.
    assert_eq!(sample["IsEncrypted"], false);
    let settings: Settings = serde_json::from_value(sample["Values"].clone()).unwrap();

    let app = super::super::app::App::load(&project.join("dist/functionapp"), &settings).unwrap();
    assert!(!app.function("token-accounting").is_enabled, "`func start` would need a hub");
    let handler = Handler::start(&Arc::new(app), &settings);
    let (port, _) = handler.ready().await;
    let issued = reqwest::Client::new()
        .post(format!("http://127.0.0.1:{port}/subscriptions"))
        .bearer_auth(&settings["TOLLGATE_ADMIN_KEY"])
        .json(&json!({"name": "me", "product": "standard"}));
    assert_eq!(issued.send().await.unwrap().status(), StatusCode::CREATED);
}

/// Sends a GET on this connection and reads the whole answer.
async fn exchange(connection: &mut TcpStream, request: &str) -> String {
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let mut buffer = [0; 4096];
    while !answer.contains("\r\n\r\n") || !answer.trim_end().ends_with('}') {
        let read = connection.read(&mut buffer).await.unwrap();
        assert_ne!(read, 0, "the connection was closed: {answer}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    answer
}

const GET: &str = "GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
const POST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n{}";

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_was_idle_for_90_seconds_takes_a_post() {
    let router = axum::Router::new()
        .route("/healthz", axum::routing::get(|| async { "{}" }))
        .route("/v1/chat/completions", axum::routing::post(|| async { "{}" }));
    let listener = tollgate::server::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(tollgate::server::serve(listener, router, tokio_util::sync::CancellationToken::new()));
    let mut connection = TcpStream::connect(address).await.unwrap();
    exchange(&mut connection, GET).await;
    tokio::time::advance(Duration::from_secs(90)).await;
    assert!(exchange(&mut connection, POST).await.starts_with("HTTP/1.1 200"));
    // It does end some time, or this test would prove nothing.
    tokio::time::advance(Duration::from_mins(10)).await;
    assert_eq!(connection.read(&mut [0; 1024]).await.unwrap_or(0), 0, "it is kept for ever");
}

#[tokio::test]
#[ignore = "waits for 90 s"]
async fn the_handlers_own_connections_are_kept_for_90_seconds() {
    let stage = Stage::new(NOWHERE, Mode::Proxying);
    let handler = Handler::start(&Arc::new(stage.app()), &stage.settings);
    let (port, _) = handler.ready().await;
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    exchange(&mut connection, GET).await;
    tokio::time::sleep(Duration::from_secs(90)).await;
    assert!(exchange(&mut connection, POST).await.starts_with("HTTP/1.1 401"));
}
