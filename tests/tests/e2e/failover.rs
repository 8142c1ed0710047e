//! Two hosts: the writer is struck, and the other takes over (`docs/FAILOVER.md`). More rounds by
//! `cargo run --release -p driftless-tests --bin failover`.

use driftless_tests::failover::{Blow, Pair, ways};
use driftless_tests::place::Remote;
use driftless_tests::servers::{azurite, moto};

#[test]
fn a_standby_takes_over_on_s3() {
    let bucket = moto().bucket("failover");
    let mut pair = Pair::start("failover-s3", ways(moto().address(), |way| Remote::s3(&bucket, way)));
    for blow in Blow::ALL {
        pair.round(blow);
    }
    pair.end();
}

#[test]
fn a_standby_takes_over_on_azure() {
    let container = azurite().container("failover");
    let ways = ways(azurite().address(), |way| Remote::azure(&container, way));
    let mut pair = Pair::start("failover-azure", ways);
    for blow in [Blow::Kill, Blow::Handoff] {
        pair.round(blow);
    }
    pair.end();
}
