//! What is sent, what the data collection rule and the table take, and what the queries name, are one set of columns.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};
use tollgate::domain::price::{Rate, Terms};
use tollgate::ledger::ship::row;
use tollgate::ports::Entry;

use crate::azure::log_ingestion::STREAM;

const TABLE: &str = "TollgateUsage_CL";

fn infra(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("infra").join(name)
}

fn bicep() -> String {
    std::fs::read_to_string(infra("log-analytics.bicep")).unwrap()
}

/// Names and types of the list that the template makes both the table and the stream of.
fn declared() -> BTreeMap<String, String> {
    let bicep = bicep();
    let list = bicep.split_once("var columns = [").unwrap().1.split_once("\n]").unwrap().0;
    let column = |line: &str| {
        let parts: Vec<_> = line.split('\'').collect();
        let ["  { name: ", name, ", type: ", kind, " }"] = parts[..] else { panic!("{line}") };
        (name.to_owned(), kind.to_owned())
    };
    let columns: Vec<_> = list.lines().filter(|line| !line.is_empty()).map(column).collect();
    let map: BTreeMap<_, _> = columns.iter().cloned().collect();
    assert_eq!(map.len(), columns.len(), "a column stands there twice");
    map
}

/// A row with a value in every column.
fn full_row() -> BTreeMap<String, Value> {
    let event = json!({
        "schema": "tollgate.usage.v1", "id": "0192a000-0000-7000-8000-000000000001",
        "time": "2026-03-10T09:30:00.123Z", "subscription_id": "s1", "product": "standard", "cost_center": "4711",
        "end_user": "somebody", "operation": "chat.completions", "deployment": "d", "model": "m", "backend": "b",
        "region": "r", "attempts": 1, "status": 200, "stream": true, "outcome": "completed",
        "usage": {"source": "reported", "input_tokens": 12, "output_tokens": 34},
        "duration_ms": 812, "first_byte_ms": 240,
    });
    let terms = Terms {
        currency: "USD".to_owned(),
        input_per_million: Some("1".parse().unwrap()),
        output_per_million: Some("1".parse().unwrap()),
        ..Terms::default()
    };
    let rate = Some(Arc::new(Rate::new(terms)));
    let entry = Entry { event: serde_json::from_value(event).unwrap(), is_provisioned: false, rate };
    serde_json::from_str(&row::of(&entry).json).unwrap()
}

#[test]
fn the_table_and_the_rule_have_the_columns_that_are_sent() {
    let (declared, sent) = (declared(), full_row());
    assert!(declared.keys().eq(sent.keys()), "{:?} {:?}", declared.keys(), sent.keys());
    for (name, value) in &sent {
        let is_right = match declared[name].as_str() {
            "string" => value.is_string(),
            "datetime" => value.as_str().is_some_and(|text| text.ends_with('Z')),
            "int" | "long" => value.is_u64(),
            "real" => value.is_f64(),
            "boolean" => value.is_boolean(),
            other => panic!("{name} has the type {other}"),
        };
        assert!(is_right, "{name} is {value}, and declared {}", declared[name]);
    }
    let bicep = bicep();
    for needed in [
        "columns: columns\n",
        "columns: map(columns, column => {",
        "kind: 'Direct'",
        "3913510d-42f4-4e42-8a64-420c390055eb",
        &format!("param tableName string = '{TABLE}'"),
        &format!("var streamName = '{STREAM}'"),
    ] {
        assert!(bicep.contains(needed), "{needed}");
    }
}

/// Names that Azure Monitor keeps for itself, in any case:
/// <https://learn.microsoft.com/azure/azure-monitor/logs/create-custom-table>.
#[test]
fn no_column_has_a_name_that_azure_monitor_keeps_for_itself() {
    const RESERVED: [&str; 12] = [
        "type",
        "tenantid",
        "resource",
        "resourceid",
        "resourcename",
        "resourcetype",
        "subscriptionid",
        "tenanted",
        "uniqueid",
        "title",
        "id",
        "_resourceid",
    ];
    for name in declared().keys() {
        assert!(!RESERVED.contains(&name.to_lowercase().as_str()), "{name}");
        assert!(name.len() <= 45 && name.chars().all(|letter| letter.is_ascii_alphanumeric()), "{name}");
    }
}

#[test]
fn the_template_names_no_cloud() {
    let bicep = bicep();
    for name in [".com", ".us", ".cn", ".net", "azure.", "location: '"] {
        assert!(!bicep.contains(name), "{name}");
    }
}

/// The words of a query, without comments and texts, each with the sign behind it.
fn words(query: &str) -> Vec<(String, char)> {
    let code: String =
        query.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let code: String = code.split('"').step_by(2).collect::<Vec<_>>().join(" ");
    let mut words: Vec<(String, char)> = Vec::new();
    let mut word = String::new();
    for (at, letter) in code.char_indices().chain([(code.len(), '\n')]) {
        if letter.is_ascii_alphanumeric() || letter == '_' {
            word.push(letter);
        } else if !word.is_empty() {
            let rest = code[at..].trim_start();
            let sign = if rest.starts_with("==") { ' ' } else { rest.chars().next().unwrap_or(' ') };
            words.push((std::mem::take(&mut word), sign));
        }
    }
    words
}

/// Upper-case words of a query that are neither the table, nor a column, nor named in it.
fn unknown(query: &str, columns: &BTreeMap<String, String>) -> BTreeSet<String> {
    let words = words(query);
    let named: BTreeSet<_> = words.iter().filter(|(_, sign)| *sign == '=').map(|(word, _)| word).collect();
    let is_name = |word: &str| word.starts_with(|letter: char| letter.is_ascii_uppercase());
    let mut unknown = BTreeSet::new();
    for (word, _) in words.iter().filter(|(word, _)| is_name(word) && word != TABLE) {
        if !columns.contains_key(word) && !named.contains(word) {
            unknown.insert(word.clone());
        }
    }
    unknown
}

#[test]
fn every_query_counts_an_event_once_and_names_columns_that_there_are() {
    let (columns, readme) = (declared(), std::fs::read_to_string(infra("README.md")).unwrap());
    let mut queries = 0;
    for entry in std::fs::read_dir(infra("queries")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let query = std::fs::read_to_string(&path).unwrap();
        assert_eq!(unknown(&query, &columns), BTreeSet::new(), "{name}");
        assert!(query.contains(&format!("{TABLE}\n")) && query.contains("take_any(*) by EventId"), "{name}");
        assert!(query.starts_with("// "), "{name} does not say what it answers");
        assert!(readme.contains(&format!("(queries/{name})")), "{name} is not in infra/README.md");
        queries += 1;
    }
    assert!(queries >= 7);
}

#[test]
fn a_column_that_there_is_not_is_noticed() {
    let query =
        "T | where Kosten == \"InText\" // Comment\n| summarize Sum = sum(InputTokens) by EventId, SUm";
    let found: Vec<_> = unknown(query, &declared()).into_iter().collect();
    assert_eq!(found, ["Kosten", "SUm", "T"]);
}
