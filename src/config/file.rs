//! The form of the gateway configuration: what may stand where.
//!
//! Serde stops at its first complaint, and an operator wants them all. So each complaint is noted,
//! what it is about is taken out, and the rest is read again. For that to work no field is required
//! here: what must be there is asked for by [`super::catalog`], and told to editors by
//! [`super::schema`], which is made of these structs and of the comments on their fields.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::Fault;
use crate::domain::ids::Name;
use crate::domain::limit::Limits;
use crate::domain::price::Terms;
use crate::domain::usage::OnUnsafe;

/// More faults than anyone will mend in one go; also the bound of the loop.
const MAX_FAULTS: usize = 100;

/// The gateway configuration of Tollgate: backends, products, prices and callers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Tollgate's gateway configuration", extend("required" = ["backends"]))]
pub(super) struct File {
    /// Where this schema lies, for editors.
    #[serde(rename = "$schema")]
    pub(super) _schema: Option<String>,
    /// The Azure OpenAI (or Foundry) resources.
    #[schemars(length(min = 1))]
    pub(super) backends: Vec<Backend>,
    /// What subscriptions are issued of: named sets of limits and allowed deployments.
    pub(super) products: Vec<Product>,
    /// What tokens cost. The most exact price that is in force on a request's day holds.
    pub(super) prices: Vec<Price>,
    /// The currency of every price: three capital letters; USD unless said otherwise.
    #[schemars(regex(pattern = r"^[A-Z]{3}$"))]
    pub(super) currency: Option<String>,
    /// Who may call without an issued key.
    pub(super) callers: Option<Callers>,
    /// How long backends and callers wait.
    pub(super) timeouts: Timeouts,
    /// What becomes of new requests while usage cannot be made safe in the event hub; `spool` unless said
    /// otherwise.
    pub(super) on_usage_unsafe: OnUnsafe,
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

/// One Azure OpenAI (or Foundry) resource.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name", "endpoint"]))]
pub(super) struct Backend {
    /// What it is called in reports and in the log. Each once.
    pub(super) name: Option<Name>,
    /// Scheme and host, such as `https://contoso-eastus.openai.azure.com`; http only on 127.0.0.1 or
    /// localhost.
    #[schemars(regex(pattern = super::schema::ENDPOINT))]
    pub(super) endpoint: Option<String>,
    /// Written into usage events.
    pub(super) region: Option<String>,
    /// Lower is asked first; 1 unless said otherwise.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) priority: Option<u32>,
    /// The share inside one priority; 1 unless said otherwise.
    #[schemars(range(min = 1, max = 1000))]
    pub(super) weight: Option<u32>,
    /// How the gateway signs in; with its own Entra identity unless said otherwise.
    pub(super) auth: Option<Auth>,
    /// The name must resolve to a private address: `tollgate doctor` looks whether it does.
    pub(super) private_endpoint: Option<bool>,
    /// Callers' names for deployments, each with the backend's own. Without it names pass
    /// unchanged, and every deployment is served.
    pub(super) deployments: Option<BTreeMap<Name, Name>>,
    /// How the resource is paid for; by the token unless said otherwise.
    pub(super) billing: Option<Billing>,
}

/// How the gateway signs in to a backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = super::schema::auth_goes_together)]
pub(super) struct Auth {
    /// `entra` unless said otherwise; `none` is for endpoints on this machine.
    pub(super) kind: Option<AuthKind>,
    /// With `entra`: the token's audience, where it is not the cloud's.
    pub(super) audience: Option<String>,
    /// With `api_key`: the name of the key's secret in Key Vault.
    #[schemars(regex(pattern = r"^[A-Za-z0-9-]{1,127}$"))]
    pub(super) secret: Option<String>,
    /// With `api_key`: the key itself; in a local file only, never in a Key Vault secret.
    #[schemars(with = "String")]
    pub(super) value: Option<secrecy::SecretString>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AuthKind {
    Entra,
    ApiKey,
    None,
}

/// How a backend is paid for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = super::schema::billing_goes_together)]
pub(super) struct Billing {
    /// `pay_as_you_go` unless said otherwise.
    pub(super) kind: Option<BillingKind>,
    /// With `provisioned`: how many units.
    #[schemars(range(min = 1))]
    pub(super) units: Option<u32>,
    /// With `provisioned`: the price of one unit for an hour.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) hourly_price_per_unit: Option<Decimal>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum BillingKind {
    Provisioned,
    PayAsYouGo,
}

/// A named set of limits and allowed deployments.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["name"]))]
pub(super) struct Product {
    /// What a subscription names. Each once.
    pub(super) name: Option<Name>,
    /// Callers' names of the deployments that it allows; all without it.
    pub(super) deployments: Option<Vec<Name>>,
    /// Signed-in people may issue subscriptions of it to themselves.
    pub(super) self_service: bool,
    /// What a subscription of it may use at most.
    pub(super) limits: Limits,
}

/// One line of the price book. It applies where all that it names is met: at least one of
/// deployment, model and backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(transform = super::schema::price_names_something)]
pub(super) struct Price {
    /// As callers write it.
    pub(super) deployment: Option<Name>,
    /// As backends report it, such as gpt-4o-mini-2024-07-18.
    pub(super) model: Option<String>,
    /// The name of a backend.
    pub(super) backend: Option<Name>,
    /// A million tokens of input; required, unless there is `image_each`.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) input_per_million: Option<Decimal>,
    /// A million tokens of input that the backend had cached; as input without it.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) cached_input_per_million: Option<Decimal>,
    /// A million tokens of output; without it, what has output has no price.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) output_per_million: Option<Decimal>,
    /// A million tokens of reasoning; as output without it.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) reasoning_per_million: Option<Decimal>,
    /// A million tokens of input that the backend wrote to its cache; as input without it.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) cache_write_per_million: Option<Decimal>,
    /// A million tokens of audio in; as input without it.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) audio_input_per_million: Option<Decimal>,
    /// A million tokens of audio out; as output without it.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) audio_output_per_million: Option<Decimal>,
    /// One image that was made.
    #[serde(deserialize_with = "optional_money")]
    #[schemars(with = "Money")]
    pub(super) image_each: Option<Decimal>,
    /// The first UTC day on which it holds, such as 2024-07-18; from the beginning without it.
    #[schemars(regex(pattern = r"^\d{4}-\d{2}-\d{2}$"))]
    pub(super) effective_from: Option<String>,
}

impl Price {
    pub(super) fn terms(&self, currency: &str) -> Terms {
        Terms {
            currency: currency.to_owned(),
            input_per_million: self.input_per_million,
            cached_input_per_million: self.cached_input_per_million,
            cache_write_per_million: self.cache_write_per_million,
            audio_input_per_million: self.audio_input_per_million,
            output_per_million: self.output_per_million,
            reasoning_per_million: self.reasoning_per_million,
            audio_output_per_million: self.audio_output_per_million,
            image_each: self.image_each,
        }
    }
}

/// How long backends and callers wait, in seconds, with decimals if need be.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Timeouts {
    /// Until the first byte of a whole reply, while another backend could still be asked.
    #[schemars(range(min = 0.1, max = 220))]
    pub(super) first_byte: Option<f64>,
    /// The same, of a stream.
    #[schemars(range(min = 0.1, max = 220))]
    pub(super) stream_first_byte: Option<f64>,
    /// Until the first byte of a reply, over all backends that are asked.
    #[schemars(range(min = 0.1, max = 220))]
    pub(super) total: Option<f64>,
    /// Between two pieces of a reply.
    #[schemars(range(min = 0.1, max = 200))]
    pub(super) idle: Option<f64>,
    /// So long a stream may say nothing before its caller gets comments.
    #[schemars(range(min = 0.1, max = 199))]
    pub(super) waiting_after: Option<f64>,
    /// Between two such comments.
    #[schemars(range(min = 0.1, max = 199))]
    pub(super) waiting_every: Option<f64>,
}

/// Who may call without an issued key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Callers {
    /// Callers that bring an Entra token.
    pub(super) entra: Option<Entra>,
}

/// Callers that bring an Entra token, each bound to a subscription.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["tenants", "audiences"]))]
pub(super) struct Entra {
    /// The tenants whose tokens are taken.
    #[schemars(length(min = 1))]
    pub(super) tenants: Vec<String>,
    /// The audiences that tokens may have.
    #[schemars(length(min = 1))]
    pub(super) audiences: Vec<String>,
    /// Applications, by their client id.
    pub(super) applications: Vec<Application>,
    /// People, by their object id.
    pub(super) users: Vec<User>,
    /// Groups, by their object id.
    pub(super) groups: Vec<Group>,
    /// App roles, by their value.
    pub(super) app_roles: Vec<AppRole>,
}

/// An application, and the subscription that it uses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["client_id", "subscription"]))]
pub(super) struct Application {
    /// The application's client id.
    #[schemars(length(min = 1))]
    pub(super) client_id: String,
    /// The id of a subscription.
    pub(super) subscription: Option<Name>,
}

/// A person, and the subscription that they use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["object_id", "subscription"]))]
pub(super) struct User {
    /// The person's object id.
    #[schemars(length(min = 1))]
    pub(super) object_id: String,
    /// The id of a subscription.
    pub(super) subscription: Option<Name>,
}

/// A group, and the subscription that its members use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["object_id", "subscription"]))]
pub(super) struct Group {
    /// The group's object id.
    #[schemars(length(min = 1))]
    pub(super) object_id: String,
    /// The id of a subscription.
    pub(super) subscription: Option<Name>,
}

/// An app role, and the subscription that those who have it use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["role", "subscription"]))]
pub(super) struct AppRole {
    /// The role's value, as tokens carry it.
    #[schemars(length(min = 1))]
    pub(super) role: String,
    /// The id of a subscription.
    pub(super) subscription: Option<Name>,
}

/// A decimal in a string, such as "0.15": a JSON number would pass through floating point.
#[derive(Deserialize, JsonSchema)]
struct Money(
    #[serde(deserialize_with = "crate::domain::price::money")]
    #[schemars(with = "String", regex(pattern = r"^[0-9]+(\.[0-9]+)?$"))]
    Decimal,
);

fn optional_money<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Decimal>, D::Error> {
    Ok(Option::<Money>::deserialize(deserializer)?.map(|money| money.0))
}

/// Reads as much of the file as has the right form, and says what has not.
pub(super) fn read(text: &str) -> (File, Vec<Fault>) {
    // PowerShell and some editors put it there.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
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
                faults.push(Fault::new(path.to_string(), said(&path, &error.inner().to_string())));
                if !take_out(&mut value, &path) {
                    break;
                }
            }
        }
    }
    (File::default(), faults)
}

/// A complaint without the value that it is about, where that may be a key in the wrong place.
fn said(path: &Path, complaint: &str) -> String {
    let is_secret = path.iter().any(|segment| matches!(segment, Segment::Map { key } if key == "auth"));
    match complaint.split_once(", expected ") {
        Some((_, expected)) if is_secret => format!("expected {expected}"),
        None if is_secret => "not what may stand here".to_owned(),
        _ => complaint.to_owned(),
    }
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
