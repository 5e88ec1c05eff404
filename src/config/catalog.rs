//! Backends, products and prices, every name resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rust_decimal::Decimal;
use secrecy::SecretString;
use time::Date;
use time::macros::format_description;
use url::Url;

use super::file::{self, BillingKind};
use super::timeouts::Timeouts;
use super::{Fault, Faults};
use crate::domain::ids::{DeploymentName, Name};
use crate::domain::limit::Limits;
use crate::domain::price::{Price, PriceBook, Priced, Rate};
use crate::domain::usage::OnUnsafe;

mod callers;
mod sign_in;

pub use callers::EntraCallers;

/// The gateway configuration, checked.
#[derive(Debug)]
pub struct Catalog {
    /// In the order in which they are asked: by priority, then as written. Never empty.
    pub backends: Vec<Arc<Backend>>,
    pub products: BTreeMap<Name, Product>,
    pub prices: PriceBook,
    /// Of every price: ISO 4217, `USD` unless said otherwise.
    pub currency: String,
    pub timeouts: Timeouts,
    pub on_usage_unsafe: OnUnsafe,
    /// Who may call, and manage, with an Entra token; `None`: nobody.
    pub callers: Option<EntraCallers>,
}

/// One Azure OpenAI (or Foundry) resource.
#[derive(Debug)]
pub struct Backend {
    pub name: Name,
    /// Scheme and authority.
    pub endpoint: Url,
    pub region: Option<String>,
    /// Lower is asked first.
    pub priority: u32,
    /// The share inside one priority.
    pub weight: u32,
    pub auth: Auth,
    /// The name must resolve to a private address.
    pub private_endpoint: bool,
    /// The callers' names and the backend's own; `None`: names pass unchanged, all are served.
    pub deployments: Option<BTreeMap<DeploymentName, Name>>,
    pub billing: Billing,
}

/// How the gateway signs in to a backend.
#[derive(Debug)]
pub enum Auth {
    /// With the app's own identity; the audience when it is not the cloud's.
    Entra { audience: Option<String> },
    /// With a key that Key Vault keeps under this name.
    ApiKeySecret(String),
    /// With this key.
    ApiKey(SecretString),
    /// Not at all: a simulator on this machine.
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    PayAsYouGo,
    Provisioned { units: u32, hourly_price_per_unit: Decimal },
}

/// A named set of limits and allowed deployments.
#[derive(Debug)]
pub struct Product {
    pub name: Name,
    /// `None`: every deployment that a backend has.
    pub deployments: Option<BTreeSet<DeploymentName>>,
    /// Signed-in people may issue subscriptions of it to themselves.
    pub self_service: bool,
    pub limits: Limits,
}

impl Catalog {
    /// Reads and checks a configuration from a file.
    ///
    /// # Errors
    /// Every fault in it, with its JSON path.
    pub fn parse(text: &str, source_name: &str) -> Result<Self, Faults> {
        Self::read(file::read(text), source_name)
    }

    /// The same for one from a vault, where a key stands in a secret of its own.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_secret(text: &str, source_name: &str) -> Result<Self, Faults> {
        let (file, mut faults) = file::read(text);
        faults.extend(file.literal_keys());
        Self::read((file, faults), source_name)
    }

    fn read((file, mut faults): (file::File, Vec<Fault>), source_name: &str) -> Result<Self, Faults> {
        let is_readable = faults.is_empty();
        let catalog = Self::check(file, &mut faults, is_readable);
        if faults.is_empty() {
            Ok(catalog)
        } else {
            Err(Faults { source_name: source_name.to_owned(), faults })
        }
    }

    fn check(file: file::File, faults: &mut Vec<Fault>, is_readable: bool) -> Self {
        let written = Written::of(&file.backends);
        let mut backends = check_backends(file.backends, faults);
        if backends.is_empty() && is_readable {
            faults.push(Fault::new("backends", "at least one is needed"));
        }
        backends.sort_by_key(|backend| backend.priority);
        let products = check_products(file.products, &written, faults);
        let currency = file.currency.unwrap_or_else(|| "USD".to_owned());
        let prices = check_prices(file.prices, &currency, &written, faults);
        if currency.len() != 3 || !currency.bytes().all(|b| b.is_ascii_uppercase()) {
            faults.push(Fault::new("currency", "three capital letters, such as USD"));
        }
        let callers = callers::check(file.callers, faults);
        let timeouts = Timeouts::check(&file.timeouts, faults);
        let on_usage_unsafe = file.on_usage_unsafe;
        Self { backends, products, prices, currency, timeouts, on_usage_unsafe, callers }
    }

    /// Whether a backend is paid for by the hour. One that is not configured any more is not.
    pub fn is_provisioned(&self, backend: &str) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|known| known.name.as_str() == backend && known.billing != Billing::PayAsYouGo)
    }

    pub fn knows_backend(&self, name: &str) -> bool {
        self.backends.iter().any(|known| known.name.as_str() == name)
    }

    /// What is paid for such a request; `None`: it has no price.
    pub fn rate(&self, what: Priced<'_>) -> Option<Arc<Rate>> {
        self.prices.find(what).map(|price| Arc::clone(&price.rate))
    }

    /// The secrets that it names.
    pub fn secret_names(&self) -> BTreeSet<&str> {
        let mut names = BTreeSet::new();
        for backend in &self.backends {
            if let Auth::ApiKeySecret(name) = &backend.auth {
                names.insert(name.as_str());
            }
        }
        names
    }

    /// The backends that have a deployment, best first, with the name it has there.
    pub fn targets<'a>(&'a self, deployment: &'a DeploymentName) -> impl Iterator<Item = Target> + 'a {
        self.backends.iter().filter_map(move |backend| {
            let own_name = match &backend.deployments {
                None => deployment.clone(),
                Some(deployments) => deployments.get(deployment)?.clone(),
            };
            Some(Target { backend: Arc::clone(backend), deployment: own_name })
        })
    }
}

/// A backend, and the deployment to ask there.
#[derive(Clone, Debug)]
pub struct Target {
    pub backend: Arc<Backend>,
    /// The backend's own name for it.
    pub deployment: Name,
}

impl Product {
    pub fn allows(&self, deployment: &DeploymentName) -> bool {
        self.deployments.as_ref().is_none_or(|allowed| allowed.contains(deployment))
    }
}

/// What the file says that there is, faulty or not: a backend's own fault must not be told again of
/// everything that names it.
struct Written {
    backends: BTreeSet<Name>,
    /// `None`: some backend serves every deployment.
    deployments: Option<BTreeSet<DeploymentName>>,
}

impl Written {
    fn of(files: &[file::Backend]) -> Self {
        let deployments = |file: &file::Backend| Some(file.deployments.as_ref()?.keys().cloned().collect());
        let all: Option<Vec<BTreeSet<_>>> = files.iter().map(deployments).collect();
        Self {
            backends: files.iter().filter_map(|file| file.name.clone()).collect(),
            deployments: all.filter(|all| !all.is_empty()).map(|all| all.into_iter().flatten().collect()),
        }
    }
}

fn check_backends(files: Vec<file::Backend>, faults: &mut Vec<Fault>) -> Vec<Arc<Backend>> {
    let mut names = BTreeSet::new();
    let mut backends = Vec::new();
    for (index, file) in files.into_iter().enumerate() {
        let place = format!("backends[{index}]");
        let before = faults.len();
        let name = unique_name(file.name, &mut names, &place, faults);
        let endpoint = file.endpoint.as_deref().unwrap_or_default();
        let endpoint = check_endpoint(endpoint, &place, faults);
        let is_loopback = endpoint.as_ref().is_some_and(|(_, is_loopback)| *is_loopback);
        let auth = sign_in::check(file.auth.unwrap_or_default(), is_loopback, &place, faults);
        let billing = check_billing(&file.billing.unwrap_or_default(), &place, faults);
        for (field, number) in [("priority", file.priority), ("weight", file.weight)] {
            if number.is_some_and(|number| !(1..=1_000).contains(&number)) {
                faults.push(Fault::new(format!("{place}.{field}"), "between 1 and 1000"));
            }
        }
        if let (Some(name), Some((endpoint, _)), true) = (name, endpoint, faults.len() == before) {
            backends.push(Arc::new(Backend {
                name,
                endpoint,
                region: file.region,
                priority: file.priority.unwrap_or(1),
                weight: file.weight.unwrap_or(1),
                auth,
                private_endpoint: file.private_endpoint.unwrap_or(false),
                deployments: file.deployments,
                billing,
            }));
        }
    }
    backends
}

fn unique_name(
    name: Option<Name>,
    names: &mut BTreeSet<Name>,
    place: &str,
    faults: &mut Vec<Fault>,
) -> Option<Name> {
    match name {
        Some(name) if names.insert(name.clone()) => Some(name),
        Some(name) => {
            faults.push(Fault::new(format!("{place}.name"), format!("`{name}` stands twice")));
            None
        }
        // An unreadable name was said to be one already.
        None if faults.iter().any(|fault| fault.place == format!("{place}.name")) => None,
        None => {
            faults.push(Fault::new(format!("{place}.name"), "is missing"));
            None
        }
    }
}

/// The endpoint, and whether it is on this machine.
fn check_endpoint(text: &str, place: &str, faults: &mut Vec<Fault>) -> Option<(Url, bool)> {
    let mut fault = |message: &str| faults.push(Fault::new(format!("{place}.endpoint"), message));
    if text.is_empty() {
        fault("is missing: such as https://contoso-eastus.openai.azure.com");
        return None;
    }
    let Some((url, host)) =
        Url::parse(text).ok().and_then(|url| Some((url.clone(), url.host_str()?.to_owned())))
    else {
        fault("not a URL: such as https://contoso-eastus.openai.azure.com");
        return None;
    };
    let is_loopback = is_loopback(&host);
    match url.scheme() {
        "https" => {}
        "http" if is_loopback => {}
        _ => fault("must begin with https:// (http:// only on 127.0.0.1 or localhost)"),
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        fault("ends after the host: paths such as /openai are put behind it");
    }
    if !url.username().is_empty() || url.password().is_some() {
        fault("must not carry a user or a password");
    }
    Some((url, is_loopback))
}

/// Whether a URL's host is this machine.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn check_billing(file: &file::Billing, place: &str, faults: &mut Vec<Fault>) -> Billing {
    let place = format!("{place}.billing");
    match (file.kind.unwrap_or(BillingKind::PayAsYouGo), file.units, file.hourly_price_per_unit) {
        (BillingKind::PayAsYouGo, None, None) => Billing::PayAsYouGo,
        (BillingKind::Provisioned, Some(units), Some(hourly_price_per_unit)) if units > 0 => {
            Billing::Provisioned { units, hourly_price_per_unit }
        }
        (BillingKind::Provisioned, ..) => {
            let message = "`provisioned` needs `units`, at least 1, and `hourly_price_per_unit`";
            faults.push(Fault::new(place, message));
            Billing::PayAsYouGo
        }
        (BillingKind::PayAsYouGo, ..) => {
            let message = "`units` and `hourly_price_per_unit` go with the kind `provisioned`";
            faults.push(Fault::new(place, message));
            Billing::PayAsYouGo
        }
    }
}

fn check_products(
    files: Vec<file::Product>,
    written: &Written,
    faults: &mut Vec<Fault>,
) -> BTreeMap<Name, Product> {
    let mut names = BTreeSet::new();
    let mut products = BTreeMap::new();
    for (index, file) in files.into_iter().enumerate() {
        let place = format!("products[{index}]");
        let name = unique_name(file.name, &mut names, &place, faults);
        for (at, deployment) in file.deployments.iter().flatten().enumerate() {
            if written.deployments.as_ref().is_some_and(|all| !all.contains(deployment)) {
                let message = format!("no backend has the deployment `{deployment}`");
                faults.push(Fault::new(format!("{place}.deployments[{at}]"), message));
            }
        }
        for (field, message) in file.limits.faults() {
            faults.push(Fault::new(format!("{place}.limits.{field}"), message));
        }
        if let Some(name) = name {
            let product = Product {
                name: name.clone(),
                deployments: file.deployments.map(BTreeSet::from_iter),
                self_service: file.self_service,
                limits: file.limits,
            };
            products.insert(name, product);
        }
    }
    products
}

fn check_prices(
    files: Vec<file::Price>,
    currency: &str,
    written: &Written,
    faults: &mut Vec<Fault>,
) -> PriceBook {
    let mut prices = Vec::new();
    for (index, file) in files.into_iter().enumerate() {
        let place = format!("prices[{index}]");
        let before = faults.len();
        // An unreadable price was said to be one already.
        let is_told = faults.iter().any(|fault| fault.place == format!("{place}.input_per_million"));
        let mut fault =
            |field: &str, message: String| faults.push(Fault::new(format!("{place}{field}"), message));
        if file.deployment.is_none() && file.model.is_none() && file.backend.is_none() {
            fault("", "names no `deployment`, `model` or `backend`".to_owned());
        }
        if let Some(name) = file.backend.as_ref().filter(|name| !written.backends.contains(*name)) {
            fault(".backend", format!("there is no backend `{name}`"));
        }
        if file.input_per_million.is_none() && file.image_each.is_none() && !is_told {
            fault(
                ".input_per_million",
                "is missing: the price of a million tokens, such as \"0.15\"".to_owned(),
            );
        }
        let effective_from = file.effective_from.as_deref().unwrap_or("1970-01-01");
        let effective_from = Date::parse(effective_from, format_description!("[year]-[month]-[day]"));
        if effective_from.is_err() {
            fault(".effective_from", "not a day: such as 2024-07-18".to_owned());
        }
        if let (Ok(effective_from), true) = (effective_from, faults.len() == before) {
            prices.push(Price {
                rate: Arc::new(Rate::new(file.terms(currency))),
                deployment: file.deployment,
                model: file.model,
                backend: file.backend,
                effective_from,
            });
        }
    }
    PriceBook(prices)
}

#[cfg(test)]
mod tests;
