//! The form of the gateway configuration: what may stand where.
//!
//! Serde stops at its first complaint, and an operator wants them all. So each complaint is noted,
//! what it is about is taken out, and the rest is read again. For that to work no field is required
//! here: what must be there is asked for by [`super::catalog`].

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::Fault;
use crate::domain::ids::Name;
use crate::domain::limit::Limits;

/// More faults than anyone will mend in one go; also the bound of the loop.
const MAX_FAULTS: usize = 100;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    /// For editors: the address of the file's schema.
    #[serde(rename = "$schema")]
    pub(super) _schema: Option<String>,
    pub(super) backends: Vec<Backend>,
    pub(super) products: Vec<Product>,
    pub(super) prices: Vec<Price>,
    pub(super) currency: Option<String>,
    pub(super) callers: Option<Callers>,
    pub(super) timeouts: Timeouts,
}

impl File {
    /// A fault for each key that is written out: whoever may read a vault's secret would read them all.
    pub(super) fn literal_keys(&self) -> Vec<Fault> {
        let is_literal = |backend: &Backend| backend.auth.as_ref().is_some_and(|auth| auth.value.is_some());
        let places = self.backends.iter().enumerate().filter(|(_, backend)| is_literal(backend));
        let message =
            "is for local files: keep the key in a secret of its own, and name that in `auth.secret`";
        places.map(|(index, _)| Fault::new(format!("backends[{index}].auth.value"), message)).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Backend {
    pub(super) name: Option<Name>,
    pub(super) endpoint: Option<String>,
    pub(super) region: Option<String>,
    pub(super) priority: Option<u32>,
    pub(super) weight: Option<u32>,
    pub(super) auth: Option<Auth>,
    pub(super) private_endpoint: Option<bool>,
    pub(super) deployments: Option<BTreeMap<Name, Name>>,
    pub(super) billing: Option<Billing>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Auth {
    pub(super) kind: Option<AuthKind>,
    pub(super) audience: Option<String>,
    pub(super) secret: Option<String>,
    pub(super) value: Option<secrecy::SecretString>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum AuthKind {
    Entra,
    ApiKey,
    None,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Billing {
    pub(super) kind: Option<BillingKind>,
    pub(super) units: Option<u32>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) hourly_price_per_unit: Option<Decimal>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum BillingKind {
    Provisioned,
    PayAsYouGo,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Product {
    pub(super) name: Option<Name>,
    pub(super) deployments: Option<Vec<Name>>,
    pub(super) self_service: bool,
    pub(super) limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Price {
    pub(super) deployment: Option<Name>,
    pub(super) model: Option<String>,
    pub(super) backend: Option<Name>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) input_per_million: Option<Decimal>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) cached_input_per_million: Option<Decimal>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) output_per_million: Option<Decimal>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) reasoning_per_million: Option<Decimal>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) cache_write_per_million: Option<Decimal>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) audio_input_per_million: Option<Decimal>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) audio_output_per_million: Option<Decimal>,
    #[serde(deserialize_with = "optional_money")]
    pub(super) image_each: Option<Decimal>,
    pub(super) effective_from: Option<String>,
}

/// In seconds, with decimals if need be.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    pub(super) first_byte: Option<f64>,
    pub(super) stream_first_byte: Option<f64>,
    pub(super) total: Option<f64>,
    pub(super) idle: Option<f64>,
    pub(super) waiting_after: Option<f64>,
    pub(super) waiting_every: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Callers {
    pub(super) entra: Option<Entra>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Entra {
    pub(super) tenants: Vec<String>,
    pub(super) audiences: Vec<String>,
    pub(super) applications: Vec<Application>,
    pub(super) users: Vec<User>,
    pub(super) groups: Vec<Group>,
    pub(super) app_roles: Vec<AppRole>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Application {
    pub(super) client_id: String,
    pub(super) subscription: Option<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct User {
    pub(super) object_id: String,
    pub(super) subscription: Option<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Group {
    pub(super) object_id: String,
    pub(super) subscription: Option<Name>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct AppRole {
    pub(super) role: String,
    pub(super) subscription: Option<Name>,
}

fn optional_money<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    #[derive(Deserialize)]
    struct Money(#[serde(deserialize_with = "crate::domain::price::money")] Decimal);
    Ok(Option::<Money>::deserialize(deserializer)?.map(|money| money.0))
}

/// Reads as much of the file as has the right form, and says what has not.
pub(super) fn read(text: &str) -> (File, Vec<Fault>) {
    let mut value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => return (File::default(), vec![Fault::new("$", format!("not JSON: {error}"))]),
    };
    let mut faults = Vec::new();
    while faults.len() < MAX_FAULTS {
        match serde_path_to_error::deserialize(&value) {
            Ok(file) => return (file, faults),
            Err(error) => {
                let path = error.path().clone();
                faults.push(Fault::new(path.to_string(), error.inner().to_string()));
                if !take_out(&mut value, &path) {
                    break;
                }
            }
        }
    }
    (File::default(), faults)
}

/// Takes out what `path` names; `false` when that is not there, and reading again would not help.
fn take_out(value: &mut Value, path: &Path) -> bool {
    let segments: Vec<_> = path.iter().collect();
    let Some((last, parents)) = segments.split_last() else { return false };
    let mut at = value;
    for segment in parents {
        let next = match segment {
            Segment::Map { key } => at.get_mut(key),
            Segment::Seq { index } => at.get_mut(index),
            Segment::Enum { .. } | Segment::Unknown => None,
        };
        let Some(next) = next else { return false };
        at = next;
    }
    match (last, at) {
        (Segment::Map { key }, Value::Object(members)) => members.remove(key).is_some(),
        // An empty item keeps the places of those behind it right; where even that has not the
        // right form (a list of names), the item goes.
        (Segment::Seq { index }, Value::Array(items)) => {
            let empty = Value::Object(serde_json::Map::new());
            match items.get_mut(*index) {
                Some(item) if *item == empty => {
                    items.remove(*index);
                }
                Some(item) => *item = empty,
                None => return false,
            }
            true
        }
        _ => false,
    }
}
