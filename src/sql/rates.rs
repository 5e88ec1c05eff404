//! Rates, which rows name by a digest.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::domain::price::{Rate, RateId};

/// The rates that are known to be in the database. There are as many as there were ever prices, and they
/// are never changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates(Arc<Mutex<HashMap<RateId, Arc<Rate>>>>);

/// Rates by what rows name.
pub(super) struct Found(HashMap<RateId, Arc<Rate>>);

impl Found {
    /// # Errors
    /// When it is none of them.
    pub(super) fn get(&self, id: RateId) -> Result<Arc<Rate>, sqlx::Error> {
        self.0.get(&id).cloned().ok_or_else(|| sqlx::Error::Decode("a rate is missing".into()))
    }
}

impl Rates {
    fn known(&self) -> MutexGuard<'_, HashMap<RateId, Arc<Rate>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that may not be in the database yet, each once, in the order of their digests.
    pub(super) fn unknown<'r>(&self, rates: impl Iterator<Item = &'r Arc<Rate>>) -> Vec<Arc<Rate>> {
        let known = self.known();
        let mut unknown: Vec<_> = rates.filter(|rate| !known.contains_key(&rate.id())).cloned().collect();
        unknown.sort_by_key(|rate| rate.id());
        unknown.dedup_by_key(|rate| rate.id());
        unknown
    }

    /// They are in the database.
    pub(super) fn learn(&self, rates: impl IntoIterator<Item = Arc<Rate>>) {
        self.known().extend(rates.into_iter().map(|rate| (rate.id(), rate)));
    }

    /// Whether these are known, those that rows name; a row with `None` has no price.
    pub(super) fn knows(&self, ids: impl IntoIterator<Item = Option<RateId>>) -> bool {
        let known = self.known();
        ids.into_iter().flatten().all(|id| known.contains_key(&id))
    }

    pub(super) fn found(&self) -> Found {
        Found(self.known().clone())
    }
}

/// Totals are made anew from their rows, and must not go with rows that somebody has taken away.
///
/// # Errors
/// When the totals have counted other requests than there are rows; says what that means.
pub(super) fn rows_are_there((counted, rows): (i64, i64)) -> Result<(), sqlx::Error> {
    if counted == rows {
        return Ok(());
    }
    let why = format!(
        "the totals of a day have {counted} requests, and {rows} of their rows are left: rows that were dropped \
         cannot be rated anew, nothing of that day was changed"
    );
    Err(sqlx::Error::Protocol(why))
}
