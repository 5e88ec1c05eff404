//! Tokens of the gateway's own identity as passwords of Azure Database for PostgreSQL.
//!
//! Never kept here: [`Tokens`] has them at hand and renews them long before they end.

use async_trait::async_trait;
use secrecy::SecretString;

use super::cloud;
use super::entra::Tokens;
use crate::config::settings::Cloud;
use crate::ports::{DatabasePasswords, Unavailable};

/// The passwords of one cloud's servers.
#[derive(Debug)]
pub struct EntraPasswords {
    tokens: Tokens,
    scope: &'static str,
}

impl EntraPasswords {
    pub fn new(tokens: Tokens, cloud: Cloud) -> Self {
        Self { tokens, scope: cloud::facts(cloud).postgres_scope }
    }
}

#[async_trait]
impl DatabasePasswords for EntraPasswords {
    async fn password(&self) -> Result<SecretString, Unavailable> {
        let token = self.tokens.token(self.scope).await;
        let token = token.map_err(|failure| Unavailable { what: "Entra", source: failure.into() })?;
        Ok(token.secret().clone())
    }
}
