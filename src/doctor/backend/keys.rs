//! Are the resource's keys shut off, where the gateway needs none?

use secrecy::SecretString;

use super::asking::Meaning;
use super::{Credential, Patient};
use crate::config::catalog::is_loopback;
use crate::domain::diagnosis::{self, Diagnosis};

/// Made up, and says so in the resource's logs.
const MADE_UP: &str = "tollgate-doctor-made-this-up";

/// Asks with a key that cannot be one: who checks it takes keys.
pub(super) async fn are_refused(patient: &Patient<'_>) {
    let Some(credential) = Credential::key(&SecretString::from(MADE_UP)) else { return };
    let Patient { host, report, .. } = patient;
    match patient.post("none", &credential).await {
        Meaning::Refused(Diagnosis::KeysDisabled, _) => {
            report.ok("keys_disabled", format!("{host} takes no keys"));
        }
        Meaning::Refused(Diagnosis::KeyRefused, _) => {
            let resource = diagnosis::resource_name(host).unwrap_or("RESOURCE");
            report.warn(
                "keys_enabled",
                format!("{host} still takes keys, and the gateway needs none: whoever has one goes past it"),
                format!(
                    "`az resource update --ids \"{}\" --set properties.disableLocalAuth=true`",
                    diagnosis::resource_id(resource)
                ),
            );
        }
        // A simulator that asks for nothing.
        _ if is_loopback(host) => {}
        _ => report.warn(
            "keys_unclear",
            format!("{host} does not say whether it takes keys"),
            "`az cognitiveservices account show --name RESOURCE --resource-group GROUP --query \
             properties.disableLocalAuth` says it",
        ),
    }
}
