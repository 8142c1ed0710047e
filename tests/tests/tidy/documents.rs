//! What documents name must exist: paths, tests, links, and a test or an admission for every
//! scenario.

use std::collections::BTreeMap;

use crate::source::functions;
use crate::{MEMBERS, check, check_caught, files, read, root};

/// How many scenarios and invariants there are (`../shared/SCENARIOS.md`).
const SCENARIOS: usize = 55;
const INVARIANTS: usize = 10;

/// Code spans of a text, without those in fenced blocks.
fn spans(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(str::to_string));
        }
    }
    found
}

/// A code span that names something of this repository: a path, and perhaps a function in it.
fn claim(span: &str) -> Option<(String, Option<String>)> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:-".contains(c);
    let (folder, _) = span.split_once('/')?;
    let ours = MEMBERS.contains(&folder) || ["docs", ".ci", ".cargo"].contains(&folder);
    if !ours || !span.chars().all(plain) {
        return None;
    }
    match span.split_once("::") {
        Some((path, name)) => Some((path.to_string(), name.rsplit("::").next().map(str::to_string))),
        None => Some((span.to_string(), None)),
    }
}

/// Targets of links to files, relative to the document.
fn links(text: &str) -> Vec<String> {
    text.match_indices("](")
        .filter_map(|(at, open)| text[at + open.len()..].split_once(')').map(|(target, _)| target))
        .filter(|target| {
            !target.contains("://") && !target.starts_with('#') && !target.contains(char::is_whitespace)
        })
        .map(|target| target.split('#').next().unwrap_or_default().to_string())
        .collect()
}

/// Complaints about the document at `path`, whose text is `text`.
fn document(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (target, function) in spans(text).iter().filter_map(|span| claim(span)) {
        if !root().join(&target).exists() {
            complaints.push(format!("{path} names {target}, which does not exist"));
        } else if let Some(name) = function
            && !functions(&read(&target)).iter().any(|function| function.name == name)
        {
            complaints.push(format!("{path} names {target}::{name}, and there is no such function"));
        }
    }
    let folder = root().join(path).parent().expect("documents lie in folders").to_path_buf();
    for target in links(text) {
        if !folder.join(&target).exists() {
            complaints.push(format!("{path} links to {target}, which does not exist"));
        }
    }
    complaints
}

/// The rows of all tables: cells without their borders.
pub fn rows(text: &str) -> Vec<Vec<String>> {
    text.lines()
        .filter_map(|line| line.trim().strip_prefix('|')?.strip_suffix('|'))
        .map(|line| line.split('|').map(|cell| cell.trim().to_string()).collect())
        .collect()
}

/// Complaints about the table of scenarios: each has a row of its own, with a test or "not yet".
fn scenarios(text: &str) -> Vec<String> {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let mut complaints = Vec::new();
    for row in rows(text).iter().filter(|row| row.len() >= 3) {
        let (number, tests) = (&row[0], row.last().expect("at least three cells"));
        let invariant = number.strip_prefix('I').unwrap_or(number);
        if invariant.parse::<usize>().is_err() {
            continue;
        }
        *seen.entry(number.clone()).or_default() += 1;
        let tested =
            spans(tests).iter().filter_map(|span| claim(span)).any(|(_, function)| function.is_some());
        if !tested && !tests.contains("not yet") {
            complaints.push(format!("scenario {number} has neither a test nor \"not yet\""));
        }
    }
    let wanted = (1..=SCENARIOS).map(|n| n.to_string()).chain((1..=INVARIANTS).map(|n| format!("I{n}")));
    for number in wanted {
        match seen.remove(&number) {
            Some(1) => {}
            Some(times) => complaints.push(format!("scenario {number} stands {times} times")),
            None => complaints.push(format!("scenario {number} is missing")),
        }
    }
    complaints.extend(seen.keys().map(|number| format!("there is no scenario {number}")));
    complaints
}

#[test]
fn what_documents_name_exists() {
    let mut documents = files("docs", ".md");
    assert!(documents.len() >= 8, "documents are found at all: {documents:?}");
    documents.extend(["README.md", "CHANGELOG.md", "fuzz/README.md"].map(String::from));
    let complaints: Vec<String> = documents.iter().flat_map(|path| document(path, &read(path))).collect();
    check(&complaints);
}

#[test]
fn a_name_of_nothing_is_caught() {
    let check = |text: &str, part: &str| check_caught(&document("docs/X.md", text), part);
    check("see `core/src/gone.rs`", "names core/src/gone.rs, which does not exist");
    check("see `tests/tests/tidy.rs::no_such_test`", "no such function");
    check("see [the format](GONE.md#header)", "links to GONE.md");
    let sound = "`core/src/lib.rs`, `tests/tests/tidy.rs::check`, `ltx/<level>/x`, `core::engine`\n```\n`core/gone`\n```\n[x](../README.md#a) [y](https://example.org/z)";
    assert_eq!(document("docs/X.md", sound), Vec::<String>::new());
}

#[test]
fn every_scenario_has_a_test_or_an_admission() {
    check(&scenarios(&read("docs/SCENARIOS.md")));
}

#[test]
fn a_scenario_without_either_is_caught() {
    let table: String = (1..=SCENARIOS)
        .map(|n| n.to_string())
        .chain((1..=INVARIANTS).map(|n| format!("I{n}")))
        .map(|number| format!("| {number} | words | not yet |\n"))
        .collect();
    check(&scenarios(&table));
    check_caught(
        &scenarios(&table.replace("| 7 | words | not yet |", "| 7 | words | `core/src` |")),
        "scenario 7 has neither",
    );
    check_caught(&scenarios(&table.replace("| I4 | words | not yet |\n", "")), "scenario I4 is missing");
    check_caught(&scenarios(&(table.clone() + "| 9 | words | not yet |\n")), "scenario 9 stands 2 times");
    check_caught(&scenarios(&(table + "| 56 | words | not yet |\n")), "there is no scenario 56");
}
