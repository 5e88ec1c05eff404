//! Whom a report is about: subscriptions by the ids that stand in the ledger.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join_all;

use super::Ledger;
use crate::domain::ids::Name;
use crate::domain::subscription::{State, Subscription};
use crate::ports::{ListQuery, Unavailable};

/// So many are looked up one by one; of more, all that there are are read in pages.
const ONE_BY_ONE: usize = 50;
/// At once: as many as a small pool has connections for.
const AT_ONCE: usize = 4;
/// A page is one walk along an index; this many take some megabytes.
const PAGE: u32 = 5_000;

impl Ledger {
    /// Those of them that there are. Usage that came from elsewhere may be of none.
    pub(super) async fn known(
        &self,
        ids: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, Subscription>, Unavailable> {
        let mut known = BTreeMap::new();
        if ids.len() > ONE_BY_ONE {
            for state in [None, Some(State::Ended)] {
                self.all_of(state, ids, &mut known).await?;
            }
            return Ok(known);
        }
        let names: Vec<_> = ids.iter().filter_map(|id| Name::new(id).ok()).collect();
        for names in names.chunks(AT_ONCE) {
            let found = try_join_all(names.iter().map(|name| self.subscriptions.find(name))).await?;
            known.extend(found.into_iter().flatten().map(|found| (found.id.as_str().to_owned(), found)));
        }
        Ok(known)
    }

    async fn all_of(
        &self,
        state: Option<State>,
        ids: &BTreeSet<String>,
        known: &mut BTreeMap<String, Subscription>,
    ) -> Result<(), Unavailable> {
        let mut query = ListQuery { state, limit: PAGE, ..ListQuery::default() };
        loop {
            let page = self.subscriptions.list(&query).await?;
            let Some(last) = page.last() else { return Ok(()) };
            query.after = Some(last.id.clone());
            let found = page.into_iter().filter(|found| ids.contains(found.id.as_str()));
            known.extend(found.map(|found| (found.id.as_str().to_owned(), found)));
        }
    }
}
