//! `cargo sim failover`: hosts that contend for one lease, alone or with all that follows from it.

use std::fmt::Display;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use driftless_sim::bad_input::BadInput;
use driftless_sim::ring0::{Class, Violation, caught};
use driftless_sim::seed::parse_range;
use driftless_sim::trace::{Keep, Trace};
use driftless_sim::{failover, pair};

use crate::Ended;
use crate::args::Args;

pub fn command(args: &Args) -> Ended {
    let keep = if args.is_on("v") { Keep::Print } else { Keep::Nothing };
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
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let jobs = args.number("jobs")?.unwrap_or(processors).max(1);
    let (next, sums, failed) =
        (AtomicU64::new(range.start), Mutex::new(S::default()), Mutex::new(Vec::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    match caught(|| run(seed)) {
                        Ok(one) => add(&mut *sums.lock().expect("no holder panics"), &one),
                        Err(violation) => failed.lock().expect("no holder panics").push((seed, violation)),
                    }
                }
            });
        }
    });
    let sums = sums.into_inner().expect("no holder panics");
    let mut failed: Vec<(u64, Violation)> = failed.into_inner().expect("no holder panics");
    failed.sort_by_key(|(seed, _)| *seed);
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
