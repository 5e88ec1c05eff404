//! Log Analytics: is its endpoint found, and does it take what the gateway sends?
//!
//! It is asked with an array without a row: who may not send is told so, and nothing is written.

use url::Url;

use super::{Doctor, Report, bounded, in_time};
use crate::config::catalog::is_loopback;
use crate::ports::{LogFailure, with_causes};

pub(super) async fn examine(doctor: &Doctor<'_>, report: &Report) {
    let Some(logs) = &doctor.logs else { return };
    let report = report.about("log analytics", None);
    let host = logs.endpoint.host_str().unwrap_or_default();
    if !is_loopback(host) && !is_found(doctor, &logs.endpoint, logs.suffix, &report).await {
        return;
    }
    match bounded(logs.asked.send(&[])).await {
        // Whether it takes an array without rows is not written down anywhere; that it reads it is enough.
        Some(Ok(()) | Err(LogFailure::BadRows(_) | LogFailure::TooLarge)) => report.ok(
            "log_analytics_takes",
            format!("{host} takes the gateway's token for the rule {}", logs.rule_id),
        ),
        Some(Err(LogFailure::Refused(why))) => {
            report.fault("log_analytics_refuses", format!("{host} takes no rows of the ledger"), why);
        }
        Some(Err(failure @ LogFailure::Unavailable { .. })) => {
            unreachable(host, &with_causes(&failure), &report);
        }
        None => unreachable(host, "no answer in time", &report),
    }
}

/// Whether the name is one of this cloud's, and resolves.
async fn is_found(doctor: &Doctor<'_>, endpoint: &Url, suffix: &str, report: &Report) -> bool {
    let host = endpoint.host_str().unwrap_or_default();
    if !host.ends_with(suffix) {
        report.fault(
            "wrong_logs_endpoint",
            format!("{host} is no logs ingestion endpoint of this cloud: their names end in {suffix}"),
            "set TOLLGATE_LOGS_ENDPOINT to the rule's own (`az monitor data-collection rule show --query \
             endpoints.logsIngestion`), or TOLLGATE_CLOUD to its cloud",
        );
        return false;
    }
    let why = match in_time(doctor.resolver.addresses(host)).await {
        Some(Ok(addresses)) if !addresses.is_empty() => return true,
        Some(Ok(_)) => "no address".to_owned(),
        Some(Err(error)) => error.to_string(),
        None => "no answer in time".to_owned(),
    };
    report.fault(
        "name_unresolved",
        format!("{host} does not resolve: {why}"),
        format!("mend TOLLGATE_LOGS_ENDPOINT; with a private endpoint, link the zone privatelink{suffix} to the app's network"),
    );
    false
}

fn unreachable(host: &str, why: &str, report: &Report) {
    report.fault(
        "log_analytics_unreachable",
        format!("{host} cannot be reached, or fails: {why}"),
        "let the app reach port 443 of it (the service tag AzureMonitor); usage waits in the ledger meanwhile",
    );
}
