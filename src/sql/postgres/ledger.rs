//! The ledger's rows.
//!
//! Not there yet: usage waits in the spool.

use async_trait::async_trait;

use super::Database;
use crate::ports::{LedgerStore, Postings, SumQuery, Sums, Unavailable};

fn not_yet() -> Unavailable {
    Unavailable { what: "the ledger in PostgreSQL", source: "not in this version yet".into() }
}

#[async_trait]
impl LedgerStore for Database {
    async fn post(&self, _batch: &Postings) -> Result<u64, Unavailable> {
        Err(not_yet())
    }

    async fn sums(&self, _query: &SumQuery) -> Result<Vec<Sums>, Unavailable> {
        Err(not_yet())
    }
}
