//! An export of Cost Management, or its usage details, as CSV.

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive as _;

use super::{Figure, File, FileKind, Unknown, account_of};
use crate::domain::calendar;

/// What a column may be called, without spaces and in small letters: the first that is there counts.
const DATE: &[&str] = &["date", "usagedate", "usagedatetime", "chargeperiodstart"];
const RESOURCE: &[&str] = &["resourceid", "instanceid", "instancename"];
const COST: &[&str] =
    &["costinbillingcurrency", "cost", "pretaxcost", "billedcost", "effectivecost", "costinpricingcurrency"];
const CURRENCY: &[&str] =
    &["billingcurrency", "billingcurrencycode", "currency", "currencycode", "pricingcurrency"];
const QUANTITY: &[&str] = &["quantity", "usagequantity", "consumedquantity"];
const METER: &[&str] = &["metername", "meter", "x_skumetername", "skumeter"];
const UNIT: &[&str] = &["unitofmeasure", "consumedunit", "pricingunit"];

/// Where the columns are.
struct Columns {
    date: Option<usize>,
    resource: usize,
    cost: usize,
    currency: Option<usize>,
    quantity: Option<usize>,
    meter: Option<usize>,
    unit: Option<usize>,
}

impl Columns {
    fn of(header: &csv::StringRecord) -> Result<Self, Unknown> {
        let names: Vec<String> =
            header.iter().map(|name| name.trim().replace([' ', '-'], "").to_ascii_lowercase()).collect();
        let find =
            |known: &[&str]| known.iter().find_map(|name| names.iter().position(|there| there == name));
        let missing = |what: &str, known: &[&str]| {
            Unknown(format!(
                "there is no column of {what}, such as {}",
                known[..known.len().min(3)].join(", ")
            ))
        };
        Ok(Self {
            date: find(DATE),
            resource: find(RESOURCE).ok_or_else(|| missing("resources", RESOURCE))?,
            cost: find(COST).ok_or_else(|| missing("costs", COST))?,
            currency: find(CURRENCY),
            quantity: find(QUANTITY),
            meter: find(METER),
            unit: find(UNIT),
        })
    }
}

pub(super) fn read(bytes: &[u8]) -> Result<File, Unknown> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let unreadable = |error: csv::Error| Unknown(format!("it is no CSV in UTF-8: {error}"));
    let columns = Columns::of(reader.headers().map_err(unreadable)?)?;
    let mut file = File { kind: FileKind::CostExport, ..File::default() };
    for row in reader.records() {
        let row = row.map_err(unreadable)?;
        let at = |column: Option<usize>| column.and_then(|column| row.get(column)).unwrap_or_default().trim();
        // What is no Azure OpenAI is not ours to compare.
        let Some(resource) = account_of(at(Some(columns.resource))) else { continue };
        let line = row.position().map_or(0, csv::Position::line);
        let cost = decimal(at(Some(columns.cost)))
            .ok_or_else(|| Unknown(format!("line {line} has no cost that can be read")))?;
        let currency = at(columns.currency);
        match &file.currency {
            Some(known) if !currency.is_empty() && known != currency => {
                return Err(Unknown(format!("its costs are in {known} and in {currency}: one at a time")));
            }
            Some(_) => {}
            None => file.currency = Some(currency.to_owned()),
        }
        let (input_tokens, output_tokens) =
            tokens(at(columns.meter), at(columns.unit), at(columns.quantity)).unwrap_or_default();
        file.has_tokens |= input_tokens + output_tokens > 0;
        let date = at(columns.date);
        let day = date.get(..10).and_then(calendar::day).or_else(|| calendar::american_day(date));
        file.figures.push(Figure { resource, day, input_tokens, output_tokens, cost, ..Figure::default() });
    }
    Ok(file)
}

/// A number, with an exponent if need be.
fn decimal(text: &str) -> Option<Decimal> {
    text.parse().ok().or_else(|| Decimal::from_scientific(text).ok())
}

/// Tokens in and out, of a meter such as `gpt 4o 0806 Inp glbl Tokens` in units such as `1K`.
fn tokens(meter: &str, unit: &str, quantity: &str) -> Option<(u64, u64)> {
    let meter = meter.to_ascii_lowercase();
    if !meter.contains("token") {
        return None;
    }
    let digits: String = unit.chars().take_while(char::is_ascii_digit).collect();
    let number: Decimal = if digits.is_empty() { Decimal::ONE } else { digits.parse().ok()? };
    let thousands = match unit[digits.len()..].trim_start().chars().next() {
        Some('K' | 'k') => 1_000,
        Some('M' | 'm') => 1_000_000,
        _ => 1,
    };
    let count = decimal(quantity)?.checked_mul(number)?.checked_mul(Decimal::from(thousands))?;
    let count = count.round().to_u64()?;
    let is_of = |words: &[&str]| words.iter().any(|word| meter.contains(word));
    if is_of(&["outp", "opt", "completion"]) {
        Some((0, count))
    } else if is_of(&["inp", "prompt"]) {
        Some((count, 0))
    } else {
        None
    }
}
