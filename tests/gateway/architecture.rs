//! The house rules that a compiler cannot hold: which way imports go, what every file has, and that
//! every setting is written down.
//!
//! Files are read as text. Each rule is a function from text to complaints, tried on made-up text
//! first, so that a rule which has stopped seeing anything fails here too.

use std::fs;
use std::path::{Path, PathBuf};

mod imports;
mod papers;

/// A file has two subjects from here on; tests at its end are not counted.
const MAX_LINES: usize = 400;

/// A source file, by its path in the repository.
struct Source {
    path: PathBuf,
    text: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Rust files below these folders.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut sources = Vec::new();
    for folder in folders {
        collect(&root().join(folder), &mut sources);
    }
    assert!(!sources.is_empty(), "no Rust file below {folders:?}");
    sources.sort_by(|one, other| one.path.cmp(&other.path));
    sources
}

fn collect(folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            sources.push(Source { path: path.strip_prefix(root()).unwrap().to_owned(), text });
        }
    }
}

/// Fails with all complaints at once.
fn assert_none(complaints: &[String], what_to_do: &str) {
    assert!(complaints.is_empty(), "\n{}\n\n{what_to_do}\n", complaints.join("\n"));
}

/// What is wrong with a file as such.
fn faults_of_form(source: &Source) -> Vec<String> {
    let path = source.path.display();
    let mut faults = Vec::new();
    if source.path.ends_with("mod.rs") {
        faults.push(format!(
            "{path}: a module's file is `foo.rs` beside `foo/`, so that its name says what it is"
        ));
    }
    // A module's own tests say what they are for by standing beside it.
    if !source.text.starts_with("//!") && !source.path.ends_with("tests.rs") {
        faults.push(format!(
            "{path}: begins without `//!`: say what the module is for, and what it must never do"
        ));
    }
    let lines = lines_before_tests(&source.text);
    if lines > MAX_LINES {
        faults.push(format!(
            "{path}: {lines} lines before its tests, and {MAX_LINES} is the limit: part it by its subjects"
        ));
    }
    faults
}

fn lines_before_tests(text: &str) -> usize {
    let is_tests = |line: &str| line == "#[cfg(test)]";
    text.lines().position(is_tests).unwrap_or_else(|| text.lines().count())
}

#[test]
fn every_file_says_what_it_is_for_and_has_one_subject() {
    let faults: Vec<_> = sources(&["src", "tests", "benches"]).iter().flat_map(faults_of_form).collect();
    assert_none(&faults, "See docs/ARCHITECTURE.md, \"House rules\".");
}

#[test]
fn a_file_without_form_is_noticed() {
    let faults =
        |path: &str, text: &str| faults_of_form(&Source { path: path.into(), text: text.into() }).len();
    let long = |lines: usize| format!("//! For.\n{}", "fn f() {}\n".repeat(lines - 1));
    assert_eq!(faults("src/a.rs", &long(MAX_LINES)), 0);
    assert_eq!(faults("src/a.rs", &format!("{}#[cfg(test)]\n{}", long(MAX_LINES), long(200))), 0);
    assert_eq!(faults("src/a.rs", &long(MAX_LINES + 1)), 1);
    assert_eq!(faults("src/a/mod.rs", "//! For.\n"), 1);
    assert_eq!(faults("src/a.rs", "// For.\n"), 1);
}
