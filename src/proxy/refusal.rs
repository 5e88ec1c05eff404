//! Every way of saying no. What a refusal displays is for the caller; its source is for the log.

use std::time::Duration;

use crate::domain::ids::{DeploymentName, ItemId};
use crate::domain::token::Distrust;
use crate::ports::Unavailable;

/// Why a request is not served.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "no key came with the request: send one in the `api-key` header, in \
         `Ocp-Apim-Subscription-Key`, or as `Authorization: Bearer`"
    )]
    NoKey,
    #[error("the key is not valid: it is unknown, suspended or expired")]
    InvalidKey,
    #[error("the token is not valid: {0}")]
    InvalidToken(Distrust),
    #[error("there is nothing at this path")]
    NotFound,
    #[error("this subscription's product does not allow the deployment `{0}`")]
    DeploymentNotAllowed(DeploymentName),
    #[error("the deployment `{0}` does not exist")]
    DeploymentNotFound(String),
    // In the words of a backend: what is another subscription's is not there.
    #[error("Response with id '{0}' not found.")]
    ItemNotFound(ItemId),
    #[error("Previous response with id '{0}' not found.")]
    PreviousNotFound(ItemId),
    #[error("{message}")]
    Invalid { message: String, param: Option<&'static str> },
    #[error("the body has more than {} MiB", super::MAX_BODY_BYTES / (1024 * 1024))]
    TooLarge,
    #[error("the headers have more than {} KiB", .max_bytes / 1024)]
    HeadersTooLarge { max_bytes: usize },
    #[error("the body did not arrive: nothing came for {} s", .0.as_secs())]
    BodyTimeout(Duration),
    #[error("all backends are busy; try again in {} s", .retry_after.as_secs_f32().ceil())]
    BackendsThrottled { retry_after: Duration, attempts: u32 },
    #[error("no backend could answer; try again")]
    NoBackendAvailable { attempts: u32 },
    #[error("the gateway is not set up rightly for this deployment; its operator has been told")]
    BackendMisconfigured { attempts: u32 },
    #[error("the gateway cannot answer just now; try again")]
    Unavailable(#[from] Unavailable),
}

impl Refusal {
    /// Requests that were sent to backends before it came to this.
    pub fn attempts(&self) -> u32 {
        match self {
            Self::BackendsThrottled { attempts, .. }
            | Self::NoBackendAvailable { attempts }
            | Self::BackendMisconfigured { attempts } => *attempts,
            _ => 0,
        }
    }
}
