//! `cargo sim failover`: hosts that contend for one lease, alone or with all that follows from it.

use std::fmt::Display;
use std::ops::Range;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use driftless_sim::bad_input::BadInput;
use driftless_sim::pair::explore::{self, Case, Strike, Survey, Way};
use driftless_sim::ring0::{Class, Violation, caught};
use driftless_sim::seed::parse_range;
use driftless_sim::trace::{Keep, Trace};
use driftless_sim::{failover, pair};

use crate::Ended;
use crate::args::Args;

pub fn command(args: &Args) -> Ended {
    let keep = if args.is_on("v") { Keep::Print } else { Keep::Nothing };
    if args.is_on("explore") {
        return explore_all(args);
    }
    match args.is_on("whole") {
        true => run_all(args, "--whole ", pair::Summary::add, move |seed| pair::run(seed, Trace::new(keep))),
        false => run_all(args, "", failover::Summary::add, failover::run),
    }
}

fn run_all<S: Default + Display + Send>(
    args: &Args,
    flags: &str,
    add: fn(&mut S, &S),
    run: impl Fn(u64) -> Result<S, Violation> + Sync,
) -> Ended {
    let text =
        args.text("seeds").ok_or_else(|| BadInput::new("no seeds were given").hint("--seeds 0..1000"))?;
    let range = parse_range(text)?;
    let begun = Instant::now();
    let (sums, failed) = on_all_processors(args, range.clone(), add, run)?;
    for (seed, violation) in failed.iter().take(10) {
        println!("FAILED {violation}\n  replay    cargo sim failover {flags}--seeds {seed}+1");
    }
    let (count, seconds) = (range.end - range.start, begun.elapsed().as_secs_f64());
    println!("seeds         {count}, {} failed, in {seconds:.1} s", failed.len());
    print!("{sums}");
    Ok(failed
        .first()
        .map_or(ExitCode::SUCCESS, |(_, violation)| ExitCode::from(Class::of(violation.oracle).exit_code())))
}

/// Numbers that failed, with what was wrong.
type Failed = Vec<(u64, Violation)>;

fn on_all_processors<S: Default + Send>(
    args: &Args,
    range: Range<u64>,
    add: fn(&mut S, &S),
    run: impl Fn(u64) -> Result<S, Violation> + Sync,
) -> Result<(S, Failed), BadInput> {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let jobs = args.number("jobs")?.unwrap_or(processors).max(1);
    let (next, sums, failed) =
        (AtomicU64::new(range.start), Mutex::new(S::default()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= range.end {
                        return;
                    }
                    match caught(|| run(number)) {
                        Ok(one) => add(&mut *sums.lock().expect("no holder panics"), &one),
                        Err(violation) => failed.lock().expect("no holder panics").push((number, violation)),
                    }
                }
            });
        }
    });
    let mut failed: Failed = failed.into_inner().expect("no holder panics");
    failed.sort_by_key(|(number, _)| *number);
    Ok((sums.into_inner().expect("no holder panics"), failed))
}

/// Every strike at every place, in each way to lose the writer.
fn explore_all(args: &Args) -> Ended {
    let (first, every) = crate::explore::part(args)?;
    let (mut runs, mut sums, mut worst) = (0, pair::Summary::default(), None);
    for way in Way::ALL {
        let begun = Instant::now();
        let none = Case { way, strike: None };
        let (_, survey) = match explore::run(none, Keep::Nothing) {
            Ok(survey) => survey,
            Err(violation) => {
                println!("FAILED {way:?} {violation}");
                return Ok(ExitCode::from(Class::of(violation.oracle).exit_code()));
            }
        };
        let strikes: Vec<Strike> =
            survey.strikes().skip(first as usize - 1).step_by(every as usize).collect();
        let run = |n: u64| {
            let case = Case { way, strike: Some(strikes[n as usize]) };
            explore::run(case, Keep::Nothing).map(|(summary, _)| summary)
        };
        let (sum, failed) = on_all_processors(args, 0..strikes.len() as u64, pair::Summary::add, run)?;
        for (n, violation) in failed.iter().take(10) {
            println!("FAILED {way:?} {:?}: {violation}", strikes[*n as usize]);
        }
        worst = worst.or(failed.first().map(|(_, violation)| Class::of(violation.oracle).exit_code()));
        let (count, failed, seconds) = (strikes.len(), failed.len(), begun.elapsed().as_secs_f64());
        let Survey { actions, sent, .. } = survey;
        println!(
            "{way:?}: {actions} actions, {sent} requests: {count} runs in {seconds:.1} s, {failed} failed"
        );
        (runs, sums) = (runs + count, {
            sums.add(&sum);
            sums
        });
    }
    println!("runs          {runs}");
    print!("{sums}");
    Ok(worst.map_or(ExitCode::SUCCESS, ExitCode::from))
}
