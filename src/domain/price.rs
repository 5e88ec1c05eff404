//! What do those tokens cost?
//!
//! Pay-as-you-go money, in exact decimals. What has no price is never free without a word: it stays
//! unpriced.

use rust_decimal::Decimal;
use serde::Deserializer;
use time::Date;

use super::ids::Name;

const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// One line of the price book: what it applies to, from when, and the price of a million tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// As callers write it; `None` applies to every deployment.
    pub deployment: Option<Name>,
    /// As backends report it.
    pub model: Option<String>,
    pub backend: Option<Name>,
    pub input_per_million: Decimal,
    /// `None`: cached input costs as much as any other.
    pub cached_input_per_million: Option<Decimal>,
    /// `None`: what has output has no price; embeddings have none.
    pub output_per_million: Option<Decimal>,
    /// `None`: reasoning costs as much as any other output.
    pub reasoning_per_million: Option<Decimal>,
    /// The first UTC day on which it holds.
    pub effective_from: Date,
}

/// What a price is looked up by.
#[derive(Clone, Copy, Debug)]
pub struct Priced<'a> {
    pub deployment: &'a str,
    pub model: Option<&'a str>,
    pub backend: &'a str,
    pub day: Date,
}

/// Token counts to be priced: sums over requests that share one price.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub input: u64,
    pub cached_input: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// Reads money: a decimal in a string, since a JSON number would pass through floating point.
///
/// # Errors
/// When it is not a string, or not a decimal that is zero or more.
pub fn money<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Decimal, D::Error> {
    struct Money;

    impl serde::de::Visitor<'_> for Money {
        type Value = Decimal;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("money as a string, such as \"0.15\"")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Decimal, E> {
            Decimal::from_str_exact(text)
                .ok()
                .filter(|amount| !amount.is_sign_negative() || amount.is_zero())
                .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
        }
    }

    deserializer.deserialize_str(Money)
}

/// All prices there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceBook(pub Vec<Price>);

impl PriceBook {
    /// The price that holds for `what`: of those in force on its day the one that names most of
    /// backend, deployment and model; between equals the latest.
    pub fn find(&self, what: Priced<'_>) -> Option<&Price> {
        self.0
            .iter()
            .filter(|price| price.applies_to(what))
            .max_by_key(|price| (price.precision(), price.effective_from))
    }
}

impl Price {
    fn applies_to(&self, what: Priced<'_>) -> bool {
        self.effective_from <= what.day
            && self.deployment.as_ref().is_none_or(|name| name.as_str() == what.deployment)
            && self.model.as_ref().is_none_or(|model| Some(model.as_str()) == what.model)
            && self.backend.as_ref().is_none_or(|name| name.as_str() == what.backend)
    }

    fn precision(&self) -> (bool, bool, bool) {
        (self.backend.is_some(), self.deployment.is_some(), self.model.is_some())
    }

    /// The cost of `counts`, exact and unrounded; `None` when a part of them has no price, or when
    /// it is beyond what a decimal can hold.
    pub fn cost(&self, counts: Counts) -> Option<Decimal> {
        let cached = counts.cached_input.min(counts.input);
        let reasoning = counts.reasoning.min(counts.output);
        let parts = [
            (counts.input - cached, Some(self.input_per_million)),
            (cached, self.cached_input_per_million.or(Some(self.input_per_million))),
            (counts.output - reasoning, self.output_per_million),
            (reasoning, self.reasoning_per_million.or(self.output_per_million)),
        ];
        parts
            .into_iter()
            .filter(|(tokens, _)| *tokens > 0)
            .try_fold(Decimal::ZERO, |sum, (tokens, per_million)| {
                sum.checked_add(Decimal::from(tokens).checked_mul(per_million?)?)
            })?
            .checked_div(MILLION)
            .map(|cost| cost.normalize())
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn price(deployment: Option<&str>, from: Date, input: Decimal) -> Price {
        Price {
            deployment: deployment.map(|name| Name::new(name).unwrap()),
            model: None,
            backend: None,
            input_per_million: input,
            cached_input_per_million: Some(dec("0.075")),
            output_per_million: Some(dec("0.60")),
            reasoning_per_million: None,
            effective_from: from,
        }
    }

    #[test]
    fn the_closest_price_of_the_day_holds() {
        let book = PriceBook(vec![
            price(None, date!(2024 - 01 - 01), dec("9")),
            price(Some("gpt-4o-mini"), date!(2024 - 07 - 18), dec("0.15")),
            price(Some("gpt-4o-mini"), date!(2025 - 07 - 18), dec("0.10")),
        ]);
        let on = |deployment, day| {
            let what = Priced { deployment, model: None, backend: "b", day };
            book.find(what).map(|price| price.input_per_million)
        };
        assert_eq!(on("gpt-4o-mini", date!(2025 - 01 - 01)), Some(dec("0.15")));
        assert_eq!(on("gpt-4o-mini", date!(2025 - 07 - 18)), Some(dec("0.10")));
        assert_eq!(on("gpt-4o-mini", date!(2024 - 02 - 01)), Some(dec("9")));
        assert_eq!(on("other", date!(2023 - 12 - 31)), None);
    }

    #[test]
    fn a_cost_is_exact() {
        let price = price(None, date!(2024 - 01 - 01), dec("0.15"));
        let counts = Counts { input: 12, cached_input: 4, output: 34, reasoning: 30 };
        // 8 * 0.15 + 4 * 0.075 + 34 * 0.60 = 21.9 for a million
        assert_eq!(price.cost(counts), Some(dec("0.0000219")));
        let without_output = Price { output_per_million: None, ..price };
        assert_eq!(without_output.cost(counts), None, "never free without a word");
        assert_eq!(without_output.cost(Counts { input: 2, ..Counts::default() }), Some(dec("0.0000003")));
    }
}
