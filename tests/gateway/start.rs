//! How `tollgate serve` starts, and how it ends, with nothing but a vault that does not answer.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use tokio::net::TcpStream;

use crate::support::{ask, listener};

const PATIENCE: Duration = Duration::from_secs(20);

/// `tollgate serve`, with these settings and no others.
fn serve(settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollgate"));
    command.env_clear().envs(settings.iter().copied()).stdin(Stdio::null());
    command
}

fn told(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn without_a_file_and_without_a_vault_it_ends_and_names_both() {
    let told = told(&serve(&[]).output().unwrap());
    assert!(told.contains("TOLLGATE_CONFIG") && told.contains("TOLLGATE_KEY_VAULT_URL"), "{told}");
}

#[test]
fn a_faulty_address_of_the_vault_ends_it_at_once() {
    let told =
        told(&serve(&[("TOLLGATE_KEY_VAULT_URL", "http://contoso.vault.azure.net")]).output().unwrap());
    assert!(told.contains("TOLLGATE_KEY_VAULT_URL: must begin with https://"), "{told}");
}

#[tokio::test]
async fn it_listens_at_once_while_the_vault_is_down_and_ends_when_asked() {
    let folder = tempfile::tempdir().unwrap();
    // Taken and given back: nobody listens there.
    let nobody = format!("http://{}", listener().await.local_addr().unwrap());
    let address = listener().await.local_addr().unwrap();
    let child = serve(&[
        ("TOLLGATE_KEY_VAULT_URL", &nobody),
        ("IDENTITY_ENDPOINT", &format!("{nobody}/msi/token")),
        ("IDENTITY_HEADER", "x"),
        ("TOLLGATE_DATA_DIR", folder.path().to_str().unwrap()),
        ("FUNCTIONS_CUSTOMHANDLER_PORT", &address.port().to_string()),
    ])
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let up = async {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.expect("it listens");
    let get = async |path: &str| ask(&client, "GET", &format!("http://{address}{path}"), &[], None).await;
    assert_eq!(get("/").await.status, 200);
    let health = get("/healthz").await;
    assert_eq!((health.status, health.json()["status"].as_str()), (200, Some("starting")));
    let call = get("/v1/models").await;
    assert!(matches!(call.status, 503 | 404), "{}", call.body);
    let id = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let log = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{log}");
    assert!(!log.contains("stopped before everything was written"), "{log}");
    // Once, however often it looked, and nothing beside it: Azure's library would tell each failed request.
    let tells_of_the_vault = |line: &&str| line.contains("tollgate-config");
    assert_eq!(log.lines().filter(tells_of_the_vault).count(), 1, "{log}");
    assert!(log.contains("the configuration cannot be read from the secret `tollgate-config`"), "{log}");
}
