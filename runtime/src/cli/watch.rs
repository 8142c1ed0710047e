//! `driftless status -watch`: the status, again and again.
//!
//! On a terminal it is one page, drawn in place on the alternate screen, with the worst databases
//! first and as many as fit; whatever ends the command gives the terminal back as it was. Elsewhere
//! each look is a table, or with `-json` a line. The process is asked for what it knows, without a
//! look at its databases: watching keeps none of them from falling quiet.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use console::{Term, truncate_str};
use driftless_core::application::Signal;
use futures_lite::FutureExt as _;
use serde_json::{Value, json};

use super::args::Args;
use super::error::CliError;
use super::output::{Out, Table, human_bytes, human_count};
use crate::config::duration;
use crate::service::signals::Signals;

/// From one look to the next, unless told otherwise.
const INTERVAL: Duration = Duration::from_secs(2);
/// The shortest time between two looks.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Lines of the page that are not of databases: totals, headings, and what did not fit.
const FRAME_LINES: usize = 4;

/// What one look has found.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Look {
    /// The processes, for people.
    pub processes: Vec<String>,
    /// Each database, as its process tells of it.
    pub databases: Vec<Value>,
    /// Why there is nothing to see.
    pub error: Option<String>,
}

/// A database of the page.
#[derive(Clone, PartialEq, Debug)]
struct Line {
    database: String,
    phase: String,
    lag_seconds: Option<f64>,
    lag_frames: Option<u64>,
    txid: String,
    uploading: bool,
    segments_rate: Option<f64>,
    bytes_rate: Option<f64>,
    trouble: Option<String>,
}

/// What was counted at the look before, by database.
type Counted = BTreeMap<String, (u64, u64)>;

/// Looks until a signal comes.
pub fn run(args: &Args, out: &mut Out, mut look: impl FnMut() -> Look) -> Result<(), CliError> {
    let every = interval(args)?;
    let mut signals = Signals::take(false, false)
        .map_err(|error| CliError::failed("signals cannot be received").cause(error))?;
    let json = args.is_on("json");
    let screen = (out.is_terminal() && !json).then(Screen::enter);
    let mut before: Option<(Instant, Counted)> = None;
    while !out.is_closed() {
        let begun = Instant::now();
        let seen = look();
        let counted = count(&seen.databases);
        let past = before.as_ref().map(|(at, counted)| (begun.duration_since(*at), counted));
        let lines = lines(&seen.databases, past);
        match &screen {
            Some(screen) => screen.draw(&seen, &lines),
            None if json => out.line(json!(seen.databases)),
            None => print(&seen, &lines, out),
        }
        before = Some((begun, counted));
        let rest = every.saturating_sub(begun.elapsed());
        let told = async { Some(signals.next().await) };
        let next = async {
            async_io::Timer::after(rest).await;
            None
        };
        match smol::block_on(told.or(next)) {
            Some(told) if told.signal.stops() || told.signal == Signal::Hup => break,
            _ => {}
        }
    }
    Ok(())
}

fn interval(args: &Args) -> Result<Duration, CliError> {
    let Some(text) = args.text("interval")? else { return Ok(INTERVAL) };
    let wrong =
        |error: String| CliError::usage("-interval cannot be understood").cause(error).hint("write 2s");
    match duration::parse(text) {
        Ok(every) if every >= INTERVAL_MIN => Ok(every),
        Ok(_) => Err(wrong(format!("it is at least {}", duration::show(INTERVAL_MIN)))),
        Err(error) => Err(wrong(error)),
    }
}

fn count(databases: &[Value]) -> Counted {
    let counts = |entry: &Value| Some((entry["segments"].as_u64()?, entry["segment_bytes"].as_u64()?));
    databases.iter().filter_map(|entry| Some((name(entry), counts(entry)?))).collect()
}

fn name(entry: &Value) -> String {
    entry["database"].as_str().unwrap_or_default().to_owned()
}

/// The databases, the worst first: those in trouble, then by lag.
fn lines(databases: &[Value], before: Option<(Duration, &Counted)>) -> Vec<Line> {
    let mut lines: Vec<Line> = databases.iter().map(|entry| line(entry, before)).collect();
    let lag = |line: &Line| line.lag_seconds.unwrap_or(f64::MAX);
    lines.sort_by(|a, b| {
        let trouble = b.trouble.is_some().cmp(&a.trouble.is_some());
        trouble
            .then(lag(b).partial_cmp(&lag(a)).unwrap_or(Ordering::Equal))
            .then_with(|| a.database.cmp(&b.database))
    });
    lines
}

fn line(entry: &Value, before: Option<(Duration, &Counted)>) -> Line {
    let text = |name: &str| entry[name].as_str().map(str::to_owned);
    let unseen = entry["commits_unseen"] == true;
    let now = (entry["segments"].as_u64(), entry["segment_bytes"].as_u64());
    let rate = |now: Option<u64>, before: u64, over: Duration| {
        // A process that was started anew counts from zero.
        now.map(|now| now.saturating_sub(before) as f64 / over.as_secs_f64().max(0.001))
    };
    let known = before.and_then(|(over, counted)| Some((over, counted.get(&name(entry))?)));
    let phase = text("phase").unwrap_or_else(|| "starting".to_owned());
    let ended = (entry["ended"] == true).then(|| format!("ended with exit code {}", entry["exit_code"]));
    Line {
        database: name(entry),
        lag_seconds: entry["lag_seconds"].as_f64().filter(|_| !unseen),
        lag_frames: entry["lag_frames"].as_u64().filter(|_| !unseen),
        txid: text("replicated_txid").unwrap_or_else(|| "-".to_owned()),
        uploading: entry["uploading"] == true,
        segments_rate: known.and_then(|(over, before)| rate(now.0, before.0, over)),
        bytes_rate: known.and_then(|(over, before)| rate(now.1, before.1, over)),
        trouble: text("waiting").or(text("last_error")).or(ended.filter(|_| phase == "ended")),
        phase,
    }
}

fn cells(line: &Line) -> Vec<String> {
    let lag = match (line.lag_frames, line.lag_seconds) {
        (Some(0), _) => "none".to_owned(),
        (Some(frames), Some(seconds)) => format!("{seconds:.1} s, {} frames", human_count(frames)),
        _ => "unknown".to_owned(),
    };
    let rate = |rate: Option<f64>, show: fn(f64) -> String| rate.map_or_else(|| "-".to_owned(), show);
    vec![
        plain(&line.database),
        line.phase.clone(),
        lag,
        // The digits that move.
        line.txid.trim_start_matches('0').to_owned(),
        rate(line.segments_rate, |rate| format!("{rate:.1}")),
        rate(line.bytes_rate, |rate| human_bytes(rate as u64)),
        if line.uploading { "yes" } else { "" }.to_owned(),
        line.trouble.as_deref().map(plain).unwrap_or_default(),
    ]
}

/// Names and errors may hold whatever a terminal would act upon.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn table(lines: &[Line]) -> Table {
    let headings = ["database", "phase", "lag", "txid", "txids/s", "bytes/s", "upload", "trouble"];
    let mut table = Table::new(headings);
    lines.iter().for_each(|line| table.row(cells(line)));
    table
}

/// All databases in one line.
fn totals(seen: &Look, lines: &[Line]) -> String {
    if let Some(error) = &seen.error {
        return plain(error);
    }
    let lag = lines.iter().filter_map(|line| line.lag_seconds).fold(0.0, f64::max);
    let sum = |of: fn(&Line) -> Option<f64>| lines.iter().filter_map(of).sum::<f64>();
    format!(
        "{} database{}, {} in trouble, largest lag {lag:.1} s, {:.1} txids/s, {}/s; {}",
        human_count(lines.len() as u64),
        if lines.len() == 1 { "" } else { "s" },
        human_count(lines.iter().filter(|line| line.trouble.is_some()).count() as u64),
        sum(|line| line.segments_rate),
        human_bytes(sum(|line| line.bytes_rate) as u64),
        plain(&seen.processes.join(", ")),
    )
}

fn print(seen: &Look, lines: &[Line], out: &mut Out) {
    let now = jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_else(|_| jiff::Timestamp::now());
    out.line(format_args!("{now}  {}", totals(seen, lines)));
    out.table(&table(lines));
    out.line("");
}

/// The page: as many lines as fit, none longer than the screen is wide.
fn page(seen: &Look, lines: &[Line], rows: usize, columns: usize, colour: bool) -> String {
    let room = rows.saturating_sub(FRAME_LINES).max(1);
    let shown = &lines[..lines.len().min(room)];
    let mut text = vec![totals(seen, lines), String::new()];
    text.extend(table(shown).render().lines().map(str::to_owned));
    if lines.len() > shown.len() {
        text.push(format!("and {} more, better off", human_count((lines.len() - shown.len()) as u64)));
    }
    let mut page = String::from("\x1b[H");
    for (number, line) in text.iter().take(rows).enumerate() {
        let troubled =
            number.checked_sub(3).and_then(|at| shown.get(at)).is_some_and(|line| line.trouble.is_some());
        let (begin, end) = if troubled && colour { ("\x1b[31m", "\x1b[0m") } else { ("", "") };
        let line = truncate_str(line, columns, "…");
        // No line break behind the last: it would move the page.
        let divider = if number == 0 { "" } else { "\r\n" };
        page.push_str(&format!("{divider}{begin}{line}{end}\x1b[K"));
    }
    page + "\x1b[J"
}

/// The alternate screen of a terminal, left when this is dropped.
struct Screen {
    term: Term,
    colour: bool,
}

impl Screen {
    fn enter() -> Screen {
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let screen = Screen { term: Term::stdout(), colour };
        screen.write("\x1b[?1049h\x1b[?25l");
        screen
    }

    fn draw(&self, seen: &Look, lines: &[Line]) {
        let (rows, columns) = self.term.size();
        self.write(&page(seen, lines, rows.into(), columns.into(), self.colour));
    }

    fn write(&self, text: &str) {
        let mut stdout = io::stdout().lock();
        // A terminal that is gone has sent SIGHUP, which ends us.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.write("\x1b[?25h\x1b[?1049l");
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
