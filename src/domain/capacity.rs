//! Who pays for an hour of provisioned capacity?
//!
//! Those who used it, by what their tokens weigh; what nobody used is idle, and nobody's.
//!
//! Tokens weigh as Azure counts them towards a unit's throughput: input that was cached nothing, other input one, output
//! as many times input as it costs by the token, four times where there is no such price.
//! Source: <https://learn.microsoft.com/azure/ai-foundry/openai/how-to/provisioned-throughput-onboarding>.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::apportion;
use super::price::{Counts, Rate};

/// What one input token weighs.
const INPUT: u64 = 1_000;
/// What one output token weighs where no price says otherwise.
const OUTPUT: u64 = 4 * INPUT;
/// More than any price makes of output: a slip of the pen in the price book must not outweigh everything.
const MAX_OUTPUT: u64 = 100 * INPUT;

/// Capacity that is paid for by the hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub units: u32,
    /// Of all units.
    pub hourly_cost: Decimal,
    /// Of all units, in input tokens; `None`: an hour in which anything was used counts as used wholly.
    pub tokens_per_minute: Option<u64>,
}

impl Capacity {
    /// What fits into an hour of it; `None`: nobody knows.
    pub fn hourly_weight(&self) -> Option<u128> {
        Some(u128::from(self.tokens_per_minute?) * u128::from(INPUT) * 60)
    }
}

/// What one of those who share an hour used of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// In thousandths of an input token.
    pub weight: u128,
    /// Tokens of all kinds, weighing nothing or not.
    pub tokens: u128,
}

impl Used {
    /// What sums of requests weigh that share a rate.
    pub fn of(counts: &Counts, rate: Option<&Rate>) -> Self {
        let plain = u128::from(counts.input_tokens.saturating_sub(counts.cached_input_tokens));
        let output = u128::from(counts.output_tokens);
        Self {
            weight: plain * u128::from(INPUT) + output * u128::from(output_weight(rate)),
            tokens: u128::from(counts.input_tokens) + output,
        }
    }

    /// The same in input tokens.
    pub fn input_tokens(&self) -> f64 {
        self.weight.to_f64().unwrap_or_default() / f64::from(u32::try_from(INPUT).unwrap_or(1))
    }
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.weight += other.weight;
        self.tokens += other.tokens;
    }
}

/// What one output token weighs.
fn output_weight(rate: Option<&Rate>) -> u64 {
    let ratio = rate.and_then(|rate| {
        let (input, output) = (rate.terms().input_per_million?, rate.terms().output_per_million?);
        output.checked_div(input)?.checked_mul(Decimal::from(INPUT))?.round().to_u64()
    });
    ratio.filter(|ratio| *ratio > 0).map_or(OUTPUT, |ratio| ratio.min(MAX_OUTPUT))
}

/// What an hour of capacity costs each of those who used it, in their order, and what of it was idle. It adds up
/// to the hour's cost exactly.
pub fn share_hour(capacity: &Capacity, used: &[Used]) -> (Vec<Decimal>, Decimal) {
    let mut weights: Vec<u128> = used.iter().map(|used| used.weight).collect();
    if weights.iter().all(|weight| *weight == 0) && capacity.tokens_per_minute.is_none() {
        weights = used.iter().map(|used| used.tokens).collect();
    }
    let sum: u128 = weights.iter().sum();
    let idle = match capacity.hourly_weight() {
        Some(all) => all.saturating_sub(sum),
        None => u128::from(sum == 0),
    };
    weights.push(idle);
    let mut shares = apportion::shares(capacity.hourly_cost, &weights);
    let idle = shares.pop().unwrap_or_default();
    (shares, idle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::price::Terms;

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn capacity(tokens_per_minute: Option<u64>) -> Capacity {
        Capacity { units: 50, hourly_cost: dec("50"), tokens_per_minute }
    }

    fn used(input: u64, output: u64) -> Used {
        let counts = Counts { input_tokens: input, output_tokens: output, ..Counts::default() };
        Used::of(&counts, None)
    }

    fn shared(capacity: &Capacity, used: &[Used]) -> String {
        let (shares, idle) = share_hour(capacity, used);
        assert_eq!(shares.iter().sum::<Decimal>() + idle, capacity.hourly_cost);
        format!("{shares:?} {idle}")
    }

    #[test]
    fn an_hour_is_paid_for_by_those_who_used_it_and_the_rest_is_idle() {
        // A thousand tokens a minute: 60,000 in the hour.
        let known = capacity(Some(1_000));
        assert_eq!(shared(&known, &[used(15_000, 0), used(7_000, 2_000)]), "[12.5, 12.5] 25");
        assert_eq!(shared(&known, &[used(60_000, 0), used(60_000, 0)]), "[25, 25] 0", "more than fits");
        assert_eq!(shared(&known, &[]), "[] 50");
        assert_eq!(shared(&known, &[used(0, 0)]), "[0] 50");
    }

    #[test]
    fn without_a_known_capacity_an_hour_is_used_wholly_or_not_at_all() {
        let unknown = capacity(None);
        assert_eq!(shared(&unknown, &[used(1, 0), used(0, 1)]), "[10, 40] 0");
        assert_eq!(shared(&unknown, &[used(0, 0)]), "[0] 50");
        let cached = Counts { input_tokens: 8, cached_input_tokens: 8, ..Counts::default() };
        assert_eq!(shared(&unknown, &[Used::of(&cached, None)]), "[50] 0", "cached input alone is use");
        assert_eq!(shared(&capacity(Some(1)), &[Used::of(&cached, None)]), "[0] 50");
    }

    #[test]
    fn output_weighs_as_much_as_it_costs() {
        let weight = |input: Option<&str>, output: Option<&str>| {
            let terms = Terms {
                input_per_million: input.map(dec),
                output_per_million: output.map(dec),
                ..Terms::default()
            };
            output_weight(Some(&Rate::new(terms)))
        };
        assert_eq!(weight(Some("2.50"), Some("10")), 4_000);
        assert_eq!(weight(Some("1.25"), Some("10")), 8_000);
        assert_eq!(weight(Some("3"), Some("2")), 667);
        assert_eq!(weight(Some("0"), Some("10")), 4_000);
        assert_eq!(weight(Some("1"), None), 4_000);
        assert_eq!(weight(Some("0.000001"), Some("10")), 100_000);
        assert_eq!(output_weight(None), 4_000);
    }
}
