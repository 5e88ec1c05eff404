//! What a caller may use at most: said by its product, overridden field by field by its subscription.

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Each limit that is not there does not limit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Requests in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub requests_per_minute: Option<u64>,
    /// Tokens in a minute, input and output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub tokens_per_minute: Option<u64>,
    /// Requests under way at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub concurrent_requests: Option<u64>,
    /// Tokens in a longer period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_quota: Option<TokenQuota>,
    /// Money in a period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
}

/// Tokens in a period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenQuota {
    /// How many tokens, input and output.
    #[schemars(range(min = 1))]
    pub tokens: u64,
    /// The period that they are for.
    pub period: Period,
}

/// Money in a period, and the shares of it at which to say so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// How much, as a decimal in a string, such as "500.00".
    #[serde(deserialize_with = "super::price::money")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    pub amount: Decimal,
    /// The period that it is for.
    pub period: Period,
    /// Shares of the amount at which to say so, such as 0.5, 0.8 and 1.0.
    #[serde(default)]
    pub alert_at: Vec<Share>,
}

/// Begins and ends with the UTC calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
}

/// A share of a whole, above 0 and at most 10 (an alert may be wanted past the budget).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "f64", into = "f64")]
#[schemars(extend("exclusiveMinimum" = 0, "maximum" = 10))]
pub struct Share(f64);

/// Never made of a NaN.
impl Eq for Share {}

impl TryFrom<f64> for Share {
    type Error = &'static str;

    fn try_from(share: f64) -> Result<Self, Self::Error> {
        if share > 0.0 && share <= 10.0 { Ok(Self(share)) } else { Err("a share is above 0 and at most 10") }
    }
}

impl From<Share> for f64 {
    fn from(share: Share) -> Self {
        share.0
    }
}

impl Limits {
    /// What is not sensible in it, by field.
    pub fn faults(&self) -> Vec<(&'static str, &'static str)> {
        const ZERO: &str = "must be at least 1: leave it out for no limit";
        let mut faults = Vec::new();
        let counts = [
            ("requests_per_minute", self.requests_per_minute),
            ("tokens_per_minute", self.tokens_per_minute),
            ("concurrent_requests", self.concurrent_requests),
            ("token_quota.tokens", self.token_quota.as_ref().map(|quota| quota.tokens)),
        ];
        faults
            .extend(counts.into_iter().filter(|(_, count)| *count == Some(0)).map(|(name, _)| (name, ZERO)));
        if self.budget.as_ref().is_some_and(|budget| budget.amount <= Decimal::ZERO) {
            faults.push(("budget.amount", "must be above 0"));
        }
        faults
    }
}
