//! What handlers ask for in their signatures: an admin, a body.

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::request::Parts;
use http_body_util::BodyExt as _;

use super::respond::Refused;
use crate::app::App;
use crate::domain::actor::Actor;
use crate::domain::key;
use crate::domain::token;
use crate::issuing::Reach;
use crate::proxy::{Refusal, Room};

/// A body that counts for nothing beside what its connection takes.
const SMALL_BYTES: usize = 8 * 1024;
/// A client that has sent nothing for this long has gone, whatever its connection says.
const SILENCE: Duration = Duration::from_secs(30);

/// Somebody who may manage the gateway, and who that is.
pub(super) struct Admin(pub(super) Actor);

impl FromRequestParts<App> for Admin {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let Manager { actor, reach } = Manager::from_request_parts(parts, app).await?;
        if reach == Reach::All { Ok(Self(actor)) } else { Err(Refused::not_admin()) }
    }
}

/// Somebody who may manage subscriptions: all of them, or their own.
pub(super) struct Manager {
    pub(super) actor: Actor,
    pub(super) reach: Reach,
}

impl FromRequestParts<App> for Manager {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Refused> {
        let header = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = header.and_then(|header| {
            let (scheme, key) = header.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
        });
        let Some(given) = given.filter(|given| !given.is_empty()) else {
            return Err(Refused::no_admin(HOW_TO_MANAGE));
        };
        if app.admin_key.as_ref().is_some_and(|admin_key| key::same_secret(given, admin_key)) {
            return Ok(Self { actor: Actor::AdminKey, reach: Reach::All });
        }
        if !token::looks_like_one(given) {
            return Err(Refused::no_admin(HOW_TO_MANAGE));
        }
        let catalog = app.proxy.catalog()?;
        let identity = app.proxy.signed_in.identity(&catalog, given).await?;
        let actor = identity.actor();
        if identity.is_admin() {
            return Ok(Self { actor, reach: Reach::All });
        }
        let has_self_service = catalog.products.values().any(|product| product.self_service);
        match identity.person() {
            Some(person) if has_self_service => Ok(Self { actor, reach: Reach::Own(person.to_owned()) }),
            _ => Err(Refused::not_admin()),
        }
    }
}

const HOW_TO_MANAGE: &str = "send the admin key, or an Entra token with the app role `Tollgate.Admin`, as \
                             `Authorization: Bearer`; without the setting TOLLGATE_ADMIN_KEY no key is taken";

/// Reads a body that may have `max` bytes.
///
/// # Errors
/// [`Refusal::TooLarge`] as soon as that is known, [`Refusal::BodyTimeout`] when it stops coming,
/// [`Refusal::Invalid`] when it breaks off.
pub(super) async fn body(headers: &HeaderMap, body: Body, max: usize) -> Result<Bytes, Refusal> {
    pieces(headers, body, max, |_| Ok(())).await
}

/// The same, for a body that may be kept for long: as long as it is, it has its room.
///
/// # Errors
/// As [`body`], and [`Refusal::Unavailable`] when the bodies of other requests take all of the room.
pub(super) async fn body_in(
    room: &Room,
    headers: &HeaderMap,
    body: Body,
    max: usize,
) -> Result<Bytes, Refusal> {
    let mut taken = room.begin();
    let read = pieces(headers, body, max, |bytes| Ok(taken.grow(bytes)?)).await?;
    // To keep account of a small one costs more than it takes.
    Ok(if read.len() < SMALL_BYTES { read } else { taken.keep(read) })
}

/// Reads a body, asking `may` for each size that it grows to.
async fn pieces(
    headers: &HeaderMap,
    body: Body,
    max: usize,
    mut may: impl FnMut(usize) -> Result<(), Refusal>,
) -> Result<Bytes, Refusal> {
    let mut read = Pieces::default();
    let mut arriving = Arriving::new(headers, body, max)?;
    while let Some(piece) = arriving.next().await? {
        may(read.len() + piece.len())?;
        read.push(piece, arriving.promised);
    }
    Ok(read.whole())
}

/// A body of a bounded size as it comes, of which nothing is kept.
pub(super) struct Arriving {
    body: Body,
    max: usize,
    promised: Option<usize>,
    read: usize,
}

impl Arriving {
    /// # Errors
    /// [`Refusal::TooLarge`] if its length says so.
    pub(super) fn new(headers: &HeaderMap, body: Body, max: usize) -> Result<Self, Refusal> {
        let promised = length(headers);
        if promised.is_some_and(|length| length > max) {
            return Err(Refusal::TooLarge);
        }
        Ok(Self { body, max, promised, read: 0 })
    }

    /// The next piece; `None` at the end.
    ///
    /// # Errors
    /// As [`body`].
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Refusal> {
        loop {
            let frame = tokio::time::timeout(SILENCE, self.body.frame()).await;
            let frame = frame.map_err(|_| Refusal::BodyTimeout(SILENCE))?;
            let Some(frame) = frame else { return Ok(None) };
            let broke_off = |_| Refusal::Invalid { message: "the body broke off".to_owned(), param: None };
            let Ok(piece) = frame.map_err(broke_off)?.into_data() else { continue };
            self.read += piece.len();
            if self.read > self.max {
                return Err(Refusal::TooLarge);
            }
            return Ok(Some(piece));
        }
    }
}

fn length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A body as it comes: most are one piece, which is then never copied.
#[derive(Default)]
struct Pieces {
    first: Bytes,
    all: BytesMut,
}

impl Pieces {
    /// So much room is made at once at the most: a length is only a promise.
    const MAX_PROMISED: usize = 1024 * 1024;

    fn push(&mut self, bytes: Bytes, promised: Option<usize>) {
        if self.len() == 0 {
            self.first = bytes;
            return;
        }
        if self.all.is_empty() {
            self.all.reserve(promised.unwrap_or(0).min(Self::MAX_PROMISED));
            self.all.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.all.extend_from_slice(&bytes);
    }

    fn len(&self) -> usize {
        self.first.len() + self.all.len()
    }

    fn whole(self) -> Bytes {
        if self.all.is_empty() { self.first } else { self.all.freeze() }
    }
}
