//! Is the endpoint's name the right one, and does it resolve to where it should?

use std::net::IpAddr;

use super::Patient;
use crate::config::catalog::{Auth, is_loopback};
use crate::doctor::in_time;
use crate::domain::diagnosis::{self, Diagnosis};

/// Whether a certificate and Entra can know the resource by this name.
pub(super) fn is_right(patient: &Patient<'_>) -> bool {
    let Patient { host, backend, report, .. } = patient;
    if let Some(plain) = diagnosis::without_privatelink(host) {
        report.fault(
            "privatelink_name",
            format!("no certificate has the name {host}: it is the private zone's, not the resource's"),
            format!(
                "set `endpoint` of backend `{}` to https://{plain}; the private zone answers for that name",
                backend.name
            ),
        );
        return false;
    }
    let is_regional = host.contains(".api.cognitive.");
    if is_regional && matches!(backend.auth, Auth::Entra { .. }) {
        let context = patient.context(None);
        report.fault(
            Diagnosis::WrongEndpoint.code(),
            format!(
                "{host} is a region's name, and Entra tokens are taken by a resource's own subdomain only"
            ),
            Diagnosis::WrongEndpoint.mend(&context),
        );
        return false;
    }
    true
}

/// The addresses of the endpoint; `None` when it has none, or others than it should, which was told:
/// no credential goes a way that nobody wants.
pub(super) async fn resolves(patient: &Patient<'_>) -> Option<Vec<IpAddr>> {
    let Patient { host, report, .. } = patient;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = bare.parse() {
        return Some(vec![address]);
    }
    let answer = in_time(patient.found.doctor.resolver.addresses(host)).await;
    let (addresses, why) = match answer {
        Some(Ok(addresses)) => (addresses, "no address".to_owned()),
        Some(Err(error)) => (Vec::new(), error.to_string()),
        None => (Vec::new(), "no answer in time".to_owned()),
    };
    if addresses.is_empty() {
        report.fault("name_unresolved", format!("{host} does not resolve: {why}"), unresolved(host));
        return None;
    }
    (is_loopback(host) || is_as_said(patient, &addresses)).then_some(addresses)
}

fn unresolved(host: &str) -> String {
    let check =
        "compare it with `az cognitiveservices account list --query \"[].properties.endpoint\" -o tsv`";
    match (diagnosis::private_zone(host), diagnosis::resource_name(host)) {
        (Some(zone), Some(resource)) => format!(
            "{check}; where the private DNS zone `{zone}` is linked to the app's virtual network, it must have the \
             record `{resource}`: `az network private-dns record-set a list --resource-group GROUP --zone-name {zone}`"
        ),
        _ => check.to_owned(),
    }
}

/// Public or private, and is that as it was said to be?
fn is_as_said(patient: &Patient<'_>, addresses: &[IpAddr]) -> bool {
    let Patient { host, backend, report, .. } = patient;
    let list = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let public = addresses.iter().find(|address| !is_private(**address));
    match public {
        Some(public) if backend.private_endpoint => {
            let zone = diagnosis::private_zone(host);
            let zone = zone.as_deref().unwrap_or("the resource's `privatelink` zone");
            report.fault(
                "not_private",
                format!(
                    "{host} resolves to {public}, which is public, and `private_endpoint` is true: the private DNS \
                     zone `{zone}` is missing, has no record for it, or is not linked to the app's virtual network"
                ),
                format!(
                    "`az network private-dns link vnet create --resource-group GROUP --zone-name {zone} --name \
                     tollgate --virtual-network VNET-ID --registration-enabled false`, with the app integrated into \
                     that network and the private endpoint's DNS zone group set"
                ),
            );
            return false;
        }
        Some(_) => report.ok("name_resolves", format!("{host} resolves to {list}")),
        None => report.ok("name_private", format!("{host} resolves to {list}, which is private")),
    }
    true
}

/// Whether an address is one of a private network, by RFC 1918, 6598 and 4193.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let is_shared = v4.octets()[0] == 100 && (64..128).contains(&v4.octets()[1]);
            v4.is_private() || v4.is_loopback() || v4.is_link_local() || is_shared
        }
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => is_private(IpAddr::V4(v4)),
            None => v6.is_unique_local() || v6.is_loopback() || v6.is_unicast_link_local(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_networks_are_known() {
        for (address, private) in [
            ("10.0.0.4", true),
            ("172.31.0.1", true),
            ("172.32.0.1", false),
            ("192.168.1.1", true),
            ("100.64.0.1", true),
            ("100.128.0.1", false),
            ("20.42.65.85", false),
            ("fd00::4", true),
            ("::ffff:10.0.0.4", true),
            ("2603:1030::4", false),
        ] {
            assert_eq!(is_private(address.parse().unwrap()), private, "{address}");
        }
    }
}
