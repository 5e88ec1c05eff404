//! Ledger rows and Azure's own figures, side by side.
//!
//! Never changes a row: what differs is explained as far as it can be, and stays.

use std::collections::{BTreeMap, BTreeSet};

use rust_decimal::Decimal;
use time::Date;

use super::{Ledger, report};
use crate::config::catalog::{Backend, Catalog};
use crate::domain::calendar::{self, Month};
use crate::domain::units::UnixMillis;
use crate::ports::{Group, SumQuery, Sums, Unavailable};

pub mod azure;

use azure::{Figure, File, FileKind};

/// Figures of a month, ours and Azure's.
#[derive(Clone, Debug, PartialEq)]
pub struct Reconciliation {
    pub month: Month,
    pub kind: FileKind,
    /// The days that the file has, the first and the last: nothing else is compared. `None`: it names none.
    pub days: Option<(Date, Date)>,
    pub currency: String,
    /// The file's, if it has costs.
    pub azure_currency: Option<String>,
    pub has_tokens: bool,
    pub has_requests: bool,
    pub lines: Vec<Line>,
    /// Figures of other months, which were not looked at.
    pub outside: usize,
}

/// Of a resource and, where the file tells them apart, a deployment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Line {
    pub resource: String,
    /// Those of ours that lead there; none: it is no backend of this gateway.
    pub backends: BTreeSet<String>,
    /// The resource's own name for it.
    pub deployment: Option<String>,
    pub ours: Side,
    pub azures: Side,
    pub estimated_requests: u64,
    pub unpriced_requests: u64,
    pub days: BTreeMap<Date, (Side, Side)>,
}

/// Figures of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Side {
    pub requests: u64,
    pub input_tokens: u64,
    pub output_tokens: u64,
    pub cost: Decimal,
}

impl Side {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cost = (self.cost + other.cost).normalize();
    }
}

/// A resource, and perhaps a deployment.
type Key = (String, Option<String>);

impl Ledger {
    /// Holds a file of Azure's against what the ledger has of a month.
    ///
    /// # Errors
    /// When the store cannot be reached, or the prices have not been read.
    pub async fn reconcile(&self, month: Month, file: File) -> Result<Reconciliation, Unavailable> {
        let catalog = self.config.catalog()?;
        let is_of_month = |figure: &Figure| figure.day.is_none_or(|day| Month::of_date(day) == month);
        let (figures, outside): (Vec<_>, Vec<_>) = file.figures.into_iter().partition(is_of_month);
        let named: BTreeSet<Date> = figures.iter().filter_map(|figure| figure.day).collect();
        let days = named.first().copied().zip(named.last().copied());
        let now = UnixMillis(self.clock.now().0 + 1);
        let (from, to) = match days {
            None => (month.start(), month.end()),
            Some((first, last)) => {
                (calendar::start_of(first), calendar::start_of(last.next_day().unwrap_or(last)))
            }
        };
        let to = to.min(now).max(from);
        let group_by = vec![Group::Backend, Group::Deployment, Group::Day];
        let sums = self.store.sums(&SumQuery { from, to, group_by, provisioned_only: false }).await?;
        let by_deployment = figures.iter().any(|figure| figure.deployment.is_some());
        let mut lines: BTreeMap<Key, Line> = BTreeMap::new();
        for sums in &sums {
            add_ours(&mut lines, &catalog, sums, by_deployment);
        }
        if file.kind == FileKind::CostExport {
            add_capacity(&mut lines, &catalog, from, to);
        }
        for figure in &figures {
            add_azures(&mut lines, &catalog, figure);
        }
        let lines =
            lines.into_iter().map(|((resource, deployment), line)| Line { resource, deployment, ..line });
        Ok(Reconciliation {
            month,
            kind: file.kind,
            days,
            currency: catalog.currency.clone(),
            azure_currency: file.currency,
            has_tokens: file.has_tokens,
            has_requests: file.has_requests,
            lines: lines.collect(),
            outside: outside.len(),
        })
    }
}

/// What a backend's resource is called: the first part of its host.
fn resource_of(backend: &Backend) -> String {
    let host = backend.endpoint.host_str().unwrap_or_default().to_ascii_lowercase();
    // An address has no parts.
    let is_name = host.contains(|c: char| c.is_ascii_alphabetic());
    if is_name {
        host.split('.').next().unwrap_or_default().to_owned()
    } else {
        backend.name.as_str().to_lowercase()
    }
}

fn add_ours(lines: &mut BTreeMap<Key, Line>, catalog: &Catalog, sums: &Sums, by_deployment: bool) {
    let [Some(name), Some(deployment), day] = sums.group.as_slice() else { return };
    let backend = catalog.backends.iter().find(|backend| backend.name.as_str() == name);
    let resource = backend.map_or_else(|| name.to_lowercase(), |backend| resource_of(backend));
    let own = backend.and_then(|backend| backend.deployments.as_ref()?.get(deployment.as_str()));
    let own = own.map_or(deployment.as_str(), |own| own.as_str()).to_ascii_lowercase();
    let cost = report::cost(&catalog.currency, sums);
    let side = Side {
        requests: sums.requests,
        input_tokens: sums.counts.input_tokens,
        output_tokens: sums.counts.output_tokens,
        cost: *cost.as_ref().unwrap_or(&Decimal::ZERO),
    };
    let line = lines.entry((resource, by_deployment.then_some(own))).or_default();
    line.backends.insert(name.clone());
    line.ours.add(side);
    line.estimated_requests += sums.estimated_requests;
    line.unpriced_requests += if cost.is_err() { sums.used_requests } else { 0 };
    if let Some(day) = day.as_deref().and_then(calendar::day) {
        line.days.entry(day).or_default().0.add(side);
    }
}

/// Azure bills capacity by the hour, whether it was used or not.
fn add_capacity(lines: &mut BTreeMap<Key, Line>, catalog: &Catalog, from: UnixMillis, to: UnixMillis) {
    let hours = Decimal::from(from.hours_until(to));
    for backend in &catalog.backends {
        let Some(capacity) = backend.billing.capacity() else { continue };
        let line = lines.entry((resource_of(backend), None)).or_default();
        line.backends.insert(backend.name.as_str().to_owned());
        line.ours.add(Side { cost: capacity.hourly_cost * hours, ..Side::default() });
    }
}

fn add_azures(lines: &mut BTreeMap<Key, Line>, catalog: &Catalog, figure: &Figure) {
    let side = Side {
        requests: figure.requests,
        input_tokens: figure.input_tokens,
        output_tokens: figure.output_tokens,
        cost: figure.cost,
    };
    let line = lines.entry((figure.resource.clone(), figure.deployment.clone())).or_default();
    let known = catalog.backends.iter().filter(|backend| resource_of(backend) == figure.resource);
    line.backends.extend(known.map(|backend| backend.name.as_str().to_owned()));
    line.azures.add(side);
    if let Some(day) = figure.day {
        line.days.entry(day).or_default().1.add(side);
    }
}
