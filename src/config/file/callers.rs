//! The form of who may call with an Entra token.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::domain::ids::Name;

/// Who may call without an issued key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Callers {
    /// Callers that bring an Entra token.
    pub(in crate::config) entra: Option<Entra>,
}

/// Callers that bring an Entra token, each bound to a subscription.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["tenants", "audiences"]))]
pub(in crate::config) struct Entra {
    /// The tenants whose tokens are taken.
    #[schemars(length(min = 1))]
    pub(in crate::config) tenants: Vec<String>,
    /// The audiences that tokens may have.
    #[schemars(length(min = 1))]
    pub(in crate::config) audiences: Vec<String>,
    /// Applications, by their client id.
    pub(in crate::config) applications: Vec<Application>,
    /// People, by their object id.
    pub(in crate::config) users: Vec<User>,
    /// Groups, by their object id.
    pub(in crate::config) groups: Vec<Group>,
    /// App roles, by their value.
    pub(in crate::config) app_roles: Vec<AppRole>,
}

/// An application, and the subscription that it uses.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["client_id", "subscription"]))]
pub(in crate::config) struct Application {
    /// The application's client id.
    #[schemars(length(min = 1))]
    pub(in crate::config) client_id: String,
    /// The id of a subscription.
    pub(in crate::config) subscription: Option<Name>,
}

/// A person, and the subscription that they use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["object_id", "subscription"]))]
pub(in crate::config) struct User {
    /// The person's object id.
    #[schemars(length(min = 1))]
    pub(in crate::config) object_id: String,
    /// The id of a subscription.
    pub(in crate::config) subscription: Option<Name>,
}

/// A group, and the subscription that its members use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["object_id", "subscription"]))]
pub(in crate::config) struct Group {
    /// The group's object id.
    #[schemars(length(min = 1))]
    pub(in crate::config) object_id: String,
    /// The id of a subscription.
    pub(in crate::config) subscription: Option<Name>,
}

/// An app role, and the subscription that those who have it use.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(extend("required" = ["role", "subscription"]))]
pub(in crate::config) struct AppRole {
    /// The role's value, as tokens carry it.
    #[schemars(length(min = 1))]
    pub(in crate::config) role: String,
    /// The id of a subscription.
    pub(in crate::config) subscription: Option<Name>,
}
