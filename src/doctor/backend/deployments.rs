//! Does the sign-in hold, and has the backend the deployments that it is said to have?

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use futures_util::stream;

use super::asking::{Meaning, Words};
use super::{Credential, Patient};
use crate::domain::diagnosis::Diagnosis;
use crate::domain::ids::Name;

/// Asked at once: a resource may have hundreds, and limits how often it is asked.
const AT_ONCE: usize = 4;

/// Whether the backend let the gateway in; what was found is told.
pub(super) async fn are_there(patient: &Patient<'_>, credential: &Credential) -> bool {
    let names = names(patient);
    let Some((first, rest)) = names.split_first() else {
        return is_let_in(patient, credential).await;
    };
    // What refuses the first for a reason that is not the deployment's would refuse them all.
    if !tell(patient, first, patient.post(first, credential).await) {
        return false;
    }
    let answers = stream::iter(rest).map(|name| async move { (name, patient.post(name, credential).await) });
    let mut answers = std::pin::pin!(answers.buffered(AT_ONCE));
    while let Some((name, meaning)) = answers.next().await {
        tell(patient, name, meaning);
    }
    true
}

/// The backend's own names of what it is said to have: mapped, or named by products and prices.
fn names(patient: &Patient<'_>) -> Vec<String> {
    let catalog = &patient.found.configured.catalog;
    let names: BTreeSet<&str> = if let Some(mapped) = &patient.backend.deployments {
        mapped.values().map(Name::as_str).collect()
    } else {
        let products = catalog.products.values().filter_map(|product| product.deployments.as_ref());
        let prices =
            catalog.prices.0.iter().filter(|price| {
                price.backend.as_ref().is_none_or(|backend| *backend == patient.backend.name)
            });
        let in_prices = prices.filter_map(|price| price.deployment.as_ref());
        products.flatten().chain(in_prices).map(Name::as_str).collect()
    };
    names.into_iter().map(str::to_owned).collect()
}

/// Says what an answer on a deployment means; `false` when it is not about the deployment.
fn tell(patient: &Patient<'_>, name: &str, meaning: Meaning) -> bool {
    let report = &patient.report;
    let version = &patient.found.doctor.api_version;
    match meaning {
        Meaning::Good => {
            report.ok("deployment", format!("lets the gateway in; it has the deployment `{name}`"));
        }
        Meaning::Throttled => {
            report.ok("deployment", format!("lets the gateway in; the deployment `{name}` is busy just now"));
        }
        Meaning::Refused(Diagnosis::DeploymentMissing, _) => {
            let context = patient.context(Some(name));
            let diagnosis = Diagnosis::DeploymentMissing;
            let (what, mend) = (diagnosis.what(&context), diagnosis.mend(&context));
            if patient.backend.deployments.is_some() {
                report.fault(diagnosis.code(), what, mend);
            } else {
                // Nobody said that it has it, but requests for it will come here.
                report.warn(diagnosis.code(), format!("{what}, and it is asked for each one"), mend);
            }
        }
        Meaning::NoSuchPath => {
            report.fault(
                "api_version_refused",
                format!("does not take the api-version {version} for the deployment `{name}`"),
                "let callers use one that it takes; `tollgate doctor --api-version` asks with another one",
            );
            return false;
        }
        Meaning::Refused(diagnosis, words) => {
            refuse(patient, diagnosis, &words, Some(name));
            return false;
        }
        Meaning::Failing(why) => {
            fail(patient, &why);
            return false;
        }
    }
    true
}

async fn is_let_in(patient: &Patient<'_>, credential: &Credential) -> bool {
    let report = &patient.report;
    let version = &patient.found.doctor.api_version;
    match patient.models(credential).await {
        Meaning::Good | Meaning::Throttled => {
            report.ok(
                "let_in",
                "lets the gateway in; no product, price or mapping names a deployment to look for",
            );
            return true;
        }
        Meaning::NoSuchPath => report.warn(
            "api_version_refused",
            format!("does not list its models for the api-version {version}"),
            "name deployments in `deployments`, products or prices: each is looked for then",
        ),
        Meaning::Refused(diagnosis, words) => refuse(patient, diagnosis, &words, None),
        Meaning::Failing(why) => fail(patient, &why),
    }
    false
}

fn refuse(patient: &Patient<'_>, diagnosis: Diagnosis, words: &Words, deployment: Option<&str>) {
    let mut context = patient.context(deployment);
    context.principal = context.principal.or(words.principal.as_deref());
    let what = format!("{} ({})", diagnosis.what(&context), words.said);
    let mend = match diagnosis {
        Diagnosis::Unknown => "look at the resource's access control and networking in the portal".to_owned(),
        known => known.mend(&context),
    };
    patient.report.fault(diagnosis.code(), what, mend);
}

fn fail(patient: &Patient<'_>, why: &str) {
    patient.report.warn(
        "failing",
        format!("does not say whether it lets the gateway in: {why}"),
        "ask again; if it stays so, look at the resource's health in the portal",
    );
}
