//! Files and functions of a size that fits a head. What was larger when this check came is listed
//! below, and the list may only shrink.

use crate::source::functions;
use crate::{check, check_caught, sources};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;

/// How far a listed size may lie above the real one, and a listed file below the limit, before the
/// list must follow: an edit of a few lines should not have to touch it.
const SLACK_LINES: usize = 50;

/// Files over the limit, with their lines.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions over the limit, as `path::name`, with their lines.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Complaints about one kind of size: `found` against `limit` and the list of exceptions.
fn ratchet(found: &[(String, usize)], limit: usize, listed: &[(&str, usize)]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, lines) in found {
        let allowed = listed.iter().find(|(listed, _)| listed == name).map_or(limit, |(_, lines)| *lines);
        if *lines > allowed {
            complaints.push(format!("{name} has {lines} lines, {allowed} are allowed: divide it by noun"));
        }
    }
    for (name, allowed) in listed {
        let lines = found.iter().filter(|(found, _)| found == name).map(|(_, lines)| *lines).max();
        match lines {
            Some(lines) if lines + SLACK_LINES <= limit => {
                complaints.push(format!("{name} has shrunk to {lines} lines: take it off the list"));
            }
            Some(lines) if lines > limit && lines + SLACK_LINES < *allowed => {
                complaints.push(format!(
                    "{name} has shrunk to {lines} lines: let the list follow, ({name:?}, {lines})"
                ));
            }
            Some(_) => {}
            None => complaints.push(format!("{name} is gone: take it off the list")),
        }
    }
    complaints
}

fn file_lines(sources: &[(String, String)]) -> Vec<(String, usize)> {
    sources.iter().map(|(path, text)| (path.clone(), text.lines().count())).collect()
}

fn function_lines(sources: &[(String, String)]) -> Vec<(String, usize)> {
    sources
        .iter()
        .flat_map(|(path, text)| {
            functions(text).into_iter().map(move |f| (format!("{path}::{}", f.name), f.lines))
        })
        .collect()
}

#[test]
fn files_are_short() {
    check(&ratchet(&file_lines(&sources()), FILE_LINES_MAX, LONG_FILES));
}

#[test]
fn functions_are_short() {
    let found = function_lines(&sources());
    assert!(found.len() > 500, "functions are found at all: {}", found.len());
    check(&ratchet(&found, FUNCTION_LINES_MAX, LONG_FUNCTIONS));
}

#[test]
fn what_is_too_long_is_caught() {
    let long = format!("fn f() {{\n{}}}\n", "    g();\n".repeat(FUNCTION_LINES_MAX));
    let planted = [("core/src/x.rs".to_string(), long.repeat(9))];
    check_caught(&ratchet(&file_lines(&planted), FILE_LINES_MAX, &[]), "core/src/x.rs has 648 lines");
    let planted = [("core/src/x.rs".to_string(), long)];
    check_caught(
        &ratchet(&function_lines(&planted), FUNCTION_LINES_MAX, &[]),
        "core/src/x.rs::f has 72 lines",
    );
}

#[test]
fn a_list_that_does_not_shrink_is_caught() {
    let found = [("a".to_string(), 700)];
    check(&ratchet(&found, 600, &[("a", 700)]));
    check(&ratchet(&found, 600, &[("a", 750)]));
    check(&ratchet(&[("a".to_string(), 551)], 600, &[("a", 700)]));
    check_caught(&ratchet(&found, 600, &[("a", 699)]), "700 lines, 699 are allowed");
    check_caught(&ratchet(&found, 600, &[("a", 800)]), "let the list follow");
    check_caught(&ratchet(&[("a".to_string(), 550)], 600, &[("a", 700)]), "take it off the list");
    check_caught(&ratchet(&[], 600, &[("a", 700)]), "is gone");
}
