//! `GET /reports/backends`: how each backend does, as this instance has met it, and which configuration
//! holds.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::extract::Admin;
use crate::app::App;
use crate::config::catalog::Billing;
use crate::config::live::{Cause, Standing, Trouble};
use crate::domain::breaker::{Fitness, Why};
use crate::domain::units::UnixMillis;
use crate::proxy::{BackendReport, DeploymentReport, LastFailure, Quantiles};

/// Of one backend. Where a product allows every deployment its callers make names up, and an answer has a
/// bound; those that are not well come first.
const MAX_DEPLOYMENTS: usize = 100;

/// `GET /reports/backends`
pub(super) async fn report(State(app): State<App>, _: Admin) -> Json<Value> {
    let (now, config) = (app.proxy.clock.now(), &app.proxy.config);
    // Without a configuration there are no backends, and the reason is the very thing to be told.
    let backends = config.catalog().map(|catalog| app.proxy.pool.report(&catalog)).unwrap_or_default();
    let items: Vec<_> = backends.iter().map(|backend| item(backend, now)).collect();
    Json(json!({"configuration": configuration(&config.standing()), "items": items, "next": null}))
}

fn configuration(standing: &Standing) -> Value {
    json!({
        "source": standing.source,
        "version": standing.version,
        "since": standing.since,
        "trouble": standing.trouble.as_ref().map(trouble),
    })
}

fn trouble(trouble: &Trouble) -> Value {
    match &trouble.cause {
        Cause::Faulty { version, faults } => {
            let faults =
                faults.faults.iter().map(|fault| json!({"place": fault.place, "message": fault.message}));
            json!({
                "since": trouble.since, "kind": "faulty", "version": version,
                "faults": faults.collect::<Vec<_>>(),
            })
        }
        Cause::Unreadable(message) => {
            json!({"since": trouble.since, "kind": "unreadable", "message": message})
        }
    }
}

fn item(report: &BackendReport, now: UnixMillis) -> Value {
    let backend = &report.backend;
    let (state, since) = state(&report.deployments);
    let shown = report.deployments.iter().take(MAX_DEPLOYMENTS);
    let billing = match backend.billing {
        Billing::PayAsYouGo => "pay_as_you_go",
        Billing::Provisioned { .. } => "provisioned",
    };
    json!({
        "name": backend.name, "endpoint": backend.endpoint.as_str().trim_end_matches('/'), "region": backend.region,
        "priority": backend.priority, "weight": backend.weight, "billing": billing,
        "state": state, "since": since,
        "in_flight": report.in_flight, "requests": report.requests, "answered": report.answered,
        "throttled": report.throttled, "failures": report.failures,
        "latency_ms": report.latency.as_ref().map(quantiles),
        "last_failure": report.last_failure.as_ref().map(last_failure),
        "deployments": shown.map(|one| deployment(one, now)).collect::<Vec<_>>(),
        "deployments_in_all": report.deployments.len(),
    })
}

/// A backend's state in one word, and since when: of all that is not well, the latest.
fn state(deployments: &[DeploymentReport]) -> (&'static str, Option<UnixMillis>) {
    let is_ill = |one: &&DeploymentReport| matches!(one.fitness, Fitness::Resting(..) | Fitness::Watched(..));
    let ill: Vec<_> = deployments.iter().filter(is_ill).collect();
    if ill.is_empty() {
        return ("ready", deployments.iter().filter_map(|one| one.since).max());
    }
    let word = if ill.len() == deployments.len() { "resting" } else { "degraded" };
    (word, ill.iter().filter_map(|one| one.since).max())
}

fn deployment(report: &DeploymentReport, now: UnixMillis) -> Value {
    let (state, why, left) = match report.fitness {
        Fitness::Fit => ("ready", None, None),
        // It is asked again when somebody comes.
        Fitness::Due(why) => ("recovering", Some(why), None),
        Fitness::Watched(why, _) => ("probing", Some(why), None),
        Fitness::Resting(why, left) => ("resting", Some(why), Some(left)),
    };
    let until =
        left.map(|left| UnixMillis(now.0.saturating_add(i64::try_from(left.as_millis()).unwrap_or(0))));
    json!({
        "deployment": report.deployment, "state": state, "reason": why.map(reason),
        "since": report.since, "until": until,
    })
}

fn reason(why: Why) -> &'static str {
    match why {
        Why::Throttled => "throttled",
        Why::Failed => "failed",
        Why::Misconfigured => "misconfigured",
    }
}

fn quantiles(latency: &Quantiles) -> Value {
    // To a tenth of a millisecond.
    let millis = |time: Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    json!({"p50": millis(latency.p50), "p90": millis(latency.p90), "p99": millis(latency.p99)})
}

fn last_failure(failure: &LastFailure) -> Value {
    json!({"at": failure.at, "kind": failure.kind, "message": failure.text})
}
