//! The file that an export of API Management is: its subscriptions as Azure's management API lists them, each
//! with what `listSecrets` said of it.

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;

use crate::domain::ids::{Name, SubscriptionId};
use crate::domain::subscription::State;
use crate::domain::units::UnixMillis;
use crate::issuing::{Application, Arrival};

/// A list of API Management's REST API as it comes, the lists of an export, or the bare list.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum File {
    Lists {
        #[serde(alias = "value")]
        subscriptions: Vec<Subscription>,
        #[serde(default)]
        products: Vec<Product>,
    },
    Bare(Vec<Subscription>),
}

impl File {
    pub(super) fn into_lists(self) -> (Vec<Subscription>, Vec<Product>) {
        match self {
            Self::Lists { subscriptions, products } => (subscriptions, products),
            Self::Bare(subscriptions) => (subscriptions, Vec::new()),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Product {
    pub(super) name: String,
}

#[derive(Deserialize)]
pub(super) struct Subscription {
    /// Its id there, which the REST API calls its name.
    pub(super) name: String,
    properties: Properties,
    #[serde(default)]
    keys: Keys,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Properties {
    #[serde(default)]
    display_name: Option<String>,
    state: String,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    owner_id: Option<String>,
    #[serde(default)]
    created_date: Option<String>,
    #[serde(default)]
    expiration_date: Option<String>,
    #[serde(default)]
    state_comment: Option<String>,
    #[serde(flatten)]
    keys: Keys,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Keys {
    #[serde(default)]
    primary_key: Option<SecretString>,
    #[serde(default)]
    secondary_key: Option<SecretString>,
}

/// Which product of the gateway a subscription comes to.
pub(super) struct Products {
    /// By the product that it was for.
    pub(super) renamed: BTreeMap<String, Name>,
    /// For those that were not for a product.
    pub(super) otherwise: Option<Name>,
}

impl Subscription {
    /// What comes to the gateway of it.
    ///
    /// # Errors
    /// Says why nothing can.
    pub(super) fn arrive(self, products: &Products) -> Result<Arrival, String> {
        let product = products.of(self.properties.scope.as_deref())?;
        let state = state(&self.properties.state)?;
        let notes = self.notes();
        let properties = self.properties;
        let primary = self.keys.primary_key.or(properties.keys.primary_key);
        let secondary = self.keys.secondary_key.or(properties.keys.secondary_key);
        let (Some(primary_key), Some(secondary_key)) = (primary, secondary) else {
            return Err("the file has not both of its keys: add what listSecrets says of it".to_owned());
        };
        let shown = properties.display_name.filter(|name| !name.trim().is_empty());
        let mut application = Application::new(shown.unwrap_or_else(|| self.name.clone()), product);
        application.owner = properties.owner_id.as_deref().and_then(last_part).map(str::to_owned);
        application.notes = Some(notes);
        Ok(Arrival {
            id: id_of(&self.name)?,
            application,
            state,
            created_at: properties.created_date.as_deref().and_then(UnixMillis::parse),
            primary_key,
            secondary_key,
        })
    }

    /// What has no field of its own here. An expiration date ends nothing in API Management, where it is for
    /// audits alone: it must not end anything by moving.
    fn notes(&self) -> String {
        let properties = &self.properties;
        let facts = [
            ("id", Some(&self.name)),
            ("state", Some(&properties.state)),
            ("scope", properties.scope.as_ref()),
            ("owner", properties.owner_id.as_ref()),
            ("expiration date", properties.expiration_date.as_ref()),
            ("comment", properties.state_comment.as_ref()),
        ];
        let facts = facts.into_iter().filter_map(|(name, value)| Some(format!("{name}: {}", value?)));
        let notes = format!("From API Management.\n{}", facts.collect::<Vec<_>>().join("\n"));
        notes.chars().take(4096).collect()
    }
}

impl Products {
    fn of(&self, scope: Option<&str>) -> Result<Name, String> {
        let parts: Vec<_> = scope.unwrap_or_default().trim_end_matches('/').split('/').collect();
        if let [.., kind, name] = parts[..]
            && kind.eq_ignore_ascii_case("products")
        {
            return match self.renamed.get(name) {
                Some(product) => Ok(product.clone()),
                None => Name::new(name)
                    .map_err(|error| format!("its product `{name}`: {error}; name another with --product")),
            };
        }
        self.otherwise.clone().ok_or_else(|| {
            "it is not for one product, but for an API or all of them: say which product it gets with \
             --default-product"
                .to_owned()
        })
    }
}

/// What opened something there does so here, and nothing else does.
fn state(word: &str) -> Result<State, String> {
    match word.to_ascii_lowercase().as_str() {
        "active" => Ok(State::Active),
        // Waits for somebody's approval, or may be renewed.
        "suspended" | "submitted" | "expired" => Ok(State::Suspended),
        "cancelled" | "rejected" => Ok(State::Ended),
        _ => Err(format!("`{word}` is no state of API Management")),
    }
}

/// Ids there may have characters that an id here has not.
fn id_of(name: &str) -> Result<SubscriptionId, String> {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    SubscriptionId::new(&name.chars().map(plain).collect::<String>())
        .map_err(|error| format!("its id cannot be one here: {error}"))
}

fn last_part(path: &str) -> Option<&str> {
    path.rsplit('/').next().filter(|part| !part.is_empty())
}
