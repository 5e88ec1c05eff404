//! The event hub: is it found, and does it take what the gateway sends?
//!
//! It is asked with a batch without an event: who may not send is told so, and nothing is published.

use super::{Doctor, Hub, Report, bounded, in_time};
use crate::config::catalog::is_loopback;
use crate::ports::{Undelivered, with_causes};

pub(super) async fn examine(doctor: &Doctor<'_>, report: &Report) {
    let report = report.about("event hub", None);
    let Some(hub) = &doctor.event_hub else {
        if doctor.settings.is_on_azure {
            report.fault(
                "no_event_hub",
                "none is set: usage is posted by the instance that had it, and lost with that if it is in trouble",
                "`az functionapp config appsettings set --name APP --resource-group GROUP --settings \
                 UsageEventHub__fullyQualifiedNamespace=NAMESPACE.servicebus.windows.net USAGE_EVENTHUB_NAME=HUB`",
            );
        }
        return;
    };
    let host = hub.endpoint.host_str().unwrap_or_default();
    if !is_loopback(host) && !is_found(doctor, hub, host, &report).await {
        return;
    }
    match bounded(hub.asked.look()).await {
        Some(Ok(())) => report.ok(
            "event_hub_takes",
            format!("{host} takes the gateway's token for the event hub `{}`", hub.name),
        ),
        Some(Err(Undelivered::Refused(why))) => {
            report.fault("event_hub_refuses", format!("{host} takes no usage events"), why);
        }
        Some(Err(error)) => unreachable(host, &with_causes(&error), &report),
        None => unreachable(host, "no answer in time", &report),
    }
}

/// Whether the name is one of this cloud's, and resolves.
async fn is_found(doctor: &Doctor<'_>, hub: &Hub, host: &str, report: &Report) -> bool {
    if !host.ends_with(hub.suffix) {
        let what =
            format!("{host} is no Event Hubs namespace of this cloud: their names end in {}", hub.suffix);
        let mend = "set UsageEventHub__fullyQualifiedNamespace to the namespace's own name, or TOLLGATE_CLOUD to \
                    its cloud";
        report.fault("wrong_namespace", what, mend);
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
        format!(
            "mend UsageEventHub__fullyQualifiedNamespace; with a private endpoint, link the zone {} to the app's \
             network",
            hub.zone
        ),
    );
    false
}

fn unreachable(host: &str, why: &str, report: &Report) {
    report.fault(
        "event_hub_unreachable",
        format!("{host} cannot be reached, or fails: {why}"),
        "let the app reach port 443 of it: look at the namespace's network rules, the app's network security group \
         and the firewall on the way",
    );
}
