//! Nothing passes between a full-speed application's replicator and its store, for a while.

use std::time::Duration;

use driftless_tests::app::App;
use driftless_tests::{PATIENCE, wait_for};
use serde_json::json;

use super::{put_once, s3};
use crate::side_by_side::{KEEP, recovers, status};
use crate::trouble::full_speed::{Terms, Watch};

/// How long: `DRIFTLESS_SILENCE_SECONDS`, or 20 seconds. The rules are the same from the first second on,
/// and a minute wants a machine that does nothing else.
fn silence() -> Duration {
    let seconds = std::env::var("DRIFTLESS_SILENCE_SECONDS");
    Duration::from_secs(seconds.map_or(20, |seconds| seconds.parse().expect("a whole number of seconds")))
}

#[test]
fn the_wal_keeps_its_bound_at_full_speed_while_the_store_is_silent() {
    let (proxy, scene) = s3("silence");
    let mut app = App::start();
    app.prepare("look", &scene.database);
    let sidecar = scene.sidecar();
    // A base would hold the WAL: this one is behind us.
    sidecar.caught_up();
    app.start_writer(&scene.database, json!({ "keep": KEEP }));
    let mut watch = Watch::new();
    watch.look_for(&mut app, Duration::from_secs(2));
    let held = sidecar.replicated();
    proxy.silence(None);
    watch.look_for(&mut app, silence());
    let told = status(&sidecar);
    proxy.heal();
    assert!(told["lag_seconds"].as_f64().is_some_and(|lag| lag + 5.0 >= silence().as_secs_f64()), "{told}");
    assert!(told["lag_frames"].as_u64().is_some_and(|frames| frames > 10_000), "{told}");
    let counts = app.counts();
    // What was on its way arrives; what waited follows.
    wait_for("replication to go on", PATIENCE, || sidecar.replicated() > held);
    let bases = sidecar.count("writing the ");
    app.stop_writer();
    recovers(&sidecar);
    let terms = Terms::measure(&watch, &mut app, &sidecar);
    drop(app);
    scene.ends_well(sidecar);
    put_once(&proxy);

    let largest = watch.largest();
    eprintln!("{counts}; {terms} frames, largest WAL {largest} frames, {bases} base(s)");
    assert_eq!(bases, 1, "a base held the WAL while it was measured");
    assert!(largest as f64 <= terms.bound(), "the WAL grew to {largest} frames; {terms}");
}
