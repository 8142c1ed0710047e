//! A run as a page to look at: who did what when, and where it went wrong.
//!
//! One file that stands for itself: the records are in it, and a script that draws them. Each node
//! has a lane. The page (`timeline/page.html`) can be moved and magnified; what is near on the
//! screen is drawn as one mark with a count, and told when it is pointed at.

use serde::Serialize;

use crate::trace::{Kind, Record, TraceFile, node};

const PAGE: &str = include_str!("timeline/page.html");

/// What the machines are told and ask for is most of a trace: of that the last so many records are
/// on the page, since what went wrong went wrong at the end.
const TALK_MAX: usize = 4_000;
/// Characters of a record's text on the page.
const TEXT_MAX: usize = 200;

/// What stands at the top of a page.
#[derive(Clone, Debug, Default)]
pub struct Title {
    /// What was run: a seed or a scenario.
    pub name: String,
    /// How to run it again.
    pub replay: String,
    /// The broken promise, if one was.
    pub violation: Option<(String, String)>,
    /// More that is worth a line.
    pub notes: Vec<String>,
}

#[derive(Serialize)]
struct Page<'a> {
    name: &'a str,
    seed: u64,
    commit: &'a str,
    replay: &'a str,
    oracle: Option<&'a str>,
    violation: Option<&'a str>,
    notes: &'a [String],
    nodes: Vec<&'a str>,
    records: Vec<(f64, usize, Kind, &'a str)>,
    left_out: usize,
    hash: String,
}

/// The page of a trace.
pub fn page(trace: &TraceFile, title: &Title) -> String {
    let is_talk = |record: &&Record| matches!(record.kind, Kind::Event | Kind::Action);
    let talk = trace.records.iter().filter(is_talk).count();
    let mut to_skip = talk.saturating_sub(TALK_MAX);
    let left_out = to_skip;
    let mut nodes = vec![node::APP, node::DRIFTLESS, node::STORE, node::MACHINE, node::ORACLE];
    nodes.retain(|node| trace.records.iter().any(|record| record.node == *node));
    let mut nodes: Vec<&str> = nodes;
    for record in &trace.records {
        if !nodes.contains(&&*record.node) {
            nodes.push(&record.node);
        }
    }
    let mut records = Vec::new();
    for record in &trace.records {
        if is_talk(&record) && to_skip > 0 {
            to_skip -= 1;
            continue;
        }
        let lane = nodes.iter().position(|node| *node == record.node).expect("each was added above");
        let end = record.text.char_indices().nth(TEXT_MAX).map_or(record.text.len(), |(end, _)| end);
        records.push((record.at_ns as f64 / 1e9, lane, record.kind, &record.text[..end]));
    }
    let page = Page {
        name: &title.name,
        seed: trace.header.seed,
        commit: &trace.header.commit,
        replay: &title.replay,
        oracle: title.violation.as_ref().map(|(oracle, _)| oracle.as_str()),
        violation: title.violation.as_ref().map(|(_, text)| text.as_str()),
        notes: &title.notes,
        nodes,
        records,
        left_out,
        hash: format!("{:016x}", trace.hash()),
    };
    let json = serde_json::to_string(&page).expect("a page holds nothing that JSON cannot");
    // A text may hold `</script>`, which would end the script; in JSON a `<` can be written so.
    PAGE.replacen("/*DATA*/null", &json.replace('<', "\\u003c"), 1)
}

/// The broken promise of a trace: the last record, if it tells one.
pub fn violation_of(trace: &TraceFile) -> Option<(String, String)> {
    let last = trace.records.iter().rev().find(|record| record.kind == Kind::Violation)?;
    let (oracle, text) = last.text.split_once(": ").unwrap_or(("", &last.text));
    Some((oracle.to_owned(), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use crate::trace::{Keep, Trace};

    use super::*;

    fn trace(talk: usize) -> TraceFile {
        let trace = Trace::new(Keep::Records);
        trace.note(5, node::APP, Kind::Commit, format_args!("</script><b>bold</b>"));
        for n in 0..talk {
            trace.note(10, node::DRIFTLESS, Kind::Event, format_args!("event {n}."));
        }
        trace.note(20, node::ORACLE, Kind::Violation, format_args!("liveness: too late"));
        TraceFile::new(7, trace.take())
    }

    #[test]
    fn a_page_stands_for_itself() {
        let page = page(&trace(3), &Title { name: "seed 7".into(), ..Title::default() });
        assert!(page.contains("\"name\":\"seed 7\"") && page.contains("event 2."));
        assert_eq!(page.matches("</script>").count(), 1, "what is told cannot end the script");
        assert!(!page.contains("/*DATA*/"));
        for elsewhere in ["src=", "href=\"http", "@import", "url("] {
            assert!(!page.contains(elsewhere), "{elsewhere} refers to something else");
        }
    }

    #[test]
    fn of_the_talk_the_end_is_kept() {
        let page = page(&trace(TALK_MAX + 2), &Title::default());
        assert!(page.contains("\"left_out\":2") && page.contains("bold"));
        assert!(!page.contains("event 1.") && page.contains("event 2."));
    }

    #[test]
    fn the_violation_is_found() {
        assert_eq!(violation_of(&trace(0)), Some(("liveness".into(), "too late".into())));
    }
}
