//! Dead letters → rows, once what was wrong with them is mended.

use super::{Ledger, decode, entry};
use crate::domain::units::UnixMillis;
use crate::ports::{DeadLetter, DeadLetterId, Postings, Unavailable};

/// Letters in one transaction.
const BATCH: u32 = 200;

/// What became of dead letters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Letters that could be read now, and are no dead letters any more.
    pub replayed: usize,
    /// Rows that were not there before.
    pub new: u64,
    /// Letters that still cannot be read.
    pub unreadable: usize,
}

impl Ledger {
    /// Dead letters, the oldest first, those behind `after`.
    ///
    /// # Errors
    /// When the store cannot be reached.
    pub async fn dead_letters(
        &self,
        after: Option<(UnixMillis, DeadLetterId)>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Unavailable> {
        self.letters.dead_letters(after, limit).await
    }

    /// Tries to post dead letters again: these, or all there are. Each batch is posted, and gone from the dead
    /// letters, or neither.
    ///
    /// # Errors
    /// When the store cannot be reached; what was replayed until then stays so.
    pub async fn replay(&self, only: Option<&[DeadLetterId]>) -> Result<Replayed, Unavailable> {
        let catalog = self.config.catalog()?;
        let mut all = Replayed::default();
        let mut after = None;
        loop {
            let letters = self.letters.dead_letters(after, BATCH).await?;
            let Some(last) = letters.last() else { return Ok(all) };
            after = Some((last.received_at, last.id));
            let mut postings = Postings { ship: self.shipping.is_some(), ..Postings::default() };
            for letter in letters.iter().filter(|letter| only.is_none_or(|only| only.contains(&letter.id))) {
                let decoded = decode::kept(&letter.message, self.clock.now());
                if decoded.events.is_empty() || !decoded.dead_letters.is_empty() {
                    all.unreadable += 1;
                    continue;
                }
                postings.entries.extend(decoded.events.into_iter().map(|event| entry(&catalog, event)));
                postings.replayed.push(letter.id);
            }
            if !postings.replayed.is_empty() {
                let new = self.store.post(&postings).await?;
                self.ship_behind(new);
                all.new += new;
                all.replayed += postings.replayed.len();
            }
        }
    }
}
