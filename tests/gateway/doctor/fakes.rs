//! What stands around the doctor in a test: an identity, names, a vault.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_util::task::TaskTracker;
use tollgate::config::settings::Settings;
use tollgate::doctor::{Database, Doctor, Finding, Identity, Resolver, SigningKeys, Unfit, Vault};
use tollgate::ports::{Secret, SecretFailure, Secrets};

use crate::support::listener;

pub(super) const PRINCIPAL: &str = "11111111-2222-3333-4444-555555555555";
pub(super) const HOST: &str = "contoso-eastus.openai.azure.com";

/// An identity whose tokens name their principal; without one, it gives none.
pub(super) struct App(pub(super) Option<&'static str>);

#[async_trait]
impl Identity for App {
    fn kind(&self) -> String {
        "the managed identity".to_owned()
    }

    fn mend(&self) -> String {
        "`az functionapp identity assign`".to_owned()
    }

    fn audience(&self) -> String {
        "https://cognitiveservices.azure.com".to_owned()
    }

    async fn token(&self, _audience: &str) -> Result<SecretString, String> {
        let principal = self.0.ok_or("no identity is assigned")?;
        let claims = json!({"oid": principal, "tid": "tenant-1", "appid": "application-1"}).to_string();
        Ok(SecretString::from(format!("head.{}.hushhush", BASE64_URL_SAFE_NO_PAD.encode(claims))))
    }
}

/// What names resolve to.
pub(super) struct Names(pub(super) BTreeMap<&'static str, &'static str>);

#[async_trait]
impl Resolver for Names {
    async fn addresses(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let address = self.0.get(host).ok_or_else(|| io::Error::other("no such name"))?;
        Ok(vec![address.parse().unwrap()])
    }
}

/// Whoever is asked, and never answers.
struct Hanging;

#[async_trait]
impl Identity for Hanging {
    fn kind(&self) -> String {
        "the managed identity".to_owned()
    }

    fn mend(&self) -> String {
        String::new()
    }

    fn audience(&self) -> String {
        "https://cognitiveservices.azure.com".to_owned()
    }

    async fn token(&self, _audience: &str) -> Result<SecretString, String> {
        std::future::pending().await
    }
}

#[async_trait]
impl Resolver for Hanging {
    async fn addresses(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        std::future::pending().await
    }
}

#[async_trait]
impl Database for Hanging {
    async fn look(&self) -> Result<String, Unfit> {
        std::future::pending().await
    }
}

#[async_trait]
impl Secrets for Hanging {
    async fn read(&self, _name: &str) -> Result<Option<Secret>, SecretFailure> {
        std::future::pending().await
    }
}

struct Fine;

#[async_trait]
impl SigningKeys for Fine {
    async fn count(&self, _tenant: &str) -> Result<usize, String> {
        Ok(5)
    }
}

#[async_trait]
impl SigningKeys for Hanging {
    async fn count(&self, _tenant: &str) -> Result<usize, String> {
        std::future::pending().await
    }
}

#[async_trait]
impl Database for Fine {
    async fn look(&self) -> Result<String, Unfit> {
        Ok("it can be opened".to_owned())
    }
}

/// A vault that has these, refuses what has no value, and is not reached for `far`.
pub(super) struct Values(BTreeMap<&'static str, Option<String>>);

#[async_trait]
impl Secrets for Values {
    async fn read(&self, name: &str) -> Result<Option<Secret>, SecretFailure> {
        match self.0.get(name) {
            None => Ok(None),
            Some(None) if name == "far" => Err(SecretFailure::Unavailable {
                what: "Key Vault",
                retry_after: None,
                source: "connection refused".into(),
            }),
            Some(None) if name == "off" => Err(SecretFailure::Refused("enable the secret".to_owned())),
            Some(None) => Err(SecretFailure::Refused("give it the role Key Vault Secrets User".to_owned())),
            Some(Some(value)) => {
                Ok(Some(Secret { value: value.clone().into(), version: Some("v1".to_owned()) }))
            }
        }
    }
}

/// What a test puts around the doctor.
pub(super) struct Surroundings {
    pub(super) identity: App,
    pub(super) names: Names,
    pub(super) vault: Option<Values>,
    pub(super) client: reqwest::Client,
    /// Nobody answers.
    pub(super) hangs: bool,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            identity: App(Some(PRINCIPAL)),
            names: Names(BTreeMap::new()),
            vault: None,
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            hangs: false,
        }
    }
}

impl Surroundings {
    pub(super) fn vault(values: impl IntoIterator<Item = (&'static str, Option<String>)>) -> Self {
        Self { vault: Some(Values(values.into_iter().collect())), ..Self::default() }
    }

    /// Examines with this configuration in a file; without one, with what the vault has.
    pub(super) async fn examine(self, configuration: Option<&Value>) -> Vec<Finding> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("gateway.json");
        let mut settings = BTreeMap::from([("TOLLGATE_DATA_DIR", folder.path().display().to_string())]);
        if let Some(configuration) = configuration {
            std::fs::write(&file, configuration.to_string()).unwrap();
            settings.insert("TOLLGATE_CONFIG", file.display().to_string());
        }
        let settings = Settings::read(&settings).unwrap();
        let vault = |secrets| Vault {
            url: "https://contoso.vault.azure.net".parse().unwrap(),
            config_secret: "tollgate-config".to_owned(),
            secrets,
            zone: "privatelink.vaultcore.azure.net",
        };
        let mut doctor = Doctor {
            settings: &settings,
            client: self.client,
            resolver: Arc::new(self.names),
            database: Arc::new(Fine),
            identity: Arc::new(self.identity),
            signing_keys: Arc::new(Fine),
            vault: self.vault.map(|values| vault(Arc::new(values) as Arc<dyn Secrets>)),
            event_hub: None,
            logs: None,
            api_version: "2024-10-21".to_owned(),
        };
        if self.hangs {
            doctor.resolver = Arc::new(Hanging);
            doctor.database = Arc::new(Hanging);
            doctor.identity = Arc::new(Hanging);
            doctor.signing_keys = Arc::new(Hanging);
            doctor.vault = Some(vault(Arc::new(Hanging)));
        }
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        doctor.examine(sender).await;
        let mut findings = Vec::new();
        while let Some(finding) = receiver.recv().await {
            let line = finding.to_string();
            assert!(!line.contains('\n') && !line.contains("hush"), "{line}");
            findings.push(finding);
        }
        findings
    }
}

/// Somebody who answers over TLS with a certificate for `name`, and a client that trusts its issuer.
pub(super) async fn certified(name: &str, trusted: bool) -> (SocketAddr, reqwest::Client) {
    let certified = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let certificate = certified.cert.der().clone();
    let own = reqwest::Certificate::from_der(&certificate).unwrap();
    let config =
        ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = listener().await;
    let address = listener.local_addr().unwrap();
    TaskTracker::new().spawn(async move {
        // Who does not trust the certificate goes without a word, and may come again.
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 1024]).await;
            let answer = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    let client = reqwest::Client::builder().no_proxy().resolve(HOST, address);
    let client = if trusted { client.tls_certs_only([own]) } else { client };
    (address, client.build().unwrap())
}
