//! The OpenAI SDKs, as published, find a gateway no different from the resource behind it.
//!
//! They run in their own languages (`tests/clients/`), against both binaries as they are shipped. The
//! interpreter with the Python SDK is `TOLLGATE_TEST_PYTHON` (else `python3`), the folder of the Node
//! SDK `TOLLGATE_TEST_NODE_MODULES`.

#![expect(
    clippy::disallowed_methods,
    reason = "a test of whole processes has their environment and their time"
)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const ADMIN_KEY: &str = "an-admin-key-for-tests";
const RESOURCE_KEY: &str = "a-resource-key-for-tests";
const DEPLOYMENTS: [&str; 4] = ["gpt-4o-mini", "o4-mini", "gpt-35-turbo-instruct", "text-embedding-3-small"];
/// Far longer than any of this takes: a hang must not hang the suite.
const PATIENCE: Duration = Duration::from_mins(2);

/// A process of ours that says where it listens; it ends when this is dropped.
struct Server {
    url: String,
    _child: Child,
}

impl Server {
    async fn start(arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
        command.args(arguments).args(["--listen", "127.0.0.1:0"]);
        // Only these settings: not what the shell of whoever runs the tests has.
        command.env_clear().envs(settings.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            let line = tokio::time::timeout(PATIENCE, stdout.next_line()).await.unwrap().unwrap();
            let line = line.expect("a server says where it listens before it ends");
            if let Some((_, address)) = line.split_once("http://") {
                let url = format!("http://{}", address.trim());
                // What it logs is of no interest here, but nobody reading it would block it.
                tokio::spawn(async move { while let Ok(Some(_)) = stdout.next_line().await {} });
                return Self { url, _child: child };
            }
        }
    }
}

/// A simulated resource, and a gateway before it.
struct Pair {
    resource: Server,
    gateway: Server,
    http: Client,
    _folder: TempDir,
}

impl Pair {
    async fn start(knobs: &[&str]) -> Self {
        let deployments = DEPLOYMENTS.join(",");
        let mut arguments = vec!["simulate", "--require-key", RESOURCE_KEY, "--deployments", &deployments];
        arguments.extend(knobs);
        let resource = Server::start(&arguments, &[]).await;
        let own_names: serde_json::Map<_, _> =
            DEPLOYMENTS.iter().map(|name| ((*name).to_owned(), json!(name))).collect();
        let configuration = json!({
            "backends": [{
                "name": "simulator", "endpoint": resource.url, "deployments": own_names,
                "auth": {"kind": "api_key", "value": RESOURCE_KEY},
            }],
            "products": [{"name": "everything"}, {"name": "little", "deployments": ["o4-mini"]}],
        });
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.json");
        std::fs::write(&file, configuration.to_string()).unwrap();
        let settings = [
            ("TOLLGATE_CONFIG", file.to_str().unwrap()),
            ("TOLLGATE_DATA_DIR", folder.path().to_str().unwrap()),
            ("TOLLGATE_ADMIN_KEY", ADMIN_KEY),
        ];
        let gateway = Server::start(&["serve"], &settings).await;
        Self { resource, gateway, http: Client::builder().no_proxy().build().unwrap(), _folder: folder }
    }

    async fn key_for(&self, product: &str) -> String {
        let request = self.http.post(format!("{}/subscriptions", self.gateway.url)).bearer_auth(ADMIN_KEY);
        let issued = request.json(&json!({"name": "sdk", "product": product})).send().await.unwrap();
        let issued: Value = issued.json().await.unwrap();
        issued["primary_key"].as_str().expect("a key is issued").to_owned()
    }

    /// The sums of the gateway's report.
    async fn reported(&self) -> Value {
        let request = self.http.get(format!("{}/reports/usage", self.gateway.url)).bearer_auth(ADMIN_KEY);
        let report: Value = request.send().await.unwrap().json().await.unwrap();
        report["total"].clone()
    }

    /// The resource's own books.
    async fn counted(&self) -> Value {
        let counts = self.http.get(format!("{}/simulator/counts", self.resource.url)).send().await.unwrap();
        counts.json::<Value>().await.unwrap()["total"].clone()
    }

    async fn forget_counts(&self) {
        self.http.delete(format!("{}/simulator/counts", self.resource.url)).send().await.unwrap();
    }
}

fn script(name: &str) -> String {
    format!("{}/tests/clients/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// What a client printed; what it complained of goes to the test's own output.
async fn said_by(mut command: Command) -> String {
    command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("a client ends");
    let output = output.expect("the client's interpreter is there");
    assert!(
        output.status.success(),
        "the client failed ({}). Has it its SDK? See tests/clients/, TOLLGATE_TEST_PYTHON and \
         TOLLGATE_TEST_NODE_MODULES",
        output.status
    );
    String::from_utf8(output.stdout).unwrap()
}

async fn node(name: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("node");
    command.arg(script(name)).args(arguments);
    said_by(command).await
}

async fn python(arguments: &[&str]) -> Value {
    let interpreter = std::env::var("TOLLGATE_TEST_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(interpreter);
    command.arg(script("calls.py")).args(arguments).env("NO_PROXY", "127.0.0.1");
    serde_json::from_str(&said_by(command).await).unwrap()
}

/// The calls whose results are not the same.
fn differences(direct: &Value, through: &Value) -> Vec<String> {
    let (direct, through) = (direct.as_object().unwrap(), through.as_object().unwrap());
    assert_eq!(direct.len(), through.len(), "not as many calls were made");
    direct
        .iter()
        .filter(|(call, result)| through.get(*call) != Some(result))
        .map(|(call, result)| {
            let got = through.get(call).map_or_else(|| "nothing".to_owned(), Value::to_string);
            format!("{call}\n  direct:  {result}\n  through: {got}")
        })
        .collect()
}

#[tokio::test]
#[ignore = "needs Python's openai"]
async fn the_python_sdk_gets_the_same_through_the_gateway_and_the_report_equals_what_it_was_told() {
    let pair = Pair::start(&["--seed", "7", "--cached-tokens", "4"]).await;
    let key = pair.key_for("everything").await;
    let direct = python(&[&pair.resource.url, RESOURCE_KEY]).await;
    pair.forget_counts().await;
    let through = python(&[&pair.gateway.url, &key]).await;

    let differences = differences(&direct["results"], &through["results"]);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(direct["results"].as_object().unwrap().len() > 200, "hardly anything was called");

    let (told, reported, counted) = (&through["usage"], pair.reported().await, pair.counted().await);
    assert_eq!(direct["usage"], *told);
    let sums = ["requests", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens"];
    for sum in sums {
        assert_eq!(reported[sum], told[sum], "{sum}: report {reported}, SDK {told}");
    }
    assert_eq!(reported["estimated_requests"], 0, "every usage was to be had from the backend");
    assert_eq!(
        (&counted["requests"], &counted["prompt_tokens"], &counted["completion_tokens"]),
        (&told["requests"], &told["input_tokens"], &told["output_tokens"])
    );
}

#[tokio::test]
#[ignore = "needs Python's openai"]
async fn the_python_sdk_raises_its_permission_error_for_a_deployment_that_is_not_allowed() {
    let pair = Pair::start(&[]).await;
    let key = pair.key_for("little").await;
    let said = python(&[&pair.gateway.url, &key, "forbidden"]).await;
    let results = said["results"].as_object().unwrap();
    assert_eq!(results.len(), 16, "{results:?}");
    for (call, result) in results {
        assert_eq!(*result, "PermissionDeniedError 403 deployment_not_allowed", "{call}");
    }
    assert_eq!(pair.counted().await["requests"], 0, "a backend was asked");
    assert_eq!(pair.reported().await["requests"], 0);
}

#[tokio::test]
#[ignore = "needs Node's openai"]
async fn the_node_sdk_makes_and_reads_the_same_responses_through_the_gateway() {
    let pair = Pair::start(&["--seed", "7"]).await;
    let key = pair.key_for("everything").await;
    let direct = node("responses.mjs", &[&pair.resource.url, RESOURCE_KEY]).await;
    let through = node("responses.mjs", &[&pair.gateway.url, &key]).await;
    assert_eq!(through, direct);
    assert!(through.lines().count() == 2 && through.contains("\"gone\":true"), "{through}");
}

#[tokio::test]
#[ignore = "needs Node's openai"]
async fn the_node_sdk_hangs_up_and_the_backend_stops_within_a_second() {
    // A reply would take 100 s.
    let pair = Pair::start(&["--tokens-per-second", "20", "--reply-tokens", "2000"]).await;
    let key = pair.key_for("everything").await;
    let said = node("abort.mjs", &[&pair.gateway.url, &key]).await;
    let hung_up = Instant::now();
    let chunks: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(chunks.len(), 2, "{said}");
    assert!(chunks.iter().all(|line| line["chunks"] == 5), "{said}");

    let stopped = until(hung_up + Duration::from_secs(1), || async {
        let counted = pair.counted().await;
        (counted["cancelled"] == 2 && counted["streams_open"] == 0).then_some(counted)
    });
    let counted = stopped.await.expect("the backend still works for a client that has gone");
    let said_tokens = counted["completion_tokens"].as_u64().unwrap();
    assert!((10..100).contains(&said_tokens), "{counted}");

    let reported = until(hung_up + Duration::from_secs(5), || async {
        let reported = pair.reported().await;
        (reported["requests"] == 2).then_some(reported)
    });
    let reported = reported.await.expect("what was used until then is reported");
    assert_eq!(reported["estimated_requests"], 2);
    // The backend may have said a token to each of the two that nobody was there to hear.
    for (sum, count, unheard) in
        [("input_tokens", "prompt_tokens", 0), ("output_tokens", "completion_tokens", 2)]
    {
        let (reported, counted) = (reported[sum].as_u64().unwrap(), counted[count].as_u64().unwrap());
        let is_close = reported.abs_diff(counted) <= counted.div_ceil(20) + unheard;
        assert!(is_close, "{sum}: {reported}, not {counted}");
    }
}

/// Asks until there is an answer, or until it is too late.
async fn until<F: Future<Output = Option<Value>>>(end: Instant, mut ask: impl FnMut() -> F) -> Option<Value> {
    loop {
        let answer = ask().await;
        if answer.is_some() || Instant::now() > end {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
