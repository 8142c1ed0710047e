//! `cargo sim trace`.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use driftless_sim::bad_input::BadInput;
use driftless_sim::ring0::report;
use driftless_sim::timeline::{self, Title};
use driftless_sim::trace::{Keep, TraceFile};

use crate::Ended;
use crate::args::{Args, read};
use crate::failure;

pub fn run(args: &Args) -> Ended {
    if args.is_on("json") && args.is_on("html") {
        return Err(BadInput::new("--json and --html are two ways, and one is wanted"));
    }
    let trace = of_file(args)?;
    let (trace, name) = match trace {
        Some(trace) => {
            let name = format!("seed {}", trace.header.seed);
            (trace, name)
        }
        None => {
            let subject = args.subject()?;
            let scenario = subject.scenario;
            let noise = AtomicBool::new(args.is_on("noise"));
            let report = std::thread::scope(|scope| {
                let workers = if args.is_on("noise") { 3 } else { 0 };
                (0..workers).for_each(|_| drop(scope.spawn(|| work(&noise))));
                let report = report(scenario.seed, scenario.plan, Keep::Records, None);
                noise.store(false, Ordering::SeqCst);
                report
            });
            let name = if subject.is_file { subject.name } else { format!("seed {}", scenario.seed) };
            (TraceFile::new(scenario.seed, report.records), name)
        }
    };
    let mut text = Vec::new();
    if args.is_on("html") {
        let violation = timeline::violation_of(&trace);
        let subject = args.positionals.first().map_or("", String::as_str);
        let title =
            Title { name, violation, replay: format!("cargo sim replay {subject}"), ..Title::default() };
        text.extend_from_slice(timeline::page(&trace, &title).as_bytes());
    } else {
        trace.write(&mut text).expect("memory takes it");
    }
    match args.text("o") {
        Some(path) => failure::write(Path::new(path), &String::from_utf8(text).expect("both are UTF-8"))?,
        None => match io::stdout().write_all(&text) {
            // Whoever reads it has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(BadInput::new(format!("cannot write the trace: {error}"))),
            Ok(()) => {}
        },
    }
    Ok(ExitCode::SUCCESS)
}

/// The trace that a file holds, if a file was named and it holds one.
fn of_file(args: &Args) -> Result<Option<TraceFile>, BadInput> {
    let Some(path) = args.positionals.first().map(Path::new).filter(|path| path.is_file()) else {
        return Ok(None);
    };
    let text = read(path)?;
    if TraceFile::is_one(&text) { TraceFile::read(text.as_bytes()).map(Some) } else { Ok(None) }
}

/// What other threads of a process may do while a world runs: allocate, hash, yield.
fn work(on: &AtomicBool) {
    let mut kept = std::collections::HashMap::new();
    while on.load(Ordering::SeqCst) {
        for n in 0..200_u64 {
            kept.insert(n, vec![0_u8; (n as usize * 37) % 4_096]);
        }
        kept.clear();
        std::thread::yield_now();
    }
}
