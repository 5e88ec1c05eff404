//! Whether callers' Entra tokens can be judged: the keys that each of their tenants signs with.

use futures_util::future::join_all;

use super::{Doctor, Report, in_time};
use crate::config::catalog::EntraCallers;

pub(super) async fn examine(doctor: &Doctor<'_>, callers: &EntraCallers, report: &Report) {
    let questions = callers.tenants().map(async |tenant| {
        let report = report.about("tenant", Some(tenant));
        match in_time(doctor.signing_keys.count(tenant)).await {
            Some(Ok(count)) => {
                report.ok("signing_keys", format!("Entra publishes {count} signing keys for it"));
            }
            Some(Err(error)) => no_keys(&report, &error),
            None => no_keys(&report, "no answer"),
        }
    });
    join_all(questions).await;
}

fn no_keys(report: &Report, error: &str) {
    report.fault(
        "no_signing_keys",
        format!("its callers get 503, as Entra's signing keys for it cannot be had: {error}"),
        "let the app reach Entra's login over HTTPS (the service tag AzureActiveDirectory), and compare \
         `callers.entra.tenants` with `az account show --query tenantId`",
    );
}
