//! What do those tokens cost?
//!
//! Pay-as-you-go money, in exact decimals. What has no price is never free without a word: it stays
//! unpriced.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use rust_decimal::Decimal;
use schemars::JsonSchema;
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
    pub deployment_type: Option<DeploymentType>,
    pub rate: Arc<Rate>,
    /// The first UTC day on which it holds.
    pub effective_from: Date,
}

/// How Azure sells a deployment: one model's price differs by it. Azure's own words, such as `DataZoneStandard`, are
/// the `sku.name` of a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum DeploymentType {
    Standard,
    GlobalStandard,
    DataZoneStandard,
    GlobalBatch,
    DataZoneBatch,
    DeveloperTier,
    ProvisionedManaged,
    GlobalProvisionedManaged,
    DataZoneProvisionedManaged,
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
    /// `None`: images that no tokens are counted for have no price.
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

/// More decimals than any price has. A cost then has 14 at the most, and sums of up to 100 trillions are exact in the 28
/// digits of a [`Decimal`].
const MAX_DECIMALS: u32 = 8;

impl Terms {
    /// What is not sensible in it, by field.
    pub fn faults(&self) -> Vec<(&'static str, &'static str)> {
        let prices = [
            ("input_per_million", self.input_per_million),
            ("cached_input_per_million", self.cached_input_per_million),
            ("cache_write_per_million", self.cache_write_per_million),
            ("audio_input_per_million", self.audio_input_per_million),
            ("output_per_million", self.output_per_million),
            ("reasoning_per_million", self.reasoning_per_million),
            ("audio_output_per_million", self.audio_output_per_million),
            ("image_each", self.image_each),
        ];
        let is_too_fine =
            |price: &Option<Decimal>| price.is_some_and(|price| price.normalize().scale() > MAX_DECIMALS);
        let faulty = prices.into_iter().filter(|(_, price)| is_too_fine(price));
        faulty.map(|(field, _)| (field, "at most 8 decimals")).collect()
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
    /// The price that holds for `what`: of those in force on its day one that names the backend before one that
    /// does not, then the deployment, the model, the type; between equals the latest, and of those the last
    /// in the book. Without a known type, prices that name one do not apply.
    pub fn find(&self, what: Priced<'_>, deployment_type: Option<DeploymentType>) -> Option<&Price> {
        let is_of_type =
            |price: &Price| price.deployment_type.is_none_or(|named| Some(named) == deployment_type);
        self.0
            .iter()
            .filter(|price| is_of_type(price) && price.applies_to(what))
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

    fn precision(&self) -> [bool; 4] {
        let type_is_named = self.deployment_type.is_some();
        [self.backend.is_some(), self.deployment.is_some(), self.model.is_some(), type_is_named]
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

    /// Whether there is a price for all of it. Parts need none of their own.
    pub fn covers(&self, counts: Counts) -> bool {
        let [input, output, images] = self.covered();
        (counts.input_tokens == 0 || input)
            && (counts.output_tokens == 0 || output)
            && (counts.images == 0 || images)
    }

    /// Whether input, output and images have a price.
    pub fn covered(&self) -> [bool; 3] {
        let terms = &self.terms;
        [terms.input_per_million, terms.output_per_million, terms.image_each].map(|price| price.is_some())
    }

    /// The cost of `counts`, exact and unrounded; `None` when it does not cover them, or when it is beyond
    /// what a decimal can hold. Of counts that are told apart, as [`Usage::told_apart`] has it, the cost of
    /// a sum is the sum of the costs.
    pub fn cost(&self, counts: Counts) -> Option<Decimal> {
        if !self.covers(counts) {
            return None;
        }
        let terms = &self.terms;
        let (mut plain_input, mut plain_output) = (counts.input_tokens, counts.output_tokens);
        // A part that has no price of its own is no part: it stays in the whole.
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
            (plain_input, terms.input_per_million),
            (plain_output, terms.output_per_million),
        ];
        let tokens = parts
            .into_iter()
            .filter(|(tokens, _)| *tokens > 0)
            .try_fold(Decimal::ZERO, |sum, (tokens, per_million)| {
                sum.checked_add(Decimal::from(tokens).checked_mul(per_million?)?)
            })?
            .checked_div(MILLION)?;
        let images = Decimal::from(counts.images).checked_mul(terms.image_each.unwrap_or_default())?;
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
            deployment_type: None,
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
            book.find(what, None).and_then(|price| price.rate.terms().input_per_million)
        };
        assert_eq!(on("gpt-4o-mini", date!(2025 - 01 - 01)), Some(dec("0.15")));
        assert_eq!(on("gpt-4o-mini", date!(2025 - 07 - 18)), Some(dec("0.10")));
        assert_eq!(on("gpt-4o-mini", date!(2024 - 02 - 01)), Some(dec("9")));
        assert_eq!(on("other", date!(2023 - 12 - 31)), None);
    }

    #[test]
    fn backend_goes_before_deployment_before_model_before_type_before_date() {
        let day = date!(2026 - 03 - 01);
        let line = |names: [Option<&str>; 3], deployment_type, from, input: &str| Price {
            deployment: names[1].map(|name| Name::new(name).unwrap()),
            model: names[2].map(str::to_owned),
            backend: names[0].map(|name| Name::new(name).unwrap()),
            deployment_type,
            rate: Arc::new(Rate::new(terms(input))),
            effective_from: from,
        };
        let zone = Some(DeploymentType::DataZoneStandard);
        let (old, new) = (date!(2020 - 01 - 01), date!(2026 - 03 - 01));
        let (b, d, m) = (Some("b"), Some("d"), Some("m"));
        // Each holds before all that stand above it.
        let rising = [
            line([None, None, m], None, old, "1"),
            line([None, None, m], None, new, "2"),
            line([None, None, m], zone, old, "3"),
            line([None, d, None], None, old, "4"),
            line([None, d, None], zone, old, "5"),
            line([None, d, m], None, old, "6"),
            line([None, d, m], zone, old, "7"),
            line([b, None, None], None, old, "8"),
            line([b, None, m], zone, old, "9"),
            line([b, d, m], zone, old, "10"),
            line([b, d, m], zone, new, "11"),
        ];
        let what = Priced { deployment: "d", model: Some("m"), backend: "b", day };
        let found = |book: &[Price], what, deployment_type| {
            let book = PriceBook(book.to_vec());
            book.find(what, deployment_type).and_then(|price| price.rate.terms().input_per_million)
        };
        for count in 1..=rising.len() {
            let best = found(&rising[..count], what, zone);
            assert_eq!(best, rising[count - 1].rate.terms().input_per_million, "of the first {count}");
        }
        assert_eq!(found(&rising, what, Some(DeploymentType::GlobalBatch)), Some(dec("8")), "another type");
        assert_eq!(found(&rising, what, None), Some(dec("8")), "no type is known");
        let before = Priced { day: date!(2026 - 02 - 28), ..what };
        assert_eq!(found(&rising, before, zone), Some(dec("10")), "the day before");
        let elsewhere = Priced { deployment: "x", model: None, backend: "y", day };
        assert_eq!(found(&rising, elsewhere, zone), None);
        assert_eq!(found(&[], what, zone), None, "an empty book");
    }

    #[test]
    fn free_is_a_price_and_what_no_decimal_holds_is_none() {
        let free = Rate::new(Terms {
            input_per_million: Some(dec("0")),
            output_per_million: Some(dec("0.00")),
            ..Terms::default()
        });
        let much = Counts { input_tokens: u64::MAX, output_tokens: u64::MAX, ..Counts::default() };
        assert_eq!(free.cost(much), Some(dec("0")));
        let dear = Rate::new(Terms { input_per_million: Some(Decimal::MAX), ..Terms::default() });
        assert_eq!(dear.cost(Counts { input_tokens: u64::MAX, ..Counts::default() }), None);
        let images = Rate::new(Terms { image_each: Some(Decimal::MAX), ..Terms::default() });
        assert_eq!(images.cost(Counts { images: 2, ..Counts::default() }), None);
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
        assert_eq!(Rate::new(whole.clone()).cost(counts), None, "images have no price");
        assert_eq!(Rate::new(whole).cost(Counts { images: 0, ..counts }), Some(dec("0.0008")));
        let images = Rate::new(Terms { image_each: Some(dec("0.04")), ..Terms::default() });
        assert_eq!(images.cost(Counts { images: 3, ..Counts::default() }), Some(dec("0.12")));
        assert_eq!(images.cost(Counts { images: 3, input_tokens: 1, ..Counts::default() }), None);
    }

    /// Whatever is grouped with whatever: money must not depend on it.
    #[test]
    fn the_cost_of_a_sum_is_the_sum_of_the_costs() {
        let mut state = 7_u64;
        let mut dice = move |end: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % end
        };
        for _ in 0..5_000 {
            let mut price = |always: bool| {
                (always || dice(2) == 0).then(|| Decimal::new(i64::try_from(dice(100_000)).unwrap(), 4))
            };
            let terms = Terms {
                currency: "USD".to_owned(),
                input_per_million: price(true),
                cached_input_per_million: price(false),
                cache_write_per_million: price(false),
                audio_input_per_million: price(false),
                output_per_million: price(false),
                reasoning_per_million: price(false),
                audio_output_per_million: price(false),
                image_each: price(false),
            };
            let rate = Rate::new(terms);
            let mut sum = (Counts::default(), Decimal::ZERO);
            for _ in 0..5 {
                let (input, output) = (dice(1_000), dice(1_000) * dice(2));
                let usage = Usage {
                    input_tokens: input,
                    cached_input_tokens: dice(input + 1),
                    cache_write_tokens: dice(input + 1),
                    audio_input_tokens: dice(input + 1),
                    output_tokens: output,
                    reasoning_tokens: dice(output + 1),
                    audio_output_tokens: dice(output + 1),
                    images: dice(3),
                    ..Usage::default()
                };
                assert!(usage.is_plausible());
                let counts = Counts::from(&usage.told_apart());
                if rate.covers(counts) {
                    sum.0 += counts;
                    sum.1 += rate.cost(counts).unwrap();
                }
            }
            assert_eq!(rate.cost(sum.0), Some(sum.1), "{rate:?} {:?}", sum.0);
        }
    }

    #[test]
    fn the_same_terms_are_the_same_rate() {
        assert_eq!(Rate::new(terms("0.15")).id(), Rate::new(terms("0.1500")).id());
        assert_ne!(Rate::new(terms("0.15")).id(), Rate::new(terms("0.16")).id());
        let euros = Terms { currency: "EUR".to_owned(), ..terms("0.15") };
        assert_ne!(Rate::new(terms("0.15")).id(), Rate::new(euros).id());
    }
}
