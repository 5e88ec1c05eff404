//! Names that were checked once and are trusted from then on.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A name was not one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name has 1 to {MAX_NAME_BYTES} letters, digits, `-`, `_` or `.`, and does not begin with `.`")]
pub struct NotAName;

/// Azure allows 64 characters for a resource's and for a deployment's name; subscriptions that move
/// in from elsewhere may have longer ones.
const MAX_NAME_BYTES: usize = 128;

/// Whether `text` can stand in a URL's path and in a log line as it is. No `/`, no `%`, no leading
/// dot: a name can therefore never climb out of the path that it is put into.
fn is_name(text: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && !text.starts_with('.')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// The name of a backend, a product or a subscription's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Name".into()
    }

    /// The rule of [`is_name`], as an editor can check it.
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": format!("^[A-Za-z0-9_-][A-Za-z0-9._-]{{0,{}}}$", MAX_NAME_BYTES - 1),
        })
    }
}

/// A model deployment's name as callers write it, such as `gpt-4o-mini`.
pub type DeploymentName = Name;
/// What a subscription is known by: in reports, in events, in the management routes.
pub type SubscriptionId = Name;

impl Name {
    /// # Errors
    /// [`NotAName`] when `text` has other characters than a name may have.
    pub fn new(text: &str) -> Result<Self, NotAName> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(NotAName) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NotAName;

    fn try_from(text: String) -> Result<Self, NotAName> {
        Self::new(&text)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().to_owned()
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The id of something that a backend keeps, such as a response (`resp_…`), as the backend drew it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ItemId(Arc<str>);

/// An id was not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an id has 1 to {MAX_ITEM_BYTES} letters, digits, `_` or `-`")]
pub struct NotAnItemId;

/// Azure's have 53 characters.
const MAX_ITEM_BYTES: usize = 128;

impl ItemId {
    /// # Errors
    /// [`NotAnItemId`] when `text` has other characters than an id may have: it is put into a path.
    pub fn new(text: &str) -> Result<Self, NotAnItemId> {
        let is_one = (1..=MAX_ITEM_BYTES).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if is_one { Ok(Self(text.into())) } else { Err(NotAnItemId) }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ItemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What one request is known by: to its caller (`x-request-id`), in the log, and as its usage
/// event's `id`. Version 7, so that the ledger's rows are appended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RequestId(pub Uuid);

impl RequestId {
    /// A new one: not a rule but a draw, kept here because every request begins with it.
    pub fn draw() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_climb_out_of_a_path() {
        for good in ["gpt-4o", "a", "gpt-35-turbo_16k.v2"] {
            assert!(Name::new(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a%2fb", "ä", "a b", "a\\b", "a?b", &"x".repeat(129)] {
            assert_eq!(Name::new(bad), Err(NotAName), "{bad}");
        }
    }
}
