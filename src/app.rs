//! What the routes can reach: one field for each journey.

use std::sync::Arc;

use secrecy::SecretString;
use tokio_util::sync::DropGuard;

mod upkeep;

pub use upkeep::{Done, Upkeep};

use crate::issuing::Issuing;
use crate::ledger::Ledger;
use crate::proxy::Proxy;

/// Cloned for each request: every field is a pointer.
#[derive(Clone)]
pub struct App {
    pub proxy: Arc<Proxy>,
    pub ledger: Arc<Ledger>,
    pub issuing: Arc<Issuing>,
    /// Opens the management routes; without it only the app role `Tollgate.Admin` does.
    pub admin_key: Option<Arc<SecretString>>,
    /// Ends what goes on behind the requests for ever, when the last route is gone.
    pub background: Arc<DropGuard>,
}

impl App {
    /// What is to be done from time to time.
    pub fn upkeep(&self) -> Upkeep {
        Upkeep { ledger: self.ledger.clone(), issuing: self.issuing.clone() }
    }
}
