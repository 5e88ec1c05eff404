//! Which API is spoken, and under which path: what differs between the operations.

use std::fmt;

use http::Method;
use serde::{Deserialize, Serialize};

use super::ids::{DeploymentName, ItemId};

/// One proxied operation. In events and reports it has OpenAI's dotted name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    #[serde(rename = "chat.completions")]
    ChatCompletions,
    #[serde(rename = "completions")]
    Completions,
    #[serde(rename = "embeddings")]
    Embeddings,
    #[serde(rename = "responses")]
    Responses,
    /// Reads a response that a backend keeps.
    #[serde(rename = "responses.get")]
    ResponsesGet,
    #[serde(rename = "responses.delete")]
    ResponsesDelete,
    #[serde(rename = "responses.cancel")]
    ResponsesCancel,
    /// Reads what a kept response was an answer to.
    #[serde(rename = "responses.input_items")]
    ResponsesInputItems,
}

impl Operation {
    /// Those that a model is asked by.
    const OF_MODELS: [Self; 4] =
        [Self::ChatCompletions, Self::Completions, Self::Embeddings, Self::Responses];

    /// Those on a response that is kept.
    const OF_ITEMS: [Self; 4] =
        [Self::ResponsesGet, Self::ResponsesDelete, Self::ResponsesCancel, Self::ResponsesInputItems];

    /// The operation's path below a deployment or below `v1`; for an item, the part behind its id.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat/completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::ResponsesGet | Self::ResponsesDelete => "",
            Self::ResponsesCancel => "/cancel",
            Self::ResponsesInputItems => "/input_items",
        }
    }

    pub fn method(self) -> Method {
        match self {
            Self::ChatCompletions
            | Self::Completions
            | Self::Embeddings
            | Self::Responses
            | Self::ResponsesCancel => Method::POST,
            Self::ResponsesGet | Self::ResponsesInputItems => Method::GET,
            Self::ResponsesDelete => Method::DELETE,
        }
    }

    fn of_path(method: &Method, path: &str) -> Option<Self> {
        Self::OF_MODELS.into_iter().find(|operation| operation.path() == path && operation.method() == method)
    }

    fn of_item(method: &Method, behind_id: &str) -> Option<Self> {
        Self::OF_ITEMS
            .into_iter()
            .find(|operation| operation.path() == behind_id && operation.method() == method)
    }

    /// The name in events and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::ResponsesGet => "responses.get",
            Self::ResponsesDelete => "responses.delete",
            Self::ResponsesCancel => "responses.cancel",
            Self::ResponsesInputItems => "responses.input_items",
        }
    }

    /// Whether its replies can be streamed.
    pub fn streams(self) -> bool {
        match self {
            Self::ChatCompletions | Self::Completions | Self::Responses => true,
            Self::Embeddings
            | Self::ResponsesGet
            | Self::ResponsesDelete
            | Self::ResponsesCancel
            | Self::ResponsesInputItems => false,
        }
    }

    /// Whether a stream tells its usage only where `stream_options` asks for it. A stream of Responses
    /// always tells it, in its last event, and a backend refuses the member there.
    pub fn must_be_asked_for_usage(self) -> bool {
        self.streams() && self != Self::Responses
    }

    /// Whether its deployment can stand in the path.
    fn is_below_deployments(self) -> bool {
        match self {
            Self::ChatCompletions | Self::Completions | Self::Embeddings => true,
            Self::Responses
            | Self::ResponsesGet
            | Self::ResponsesDelete
            | Self::ResponsesCancel
            | Self::ResponsesInputItems => false,
        }
    }

    /// Whether it works on something that a backend keeps. Such a request has no model to ask, and so
    /// uses no tokens: those of a response were counted when it was made.
    pub fn is_of_item(self) -> bool {
        Self::OF_ITEMS.contains(&self)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a caller addressed its request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `/openai/deployments/{deployment}/…` or, as gateways of the API Management kind are often
    /// set up, `/deployments/{deployment}/…`: Azure's own shape.
    Deployment(DeploymentName, Operation),
    /// The deployment is named by the body's `model`.
    Model(Root, Operation),
    /// `…/responses/{id}` and what lies below it.
    Item(Root, Operation, ItemId),
}

/// What an address without a deployment begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `/openai/v1/…` or `/v1/…`: OpenAI's shape.
    V1,
    /// `/openai/…?api-version=…`: what Azure's clients call where Azure has no deployment in the path.
    Dated,
}

impl Root {
    fn path(self) -> &'static str {
        match self {
            Self::V1 => "/openai/v1/",
            Self::Dated => "/openai/",
        }
    }
}

impl Address {
    /// The address that a method and a path name, exactly: nothing is decoded, folded or normalised, so
    /// every disguise (`..`, `//`, `%2f`) is simply not an address.
    pub fn parse(method: &Method, path: &str) -> Option<Self> {
        let openai = path.strip_prefix("/openai/");
        let below = openai.or_else(|| path.strip_prefix('/'))?;
        if let Some(below) = below.strip_prefix("v1/") {
            return Self::below(Root::V1, method, below);
        }
        if let Some(below) = below.strip_prefix("deployments/") {
            let (deployment, operation) = below.split_once('/')?;
            let operation = Operation::of_path(method, operation)?;
            let deployment = DeploymentName::new(deployment).ok()?;
            return operation.is_below_deployments().then_some(Self::Deployment(deployment, operation));
        }
        let address = Self::below(Root::Dated, method, openai?)?;
        // What Azure has below a deployment is there and nowhere else.
        (!address.operation().is_below_deployments()).then_some(address)
    }

    fn below(root: Root, method: &Method, path: &str) -> Option<Self> {
        let Some(item) = path.strip_prefix("responses/") else {
            return Operation::of_path(method, path).map(|operation| Self::Model(root, operation));
        };
        let (id, behind) = item.split_at(item.find('/').unwrap_or(item.len()));
        let operation = Operation::of_item(method, behind)?;
        Some(Self::Item(root, operation, ItemId::new(id).ok()?))
    }

    pub fn operation(&self) -> Operation {
        match self {
            Self::Deployment(_, operation) | Self::Model(_, operation) | Self::Item(_, operation, _) => {
                *operation
            }
        }
    }

    /// The path at a backend, where `deployment` is the backend's own name.
    pub fn path_at_backend(&self, deployment: &str) -> String {
        match self {
            Self::Deployment(_, operation) => {
                format!("/openai/deployments/{deployment}/{}", operation.path())
            }
            Self::Model(root, operation) => format!("{}{}", root.path(), operation.path()),
            Self::Item(root, operation, id) => format!("{}responses/{id}{}", root.path(), operation.path()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted(path: &str) -> Option<Address> {
        Address::parse(&Method::POST, path)
    }

    #[test]
    fn every_shape_is_known_with_and_without_the_prefix() {
        let chat = Address::Deployment(DeploymentName::new("gpt-4o").unwrap(), Operation::ChatCompletions);
        for (path, address) in [
            ("/openai/deployments/gpt-4o/chat/completions", chat.clone()),
            ("/deployments/gpt-4o/chat/completions", chat),
            ("/openai/v1/embeddings", Address::Model(Root::V1, Operation::Embeddings)),
            ("/v1/completions", Address::Model(Root::V1, Operation::Completions)),
            ("/openai/v1/responses", Address::Model(Root::V1, Operation::Responses)),
            ("/v1/responses", Address::Model(Root::V1, Operation::Responses)),
            ("/openai/responses", Address::Model(Root::Dated, Operation::Responses)),
        ] {
            assert_eq!(posted(path), Some(address), "{path}");
        }
    }

    #[test]
    fn an_item_is_known_by_its_method_and_its_path() {
        for (method, behind, operation) in [
            (Method::GET, "", Operation::ResponsesGet),
            (Method::DELETE, "", Operation::ResponsesDelete),
            (Method::POST, "/cancel", Operation::ResponsesCancel),
            (Method::GET, "/input_items", Operation::ResponsesInputItems),
        ] {
            for (path, root, at_backend) in [
                ("/openai/v1/responses/resp_1-A", Root::V1, "/openai/v1/responses/resp_1-A"),
                ("/v1/responses/resp_1-A", Root::V1, "/openai/v1/responses/resp_1-A"),
                ("/openai/responses/resp_1-A", Root::Dated, "/openai/responses/resp_1-A"),
            ] {
                let address = Address::parse(&method, &format!("{path}{behind}")).unwrap();
                let id = ItemId::new("resp_1-A").unwrap();
                assert_eq!(address, Address::Item(root, operation, id));
                assert_eq!(address.path_at_backend("any"), format!("{at_backend}{behind}"));
            }
        }
    }

    #[test]
    fn a_method_that_an_address_has_not_is_no_address() {
        for (method, path) in [
            (Method::GET, "/openai/v1/responses"),
            (Method::GET, "/openai/v1/chat/completions"),
            (Method::PUT, "/openai/deployments/gpt-4o/chat/completions"),
            (Method::POST, "/openai/v1/responses/resp_1"),
            (Method::POST, "/openai/v1/responses/resp_1/input_items"),
            (Method::GET, "/openai/v1/responses/resp_1/cancel"),
            (Method::HEAD, "/openai/v1/responses/resp_1"),
        ] {
            assert_eq!(Address::parse(&method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn no_disguise_is_an_address() {
        for path in [
            "",
            "/",
            "/openai/v1/models",
            "/openai/v1/../v1/embeddings",
            "/openai//v1/embeddings",
            "//openai/v1/embeddings",
            "/openai/v1/embeddings/",
            "/openai/v1/chat%2fcompletions",
            "/openai/deployments/../chat/completions",
            "/openai/deployments/a%2f..%2fb/chat/completions",
            "/openai/deployments/gpt-4o/chat/completions/../../../x",
            "/openai/deployments//chat/completions",
            "/openai/openai/v1/embeddings",
            "http://elsewhere/openai/v1/embeddings",
            "/responses",
            "/openai/embeddings",
            "/openai/deployments/gpt-4o/responses",
            "/openai/deployments/gpt-4o/responses/resp_1/cancel",
        ] {
            assert_eq!(posted(path), None, "{path}");
        }
        for id in ["", "/", "..", ".", "a.b", "a%2fb", "a/b", "a//input_items", "a/input_items/", "ä", "a?b"]
        {
            let path = format!("/openai/v1/responses/{id}");
            assert_eq!(Address::parse(&Method::GET, &path), None, "{path}");
        }
    }
}
