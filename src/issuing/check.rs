//! What may stand in a subscription's fields. Each fault names its field.

use super::{Application, Issuing, Refusal};
use crate::domain::ids::Name;
use crate::domain::limit::Limits;
use crate::domain::subscription::{Patch, State, Tags};
use crate::domain::units::UnixMillis;
use crate::ports::Unavailable;

/// As long as a name in the directories of large companies.
const MAX_TEXT_CHARS: usize = 256;
/// A page of text.
const MAX_NOTES_CHARS: usize = 4096;
/// As many as a resource in Azure may have.
const MAX_TAGS: usize = 50;

impl Issuing {
    pub(super) fn check(&self, application: &Application, now: UnixMillis) -> Result<(), Refusal> {
        let Application { name, product, owner, cost_center, limits, notes, tags, expires_at } = application;
        text("name", Some(name))?;
        text("owner", owner.as_ref())?;
        text("cost_center", cost_center.as_ref())?;
        check_limits(limits)?;
        check_notes(notes.as_ref())?;
        check_tags(tags)?;
        in_the_future(*expires_at, now)?;
        self.check_product(product)
    }

    pub(super) fn check_patch(&self, patch: &Patch, now: UnixMillis) -> Result<(), Refusal> {
        let Patch { name, product, state, owner, cost_center, limits, notes, tags, expires_at } = patch;
        text("name", name.as_ref())?;
        if *state == Some(State::Ended) {
            return invalid("state", "can be set to `active` or `suspended`: DELETE ends it for good");
        }
        text("owner", owner.as_ref().and_then(Option::as_ref))?;
        text("cost_center", cost_center.as_ref().and_then(Option::as_ref))?;
        if let Some(limits) = limits {
            check_limits(limits)?;
        }
        check_notes(notes.as_ref().and_then(Option::as_ref))?;
        if let Some(tags) = tags {
            check_tags(tags)?;
        }
        in_the_future(expires_at.flatten(), now)?;
        product.as_ref().map_or(Ok(()), |product| self.check_product(product))
    }

    pub(crate) fn check_product(&self, product: &Name) -> Result<(), Refusal> {
        let catalog = self.config.catalog().map_err(Unavailable::from)?;
        if catalog.products.contains_key(product) { Ok(()) } else { Err(Refusal::NoProduct(product.clone())) }
    }
}

fn invalid(field: &str, problem: impl Into<String>) -> Result<(), Refusal> {
    Err(Refusal::Invalid { field: field.to_owned(), problem: problem.into() })
}

fn text(field: &str, text: Option<&String>) -> Result<(), Refusal> {
    let Some(text) = text else { return Ok(()) };
    if text.trim().is_empty() {
        return invalid(field, "must not be empty");
    }
    if text.chars().count() > MAX_TEXT_CHARS {
        return invalid(field, format!("must have at most {MAX_TEXT_CHARS} characters"));
    }
    if text.chars().any(char::is_control) {
        return invalid(field, "must not have control characters");
    }
    Ok(())
}

fn check_notes(notes: Option<&String>) -> Result<(), Refusal> {
    let Some(notes) = notes else { return Ok(()) };
    if notes.chars().count() > MAX_NOTES_CHARS {
        return invalid("notes", format!("must have at most {MAX_NOTES_CHARS} characters"));
    }
    if notes.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t')) {
        return invalid("notes", "must not have control characters other than tabs and ends of lines");
    }
    Ok(())
}

fn check_tags(tags: &Tags) -> Result<(), Refusal> {
    if tags.len() > MAX_TAGS {
        return invalid("tags", format!("must be at most {MAX_TAGS}"));
    }
    for (name, value) in tags {
        let is_plain =
            |text: &str| text.chars().count() <= MAX_TEXT_CHARS && !text.chars().any(char::is_control);
        if name.trim().is_empty() || !is_plain(name) || !is_plain(value) {
            let shown: String = name.chars().filter(|c| !c.is_control()).take(40).collect();
            return invalid(
                &format!("tags.{shown}"),
                format!(
                    "must have a name, and name and value at most {MAX_TEXT_CHARS} characters, none a control \
                     character"
                ),
            );
        }
    }
    Ok(())
}

fn check_limits(limits: &Limits) -> Result<(), Refusal> {
    match limits.faults().first() {
        Some((field, problem)) => invalid(&format!("limits.{field}"), *problem),
        None => Ok(()),
    }
}

fn in_the_future(expires_at: Option<UnixMillis>, now: UnixMillis) -> Result<(), Refusal> {
    match expires_at {
        Some(expires_at) if expires_at <= now => invalid("expires_at", "must be in the future"),
        _ => Ok(()),
    }
}
