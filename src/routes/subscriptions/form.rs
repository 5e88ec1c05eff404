//! What callers send about a subscription: bodies and queries, unknown members refused, faults by their field.

use http::HeaderMap;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::limit::Limits;
use crate::domain::subscription::{Patch, State, Tags};
use crate::domain::units::UnixMillis;
use crate::issuing::Application;
use crate::ports::ListQuery;
use crate::routes::respond::Refused;

/// A subscription that is to be issued.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewSubscription")]
pub(in crate::routes) struct NewForm {
    /// Whom or what it is for, in people's words.
    name: String,
    /// The name of a product of the gateway configuration.
    product: Name,
    #[serde(default)]
    owner: Option<String>,
    /// What the chargeback sums by.
    #[serde(default)]
    cost_center: Option<String>,
    /// Override the product's, field by field.
    #[serde(default)]
    limits: Option<Limits>,
    #[serde(default)]
    notes: Option<String>,
    /// Names and values, to sort by.
    #[serde(default)]
    tags: Option<Tags>,
    /// From then on its keys open nothing.
    #[serde(default)]
    expires_at: Option<UnixMillis>,
}

impl From<NewForm> for Application {
    fn from(form: NewForm) -> Self {
        Self {
            name: form.name,
            product: form.product,
            owner: form.owner,
            cost_center: form.cost_center,
            limits: form.limits.unwrap_or_default(),
            notes: form.notes,
            tags: form.tags.unwrap_or_default(),
            expires_at: form.expires_at,
        }
    }
}

/// What is to become of a subscription: what is not there stays as it is, null clears.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SubscriptionChange")]
#[expect(clippy::option_option, reason = "nothing, null and a value are three things here")]
pub(in crate::routes) struct PatchForm {
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    name: Option<String>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Name>")]
    product: Option<Name>,
    /// `suspended`: its keys open nothing until it is `active` again.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<SettableState>")]
    state: Option<SettableState>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    owner: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    cost_center: Option<Option<String>>,
    /// Takes the place of all of the old ones.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Limits>")]
    limits: Option<Option<Limits>>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>")]
    notes: Option<Option<String>>,
    /// Take the place of all of the old ones.
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<Tags>")]
    tags: Option<Option<Tags>>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<UnixMillis>")]
    expires_at: Option<Option<UnixMillis>>,
}

/// The states that a change may name: DELETE ends one for good.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::routes) enum SettableState {
    Active,
    Suspended,
}

/// A member that is there, whatever it is: null is something else than nothing.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

impl From<PatchForm> for Patch {
    fn from(form: PatchForm) -> Self {
        Self {
            name: form.name,
            product: form.product,
            state: form.state.map(|state| match state {
                SettableState::Active => State::Active,
                SettableState::Suspended => State::Suspended,
            }),
            owner: form.owner,
            cost_center: form.cost_center,
            limits: form.limits.map(Option::unwrap_or_default),
            notes: form.notes,
            tags: form.tags.map(Option::unwrap_or_default),
            expires_at: form.expires_at,
        }
    }
}

/// Reads a body, and tells the field that is wrong.
pub(in crate::routes) fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Refused> {
    // Serde would take a list as well, its items for the fields in their order.
    if body.trim_ascii_start().first().is_some_and(|first| *first == b'[') {
        return Err(Refused::invalid("not a JSON object", None));
    }
    let mut reader = serde_json::Deserializer::from_slice(body);
    let form = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let field = error.path().to_string();
        let field = (field != ".").then_some(field);
        let place = field.as_ref().map_or_else(String::new, |field| format!("`{field}`: "));
        Refused::invalid(format!("{place}{}", error.inner()), field)
    })?;
    reader.end().map_err(|error| Refused::invalid(format!("not JSON: {error}"), None))?;
    Ok(form)
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refused> {
    const MAX_BYTES: usize = 256;
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= MAX_BYTES => Ok(Some(key)),
        _ => Err(Refused::invalid(
            "`Idempotency-Key` must have 1 to 256 plain characters",
            Some("Idempotency-Key".to_owned()),
        )),
    }
}

const PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;

/// How many items a page has.
///
/// # Errors
/// When it cannot have so many.
pub(in crate::routes) fn page_of(limit: Option<u32>) -> Result<u32, Refused> {
    let limit = limit.unwrap_or(PAGE);
    if (1..=MAX_PAGE).contains(&limit) {
        return Ok(limit);
    }
    let message = format!("`limit` must be between 1 and {MAX_PAGE}");
    Err(Refused::invalid(message, Some("limit".to_owned())))
}

/// Which subscriptions, and which page of them.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::routes) struct Page {
    /// Only those of this product.
    #[serde(default)]
    product: Option<Name>,
    /// Only those of this owner.
    #[serde(default)]
    owner: Option<String>,
    /// Only those in this state; without it, all that have not ended.
    #[serde(default)]
    state: Option<State>,
    /// `next` of the page before.
    #[serde(default)]
    cursor: Option<SubscriptionId>,
    /// Items in a page, 1 to 500; without it, 50.
    #[serde(default)]
    limit: Option<u32>,
    /// The Functions host's own key may stand in any query.
    #[serde(default, rename = "code")]
    #[schemars(skip)]
    _code: serde::de::IgnoredAny,
}

impl TryFrom<Page> for ListQuery {
    type Error = Refused;

    fn try_from(page: Page) -> Result<Self, Refused> {
        let limit = page_of(page.limit)?;
        let Page { product, owner, state, cursor, .. } = page;
        Ok(Self { product, owner, state, after: cursor, limit })
    }
}
