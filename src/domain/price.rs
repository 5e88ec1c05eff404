//! What do those tokens cost?
//!
//! Pay-as-you-go money, in exact decimals. What has no price is never free without a word: it stays
//! unpriced.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rust_decimal::Decimal;
use serde::{Deserialize, Deserializer, Serialize};
use time::Date;

use super::ids::Name;
use super::usage::Usage;

const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// One line of the price book: what it applies to, from when, and what is paid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// As callers write it; `None` applies to every deployment.
    pub deployment: Option<Name>,
    /// As backends report it.
    pub model: Option<String>,
    pub backend: Option<Name>,
    pub rate: Arc<Rate>,
    /// The first UTC day on which it holds.
    pub effective_from: Date,
}

/// What is paid, without what it is paid for. A row of the ledger names the rate that it was posted with:
/// another price book changes no month that was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rate {
    id: RateId,
    terms: Terms,
}

/// A digest of the terms: the same terms are the same rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RateId(pub [u8; 16]);

/// The price of each kind, in one currency.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// ISO 4217.
    pub currency: String,
    /// `None`: what has input has no price; images have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_per_million: Option<Decimal>,
    /// `None`: cached input costs as much as any other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_input_per_million: Option<Decimal>,
    /// `None`: what is written to the cache costs as much as any other input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_per_million: Option<Decimal>,
    /// `None`: audio costs as much as any other input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_input_per_million: Option<Decimal>,
    /// `None`: what has output has no price; embeddings have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_per_million: Option<Decimal>,
    /// `None`: reasoning costs as much as any other output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning_per_million: Option<Decimal>,
    /// `None`: audio costs as much as any other output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_output_per_million: Option<Decimal>,
    /// `None`: images cost the tokens that are counted for them; where none are, they have no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_each: Option<Decimal>,
}

/// What a price is looked up by.
#[derive(Clone, Copy, Debug)]
pub struct Priced<'a> {
    pub deployment: &'a str,
    pub model: Option<&'a str>,
    pub backend: &'a str,
    pub day: Date,
}

/// Counts to be priced: sums over requests that share one rate. The parts are in their wholes, as in
/// [`Usage`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub input_tokens: u64,
    pub cached_input_tokens: u64,
    pub output_tokens: u64,
    pub reasoning_tokens: u64,
    pub audio_input_tokens: u64,
    pub audio_output_tokens: u64,
    pub cache_write_tokens: u64,
    pub images: u64,
}

impl From<&Usage> for Counts {
    fn from(usage: &Usage) -> Self {
        Self {
            input_tokens: usage.input_tokens,
            cached_input_tokens: usage.cached_input_tokens,
            output_tokens: usage.output_tokens,
            reasoning_tokens: usage.reasoning_tokens,
            audio_input_tokens: usage.audio_input_tokens,
            audio_output_tokens: usage.audio_output_tokens,
            cache_write_tokens: usage.cache_write_tokens,
            images: usage.images,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.cached_input_tokens += other.cached_input_tokens;
        self.output_tokens += other.output_tokens;
        self.reasoning_tokens += other.reasoning_tokens;
        self.audio_input_tokens += other.audio_input_tokens;
        self.audio_output_tokens += other.audio_output_tokens;
        self.cache_write_tokens += other.cache_write_tokens;
        self.images += other.images;
    }
}

impl Counts {
    /// Whether there is anything to pay for.
    pub fn is_nothing(&self) -> bool {
        self.input_tokens == 0 && self.output_tokens == 0 && self.images == 0
    }
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
}

impl Rate {
    pub fn new(terms: Terms) -> Self {
        // `1.0` and `1.00` are the same price.
        let normal = |price: Option<Decimal>| price.map(|price| price.normalize());
        let terms = Terms {
            currency: terms.currency,
            input_per_million: normal(terms.input_per_million),
            cached_input_per_million: normal(terms.cached_input_per_million),
            cache_write_per_million: normal(terms.cache_write_per_million),
            audio_input_per_million: normal(terms.audio_input_per_million),
            output_per_million: normal(terms.output_per_million),
            reasoning_per_million: normal(terms.reasoning_per_million),
            audio_output_per_million: normal(terms.audio_output_per_million),
            image_each: normal(terms.image_each),
        };
        let text = serde_json::to_vec(&terms).expect("texts and decimals can be written as JSON");
        let digest = digest(&SHA256, &text);
        let mut id = RateId([0; 16]);
        id.0.copy_from_slice(&digest.as_ref()[..16]);
        Self { id, terms }
    }

    pub fn id(&self) -> RateId {
        self.id
    }

    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The cost of `counts`, exact and unrounded; `None` when a part of them has no price, or when
    /// it is beyond what a decimal can hold.
    pub fn cost(&self, counts: Counts) -> Option<Decimal> {
        let terms = &self.terms;
        let (input, output) = (terms.input_per_million, terms.output_per_million);
        // A part that has no price of its own is no part: it stays in the whole.
        let mut plain_input = counts.input_tokens;
        let mut plain_output = counts.output_tokens;
        let part = |whole: &mut u64, tokens: u64, price: Option<Decimal>| {
            let tokens = if price.is_some() { tokens.min(*whole) } else { 0 };
            *whole -= tokens;
            (tokens, price)
        };
        let parts = [
            part(&mut plain_input, counts.cached_input_tokens, terms.cached_input_per_million),
            part(&mut plain_input, counts.cache_write_tokens, terms.cache_write_per_million),
            part(&mut plain_input, counts.audio_input_tokens, terms.audio_input_per_million),
            part(&mut plain_output, counts.reasoning_tokens, terms.reasoning_per_million),
            part(&mut plain_output, counts.audio_output_tokens, terms.audio_output_per_million),
            (plain_input, input),
            (plain_output, output),
        ];
        let tokens = parts
            .into_iter()
            .filter(|(tokens, _)| *tokens > 0)
            .try_fold(Decimal::ZERO, |sum, (tokens, per_million)| {
                sum.checked_add(Decimal::from(tokens).checked_mul(per_million?)?)
            })?
            .checked_div(MILLION)?;
        let images = match terms.image_each {
            Some(each) => Decimal::from(counts.images).checked_mul(each)?,
            None if counts.images > 0 && counts.output_tokens == 0 => return None,
            None => Decimal::ZERO,
        };
        tokens.checked_add(images).map(|cost| cost.normalize())
    }
}

#[cfg(test)]
mod tests {
    use time::macros::date;

    use super::*;

    fn dec(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    fn terms(input: &str) -> Terms {
        Terms {
            currency: "USD".to_owned(),
            input_per_million: Some(dec(input)),
            cached_input_per_million: Some(dec("0.075")),
            output_per_million: Some(dec("0.60")),
            ..Terms::default()
        }
    }

    fn price(deployment: Option<&str>, from: Date, input: &str) -> Price {
        Price {
            deployment: deployment.map(|name| Name::new(name).unwrap()),
            model: None,
            backend: None,
            rate: Arc::new(Rate::new(terms(input))),
            effective_from: from,
        }
    }

    #[test]
    fn the_closest_price_of_the_day_holds() {
        let book = PriceBook(vec![
            price(None, date!(2024 - 01 - 01), "9"),
            price(Some("gpt-4o-mini"), date!(2024 - 07 - 18), "0.15"),
            price(Some("gpt-4o-mini"), date!(2025 - 07 - 18), "0.10"),
        ]);
        let on = |deployment, day| {
            let what = Priced { deployment, model: None, backend: "b", day };
            book.find(what).and_then(|price| price.rate.terms().input_per_million)
        };
        assert_eq!(on("gpt-4o-mini", date!(2025 - 01 - 01)), Some(dec("0.15")));
        assert_eq!(on("gpt-4o-mini", date!(2025 - 07 - 18)), Some(dec("0.10")));
        assert_eq!(on("gpt-4o-mini", date!(2024 - 02 - 01)), Some(dec("9")));
        assert_eq!(on("other", date!(2023 - 12 - 31)), None);
    }

    #[test]
    fn a_cost_is_exact() {
        let counts = Counts {
            input_tokens: 12,
            cached_input_tokens: 4,
            output_tokens: 34,
            reasoning_tokens: 30,
            ..Counts::default()
        };
        // 8 * 0.15 + 4 * 0.075 + 34 * 0.60 = 21.9 for a million
        assert_eq!(Rate::new(terms("0.15")).cost(counts), Some(dec("0.0000219")));
        let without_output = Rate::new(Terms { output_per_million: None, ..terms("0.15") });
        assert_eq!(without_output.cost(counts), None, "never free without a word");
        let input = Counts { input_tokens: 2, ..Counts::default() };
        assert_eq!(without_output.cost(input), Some(dec("0.0000003")));
    }

    #[test]
    fn each_kind_has_its_price_or_that_of_its_whole() {
        let counts = Counts {
            input_tokens: 100,
            cached_input_tokens: 10,
            cache_write_tokens: 20,
            audio_input_tokens: 30,
            output_tokens: 100,
            reasoning_tokens: 40,
            audio_output_tokens: 50,
            images: 2,
        };
        let all = Terms {
            cached_input_per_million: Some(dec("1")),
            cache_write_per_million: Some(dec("3")),
            audio_input_per_million: Some(dec("5")),
            input_per_million: Some(dec("2")),
            reasoning_per_million: Some(dec("7")),
            audio_output_per_million: Some(dec("11")),
            output_per_million: Some(dec("6")),
            image_each: Some(dec("0.04")),
            currency: "USD".to_owned(),
        };
        // 10 + 60 + 150 + 40 * 2 + 280 + 550 + 10 * 6 = 1190 for a million, and two images
        assert_eq!(Rate::new(all.clone()).cost(counts), Some(dec("0.08119")));
        let whole = Terms {
            currency: all.currency,
            input_per_million: all.input_per_million,
            output_per_million: all.output_per_million,
            ..Terms::default()
        };
        assert_eq!(Rate::new(whole).cost(counts), Some(dec("0.0008")));
        let images = Rate::new(Terms { image_each: Some(dec("0.04")), ..Terms::default() });
        assert_eq!(images.cost(Counts { images: 3, ..Counts::default() }), Some(dec("0.12")));
        assert_eq!(images.cost(Counts { images: 3, input_tokens: 1, ..Counts::default() }), None);
    }

    #[test]
    fn the_same_terms_are_the_same_rate() {
        assert_eq!(Rate::new(terms("0.15")).id(), Rate::new(terms("0.1500")).id());
        assert_ne!(Rate::new(terms("0.15")).id(), Rate::new(terms("0.16")).id());
        let euros = Terms { currency: "EUR".to_owned(), ..terms("0.15") };
        assert_ne!(Rate::new(terms("0.15")).id(), Rate::new(euros).id());
    }
}
