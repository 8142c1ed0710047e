//! Failover, round after round (`tests/src/failover.rs`).
//!
//! `cargo run --release -p driftless-tests --bin failover -- [--rounds N] [--store s3|azure] [--only kill|pause|cut|handoff] [--others N]`
//! strikes the writer in each of the ways N times (default 30), and tells how long takeovers took. What is
//! lost is a panic, and the files stay; takeovers that took too long fail the run at its end.
//! `--others` has the hosts replicate as many databases more, which nobody writes; how long takeovers may take is
//! not asked of them then. Azure's server is the one for that: ours of S3 makes one change at a time.
#![expect(clippy::print_stdout, reason = "it says how far it is")]

use driftless_tests::failover::{Blow, Pair, ways};
use driftless_tests::place::Remote;
use driftless_tests::servers::{azurite, moto};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let known = |pair: &[String]| {
        pair.len() == 2 && ["--rounds", "--store", "--only", "--others"].contains(&&*pair[0])
    };
    if !words.chunks(2).all(known) {
        println!("failover [--rounds N] [--store s3|azure] [--only kill|pause|cut|handoff] [--others N]");
        std::process::exit(2);
    }
    let value = |name: &str| words.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone());
    let rounds: usize = value("--rounds").map_or(30, |text| text.parse().expect("--rounds is a number"));
    let others: usize = value("--others").map_or(0, |text| text.parse().expect("--others is a number"));
    let only = value("--only").map(|word| Blow::named(&word).unwrap_or_else(|| panic!("what is {word:?}?")));
    // A proxy would have hundreds of databases wait for it.
    let directly = others > 0;
    assert!(
        !directly || !matches!(only, None | Some(Blow::Cut)),
        "--others goes with --only kill, pause or handoff"
    );
    let way_to = |server, way| if directly { server } else { way };
    let mut pair = match value("--store").as_deref() {
        None | Some("s3") => {
            let bucket = moto().bucket("failover");
            Pair::start(
                "failover-s3",
                ways(moto().address(), |way| Remote::s3(&bucket, way_to(moto().address(), way))),
                others,
            )
        }
        Some("azure") => {
            let container = azurite().container("failover");
            Pair::start(
                "failover-azure",
                ways(azurite().address(), |way| Remote::azure(&container, way_to(azurite().address(), way))),
                others,
            )
        }
        Some(other) => panic!("what is {other:?}? Use: failover [--rounds N] [--store s3|azure]"),
    };
    let mut late = Vec::new();
    for blow in Blow::ALL.into_iter().filter(|blow| only.is_none_or(|only| only == *blow)) {
        let mut took: Vec<f64> = (0..rounds).map(|_| pair.round(blow).takeover.as_secs_f64()).collect();
        println!("{blow:?}: {took:.2?}");
        took.sort_by(f64::total_cmp);
        let (median, most) = (took[took.len() / 2], took[took.len() - 1]);
        println!("{blow:?}: {rounds} rounds, median {median:.2} s, most {most:.2} s");
        if !directly && most > pair.allowed(blow).as_secs_f64() {
            late.push(blow);
        }
    }
    pair.end();
    println!("one history, nothing acknowledged is lost");
    assert!(late.is_empty(), "longer than is allowed: {late:?}");
}
