//! Stores that do not keep what S3 promises.

use driftless_tests::app::App;
use driftless_tests::daemon;
use driftless_tests::place::{Place as _, Remote};
use driftless_tests::proxy::Proxy;
use driftless_tests::servers::Rclone;
use driftless_tests::sidecar::Sidecar;
use driftless_tests::{PATIENCE, run};

use crate::side_by_side::Scene;

/// `rclone serve s3` takes a conditional put for a plain one. It is found out; replication goes on
/// with a look before each put, which keeps out a second writer that comes later.
#[test]
fn a_store_that_ignores_conditions_is_found_out() {
    let rclone = Rclone::start();
    let bucket = rclone.bucket("weak");
    let proxy = Proxy::start(bucket.server());
    let scene = Scene::at("weak", Remote::s3(&bucket, proxy.address()));
    let mut app = scene.app();
    app.tx("a");
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("the store was probed");
    sidecar.wait_line("does not refuse to replace an object");
    sidecar.caught_up();
    let told = daemon::status(&scene.database);
    assert_eq!(told["store"]["create_if_absent"], "ignored", "{told}");
    assert_eq!((&told["status"], &told["last_error"]), (&"ok".into(), &().into()), "{told}");
    let printed = run(["status".as_ref(), scene.database.as_os_str()]).expect_ok().out;
    assert!(printed.contains("create-if-absent ignored"), "{printed}");

    // From now on each put is preceded by a look.
    let mark = proxy.mark();
    app.tx("a");
    sidecar.caught_up();
    let asked = proxy.since(mark);
    let put =
        asked.iter().position(driftless_tests::proxy::Record::shows_segment).expect("it was replicated");
    let look = asked.iter().position(|record| matches!(record.method.as_str(), "GET" | "HEAD"));
    assert!(look.is_some_and(|look| look < put), "{asked:?}");

    let before = scene.replica.snapshot();
    let other = scene.dir.join("other.db");
    let mut stranger = App::start();
    stranger.prepare("b", &other);
    stranger.tx("b");
    let mut fenced = Sidecar::of(&other, &scene.replica);
    assert_eq!(fenced.wait(PATIENCE).code(), Some(5), "{:?}", fenced.lines());
    assert_eq!(scene.replica.snapshot(), before, "the second writer has written");
    app.tx("a");
    drop(app);
    scene.ends_well(sidecar);
    assert_eq!(scene.held(), 3);
}
