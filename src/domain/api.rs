//! Which API is spoken, and under which path: what differs between the operations.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ids::DeploymentName;

/// One proxied operation. In events and reports it has OpenAI's dotted name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Operation {
    #[serde(rename = "chat.completions")]
    ChatCompletions,
    #[serde(rename = "completions")]
    Completions,
    #[serde(rename = "embeddings")]
    Embeddings,
}

impl Operation {
    const ALL: [Self; 3] = [Self::ChatCompletions, Self::Completions, Self::Embeddings];

    /// The operation's path below a deployment or below `v1`.
    pub fn path(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat/completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.path() == path)
    }

    /// The name in events and reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
        }
    }

    /// Whether its replies can be streamed, and `stream_options` asks for their usage.
    pub fn streams(self) -> bool {
        match self {
            Self::ChatCompletions | Self::Completions => true,
            Self::Embeddings => false,
        }
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
    /// `/openai/v1/…` or `/v1/…`: OpenAI's shape, the deployment named by the body's `model`.
    V1(Operation),
}

impl Address {
    /// The address that a path names, exactly: nothing is decoded, folded or normalised, so every
    /// disguise (`..`, `//`, `%2f`) is simply not an address.
    pub fn parse(path: &str) -> Option<Self> {
        let below = path.strip_prefix("/openai/").or_else(|| path.strip_prefix('/'))?;
        if let Some(operation) = below.strip_prefix("v1/") {
            return Operation::of_path(operation).map(Self::V1);
        }
        let (deployment, operation) = below.strip_prefix("deployments/")?.split_once('/')?;
        Some(Self::Deployment(DeploymentName::new(deployment).ok()?, Operation::of_path(operation)?))
    }

    pub fn operation(&self) -> Operation {
        match self {
            Self::Deployment(_, operation) | Self::V1(operation) => *operation,
        }
    }

    /// The path at a backend, where `deployment` is the backend's own name.
    pub fn path_at_backend(&self, deployment: &str) -> String {
        match self {
            Self::Deployment(_, operation) => {
                format!("/openai/deployments/{deployment}/{}", operation.path())
            }
            Self::V1(operation) => format!("/openai/v1/{}", operation.path()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_known_with_and_without_the_prefix() {
        let chat = Address::Deployment(DeploymentName::new("gpt-4o").unwrap(), Operation::ChatCompletions);
        for (path, address) in [
            ("/openai/deployments/gpt-4o/chat/completions", chat.clone()),
            ("/deployments/gpt-4o/chat/completions", chat),
            ("/openai/v1/embeddings", Address::V1(Operation::Embeddings)),
            ("/v1/completions", Address::V1(Operation::Completions)),
        ] {
            assert_eq!(Address::parse(path), Some(address), "{path}");
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
        ] {
            assert_eq!(Address::parse(path), None, "{path}");
        }
    }
}
