//! A database that takes hundreds of megabytes to send, in parts.

use std::path::Path;
use std::time::Duration;

use driftless_tests::app::App;
use driftless_tests::http::Request;
use driftless_tests::objects::Objects as _;
use driftless_tests::place::Remote;
use driftless_tests::proc::status_kib;
use driftless_tests::proxy::{Answer, Fault, Proxy, Rule};
use driftless_tests::s3::Bucket;
use driftless_tests::sidecar::assert_equal_to_source;
use driftless_tests::{PATIENCE, poll, wait_for};

use super::{azure, put_once, s3_bucket};
use crate::side_by_side::Scene;

/// The least that S3 takes for a part which is not the last.
const PART_MIN: u64 = 5 << 20;
/// What a process may keep after work, beyond what it had before it.
const RSS_KIB_MAX: u64 = 32 << 10;

/// Makes a database in WAL mode that no compression makes smaller, and closes it.
fn incompressible(database: &Path, megabytes: u64) {
    let mut app = App::start();
    app.open("big", database);
    app.sql("big", "PRAGMA journal_mode=OFF");
    app.sql("big", "CREATE TABLE big(x)");
    app.sql(
        "big",
        &format!(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {megabytes})
             INSERT INTO big SELECT randomblob(1000000) FROM n"
        ),
    );
    app.sql("big", "PRAGMA journal_mode=WAL");
    app.close("big");
}

/// One process that waits for a database, then sends it in parts, then has nothing to do: what it
/// holds in memory before and after. Returns the bytes of the segment.
fn goes_in_parts_and_in_little_memory(proxy: &Proxy, scene: &Scene<Remote>, megabytes: u64) -> u64 {
    let made = scene.dir.join("made.db");
    incompressible(&made, megabytes);
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("does not exist");
    let idle = status_kib(sidecar.pid(), "VmRSS");
    std::fs::rename(&made, &scene.database).expect("in one directory");
    sidecar.wait_line("replicated txid=");
    sidecar.caught_up();
    let rss = || status_kib(sidecar.pid(), "VmRSS");
    let small = poll(PATIENCE, || (rss() <= idle + RSS_KIB_MAX).then(rss));
    let (after, peak) = (rss(), status_kib(sidecar.pid(), "VmHWM"));
    eprintln!("{megabytes} MB: RSS {idle} KiB before, {after} KiB after, {peak} KiB at most");
    assert!(small.is_some(), "{after} KiB of memory are kept, {idle} KiB were used before");

    let counts = proxy.counts();
    let size = scene.replica.objects().list()[&scene.replica.key(0, 1, 1)];
    let raw = std::fs::metadata(&scene.database).expect("it was made").len();
    assert!(size >= raw, "{size} of {raw} bytes: it was to be incompressible");
    let records = proxy.records();
    let parts = records.iter().filter(|record| record.operation() == "PUT-PART");
    let part = parts.map(|part| part.body_bytes).max().expect("there were parts");
    assert!(part >= PART_MIN, "parts of {part} bytes");
    assert_eq!(counts["PUT-PART"] as u64, size.div_ceil(part), "all alike but the last: {counts:?}");
    assert_eq!(counts["COMPLETE-UPLOAD"], 1, "{counts:?}");
    put_once(proxy);
    sidecar.stop();
    assert_equal_to_source(&scene.database, &scene.replica);
    size
}

#[test]
fn a_snapshot_of_300_mb_goes_in_parts_and_in_little_memory() {
    let (proxy, bucket, scene) = s3_bucket("large");
    let size = goes_in_parts_and_in_little_memory(&proxy, &scene, 300);
    assert!(size >= 300_000_000, "{size}");
    assert_eq!(proxy.counts()["CREATE-UPLOAD"], 1);
    assert_eq!(bucket.uploads(), []);
}

#[test]
fn a_snapshot_goes_to_azure_in_blocks() {
    let (proxy, scene) = azure("large");
    goes_in_parts_and_in_little_memory(&proxy, &scene, 60);
}

fn parts_done(proxy: &Proxy) -> usize {
    let records = proxy.records();
    records.iter().filter(|record| record.operation() == "PUT-PART" && record.status.is_some()).count()
}

/// A process that is killed between two parts leaves an upload that nobody sees and everybody pays
/// for. It is left alone while it could be another's that is under way, and removed a day later.
#[test]
fn an_upload_that_died_is_removed_when_it_is_old() {
    let (proxy, bucket, scene) = s3_bucket("orphan");
    incompressible(&scene.database, 40);
    let slow = proxy.add(Rule::new(Fault::DelayAnswer(Duration::from_millis(300))).operation("PUT-PART"));
    let sidecar = scene.sidecar();
    wait_for("some parts", PATIENCE, || parts_done(&proxy) >= 2);
    sidecar.kill();
    proxy.remove(slow);
    assert_eq!(bucket.uploads().len(), 1, "it was not killed in an upload");
    assert_eq!(bucket.count(), probe_cells(&bucket), "half an object is seen");

    // moto says of every upload that it began on this day; by the server's clock that is 23 hours ago.
    let list = bucket.send(Request::new("GET", &format!("/{}?uploads=", bucket.name())));
    assert!(list.text().contains("2010-11-10T20:48:33"), "{}", list.text());
    let young = Answer::again(&list).header("Date", "Thu, 11 Nov 2010 19:48:33 GMT");
    let young = proxy.add(Rule::new(Fault::Answer(young)).operation("LIST-UPLOADS"));
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    wait_for("a look for orphans", PATIENCE, || proxy.hits(young) == 1);
    sidecar.stop();
    assert_eq!(bucket.uploads().len(), 1, "another's upload that may be under way was removed");

    // And by now it is years.
    proxy.remove(young);
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("removed 1 uploads");
    assert_eq!(bucket.uploads(), []);
    sidecar.stop();
    assert_equal_to_source(&scene.database, &scene.replica);
}

/// What probes have left in a bucket: a kill may meet one.
fn probe_cells(bucket: &Bucket) -> usize {
    bucket.list().keys().filter(|name| name.contains("/.driftless/probe-")).count()
}
