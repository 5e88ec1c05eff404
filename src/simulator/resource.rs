//! What all requests to the simulated resource share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use http::HeaderMap;
use memchr::memmem;

use super::Knobs;
use super::behaviour::{Behaviour, Fault, Unclear};
use super::capacity::Capacity;
use super::counts::Books;
use super::dice::{Dice, Ids, mix};
use super::kept::Shelves;
use super::knobs::Kind;
use super::last::Last;
use super::memo::Memo;
use super::throttle::Throttle;

/// A prompt that has this triggers the content filter of any simulated resource.
const MARKER: &str = "[[content-filter]]";
/// A stream that chance cuts is cut after at most so many events.
const MAX_EVENTS_BEFORE_CUT: usize = 12;

#[derive(Debug)]
pub(super) struct Resource {
    pub(super) knobs: Knobs,
    always: RwLock<Behaviour>,
    pub(super) books: Arc<Books>,
    pub(super) throttle: Throttle,
    pub(super) capacity: Capacity,
    pub(super) memo: Memo,
    pub(super) ids: Ids,
    pub(super) last: Last,
    pub(super) shelves: Shelves,
    /// Requests that chance has been asked about.
    arrivals: AtomicU64,
}

impl Resource {
    pub(super) fn new(knobs: Knobs) -> Result<Self, Unclear> {
        Ok(Self {
            always: RwLock::new(knobs.told(&knobs.always)?),
            throttle: Throttle::new(knobs.requests_per_minute, knobs.tokens_per_minute),
            capacity: Capacity::new(knobs.requests_per_second),
            knobs,
            books: Arc::default(),
            memo: Memo::default(),
            ids: Ids::new(),
            last: Last::default(),
            shelves: Shelves::default(),
            arrivals: AtomicU64::new(0),
        })
    }

    /// Treats every request from now on as these words say.
    pub(super) fn always(&self, words: &str) -> Result<(), Unclear> {
        let told = self.knobs.told(words)?;
        *self.always.write().unwrap_or_else(PoisonError::into_inner) = told;
        Ok(())
    }

    /// How a request with these headers is to be treated.
    pub(super) fn behaviour(&self, headers: &HeaderMap) -> Result<Behaviour, Unclear> {
        let always = self.always.read().unwrap_or_else(PoisonError::into_inner);
        let mut behaviour = always.clone();
        drop(always);
        if let Some(fault) = self.chance() {
            behaviour.fault = Some(fault);
        }
        for words in headers.get_all("x-simulate") {
            let unreadable = |_| Unclear::Word("(not ASCII)".to_owned());
            behaviour.listen(words.to_str().map_err(unreadable)?)?;
        }
        Ok(behaviour)
    }

    /// The fault of this request, if it is one of those that fail.
    fn chance(&self) -> Option<Fault> {
        if self.knobs.fault_share <= 0.0 || self.knobs.faults.is_empty() {
            return None;
        }
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed);
        let mut dice = Dice::new(mix(self.knobs.seed) ^ arrival);
        if dice.share() >= self.knobs.fault_share {
            return None;
        }
        let kinds = &self.knobs.faults;
        Some(match kinds[dice.below(kinds.len())] {
            Kind::ServerError => Fault::Status(500),
            Kind::Unavailable => Fault::Status(503),
            Kind::Throttled => Fault::Status(429),
            Kind::Reset => Fault::Reset,
            Kind::Stall => Fault::Stall,
            Kind::Cut => Fault::CutAfter(dice.below(MAX_EVENTS_BEFORE_CUT) as u64),
        })
    }

    pub(super) fn has(&self, deployment: &str) -> bool {
        let deployments = &self.knobs.deployments;
        deployments.is_empty() || deployments.iter().any(|known| known == deployment)
    }

    /// Does the content filter object to this request?
    pub(super) fn filters(&self, body: &[u8]) -> bool {
        let word = self.knobs.content_filter.as_deref();
        [Some(MARKER), word]
            .into_iter()
            .flatten()
            .filter(|word| !word.is_empty())
            .any(|word| memmem::find(body, word.as_bytes()).is_some())
    }

    /// Seconds since 1970.
    pub(super) fn now() -> u64 {
        #[expect(
            clippy::disallowed_methods,
            reason = "the simulator is no part of the gateway, whose clock is a port"
        )]
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(seed: u64) -> Vec<Option<Fault>> {
        let knobs = Knobs { fault_share: 0.3, seed, ..Knobs::default() };
        let resource = Resource::new(knobs).unwrap();
        let fault = |_| resource.behaviour(&HeaderMap::new()).unwrap().fault;
        (0..1000).map(fault).collect()
    }

    #[test]
    fn the_seed_decides_which_share_of_requests_fails_and_how() {
        assert_eq!(faults(7), faults(7));
        assert_ne!(faults(7), faults(8));
        let failed = faults(7).iter().flatten().count();
        assert!((250..350).contains(&failed), "{failed}");
    }

    #[test]
    fn a_header_comes_on_top_of_what_always_holds() {
        let resource = Resource::new(Knobs::default()).unwrap();
        resource.always("status=503,ttft-ms=5").unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-simulate", "healthy".parse().unwrap());
        let behaviour = resource.behaviour(&headers).unwrap();
        assert_eq!(behaviour.fault, None);
        assert_eq!(behaviour.time_to_first_token.as_millis(), 5);
    }
}
