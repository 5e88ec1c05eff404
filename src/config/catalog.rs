//! Backends, products and prices, every name resolved.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::SecretString;
use url::Url;

use super::file;
use super::timeouts::Timeouts;
use super::{Fault, Faults};
use crate::domain::capacity::Capacity;
use crate::domain::ids::{DeploymentName, Name};
use crate::domain::limit::Limits;
use crate::domain::price::{DeploymentType, PriceBook, Priced, Rate};
use crate::domain::usage::OnUnsafe;

mod callers;
mod money;
mod sign_in;

pub use callers::EntraCallers;
pub use money::Billing;

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
    /// By the callers' names, where it is known.
    pub deployment_types: BTreeMap<DeploymentName, DeploymentType>,
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
        let prices = money::check_prices(file.prices, &currency, &written, faults);
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

    /// The capacity that is paid for by the hour, by its backend.
    pub fn capacities(&self) -> BTreeMap<String, Capacity> {
        let provisioned = self.backends.iter();
        let capacities = provisioned
            .filter_map(|backend| Some((backend.name.as_str().to_owned(), backend.billing.capacity()?)));
        capacities.collect()
    }

    /// What is paid for such a request; `None`: it has no price.
    pub fn rate(&self, what: Priced<'_>) -> Option<Arc<Rate>> {
        let backend = self.backends.iter().find(|known| known.name.as_str() == what.backend);
        let deployment_type = backend.and_then(|known| known.deployment_types.get(what.deployment)).copied();
        self.prices.find(what, deployment_type).map(|price| Arc::clone(&price.rate))
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
        check_types(&file, &place, faults);
        let name = unique_name(file.name, &mut names, &place, faults);
        let endpoint = file.endpoint.as_deref().unwrap_or_default();
        let endpoint = check_endpoint(endpoint, &place, faults);
        let is_loopback = endpoint.as_ref().is_some_and(|(_, is_loopback)| *is_loopback);
        let auth = sign_in::check(file.auth.unwrap_or_default(), is_loopback, &place, faults);
        let billing = money::check_billing(&file.billing.unwrap_or_default(), &place, faults);
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
                deployment_types: file.deployment_types,
                billing,
            }));
        }
    }
    backends
}

/// A type of a deployment that the backend does not have is a slip of the pen.
fn check_types(file: &file::Backend, place: &str, faults: &mut Vec<Fault>) {
    let Some(deployments) = &file.deployments else { return };
    for name in file.deployment_types.keys().filter(|name| !deployments.contains_key(*name)) {
        let message = "this backend's `deployments` do not have it";
        faults.push(Fault::new(format!("{place}.deployment_types.{name}"), message));
    }
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

#[cfg(test)]
mod tests;
