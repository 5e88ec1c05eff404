//! What lies around the gateway: its settings, its folder, its database.

use std::fs;
use std::path::Path;

use tokio::sync::mpsc::UnboundedSender;

use super::{Doctor, Finding, Report, Subject, Unfit, bounded};
use crate::config::Fault;
use crate::config::settings::{DatabasePlace, Settings, Source};

/// The settings; without good ones nothing else can be looked at, and all that is wrong is told.
pub fn settings(source: &dyn Source, findings: &UnboundedSender<Finding>) -> Option<Settings> {
    let subject = Subject { kind: "settings", name: None };
    let report = Report { subject, findings: findings.clone() };
    match Settings::read(source) {
        Ok(settings) => {
            report.ok("settings", "every setting can be read");
            Some(settings)
        }
        Err(faults) => {
            for Fault { place, message } in faults.faults {
                let mend = if message.contains("Key Vault reference") {
                    format!(
                        "`az functionapp config appsettings list --name APP --resource-group GROUP --query \
                         \"[?name=='{place}']\"` shows the reference, and the portal why it has no value"
                    )
                } else {
                    format!(
                        "`az functionapp config appsettings set --name APP --resource-group GROUP --settings \
                         {place}=…`"
                    )
                };
                report.fault("setting_faulty", format!("{place} {message}"), mend);
            }
            report.warn("not_examined", "nothing else was looked at", "mend the settings, and ask again");
            None
        }
    }
}

pub(super) async fn examine(doctor: &Doctor<'_>, report: &Report) {
    for name in &doctor.settings.inactive {
        let mend = "leave it out, or wait for the version that needs it";
        report.warn("setting_inactive", format!("{name} does nothing in this version yet"), mend);
    }
    if doctor.settings.is_on_azure {
        on_azure(doctor, report);
    }
    let folder = report.about("data folder", None);
    match writable(&doctor.settings.data_dir) {
        Ok(()) => {
            folder
                .ok("data_dir_writable", format!("{} can be written to", doctor.settings.data_dir.display()));
        }
        Err(error) => folder.fault(
            "data_dir_unwritable",
            format!("{} cannot be written to: {error}", doctor.settings.data_dir.display()),
            "set TOLLGATE_DATA_DIR to a folder that the app may write to",
        ),
    }
    let database = report.about("database", None);
    match bounded(doctor.database.look()).await {
        Some(Ok(said)) => database.ok("database_opens", said),
        Some(Err(Unfit { what, mend })) => database.fault("database_unusable", what, mend),
        None => database.fault(
            "database_silent",
            "it does not answer",
            "end whatever holds it, or set TOLLGATE_DATABASE_URL to another one",
        ),
    }
}

/// There, HTTP functions and the trigger run on different instances, and instances come and go.
fn on_azure(doctor: &Doctor<'_>, report: &Report) {
    if matches!(doctor.settings.database, DatabasePlace::Sqlite(_)) {
        report.about("database", None).fault(
            "sqlite_on_azure",
            "it is a SQLite file, and each instance on Azure would have one of its own, which goes with the instance",
            "set TOLLGATE_DATABASE_URL to `postgres://ROLE@SERVER.postgres.database.azure.com/DATABASE`, or keep the \
             app at one instance and expect to lose keys and ledger with it",
        );
    }
}

/// Makes the folder as a start would, and a file that is gone again.
fn writable(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let file = folder.join(format!("doctor-{}", std::process::id()));
    fs::write(&file, b"x")?;
    fs::remove_file(&file)
}
