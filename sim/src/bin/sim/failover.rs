//! `cargo sim failover`: hosts that contend for one lease.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use driftless_sim::bad_input::BadInput;
use driftless_sim::failover::{Summary, run};
use driftless_sim::ring0::{Class, Violation};
use driftless_sim::seed::parse_range;

use crate::Ended;
use crate::args::Args;

pub fn command(args: &Args) -> Ended {
    let text =
        args.text("seeds").ok_or_else(|| BadInput::new("no seeds were given").hint("--seeds 0..1000"))?;
    let range = parse_range(text)?;
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
    let jobs = args.number("jobs")?.unwrap_or(processors).max(1);
    let (next, sums, failed) =
        (AtomicU64::new(range.start), Mutex::new(Summary::default()), Mutex::new(Vec::new()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= range.end {
                        return;
                    }
                    match run(seed) {
                        Ok(one) => sums.lock().expect("no holder panics").add(&one),
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
        println!("FAILED {violation}\n  replay    cargo sim failover --seeds {seed}+1");
    }
    let (count, seconds) = (range.end - range.start, begun.elapsed().as_secs_f64());
    println!("seeds         {count}, {} failed, in {seconds:.1} s", failed.len());
    println!("claims        {}, {} of them takeovers", sums.claims, sums.takeovers);
    println!("deposed       {}", sums.deposed);
    println!("overtaken     {}", sums.overtaken);
    println!(
        "commits       {}, {} acknowledged, {} in no history",
        sums.commits, sums.acknowledged, sums.lost_tails
    );
    println!("faults        {}", sums.faults);
    Ok(failed
        .first()
        .map_or(ExitCode::SUCCESS, |(_, violation)| ExitCode::from(Class::of(violation.oracle).exit_code())))
}
