//! Keeps the configuration that holds, and the secrets that it names, up to what the vault has.
//!
//! Never takes a part of a configuration, and never gives one up for a worse one: a faulty configuration is
//! refused whole, and while the vault cannot be read the last good one stays, with its secrets.
//!
//! # When the vault cannot be read
//! It is tried again, soon at first and then every [`LOOK_EVERY`], for as long as the process lives. A
//! gateway that never had a configuration refuses calls meanwhile; one that has one goes on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use secrecy::{ExposeSecret as _, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::catalog::Catalog;
use crate::config::live::{Absent, Cause, Live, Standing, Trouble};
use crate::ports::{Backends, Clock, Secret, SecretFailure, Secrets, with_causes};

/// A change must hold within 60 s, and the vault may take ten of them, twice.
pub const LOOK_EVERY: Duration = Duration::from_secs(30);
/// After a look that failed; doubled with each, up to [`LOOK_EVERY`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks, however often one is called for.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
/// A vault answers thousands of reads in ten seconds; connections are what this spares.
const AT_ONCE: usize = 8;

/// What the journey needs.
pub struct Renewal {
    pub config: Arc<Live>,
    pub clock: Arc<dyn Clock>,
    pub secrets: Arc<dyn Secrets>,
    pub backends: Arc<dyn Backends>,
    pub tasks: TaskTracker,
    /// Where the configuration is, unless it is a file's and stays.
    pub place: Option<Place>,
}

/// Where a configuration lies in a vault.
#[derive(Clone, Debug)]
pub struct Place {
    /// The secret's name.
    pub secret: String,
    /// The vault and the secret, for an operator.
    pub shown: String,
}

/// What was seen at the looks before this one.
#[derive(Default)]
struct Seen {
    /// The configuration as it was read last, and what was wrong with it.
    config: Option<(Secret, Option<Cause>)>,
    /// What was said last of each secret that is missing.
    missing: BTreeMap<String, String>,
    failures: u32,
    /// For how long the vault asked to be left alone.
    retry_after: Option<Duration>,
}

/// What a look at the configuration found.
enum Found {
    New(Box<Catalog>, Option<String>),
    /// What was there before, or a faulty one.
    AsBefore,
}

impl Renewal {
    /// Looks at once and then again and again, until `stop`.
    pub async fn keep_up(self, stop: CancellationToken) {
        let mut seen = Seen::default();
        if let Some(place) = &self.place {
            self.config.stand(Standing { source: place.shown.clone(), ..Standing::default() });
        }
        self.prepare();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.look(&mut seen) => {}
            }
            if self.place.is_none() && self.names_no_secret() {
                return;
            }
            let pause = seen.pause();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.called(pause) => {}
            }
        }
    }

    /// A file's configuration stays, so this does.
    fn names_no_secret(&self) -> bool {
        self.config.catalog().is_ok_and(|catalog| catalog.secret_names().is_empty())
    }

    async fn called(&self, pause: Duration) {
        tokio::time::sleep(LEAST_PAUSE.min(pause)).await;
        self.config.called_for_a_look().await;
    }

    async fn look(&self, seen: &mut Seen) {
        seen.retry_after = None;
        let found = match &self.place {
            Some(place) => self.look_at_config(place, seen).await,
            None => Some(Found::AsBefore),
        };
        let is_whole = match (&found, self.config.catalog()) {
            // Before it holds: its first request shall find them.
            (Some(Found::New(catalog, _)), _) => self.look_at_secrets(catalog, seen).await,
            // Without a new configuration the old one's secrets may be new.
            (_, Ok(catalog)) => self.look_at_secrets(&catalog, seen).await,
            (_, Err(_)) => true,
        };
        let is_read = found.is_some();
        if let (Some(Found::New(catalog, version)), Some(place)) = (found, &self.place) {
            self.take_up(place, *catalog, version);
        }
        seen.failures = if is_read && is_whole { 0 } else { seen.failures.saturating_add(1) };
    }

    /// `None` when it could not be read.
    async fn look_at_config(&self, place: &Place, seen: &mut Seen) -> Option<Found> {
        let secret = match self.secrets.read(&place.secret).await {
            Ok(Some(secret)) => secret,
            Ok(None) => {
                let name = &place.secret;
                self.unreadable(
                    place,
                    format!(
                        "there is no secret `{name}`: write the configuration there with `az keyvault secret \
                         set --name {name} --file gateway.json --vault-name VAULT`"
                    ),
                );
                return None;
            }
            Err(failure) => {
                seen.retry_after = retry_after(&failure);
                self.unreadable(place, with_causes(&failure));
                return None;
            }
        };
        if let Some((_, cause)) = seen.config.as_ref().filter(|(before, _)| is_same(before, &secret)) {
            self.readable_again(place, cause.clone());
            return Some(Found::AsBefore);
        }
        let version = secret.version.clone();
        match Catalog::parse_secret(secret.value.expose_secret(), &place.shown) {
            Ok(catalog) => {
                seen.config = Some((secret, None));
                Some(Found::New(Box::new(catalog), version))
            }
            Err(faults) => {
                let told: Vec<_> = faults.faults.iter().map(ToString::to_string).collect();
                tracing::error!(
                    config.source = %place.shown, config.version = version.as_deref().unwrap_or_default(),
                    "the newest configuration is refused, {}: {}", self.what_holds(), told.join("; ")
                );
                let cause = Cause::Faulty { version, faults };
                self.in_trouble(place, cause.clone());
                seen.config = Some((secret, Some(cause)));
                Some(Found::AsBefore)
            }
        }
    }

    fn take_up(&self, place: &Place, catalog: Catalog, version: Option<String>) {
        tracing::info!(
            config.source = %place.shown, config.version = version.as_deref().unwrap_or_default(),
            "a configuration with {} backends holds now, from {}", catalog.backends.len(), place.shown
        );
        let since = Some(self.clock.now());
        self.config.hold(catalog, Standing { source: place.shown.clone(), version, since, trouble: None });
        self.prepare();
    }

    /// Gets the tokens that the backends need, behind everything else.
    fn prepare(&self) {
        if let Ok(catalog) = self.config.catalog() {
            let backends = Arc::clone(&self.backends);
            self.tasks.spawn(async move { backends.prepare(&catalog).await });
        }
    }

    /// Gets the values of all secrets that a configuration names. False when some could not be asked for.
    async fn look_at_secrets(&self, catalog: &Catalog, seen: &mut Seen) -> bool {
        let names: Vec<String> = catalog.secret_names().into_iter().map(str::to_owned).collect();
        let read = stream::iter(names).map(async |name| {
            let found = self.secrets.read(&name).await;
            (name, found)
        });
        let read: Vec<_> = read.buffer_unordered(AT_ONCE).collect().await;
        let mut values = self.values_in_use(catalog);
        let mut missing = BTreeMap::new();
        let mut is_whole = true;
        for (name, found) in read {
            let (value, why) = match found {
                Ok(Some(secret)) => (Ok(secret.value), None),
                Ok(None) => {
                    let why = format!(
                        "there is no secret `{name}`: `az keyvault secret set --name {name} --vault-name VAULT`"
                    );
                    (Err(Absent::Refused(why.clone())), Some(why))
                }
                Err(failure) => {
                    is_whole = false;
                    seen.retry_after = seen.retry_after.max(retry_after(&failure));
                    let why = with_causes(&failure);
                    let absent = match failure {
                        SecretFailure::Refused(_) => Absent::Refused(why.clone()),
                        SecretFailure::Unavailable { .. } => Absent::Unread(why.clone()),
                    };
                    // Whether the old one is still good is not known: it is used.
                    (self.config.secret(&name).or(Err(absent)), Some(why))
                }
            };
            missing.extend(why.map(|why| (name.clone(), why)));
            values.insert(name, value);
        }
        tell_missing(&seen.missing, &missing);
        seen.missing = missing;
        self.config.hold_secrets(values);
        is_whole
    }

    /// Secrets that only the configuration before this one names: requests that hold it still ask for them.
    fn values_in_use(&self, next: &Catalog) -> BTreeMap<String, Result<SecretString, Absent>> {
        let Ok(now) = self.config.catalog() else { return BTreeMap::new() };
        let next = next.secret_names();
        let old = now.secret_names().into_iter().filter(|name| !next.contains(name));
        old.map(|name| (name.to_owned(), self.config.secret(name))).collect()
    }

    fn unreadable(&self, place: &Place, why: String) {
        let before = self.config.standing().trouble;
        if !matches!(&before, Some(Trouble { cause: Cause::Unreadable(said), .. }) if *said == why) {
            tracing::error!(
                config.source = %place.shown,
                "the configuration cannot be read from {}, {}: {why}", place.shown, self.what_holds()
            );
        }
        self.in_trouble(place, Cause::Unreadable(why));
    }

    /// The vault answers again, with what it had before: that may be a faulty one.
    fn readable_again(&self, place: &Place, faulty: Option<Cause>) {
        let mut standing = self.config.standing();
        let Some(Trouble { cause: Cause::Unreadable(_), .. }) = &standing.trouble else { return };
        tracing::info!(config.source = %place.shown, "the configuration can be read again");
        if let Some(cause) = faulty {
            return self.in_trouble(place, cause);
        }
        standing.trouble = None;
        self.config.stand(standing);
    }

    fn in_trouble(&self, place: &Place, cause: Cause) {
        let mut standing = self.config.standing();
        standing.source.clone_from(&place.shown);
        let since = match (standing.trouble, &cause) {
            (Some(Trouble { since, cause: Cause::Unreadable(_) }), Cause::Unreadable(_)) => since,
            (Some(before), _) if before.cause == cause => before.since,
            _ => self.clock.now(),
        };
        standing.trouble = Some(Trouble { since, cause });
        self.config.stand(standing);
    }

    fn what_holds(&self) -> &'static str {
        if self.config.catalog().is_ok() { "the last good one stays" } else { "and there is none yet" }
    }
}

impl Seen {
    fn pause(&self) -> Duration {
        let Some(doublings) = self.failures.checked_sub(1) else { return LOOK_EVERY };
        let pause = FIRST_PAUSE.saturating_mul(2_u32.saturating_pow(doublings));
        pause.max(self.retry_after.unwrap_or_default()).min(LOOK_EVERY)
    }
}

/// Says of each missing secret why it is missing, when that is new.
fn tell_missing(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) {
    for (name, why) in now.iter().filter(|(name, why)| before.get(*name) != Some(*why)) {
        tracing::error!(secret = %name, "the secret `{name}` that the configuration names cannot be had: {why}");
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        tracing::info!(secret = %name, "the secret `{name}` is not missed any more");
    }
}

fn is_same(one: &Secret, other: &Secret) -> bool {
    one.version == other.version && one.value.expose_secret() == other.value.expose_secret()
}

fn retry_after(failure: &SecretFailure) -> Option<Duration> {
    match failure {
        SecretFailure::Unavailable { retry_after, .. } => *retry_after,
        SecretFailure::Refused(_) => None,
    }
}

#[cfg(test)]
mod tests;
