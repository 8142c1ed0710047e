//! `cargo sim run`: many seeds in several processes, and what they came to. The seeds that once
//! failed run first.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use driftless_sim::bad_input::BadInput;
use driftless_sim::ring0::Class;
use driftless_sim::ring0::profile::Profile;
use driftless_sim::scenario::Scenario;
use driftless_sim::seed::{kept, parse_range};

use crate::Ended;
use crate::args::Args;
use crate::failure::{self, Case, Seen};
use crate::table::Table;
use crate::worker::{self, Line};

/// A seed that takes longer than this does not end: its process is ended.
const SEED_MAX: Duration = Duration::from_secs(300);
/// So many failures are made small, each for so long; all are told.
const SHRINK_MAX: usize = 3;
const SHRINK: Duration = Duration::from_secs(30);

pub fn run(args: &Args) -> Ended {
    let seeds = args.text("seeds").ok_or_else(|| BadInput::new("no seeds were given"))?;
    let seeds = parse_range(seeds)?;
    let processors = thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let jobs = match args.number("jobs")?.unwrap_or(processors) {
        0 => return Err(BadInput::new("--jobs 0: somebody must do it")),
        jobs => jobs.min(seeds.end - seeds.start),
    };
    let profile = args.profile()?;
    let began = Instant::now();
    let mut table = Table::default();
    let mut failures: Vec<(u64, Seen)> = Vec::new();
    let mut take = |line: Line| {
        table.add(&line);
        if let Some((oracle, text)) = line.seen {
            let short: String = text.chars().take(300).collect();
            println!("seed {}: {oracle}: {short}", line.seed);
            failures.push((line.seed, Seen { oracle, text }));
        }
        if std::io::stderr().is_terminal() {
            eprint!("\r{} seeds, {} failed ", table.seeds(), failures.len());
        }
    };
    if profile == Profile::Seed && !args.is_on("only") {
        kept().for_each(|(seed, _)| take(worker::line(seed, profile)));
    }
    let mut crew = Crew::new(seeds.end, jobs, profile);
    for job in 0..jobs {
        crew.hire(seeds.start + job)?;
    }
    while let Some(line) = crew.next_line()? {
        take(line);
    }
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    print!("{}", table.text(began.elapsed(), jobs));
    failures.sort_by_key(|(seed, _)| *seed);
    let options = match profile {
        Profile::Seed => String::new(),
        other => format!(" --profile {}", other.name()),
    };
    for (seed, seen) in failures.iter().take(SHRINK_MAX) {
        let scenario = Scenario::new(*seed, profile.plan(*seed));
        let case = Case { name: &seed.to_string(), options: &options, scenario: &scenario };
        // What never ends would not end here either.
        let time = if seen.oracle == "hang" { Duration::ZERO } else { SHRINK };
        failure::tell(&case, seen, &args.out(), time)?;
    }
    let worst = failures.iter().map(|(_, seen)| Class::of(&seen.oracle)).min();
    if worst.is_none() && table.is_excused_too_often() {
        return Ok(ExitCode::from(Class::Safety.exit_code()));
    }
    Ok(worst.map_or(ExitCode::SUCCESS, |class| ExitCode::from(class.exit_code())))
}

/// The processes, and what they say.
struct Crew {
    end: u64,
    step: u64,
    profile: Profile,
    workers: Vec<Worker>,
    sender: Sender<(usize, Option<String>)>,
    receiver: mpsc::Receiver<(usize, Option<String>)>,
}

struct Worker {
    child: Child,
    /// The seed that it is at.
    at: u64,
    since: Instant,
    ended: bool,
}

impl Crew {
    fn new(end: u64, step: u64, profile: Profile) -> Crew {
        let (sender, receiver) = mpsc::channel();
        Crew { end, step, profile, workers: Vec::new(), sender, receiver }
    }

    /// Starts a process that runs `from` and every so-many-th seed after it.
    fn hire(&mut self, from: u64) -> Result<(), BadInput> {
        let cannot = |error: std::io::Error| BadInput::new(format!("cannot start a process: {error}"));
        let words = [from, self.end, self.step].map(|number| number.to_string());
        let mut child = Command::new(std::env::current_exe().map_err(cannot)?)
            .arg("worker")
            .args(words)
            .arg(self.profile.name())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let output = child.stdout.take().expect("it is piped");
        let (no, sender) = (self.workers.len(), self.sender.clone());
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                // Nobody waits any more.
                let _ = sender.send((no, Some(line)));
            }
            let _ = sender.send((no, None));
        });
        self.workers.push(Worker { child, at: from, since: Instant::now(), ended: false });
        Ok(())
    }

    /// What the next seed came to; `None` when all have ended.
    fn next_line(&mut self) -> Result<Option<Line>, BadInput> {
        while self.workers.iter().any(|worker| !worker.ended) {
            match self.receiver.recv_timeout(Duration::from_secs(1)) {
                Ok((no, Some(text))) => {
                    let line: Line = serde_json::from_str(&text)
                        .map_err(|error| BadInput::new(format!("a process says {text:?}: {error}")))?;
                    let worker = &mut self.workers[no];
                    (worker.at, worker.since) = (line.seed.saturating_add(self.step), Instant::now());
                    return Ok(Some(line));
                }
                Ok((no, None)) => {
                    if let Some(line) = self.gone(no)? {
                        return Ok(Some(line));
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.end_what_hangs(),
                Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept for new processes"),
            }
        }
        Ok(None)
    }

    /// A process has ended: at its end, or in the middle of a seed, which another one goes on after.
    fn gone(&mut self, no: usize) -> Result<Option<Line>, BadInput> {
        let worker = &mut self.workers[no];
        worker.ended = true;
        let status = worker.child.wait().map_err(|error| BadInput::new(error.to_string()))?;
        let (seed, hung) = (worker.at, worker.since.elapsed() > SEED_MAX);
        if seed >= self.end {
            return Ok(None);
        }
        let next = seed.saturating_add(self.step);
        if next < self.end {
            self.hire(next)?;
        }
        let seen = match hung {
            true => ("hang".to_owned(), format!("it ran for more than {SEED_MAX:?}")),
            false => ("panic".to_owned(), format!("the process ended with {status}")),
        };
        Ok(Some(Line { seed, summary: None, seen: Some(seen), hits: Default::default() }))
    }

    fn end_what_hangs(&mut self) {
        for worker in self.workers.iter_mut().filter(|worker| !worker.ended) {
            if worker.since.elapsed() > SEED_MAX {
                // Its end is told by the thread that reads from it; if it has just ended, as well.
                let _ = worker.child.kill();
            }
        }
    }
}

impl Drop for Crew {
    /// No process outlives the one that started it.
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().filter(|worker| !worker.ended) {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}
