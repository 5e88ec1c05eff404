//! `POST /reports/reconciliation`: a file of Azure's figures in, ours beside them out.

use axum::Json;
use axum::extract::{RawQuery, Request, State};
use rust_decimal::Decimal;
use schemars::JsonSchema;
use serde::Serialize;

use super::{month, parameters};
use crate::app::App;
use crate::ledger::reconcile::azure::{self, FileKind};
use crate::ledger::reconcile::{Line, Reconciliation, Side};
use crate::routes::extract::{self, Admin};
use crate::routes::respond::Refused;

/// A month of a large company's exports, of this service alone.
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;
/// What two systems that count alike may differ by: their days end at other moments.
const AGREES_PER_THOUSAND: u32 = 5;

pub(in crate::routes) async fn compare(
    State(app): State<App>,
    _: Admin,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Json<Answer>, Refused> {
    let month = month(&parameters(query, &["month"])?, app.ledger.clock.now())?;
    let (parts, body) = request.into_parts();
    let bytes = extract::body(&parts.headers, body, MAX_FILE_BYTES).await?;
    // A large file takes a while, which other requests must not wait for.
    let read = tokio::task::spawn_blocking(move || azure::read(&bytes)).await;
    let file = read.map_err(|_| Refused::invalid("the file could not be read", None))?;
    let file = file.map_err(|unknown| Refused::invalid(unknown.to_string(), None))?;
    Ok(Json(Answer::from(app.ledger.reconcile(month, file).await?)))
}

/// Ours and Azure's figures, by resource and deployment.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Reconciliation")]
pub(in crate::routes) struct Answer {
    month: String,
    /// `metrics` or `cost_export`.
    file: String,
    /// The first and the last day that the file has: only these are compared. Null: it names no days.
    days: Option<(String, String)>,
    currency: String,
    azure_currency: Option<String>,
    /// Figures of other months, which were not looked at.
    outside: usize,
    lines: Vec<Compared>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReconciliationLine")]
struct Compared {
    resource: String,
    /// The gateway's backends that lead to it; none: it is not the gateway's.
    backends: Vec<String>,
    /// As the resource calls it; null where the file does not tell them apart.
    deployment: Option<String>,
    agrees: bool,
    ours: Figures,
    azure: Figures,
    difference: Differences,
    /// What explains a difference, as far as it is known.
    explanations: Vec<String>,
    days: Vec<ComparedDay>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReconciliationDay")]
struct ComparedDay {
    day: String,
    ours: Figures,
    azure: Figures,
}

/// What the file does not have is null on either side.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReconciliationFigures")]
struct Figures {
    requests: Option<u64>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cost: Option<String>,
}

/// Ours less Azure's, and in percent of Azure's.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ReconciliationDifference")]
struct Differences {
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cost: Option<String>,
    tokens_percent: Option<String>,
    cost_percent: Option<String>,
}

/// Which figures can be compared at all.
#[derive(Clone, Copy)]
struct Comparable {
    tokens: bool,
    requests: bool,
    cost: bool,
}

impl From<Reconciliation> for Answer {
    fn from(of: Reconciliation) -> Self {
        let has = Comparable {
            tokens: of.has_tokens,
            requests: of.has_requests,
            cost: of
                .azure_currency
                .as_ref()
                .is_some_and(|theirs| theirs.is_empty() || *theirs == of.currency),
        };
        Self {
            month: of.month.to_string(),
            file: of.kind.word().to_owned(),
            days: of.days.map(|(first, last)| (first.to_string(), last.to_string())),
            lines: of.lines.iter().map(|line| compared(&of, line, has)).collect(),
            currency: of.currency,
            azure_currency: of.azure_currency,
            outside: of.outside,
        }
    }
}

fn compared(of: &Reconciliation, line: &Line, has: Comparable) -> Compared {
    let (ours, azures) = (&line.ours, &line.azures);
    let tokens = |side: &Side| Decimal::from(side.input_tokens) + Decimal::from(side.output_tokens);
    let whole = |ours: u64, azures: u64| has.tokens.then(|| ours.cast_signed() - azures.cast_signed());
    let agrees =
        (!has.tokens || agree(tokens(ours), tokens(azures))) && (!has.cost || agree(ours.cost, azures.cost));
    let days = line.days.iter().map(|(day, (ours, azures))| ComparedDay {
        day: day.to_string(),
        ours: figures(ours, has),
        azure: figures(azures, has),
    });
    Compared {
        resource: line.resource.clone(),
        backends: line.backends.iter().cloned().collect(),
        deployment: line.deployment.clone(),
        agrees,
        ours: figures(ours, has),
        azure: figures(azures, has),
        difference: Differences {
            input_tokens: whole(ours.input_tokens, azures.input_tokens),
            output_tokens: whole(ours.output_tokens, azures.output_tokens),
            cost: has.cost.then(|| (ours.cost - azures.cost).normalize().to_string()),
            tokens_percent: has.tokens.then(|| percent(tokens(ours), tokens(azures))).flatten(),
            cost_percent: has.cost.then(|| percent(ours.cost, azures.cost)).flatten(),
        },
        explanations: if agrees { Vec::new() } else { explanations(of, line, has) },
        days: days.collect(),
    }
}

fn figures(side: &Side, has: Comparable) -> Figures {
    Figures {
        requests: has.requests.then_some(side.requests),
        input_tokens: has.tokens.then_some(side.input_tokens),
        output_tokens: has.tokens.then_some(side.output_tokens),
        cost: has.cost.then(|| side.cost.to_string()),
    }
}

fn agree(ours: Decimal, azures: Decimal) -> bool {
    let allowed = ours.max(azures).checked_mul(Decimal::new(AGREES_PER_THOUSAND.into(), 3));
    allowed.is_some_and(|allowed| (ours - azures).abs() <= allowed)
}

/// Of Azure's; `None`: it has none.
fn percent(ours: Decimal, azures: Decimal) -> Option<String> {
    let parts = (ours - azures).checked_div(azures)?.checked_mul(Decimal::ONE_HUNDRED)?;
    Some(parts.round_dp(2).normalize().to_string())
}

fn explanations(of: &Reconciliation, line: &Line, has: Comparable) -> Vec<String> {
    let mut said = Vec::new();
    let mut say = |holds: bool, text: String| {
        if holds {
            said.push(text);
        }
    };
    let tokens = |side: &Side| side.input_tokens + side.output_tokens;
    let (ours, azures) = (tokens(&line.ours), tokens(&line.azures));
    let of_deployment = line.deployment.is_some();
    say(
        line.backends.is_empty(),
        "not_through_gateway: this resource is no backend of the gateway".to_owned(),
    );
    say(
        !line.backends.is_empty() && has.tokens && azures > ours,
        "not_through_gateway: Azure counts more: calls that went past the gateway, with a key or a role of their own, or \
         attempts that failed on their way back"
            .to_owned(),
    );
    say(
        has.tokens && ours > azures,
        "azure_is_late: the ledger has more: Azure's metrics come minutes late, its costs up to three days; or the file leaves \
         something out"
            .to_owned(),
    );
    say(
        line.estimated_requests > 0,
        format!(
            "estimated: {} requests were counted by a tokenizer, as their callers hung up or their backend reported nothing",
            line.estimated_requests
        ),
    );
    say(
        has.cost && line.unpriced_requests > 0,
        format!(
            "unpriced: {} requests have no price here, and are in no cost of ours",
            line.unpriced_requests
        ),
    );
    say(
        has.cost && ours == azures && has.tokens,
        "prices: tokens agree and costs do not: the price book differs from what Azure bills, in a price, a discount or a \
         reservation"
            .to_owned(),
    );
    say(
        !has.cost && of.kind == FileKind::CostExport,
        format!("other_currency: the file is not in {}: costs are not compared", of.currency),
    );
    say(
        has.tokens && !of_deployment && of.kind == FileKind::Metrics,
        "not_split: the file does not tell deployments apart: ask Azure Monitor with `--filter \"ModelDeploymentName eq '*'\"`"
            .to_owned(),
    );
    said
}
