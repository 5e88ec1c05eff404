//! Which backend keeps this?
//!
//! A response lies with the backend that made it, and with no other one. So requests for it, and requests
//! that go on from it, go there, and nowhere else while it is known where: another backend could only say
//! that there is no such response. Who made it is remembered too: to everybody else it is not there.
//!
//! # What is not remembered
//! The memory is bounded and this process's own. What was made before a restart, by another instance,
//! or long ago is not known here: then the backends are asked in order until one has it, and whose it is
//! cannot be told. What guards it is its id, which nobody can guess and only its maker was told.

use std::sync::Arc;

use http::StatusCode;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use super::read::Ask;
use super::{Caller, Refusal};
use crate::domain::api::Operation;
use crate::domain::diagnosis::Refused;
use crate::domain::ids::{DeploymentName, ItemId, Name, SubscriptionId};

/// Some 600 bytes each: 12 MB when all are there.
const MAX_REMEMBERED: u64 = 20_000;

/// The memory of what backends keep.
#[derive(Clone, Debug)]
pub struct Kept(Cache<ItemId, Arc<Home>>);

/// Where something is kept, and whose it is.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) backend: Name,
    deployment: DeploymentName,
    subscription: SubscriptionId,
}

impl Default for Kept {
    fn default() -> Self {
        // A new one is never turned away: it is the one that is asked for next.
        let newest = EvictionPolicy::lru();
        Self(Cache::builder().max_capacity(MAX_REMEMBERED).eviction_policy(newest).build())
    }
}

impl Kept {
    /// Looks up what a request belongs to.
    ///
    /// # Errors
    /// That it is not there, if it is another subscription's.
    pub(super) fn recognised(&self, caller: &Caller, mut ask: Ask) -> Result<Ask, Refusal> {
        let Some(id) = &ask.belongs_to else { return Ok(ask) };
        let Some(home) = self.0.get(id) else { return Ok(ask) };
        let is_of_item = ask.operation.is_of_item();
        if home.subscription != caller.subscription().id {
            let id = id.clone();
            return Err(if is_of_item { Refusal::ItemNotFound(id) } else { Refusal::PreviousNotFound(id) });
        }
        if is_of_item {
            ask.deployment = home.deployment.clone();
        }
        ask.home = Some(home);
        Ok(ask)
    }

    /// What is to be remembered once the answer tells its id; `None` where nothing is kept.
    pub(super) fn learning(&self, ask: &Ask, backend: &Name, caller: &Caller) -> Option<Learning> {
        let home = || Home {
            backend: backend.clone(),
            deployment: ask.deployment.clone(),
            subscription: caller.subscription().id.clone(),
        };
        ask.is_kept.then(|| Learning { kept: self.clone(), home: home() })
    }
}

/// Waits for an id.
pub(super) struct Learning {
    kept: Kept,
    home: Home,
}

impl Learning {
    pub(super) fn learned(self, id: &str) {
        // One that is not an id could not be asked for either.
        if let Ok(id) = ItemId::new(id) {
            self.kept.0.insert(id, Arc::new(self.home));
        }
    }
}

/// Whether nobody here can tell which deployment the request is about.
pub(super) fn is_unplaced(ask: &Ask) -> bool {
    ask.operation.is_of_item() && ask.home.is_none()
}

/// Whether a backend's refusal says that what was asked for is not there: another backend may have it.
///
/// Azure refuses an unknown `previous_response_id` with a 400 and the code
/// `previous_response_not_found`, and an unknown item of the `input` with a 400 whose message begins
/// `Item with id '…' not found`.
pub(super) fn may_be_elsewhere(ask: &Ask, refused: Refused<'_>) -> bool {
    let Refused { status, code, message, .. } = refused;
    if ask.operation.is_of_item() {
        return status == StatusCode::NOT_FOUND;
    }
    let names_what_is_kept = code == Some("previous_response_not_found")
        || message.is_some_and(|text| text.starts_with("Item with id '") && text.contains("' not found"));
    ask.operation == Operation::Responses
        && matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
        && names_what_is_kept
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::super::{Incoming, read};
    use super::*;
    use crate::domain::api::Address;
    use crate::domain::diagnosis::SignIn;
    use crate::domain::ids::RequestId;
    use crate::domain::trace::Trace;

    fn ask(method: &Method, path: &str, body: &'static str) -> Ask {
        let id = RequestId::draw();
        let incoming = Incoming {
            id,
            trace: Trace::of_request(None, id),
            address: Address::parse(method, path).unwrap(),
            query: None,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body.as_bytes()),
            began: Duration::ZERO,
        };
        read::ask(&incoming).unwrap()
    }

    #[test]
    fn however_many_there_are_the_newest_is_known() {
        let kept = Kept::default();
        let name = Name::new("any").unwrap();
        let home = || Home { backend: name.clone(), deployment: name.clone(), subscription: name.clone() };
        for number in 0..MAX_REMEMBERED + 1_000 {
            let learning = Learning { kept: kept.clone(), home: home() };
            learning.learned(&format!("resp_{number}"));
        }
        kept.0.run_pending_tasks();
        let newest = ItemId::new(&format!("resp_{}", MAX_REMEMBERED + 999)).unwrap();
        assert!(kept.0.contains_key(&newest) && !kept.0.contains_key(&ItemId::new("resp_0").unwrap()));
        assert!(kept.0.entry_count() <= MAX_REMEMBERED);
    }

    #[test]
    fn only_what_another_backend_may_have_is_looked_for_there() {
        let item = ask(&Method::GET, "/v1/responses/resp_1", "");
        let response = ask(&Method::POST, "/v1/responses", r#"{"model":"m","input":"hi"}"#);
        let chat = ask(&Method::POST, "/v1/chat/completions", r#"{"model":"m","messages":[]}"#);
        let item_missing = "Item with id 'rs_1' not found. Items are not persisted when `store` is false.";
        for (ask, status, code, message, is_looked_for) in [
            (&item, 404, None, "Response with id 'resp_1' not found.", true),
            (&item, 404, Some("404"), "Resource not found", true),
            (&item, 400, None, "Cannot cancel a synchronous response.", false),
            (&response, 400, Some("previous_response_not_found"), "", true),
            (&response, 404, Some("previous_response_not_found"), "", true),
            (&response, 400, None, item_missing, true),
            (&response, 400, Some("invalid_value"), "Invalid 'input'", false),
            (&response, 404, Some("404"), "Resource not found", false),
            (&chat, 400, Some("previous_response_not_found"), item_missing, false),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let refused = Refused { status, code, message: Some(message), sign_in: SignIn::Token };
            assert_eq!(may_be_elsewhere(ask, refused), is_looked_for, "{status} {code:?} {message}");
        }
    }
}
