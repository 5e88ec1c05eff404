//! Settings and the gateway configuration: read once, checked whole.
//!
//! Every fault is told at once, with its place. What passed is trusted: nothing that uses a
//! [`catalog::Catalog`] or [`settings::Settings`] checks again.

use std::fmt;

pub mod catalog;
mod file;
pub mod live;
pub mod schema;
pub mod settings;
pub mod timeouts;

/// Whether Key Vault would take it as the name of a secret: 1 to 127 letters, digits and `-`
/// ([its object identifiers](https://learn.microsoft.com/azure/key-vault/general/about-keys-secrets-certificates#objects-identifiers-and-versioning)).
pub(crate) fn is_secret_name(name: &str) -> bool {
    (1..=127).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A JSON path such as `backends[0].endpoint`, or a setting's name.
    pub place: String,
    pub message: String,
}

impl Fault {
    pub(crate) fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All that is wrong: never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Faults {
    /// What they are in: a file's name, or `settings`.
    pub source_name: String,
    pub faults: Vec<Fault>,
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.faults.len();
        write!(f, "{}: {count} fault{}", self.source_name, if count == 1 { "" } else { "s" })?;
        self.faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
    }
}
