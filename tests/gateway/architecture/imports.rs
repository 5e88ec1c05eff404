//! Which way imports go.
//!
//! A path counts wherever it stands: in a `use`, in code, in a macro's arguments, in tests. Comments
//! and strings do not.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Source, assert_none, sources};

/// Sees every module.
const ALL: &[&str] = &["*"];
const ADAPTER: &[&str] = &["ports", "config", "domain"];
const JOURNEY: &[&str] = &["ports", "config", "domain"];

/// Each module of the crate, and the modules that it may name. Its own is always among them.
const LAW: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("config", &["domain"]),
    ("ports", &["config", "domain"]),
    ("proxy", JOURNEY),
    ("ledger", JOURNEY),
    ("issuing", JOURNEY),
    ("renewal", JOURNEY),
    ("publisher", &["spool", "ports", "config", "domain"]),
    ("app", &["proxy", "ledger", "issuing", "ports", "config", "domain"]),
    ("routes", &["app", "proxy", "ledger", "issuing", "ports", "config", "domain"]),
    ("azure", ADAPTER),
    ("sql", ADAPTER),
    ("redis", ADAPTER),
    ("memory", ADAPTER),
    ("spool", ADAPTER),
    ("simulator", ADAPTER),
    ("doctor", ADAPTER),
    ("server", &[]),
    ("wiring", ALL),
    ("cli", ALL),
    ("main", ALL),
    ("lib", ALL),
];

/// Libraries that are one module's business, and the modules that may name them.
const LIBRARIES: &[(&str, &[&str])] = &[
    ("axum", &["routes", "simulator", "server"]),
    ("hyper", &["server"]),
    ("hyper_util", &["server"]),
    ("tower", &["routes", "server"]),
    ("sqlx", &["sql"]),
    // `wiring` names the error of making a client; the doctor asks what no journey does.
    ("reqwest", &["azure", "doctor", "wiring"]),
    ("jsonwebtoken", &["azure"]),
    ("azure_core", &["azure"]),
    ("azure_identity", &["azure"]),
    ("azure_security_keyvault_secrets", &["azure"]),
    ("clap", &["cli", "simulator"]),
    // `domain` and `routes` say the form of their own types.
    ("schemars", &["config", "domain", "routes"]),
    ("flate2", &["azure"]),
    ("zip", &["cli"]),
    ("object", &["cli"]),
    ("tracing_subscriber", &["cli"]),
];

/// What the rules must not reach for: they are told the time and the settings.
const NOT_IN_DOMAIN: &[&str] = &["tokio", "tokio_util", "std::fs", "std::net", "std::env", "std::process"];

/// The module of the crate that a file belongs to, and how many modules deep the file lies.
fn module_of(path: &Path) -> (String, usize) {
    let below = path.strip_prefix("src").expect("only files of src/ have a place in the law");
    let without_extension = below.with_extension("");
    let names: Vec<_> = without_extension.iter().map(|name| name.to_string_lossy().into_owned()).collect();
    let depth = if names == ["main"] || names == ["lib"] { 0 } else { names.len() };
    (names.first().cloned().unwrap_or_default(), depth)
}

/// Code as words and signs, without comments, strings and white space.
pub(super) fn tokens(code: &str) -> Vec<String> {
    let chars: Vec<char> = code.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let from = at;
        at = match chars[at] {
            '/' if chars.get(at + 1) == Some(&'/') => end_of_line(&chars, at),
            '/' if chars.get(at + 1) == Some(&'*') => end_of_block(&chars, at),
            '"' => end_of_string(&chars, at),
            'r' if raw_hashes(&chars, at).is_some() => end_of_raw(&chars, at),
            '\'' => end_of_quote(&chars, at),
            ':' if chars.get(at + 1) == Some(&':') => {
                tokens.push("::".to_owned());
                at + 2
            }
            c if c.is_alphanumeric() || c == '_' => {
                let rest = chars[at..].iter().position(|c| !c.is_alphanumeric() && *c != '_');
                let end = rest.map_or(chars.len(), |length| at + length);
                tokens.push(chars[at..end].iter().collect());
                end
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push(c.to_string());
                }
                at + 1
            }
        };
        assert!(at > from, "the reader of code stands still at character {from}");
    }
    tokens
}

fn end_of_line(chars: &[char], at: usize) -> usize {
    chars[at..].iter().position(|c| *c == '\n').map_or(chars.len(), |length| at + length)
}

fn end_of_block(chars: &[char], at: usize) -> usize {
    let closes = chars[at + 2..].windows(2).position(|pair| pair == ['*', '/']);
    closes.map_or(chars.len(), |length| at + length + 4)
}

fn end_of_string(chars: &[char], at: usize) -> usize {
    let mut at = at + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

/// How many `#` a raw string that begins here has; `None` where none does.
fn raw_hashes(chars: &[char], at: usize) -> Option<usize> {
    let in_word = at > 0 && (chars[at - 1].is_alphanumeric() && chars[at - 1] != 'b' || chars[at - 1] == '_');
    let hashes = chars[at + 1..].iter().take_while(|c| **c == '#').count();
    (!in_word && chars.get(at + 1 + hashes) == Some(&'"')).then_some(hashes)
}

fn end_of_raw(chars: &[char], at: usize) -> usize {
    let hashes = raw_hashes(chars, at).expect("asked before");
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    let from = at + hashes + 2;
    let closes = chars[from..].windows(end.len()).position(|window| window == end);
    closes.map_or(chars.len(), |length| from + length + end.len())
}

/// A character, or a lifetime, which has no end to look for.
fn end_of_quote(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => {
            let closes = chars[at + 3..].iter().position(|c| *c == '\'');
            closes.map_or(chars.len(), |length| at + length + 4)
        }
        (Some(_), Some('\'')) => at + 3,
        _ => at + 1,
    }
}

/// The first names of the paths that stand behind `crate::`, or behind as many `super::` as lead out
/// of the file's module: `crate::{config::catalog, ports}` names `config` and `ports`.
fn named_modules(tokens: &[String], depth: usize) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    let mut at = 0;
    while at < tokens.len() {
        let supers = tokens[at..].chunks(2).take_while(|pair| *pair == ["super", "::"]).count();
        let begins = match tokens[at].as_str() {
            "crate" if tokens.get(at + 1).is_some_and(|next| next == "::") => Some(at + 2),
            // `super` in a file one module deep is the crate itself.
            "super" if depth > 0 && supers >= depth => Some(at + 2 * supers),
            _ => None,
        };
        if let Some(begins) = begins {
            named.extend(first_names(&tokens[begins..]));
        }
        at += (2 * supers).max(1);
    }
    named
}

/// The first name of a path, or of each path in braces.
fn first_names(path: &[String]) -> Vec<String> {
    if path.first().is_none_or(|first| first != "{") {
        return path.first().cloned().into_iter().collect();
    }
    let mut names = Vec::new();
    let (mut depth, mut is_first) = (0_usize, true);
    for token in path {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 1 => is_first = true,
            name if depth == 1 && is_first => {
                names.push(name.to_owned());
                is_first = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names
}

/// Whether a library, or a path such as `std::fs`, is named.
fn names_path(tokens: &[String], path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    let wanted: Vec<&str> = parts.iter().flat_map(|part| ["::", *part]).skip(1).collect();
    tokens.windows(wanted.len()).enumerate().any(|(at, window)| {
        let goes_on = tokens.get(at + wanted.len()).is_some_and(|next| next == "::" || next == ";");
        let before = at.checked_sub(1).map_or("", |before| tokens[before].as_str());
        window == wanted && goes_on && !matches!(before, "::" | ".")
    })
}

/// Breaches of the law in one file.
fn breaches(source: &Source) -> Vec<String> {
    let path = source.path.display();
    let (module, depth) = module_of(&source.path);
    let Some((_, allowed)) = LAW.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: the module `{module}` has no place in the law")];
    };
    let tokens = tokens(&source.text);
    let is_module = |name: &&String| LAW.iter().any(|(module, _)| module == name);
    let may = |name: &&String| **name == module || *allowed == ALL || allowed.contains(&name.as_str());
    let named = named_modules(&tokens, depth);
    let mut breaches: Vec<_> = named
        .iter()
        .filter(|name| is_module(name) && !may(name))
        .map(|name| format!("{path}: `{module}` must not import `{name}`; it may import {allowed:?}"))
        .collect();
    for (library, modules) in LIBRARIES {
        if !modules.contains(&module.as_str()) && names_path(&tokens, library) {
            breaches.push(format!("{path}: only {modules:?} may name the library `{library}`"));
        }
    }
    if module == "domain" {
        let reached = NOT_IN_DOMAIN.iter().filter(|path| names_path(&tokens, path));
        breaches.extend(reached.map(|name| format!("{path}: the rules do no I/O, and `{name}` does")));
    }
    breaches
}

#[test]
fn imports_go_one_way() {
    let breaches: Vec<_> = sources(&["src"]).iter().flat_map(breaches).collect();
    assert_none(
        &breaches,
        "Ask for what is needed through a trait in `ports`, or move the rule down to `domain`; a new \
         module is given its place in LAW (tests/gateway/architecture/imports.rs), in src/lib.rs and in \
         docs/ARCHITECTURE.md.",
    );
}

#[test]
fn every_module_of_the_crate_has_its_place() {
    let declared = super::read("src/lib.rs");
    let modules = declared.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    let architecture = super::read("docs/ARCHITECTURE.md");
    let mut missing = Vec::new();
    for module in modules {
        if !LAW.iter().any(|(name, _)| *name == module) {
            missing.push(format!("LAW in this test: no row for `{module}`"));
        }
        if !declared.contains(&format!("//! | [`{module}`] |")) {
            missing.push(format!("src/lib.rs: no row for `{module}` in the map at its beginning"));
        }
        if !architecture.contains(&format!("| `{module}` |")) {
            missing.push(format!("docs/ARCHITECTURE.md: no row for `{module}` in the map"));
        }
    }
    assert_none(&missing, "Say of each module what it is for, and what it may import.");
}

#[test]
fn a_breach_is_noticed_however_it_is_written() {
    for (path, code) in [
        ("src/proxy/read.rs", "use crate::ledger::Ledger;"),
        ("src/proxy/read.rs", "use crate::{domain::key, ledger};"),
        ("src/proxy/read.rs", "use crate::{\n    domain::{key, ids},\n    sql::{self, Database},\n};"),
        ("src/proxy/read.rs", "use super::super::sql::Database;"),
        ("src/proxy.rs", "use super::azure;"),
        ("src/proxy.rs", "fn f() { tracing::info!(\"{}\", crate::issuing::PAGE); }"),
        ("src/proxy.rs", "#[cfg(test)]\nmod tests { use crate::memory::SystemClock; }"),
        ("src/domain/key.rs", "use crate::config::Fault;"),
        ("src/domain/key.rs", "use std::fs;"),
        ("src/domain/key.rs", "fn f() { std::env::var(\"A\"); }"),
        ("src/domain/key.rs", "async fn f() { tokio::task::yield_now().await; }"),
        ("src/ports.rs", "use axum::body::Body;"),
        ("src/ledger/post.rs", "fn f(pool: sqlx::SqlitePool) {}"),
        ("src/proxy.rs", "use reqwest;"),
        ("src/azure/openai.rs", "use crate::proxy::Proxy;"),
        ("src/routes/health.rs", "use crate::sql::Database;"),
        ("src/invented.rs", ""),
    ] {
        let source = Source { path: path.into(), text: code.to_owned() };
        assert_eq!(breaches(&source).len(), 1, "{path}: {code}");
    }
}

#[test]
fn what_the_law_allows_is_no_breach() {
    for (path, code) in [
        ("src/proxy/read.rs", "use crate::domain::key; use super::relay; use crate::proxy::Caller;"),
        (
            "src/proxy/read.rs",
            "// crate::sql\n/* crate::sql */ fn f() { \"crate::sql\"; r#\"crate::sql\"#; }",
        ),
        (
            "src/proxy/read.rs",
            "fn f<'a>(c: char) -> &'a str { if c == '\"' { \"\\\"crate::sql\" } else { \"\" } }",
        ),
        ("src/proxy/read.rs", "fn f(config: Config) { config.sql::<u8>(); my::axum::f(); }"),
        ("src/proxy.rs", "mod tests { use super::Refusal; }"),
        ("src/proxy.rs", "pub use relay::Relay; use crate::config::catalog::{Catalog, Target};"),
        ("src/wiring/in_process.rs", "use crate::{app, ledger, spool, sql};"),
        ("src/main.rs", "fn main() { tollgate::cli::run(); }"),
        ("src/domain/key.rs", "use super::ids::Name; use std::fmt;"),
    ] {
        let source = Source { path: path.into(), text: code.to_owned() };
        assert_eq!(breaches(&source), Vec::<String>::new(), "{path}: {code}");
    }
}
