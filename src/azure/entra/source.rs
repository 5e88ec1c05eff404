//! Whom tokens are asked of: chosen by the settings, never by trying one after the other.

use std::sync::Arc;

use async_trait::async_trait;

use super::managed::Managed;
use super::sdk::{Developer, Workload};
use super::{Token, TokenFailure};
use crate::config::settings::{Identity, Settings};

/// Gives tokens; keeps none.
#[async_trait]
pub trait Source: Send + Sync {
    /// Asks once for a token of this scope.
    async fn fetch(&self, scope: &str) -> Result<Token, TokenFailure>;
}

/// The one that the settings name.
pub fn source(settings: &Settings, client: reqwest::Client) -> Arc<dyn Source> {
    match &settings.identity {
        Identity::Managed { endpoint, header, client_id } => Arc::new(Managed {
            client,
            endpoint: endpoint.clone(),
            header: header.clone(),
            client_id: client_id.clone(),
        }),
        Identity::Workload { tenant_id, client_id, token_file } => Arc::new(Workload::new(
            client,
            settings.cloud,
            settings.entra_authority.as_ref(),
            (tenant_id.clone(), client_id.clone(), token_file.clone()),
        )),
        Identity::Developer => Arc::new(Developer::default()),
    }
}
