//! A trace as a file: a line of JSON that says what it is, one for each record, one for the end.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};

use super::Record;
use crate::bad_input::BadInput;

/// The version of the format. Traces of other versions are refused.
pub const TRACE_VERSION: u64 = 2;

/// The first line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TraceHeader {
    /// The version of the format.
    pub driftless_trace: u64,
    /// The seed of the dice.
    pub seed: u64,
    /// The commit of the program that ran, where that is known.
    pub commit: String,
}

/// The last line.
#[derive(Serialize, Deserialize)]
struct TraceEnd {
    records: usize,
    trace_hash: u64,
}

/// A whole file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceFile {
    /// Whose trace it is.
    pub header: TraceHeader,
    /// What happened.
    pub records: Vec<Record>,
}

impl TraceFile {
    /// A trace of the program that is running.
    pub fn new(seed: u64, records: Vec<Record>) -> TraceFile {
        let header = TraceHeader { driftless_trace: TRACE_VERSION, seed, commit: crate::commit::current() };
        TraceFile { header, records }
    }

    /// The hash of everything in it.
    pub fn hash(&self) -> u64 {
        self.records.last().map_or(0, |record| record.hash)
    }

    /// Writes it.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut to, &self.header)?;
        for record in &self.records {
            to.write_all(b"\n")?;
            serde_json::to_writer(&mut to, record)?;
        }
        to.write_all(b"\n")?;
        let end = TraceEnd { records: self.records.len(), trace_hash: self.hash() };
        serde_json::to_writer(&mut to, &end)?;
        to.write_all(b"\n")
    }

    /// Whether a text begins as a trace does, of whatever version.
    pub fn is_one(text: &str) -> bool {
        let first = text.lines().next().unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(first)
            .is_ok_and(|value| value.get("driftless_trace").is_some())
    }

    /// Reads one.
    ///
    /// # Errors
    /// When it is of another version, not a trace, damaged, or cut short.
    pub fn read(from: impl BufRead) -> Result<TraceFile, BadInput> {
        let mut lines = from.lines();
        let first = lines.next().transpose().map_err(|error| BadInput::new(error.to_string()))?;
        let header = header(&first.unwrap_or_default())?;
        let (mut records, mut end) = (Vec::new(), None);
        for (no, line) in (2..).zip(lines) {
            let line = line.map_err(|error| BadInput::new(error.to_string()))?;
            match serde_json::from_str::<Record>(&line) {
                Ok(record) => records.push(record),
                Err(error) => {
                    end = serde_json::from_str::<TraceEnd>(&line).ok();
                    if end.is_none() {
                        let text = format!("line {no} of the trace is no record: {error}");
                        return Err(BadInput::new(text).hint("record it again with cargo sim trace SEED"));
                    }
                    break;
                }
            }
        }
        let file = TraceFile { header, records };
        match end {
            Some(end) if (end.records, end.trace_hash) == (file.records.len(), file.hash()) => Ok(file),
            Some(_) => Err(BadInput::new("the trace does not fit its last line").hint("it was edited")),
            None => {
                Err(BadInput::new(format!("the trace is cut short after {} records", file.records.len()))
                    .hint("the run that wrote it did not come to its end"))
            }
        }
    }
}

fn header(line: &str) -> Result<TraceHeader, BadInput> {
    let hint = "record it again with cargo sim trace SEED --json";
    let not_one = |error: String| BadInput::new(format!("not a trace: {error}")).hint(hint);
    let value: serde_json::Value = serde_json::from_str(line).map_err(|error| not_one(error.to_string()))?;
    let version = value.get("driftless_trace").ok_or_else(|| not_one("no version is given".into()))?;
    if *version != TRACE_VERSION {
        let text = format!("a trace of version {version}, and this program reads version {TRACE_VERSION}");
        return Err(BadInput::new(text).hint(hint));
    }
    serde_json::from_value(value).map_err(|error| not_one(error.to_string()))
}

#[cfg(test)]
mod tests {
    use crate::trace::{Keep, Kind, Trace, node};

    use super::*;

    fn written() -> (TraceFile, String) {
        let trace = Trace::new(Keep::Records);
        trace.note(1, node::APP, Kind::Commit, format_args!("one \"quoted\"\nline"));
        trace.note(2, node::STORE, Kind::Put, format_args!("two"));
        let file = TraceFile::new(7, trace.take());
        let mut text = Vec::new();
        file.write(&mut text).unwrap();
        (file, String::from_utf8(text).unwrap())
    }

    fn refused(text: &str, says: &str) {
        let error = TraceFile::read(text.as_bytes()).unwrap_err();
        assert!(error.text.contains(says), "{error:?} does not say {says:?}");
        assert!(!error.hint.is_empty(), "{error:?} has no hint");
    }

    #[test]
    fn a_trace_is_read_as_it_was_written() {
        let (file, text) = written();
        assert_eq!(TraceFile::read(text.as_bytes()).unwrap(), file);
        assert!(TraceFile::is_one(&text) && !TraceFile::is_one("{\"scenario\":1}"));
    }

    #[test]
    fn bad_traces_are_refused_each_with_its_reason() {
        let (_, text) = written();
        refused(&text.replacen("\"driftless_trace\":2", "\"driftless_trace\":3", 1), "of version 3");
        refused("hello", "not a trace");
        refused("{}", "no version");
        refused(&text.replacen("two", "too", 1).replacen("\"records\":2", "\"records\":3", 1), "last line");
        refused(&text.replacen("commit", "kommit", 2), "not a trace");
        refused(&text.lines().take(2).collect::<Vec<_>>().join("\n"), "cut short");
        refused(&text.replacen("\"kind\":\"put\"", "\"kind\":\"putt\"", 1), "line 3");
    }
}
