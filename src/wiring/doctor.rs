//! What the doctor asks by: the gateway's own adapters.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;

use crate::config::settings::Settings;
use crate::doctor::{Database, Doctor, Identity, SystemResolver};
use crate::sql;

/// # Errors
/// When no HTTPS client can be made.
pub fn doctor(settings: &Settings, api_version: String) -> Result<Doctor<'_>, reqwest::Error> {
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).no_proxy().build()?;
    Ok(Doctor {
        settings,
        client,
        resolver: Arc::new(SystemResolver),
        database: Arc::new(File(settings.database_file.clone())),
        identity: Arc::new(Nobody),
        vault: None,
        api_version,
    })
}

/// A SQLite file.
struct File(PathBuf);

#[async_trait]
impl Database for File {
    async fn look(&self) -> Result<String, String> {
        let file = self.0.display();
        match sql::is_there(&self.0).await {
            Ok(true) => Ok(format!("{file} can be opened")),
            Ok(false) => Ok(format!("{file} is not there yet: the first start makes it")),
            Err(error) => Err(error.to_string()),
        }
    }
}

struct Nobody;

#[async_trait]
impl Identity for Nobody {
    fn kind(&self) -> String {
        "this version".to_owned()
    }

    fn audience(&self) -> String {
        "https://cognitiveservices.azure.com".to_owned()
    }

    async fn token(&self, _audience: &str) -> Result<SecretString, String> {
        Err("it cannot sign in with Entra yet".to_owned())
    }
}
