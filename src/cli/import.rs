//! `tollgate import apim`: subscriptions of API Management, with the keys that they have there. Never shows a key.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::serve::{configuration, last_writes};
use super::{Error, run_on_runtime};
use crate::app::App;
use crate::config::settings::{Environment, Settings};
use crate::domain::actor::Actor;
use crate::domain::ids::Name;
use crate::issuing::{Arrived, Refusal};
use crate::wiring::{self, Wired};

mod export;

use export::{File, Product, Products, Subscription};

/// How long a configuration from Key Vault is waited for.
const PATIENCE: Duration = Duration::from_secs(30);

/// What `tollgate import` takes in.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Command {
    /// Take in the subscriptions of an API Management service, with the keys that they have there.
    ///
    /// Needs the settings that `serve` has: the database, the pepper and the configuration. What is here
    /// already stays as it is, so that it can be run again. docs/MOVING.md has a script that makes the file.
    Apim(Arguments),
}

/// The flags of `tollgate import apim`.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The export, in JSON: `{"subscriptions": […], "products": […]}`.
    file: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// Say it in JSON.
    #[arg(long)]
    json: bool,
    /// The gateway's product for those of a product there, such as `starter=standard`; may be repeated.
    #[arg(long = "product", value_name = "THERE=HERE", value_parser = renamed)]
    products: Vec<(String, Name)>,
    /// The gateway's product for those that are for an API, or for all APIs.
    #[arg(long, value_name = "NAME", value_parser = name)]
    default_product: Option<Name>,
}

fn renamed(text: &str) -> Result<(String, Name), String> {
    let (there, here) = text.split_once('=').ok_or("write it as THERE=HERE")?;
    Ok((there.to_owned(), name(here)?))
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.to_string())
}

/// What became of one line of the file.
#[derive(Serialize)]
struct Line {
    kind: &'static str,
    id: String,
    /// `imported`, `would_import`, `unchanged`, `configured`, `missing` or `failed`.
    outcome: &'static str,
    message: String,
}

pub(super) fn run(Command::Apim(arguments): &Command) -> Result<(), Error> {
    let shown = arguments.file.display();
    let text =
        std::fs::read_to_string(&arguments.file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let file: File = serde_json::from_str(&text).map_err(|_| {
        // What serde says may quote a key.
        format!(
            "{shown} is not an export of API Management's subscriptions: it must be a JSON object with the list \
             `subscriptions`, each with `name` and `properties`; docs/MOVING.md has a script that makes one"
        )
    })?;
    let settings = Settings::read(&Environment)?;
    let config = Arc::new(configuration(&settings)?);
    run_on_runtime(async {
        let Wired { app, tasks } = wiring::wire(&settings, config, None).await?;
        wait_for_configuration(&app).await?;
        let lines = take_in(&app, file, arguments).await;
        drop(app);
        last_writes(&tasks).await;
        say(&lines?, arguments)
    })
}

pub(super) async fn wait_for_configuration(app: &App) -> Result<(), Error> {
    let there = async {
        while app.issuing.config.catalog().is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, there).await;
    waited.map_err(|_| "the gateway configuration cannot be read: `tollgate doctor` says why".into())
}

async fn take_in(app: &App, file: File, arguments: &Arguments) -> Result<Vec<Line>, Error> {
    let products = Products {
        renamed: arguments.products.iter().cloned().collect(),
        otherwise: arguments.default_product.clone(),
    };
    let (subscriptions, listed) = file.into_lists();
    let mut lines: Vec<_> = listed.iter().map(|product| product_line(app, product, &products)).collect();
    for subscription in subscriptions {
        lines.push(subscription_line(app, subscription, &products, arguments.dry_run).await?);
    }
    Ok(lines)
}

/// Products are part of the configuration, which no command writes.
fn product_line(app: &App, product: &Product, products: &Products) -> Line {
    let here = products.renamed.get(&product.name).map_or(product.name.as_str(), Name::as_str);
    let is_there = app.issuing.config.catalog().is_ok_and(|catalog| catalog.products.contains_key(here));
    let (outcome, message) = if is_there {
        ("configured", format!("its subscriptions come to the product `{here}`"))
    } else {
        let advice =
            "add it to the gateway configuration, with the limits that its policies set, or name another";
        ("missing", format!("there is no product `{here}`: {advice} with --product {}=NAME", product.name))
    };
    Line { kind: "product", id: product.name.clone(), outcome, message }
}

/// # Errors
/// When the database cannot be reached: what follows would fail as well.
async fn subscription_line(
    app: &App,
    subscription: Subscription,
    products: &Products,
    rehearse: bool,
) -> Result<Line, Error> {
    let id = subscription.name.clone();
    let line = |outcome, message: String| Ok(Line { kind: "subscription", id: id.clone(), outcome, message });
    let arrival = match subscription.arrive(products) {
        Ok(arrival) => arrival,
        Err(why) => return line("failed", why),
    };
    let (new_id, product, state) =
        (arrival.id.clone(), arrival.application.product.clone(), arrival.state.word());
    let author = app.issuing.author(Actor::CommandLine, None);
    match app.issuing.take_in(arrival, rehearse, &author).await {
        Ok(Arrived::New) if rehearse => {
            line("would_import", format!("as `{new_id}`, product `{product}`, {state}"))
        }
        Ok(Arrived::New) => line("imported", format!("as `{new_id}`, product `{product}`, {state}")),
        Ok(Arrived::Here) => line("unchanged", format!("is here already, as `{new_id}`")),
        Ok(Arrived::HereWithOtherKeys) => {
            line("unchanged", format!("`{new_id}` is here already, with other keys: it stays as it is"))
        }
        Ok(Arrived::KeyOf(other)) => line("failed", format!("one of its keys is that of `{other}`")),
        Ok(Arrived::KeyForm) => line(
            "failed",
            "a key has not the form of API Management's own, 32 hexadecimal digits: regenerate it there, or issue \
             a subscription here"
                .to_owned(),
        ),
        Err(Refusal::Unavailable(error)) => Err(crate::ports::with_causes(&error).into()),
        Err(refusal) => line("failed", refusal.to_string()),
    }
}

fn say(lines: &[Line], arguments: &Arguments) -> Result<(), Error> {
    let count = |outcomes: &[&str]| lines.iter().filter(|line| outcomes.contains(&line.outcome)).count();
    let (new, same) = (count(&["imported", "would_import"]), count(&["unchanged"]));
    let failed = count(&["failed", "missing"]);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(lines)?);
    } else {
        for Line { kind, id, outcome, message } in lines {
            println!("{outcome:<12} {kind} `{}`: {message}", id.escape_debug());
        }
        let verb = if arguments.dry_run { "would be imported" } else { "imported" };
        println!("{new} {verb}, {same} unchanged, {failed} failed");
    }
    if failed > 0 { Err(format!("{failed} of {} could not be taken in", lines.len()).into()) } else { Ok(()) }
}
