//! Numbers that look random: the same ones for the same seed.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// The step of the `SplitMix64` sequence: an odd number near 2^64 divided by the golden ratio.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// One well-mixed number for another (the `SplitMix64` finaliser).
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(STEP);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A sequence of numbers.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// A number under `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let rolled = self.roll() % (end as u64);
        usize::try_from(rolled).expect("a number under a usize is one")
    }

    /// A number from 0 to 1.
    pub(super) fn share(&mut self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "32 bits fit a float's mantissa")]
        let share = (self.roll() >> 32) as f64 / f64::from(u32::MAX);
        share
    }
}

/// Identifiers, as long as Azure's. They differ between runs: nobody may rely on them.
#[derive(Debug)]
pub(super) struct Ids {
    start: u64,
    taken: AtomicU64,
}

impl Ids {
    pub(super) fn new() -> Self {
        Self { start: RandomState::new().build_hasher().finish(), taken: AtomicU64::new(0) }
    }

    fn dice(&self) -> Dice {
        Dice::new(self.start ^ mix(self.taken.fetch_add(1, Ordering::Relaxed)))
    }

    /// Such as `chatcmpl-` and 29 letters and digits.
    pub(super) fn prefixed(&self, prefix: &str, letters: usize) -> String {
        const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let mut dice = self.dice();
        let mut id = String::with_capacity(prefix.len() + letters);
        id.push_str(prefix);
        id.extend((0..letters).map(|_| char::from(ALPHABET[dice.below(ALPHABET.len())])));
        id
    }

    pub(super) fn uuid(&self) -> String {
        let mut dice = self.dice();
        let (high, low) = (u128::from(dice.roll()), u128::from(dice.roll()));
        uuid::Builder::from_random_bytes(((high << 64) | low).to_be_bytes()).into_uuid().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_rolls_the_same_numbers() {
        let (mut one, mut other) = (Dice::new(7), Dice::new(7));
        assert!((0..100).all(|_| one.roll() == other.roll()));
        assert_ne!(Dice::new(7).roll(), Dice::new(8).roll());
    }

    #[test]
    fn identifiers_are_not_repeated() {
        let ids = Ids::new();
        let taken: std::collections::HashSet<_> = (0..1000).map(|_| ids.prefixed("chatcmpl-", 29)).collect();
        assert_eq!(taken.len(), 1000);
        assert_eq!(ids.uuid().len(), 36);
    }
}
