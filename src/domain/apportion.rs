//! Sharing money out so that the parts add up to the whole, to the last digit: what the division leaves over goes
//! where the largest remainders are.

use rust_decimal::{Decimal, RoundingStrategy};

/// Shares are no coarser than this: a billionth of the currency.
const SHARE_DECIMALS: u32 = 9;

/// Shares of an amount, which is not negative, by weight. They add up to it exactly; where nothing weighs anything,
/// each is zero.
pub fn shares(amount: Decimal, weights: &[u128]) -> Vec<Decimal> {
    let (units, scale) = units(amount);
    let bits = |number: u128| u128::BITS - number.leading_zeros();
    let sum = weights.iter().fold(0_u128, |sum, weight| sum.saturating_add(*weight));
    // So that no product is beyond what can be counted; far below what a share is rounded to.
    let shift = (bits(units) + bits(sum)).saturating_sub(u128::BITS);
    let weights: Vec<u128> = weights.iter().map(|weight| weight >> shift).collect();
    let sum: u128 = weights.iter().sum();
    if sum == 0 {
        return vec![Decimal::ZERO; weights.len()];
    }
    let mut parts: Vec<u128> = weights.iter().map(|weight| units * weight / sum).collect();
    let left = units - parts.iter().sum::<u128>();
    for index in largest(weights.iter().map(|weight| units * weight % sum), left) {
        parts[index] += 1;
    }
    let whole = |part: u128| i128::try_from(part).expect("a part is not more than the mantissa of a decimal");
    parts.into_iter().map(|part| Decimal::from_i128_with_scale(whole(part), scale).normalize()).collect()
}

/// An amount as a whole number of its smallest units, and how many decimals those have.
fn units(amount: Decimal) -> (u128, u32) {
    let mut amount = amount;
    amount.rescale(amount.scale().max(SHARE_DECIMALS));
    (amount.mantissa().unsigned_abs(), amount.scale())
}

/// Amounts, none of them negative, rounded to so many decimals that they add up to their sum, rounded.
pub fn rounded(amounts: &[Decimal], decimals: u32) -> Vec<Decimal> {
    let sum: Decimal = amounts.iter().sum();
    let mut parts: Vec<Decimal> = amounts.iter().map(|amount| amount.trunc_with_scale(decimals)).collect();
    let left = to_money(sum, decimals) - parts.iter().sum::<Decimal>();
    let smallest = Decimal::new(1, decimals);
    let left = u128::try_from(left / smallest).unwrap_or(0);
    let remainders: Vec<_> = amounts.iter().zip(&parts).map(|(amount, part)| amount - part).collect();
    for index in largest(remainders.into_iter(), left) {
        parts[index] += smallest;
    }
    for part in &mut parts {
        part.rescale(decimals);
    }
    parts
}

/// An amount in its currency's coins, always with its decimals; halves go up.
pub fn to_money(amount: Decimal, decimals: u32) -> Decimal {
    let mut amount = amount.round_dp_with_strategy(decimals, RoundingStrategy::MidpointAwayFromZero);
    amount.rescale(decimals);
    amount
}

/// How many decimals a currency's coins have: two, but for these of ISO 4217.
pub fn decimals_of(currency: &str) -> u32 {
    match currency {
        "BIF" | "CLP" | "DJF" | "GNF" | "ISK" | "JPY" | "KMF" | "KRW" | "PYG" | "RWF" | "UGX" | "UYI"
        | "VND" | "VUV" | "XAF" | "XOF" | "XPF" => 0,
        "BHD" | "IQD" | "JOD" | "KWD" | "LYD" | "OMR" | "TND" => 3,
        _ => 2,
    }
}

/// The places of the largest, as many as are asked for; between equals the first.
fn largest<T: Ord>(remainders: impl Iterator<Item = T>, count: u128) -> Vec<usize> {
    let mut places: Vec<(T, usize)> = remainders.enumerate().map(|(place, rest)| (rest, place)).collect();
    places.sort_by(|(one, _), (other, _)| other.cmp(one));
    places.into_iter().take(usize::try_from(count).unwrap_or(usize::MAX)).map(|(_, place)| place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::dice::Dice;

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn texts(amounts: &[Decimal]) -> Vec<String> {
        amounts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn shares_are_by_weight_and_add_up() {
        assert_eq!(texts(&shares(dec("1"), &[1, 1, 1])), ["0.333333334", "0.333333333", "0.333333333"]);
        assert_eq!(texts(&shares(dec("50.00"), &[3, 1, 0])), ["37.5", "12.5", "0"]);
        assert_eq!(texts(&shares(dec("50"), &[0, 0])), ["0", "0"]);
        assert_eq!(texts(&shares(dec("0"), &[5, 7])), ["0", "0"]);
        assert!(shares(dec("1"), &[]).is_empty());
        assert_eq!(shares(Decimal::MAX, &[u128::MAX, 1])[0], Decimal::MAX);
    }

    #[test]
    fn coins_add_up_to_the_rounded_sum() {
        assert_eq!(texts(&rounded(&[dec("0.333"), dec("0.333"), dec("0.334")], 2)), ["0.33", "0.33", "0.34"]);
        assert_eq!(texts(&rounded(&[dec("0.005"), dec("0")], 2)), ["0.01", "0.00"]);
        assert_eq!(texts(&rounded(&[dec("0.5"), dec("0.5"), dec("1.4")], 0)), ["1", "0", "1"]);
        assert_eq!(decimals_of("JPY") + decimals_of("EUR") + decimals_of("KWD"), 5);
    }

    #[test]
    fn whatever_is_shared_out_adds_up_exactly() {
        let mut dice = Dice(7);
        for _ in 0..2_000 {
            let amount = Decimal::new(
                i64::try_from(dice.below(1 << 40)).unwrap(),
                u32::try_from(dice.below(10)).unwrap(),
            );
            let weights: Vec<_> = (0..=dice.below(9))
                .map(|_| {
                    let bits = dice.below(60);
                    u128::from(dice.below(1 << bits))
                })
                .collect();
            let parts = shares(amount, &weights);
            if weights.iter().any(|weight| *weight > 0) {
                assert_eq!(parts.iter().sum::<Decimal>(), amount, "{weights:?}");
            }
            let decimals = u32::try_from(dice.below(4)).unwrap();
            let coins = rounded(&parts, decimals);
            assert_eq!(coins.iter().sum::<Decimal>(), to_money(parts.iter().sum(), decimals));
            for (part, coin) in parts.iter().zip(&coins) {
                assert!((part - coin).abs() < Decimal::new(1, decimals), "{part} as {coin}");
            }
        }
    }
}
