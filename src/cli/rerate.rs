//! `tollgate rerate`: applies today's price book to a past period, after showing what that changes.

use std::sync::Arc;

use serde_json::{Value, json};
use time::macros::format_description;
use time::{Date, Duration, Month};

use super::import::wait_for_configuration;
use super::serve::{configuration, last_writes};
use super::{Error, run_on_runtime};
use crate::config::settings::{Environment, Settings};
use crate::ledger::rerate::{Preview, Sum};
use crate::wiring::{self, Wired};

/// The flags of `tollgate rerate`.
#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("period").required(true).args(["month", "from"]))]
pub(super) struct Arguments {
    /// A UTC month, such as 2026-10.
    #[arg(long, value_parser = month, conflicts_with_all = ["from", "to"])]
    month: Option<(Date, Date)>,
    /// The first UTC day, such as 2026-10-01.
    #[arg(long, value_parser = day, requires = "to")]
    from: Option<Date>,
    /// The day behind the last.
    #[arg(long, value_parser = day, requires = "from")]
    to: Option<Date>,
    /// Do it. Without this flag nothing is changed, and only what would be is shown.
    #[arg(long)]
    apply: bool,
    /// Say it in JSON.
    #[arg(long)]
    json: bool,
}

fn day(text: &str) -> Result<Date, String> {
    Date::parse(text, format_description!("[year]-[month]-[day]"))
        .map_err(|_| "not a day: such as 2026-10-01".to_owned())
}

/// The first day, and the one behind the last.
fn month(text: &str) -> Result<(Date, Date), String> {
    let first = day(&format!("{text}-01")).map_err(|_| "not a month: such as 2026-10")?;
    let days = first.month().length(first.year());
    Ok((first, first.checked_add(Duration::days(days.into())).unwrap_or(Date::MAX)))
}

impl Arguments {
    fn period(&self) -> Result<(Date, Date), Error> {
        let named = self.month.or_else(|| Some((self.from?, self.to?)));
        // The arguments' parser sees to it that there is one.
        let (from, to) = named.unwrap_or((Date::MIN, Date::MIN));
        if from >= to {
            return Err("--to is the day behind the last: it must be after --from".into());
        }
        // Earlier than any usage there is; the calendar of the ledger begins there.
        let first = Date::from_calendar_date(1970, Month::January, 1)?;
        Ok((from.max(first), to.max(first)))
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Error> {
    let (from, to) = arguments.period()?;
    let settings = Settings::read(&Environment)?;
    let config = Arc::new(configuration(&settings)?);
    run_on_runtime(async {
        let Wired { app, tasks } = wiring::wire(&settings, config, None).await?;
        wait_for_configuration(&app).await?;
        let preview = app.ledger.preview_rerating(from, to).await?;
        let rows = if arguments.apply { Some(app.ledger.rerate(from, to).await?) } else { None };
        drop(app);
        last_writes(&tasks).await;
        if arguments.json {
            println!("{}", serde_json::to_string_pretty(&as_json(&preview, (from, to), rows))?);
        } else {
            say(&preview, (from, to), rows);
        }
        Ok(())
    })
}

fn as_json(preview: &Preview, (from, to): (Date, Date), rows: Option<u64>) -> Value {
    let sum = |sum: &Sum| json!({"cost": sum.cost.to_string(), "unpriced_requests": sum.unpriced_requests});
    let lines: Vec<_> = preview
        .lines
        .iter()
        .map(|line| {
            json!({
                "deployment": line.deployment, "model": line.model, "backend": line.backend,
                "requests": line.requests, "before": sum(&line.before), "after": sum(&line.after),
            })
        })
        .collect();
    json!({
        "from": from.to_string(), "to": to.to_string(), "currency": preview.currency,
        "requests": preview.requests, "before": sum(&preview.before), "after": sum(&preview.after),
        "changes": lines, "applied": rows.is_some(), "rows_changed": rows,
    })
}

fn say(preview: &Preview, (from, to): (Date, Date), rows: Option<u64>) {
    let sum = |sum: &Sum| match sum.unpriced_requests {
        0 => format!("{} {}", sum.cost, preview.currency),
        unpriced => format!("{} {} and {unpriced} requests without a price", sum.cost, preview.currency),
    };
    for line in &preview.lines {
        let model = line.model.as_deref().unwrap_or("no model named");
        println!(
            "{} ({}) at {}: {} requests, {} -> {}",
            line.deployment.escape_debug(),
            model.escape_debug(),
            line.backend.escape_debug(),
            line.requests,
            sum(&line.before),
            sum(&line.after)
        );
    }
    println!(
        "{from} to {to} (exclusive), {} requests in all: {} -> {}",
        preview.requests,
        sum(&preview.before),
        sum(&preview.after)
    );
    match rows {
        Some(rows) => println!("{rows} rows of the ledger were rated anew"),
        None if preview.lines.is_empty() => println!("nothing to change: they are rated so already"),
        None => println!("nothing was changed yet: add --apply to do it"),
    }
}
