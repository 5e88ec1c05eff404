//! The configuration that holds now: one at a time, and swapped whole.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use secrecy::SecretString;

use super::Faults;
use super::catalog::Catalog;
use crate::domain::units::UnixMillis;

/// The gateway configuration of this moment, and the values of the secrets that it names.
///
/// A request takes the [`Catalog`] once and keeps it to its end: a swap drops nothing that is under
/// way.
#[derive(Debug, Default)]
pub struct Live {
    catalog: ArcSwapOption<Catalog>,
    secrets: ArcSwap<BTreeMap<String, Result<SecretString, Absent>>>,
    standing: RwLock<Standing>,
    outdated: tokio::sync::Notify,
}

/// Why a secret has no value. The text is for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Absent {
    /// Its vault could not be asked, or was not yet: there may be one soon.
    Unread(String),
    /// It is not there, or may not be read, until somebody mends that.
    Refused(String),
}

/// There is no configuration yet, or none was ever good.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no good gateway configuration was read yet")]
pub struct NoConfiguration;

/// How it stands with the configuration, for an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Where it is read from: a file, or a secret of a Key Vault.
    pub source: String,
    /// Key Vault's version of the one that holds; `None` for a file.
    pub version: Option<String>,
    /// Since when it holds.
    pub since: Option<UnixMillis>,
    /// Why a newer one does not hold, or why it cannot be looked at.
    pub trouble: Option<Trouble>,
}

/// Why the latest look at the configuration brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// When it was first met.
    pub since: UnixMillis,
    pub cause: Cause,
}

/// What kind of trouble.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The newest configuration is faulty: every fault, with its place.
    Faulty { version: Option<String>, faults: Faults },
    /// It could not be read; the text says why, and what to do.
    Unreadable(String),
}

impl Live {
    /// One that holds from the beginning, as a file's does.
    pub fn holding(catalog: Catalog, source: impl Into<String>, now: UnixMillis) -> Self {
        let live = Self::default();
        live.hold(
            catalog,
            Standing { source: source.into(), version: None, since: Some(now), trouble: None },
        );
        live
    }

    /// The configuration that holds now.
    ///
    /// # Errors
    /// While none was read yet.
    pub fn catalog(&self) -> Result<Arc<Catalog>, NoConfiguration> {
        self.catalog.load_full().ok_or(NoConfiguration)
    }

    /// From now on this one holds.
    pub fn hold(&self, catalog: Catalog, standing: Standing) {
        self.catalog.store(Some(Arc::new(catalog)));
        self.stand(standing);
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.standing.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says how it stands; what holds goes on to hold.
    pub fn stand(&self, standing: Standing) {
        *self.standing.write().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// The value of a secret that the configuration names.
    ///
    /// # Errors
    /// Why there is none.
    pub fn secret(&self, name: &str) -> Result<SecretString, Absent> {
        let not_yet = || Err(Absent::Unread("Key Vault was not asked for it yet".to_owned()));
        self.secrets.load().get(name).cloned().unwrap_or_else(not_yet)
    }

    /// Whether every secret that the configuration names is there.
    pub fn has_its_secrets(&self) -> bool {
        let Ok(catalog) = self.catalog() else { return true };
        catalog.secret_names().into_iter().all(|name| self.secret(name).is_ok())
    }

    /// From now on these are the secrets' values, or why there is none.
    pub fn hold_secrets(&self, secrets: BTreeMap<String, Result<SecretString, Absent>>) {
        self.secrets.store(Arc::new(secrets));
    }

    /// Somebody found that a secret's value is not good any more: it is looked at again soon.
    pub fn call_for_a_look(&self) {
        self.outdated.notify_one();
    }

    /// Resolves when somebody has called for a look.
    pub async fn called_for_a_look(&self) {
        self.outdated.notified().await;
    }
}
