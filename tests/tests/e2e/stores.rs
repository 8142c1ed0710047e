//! Replicas in object stores: what holds of directories holds here, with a network between.
//!
//! The stores are the servers of [`driftless_tests::servers`]. Most stories have the fault proxy on
//! the way, which also counts: a segment becomes visible by one request, and an idle database makes
//! none.

mod daily;
mod encryption;
mod faults;
mod keys;
mod large;
mod many;
mod quiet;
mod races;
mod refusals;
mod silence;
mod weak;

use std::thread;

use driftless_tests::place::Remote;
use driftless_tests::proxy::{Proxy, put_more_than_once};
use driftless_tests::s3::Bucket;
use driftless_tests::servers::{azurite, moto};

use crate::side_by_side::Scene;

/// A database whose replica lies in a new bucket of moto's, behind a proxy.
fn s3(name: &str) -> (Proxy, Scene<Remote>) {
    let (proxy, _, scene) = s3_bucket(name);
    (proxy, scene)
}

/// The same, with the bucket.
fn s3_bucket(name: &str) -> (Proxy, Bucket, Scene<Remote>) {
    let bucket = moto().bucket(name);
    let proxy = Proxy::start(bucket.server());
    let remote = Remote::s3(&bucket, proxy.address());
    (proxy, bucket, Scene::at(name, remote))
}

/// A database whose replica lies in a new container of azurite's, behind a proxy.
fn azure(name: &str) -> (Proxy, Scene<Remote>) {
    let container = azurite().container(name);
    let proxy = Proxy::start(azurite().address());
    let remote = Remote::azure(&container, proxy.address());
    (proxy, Scene::at(name, remote))
}

/// Each segment became visible by one request: none was put in the place of another, and none twice.
#[track_caller]
fn put_once(proxy: &Proxy) {
    let records = proxy.records();
    let puts = records.iter().filter(|record| record.shows_segment() && record.took_effect());
    assert!(puts.count() > 0, "nothing was put by way of the proxy");
    let twice = put_more_than_once(&records);
    assert!(twice.is_empty(), "put more than once: {twice:?}");
}

/// A story, which is told with its name.
type Story = fn(&str);

/// Tells stories at the same time: they wait more than they work.
fn at_the_same_time(stories: &[(&str, Story)]) {
    thread::scope(|scope| {
        let told: Vec<_> =
            stories.iter().map(|(name, story)| (name, scope.spawn(move || story(name)))).collect();
        let failed: Vec<&str> =
            told.into_iter().filter_map(|(name, story)| story.join().is_err().then_some(*name)).collect();
        assert!(failed.is_empty(), "failed: {failed:?}");
    });
}

/// What waits for longer than anything else here: deadlines of a minute, and quiet.
#[test]
fn stories_that_take_a_minute() {
    at_the_same_time(&[
        ("hanging-list", faults::hanging_list),
        ("hanging-put", faults::hanging_put),
        ("hanging-put-after", faults::hanging_put_with_effect),
        ("late-landing", faults::late_landing),
        ("idle", quiet::idle),
        ("idle-levels", quiet::levels_come_to_rest),
        ("slow", quiet::one_write_a_second),
        ("unreachable-readers", refusals::unreachable_to_readers),
        ("unreachable", refusals::unreachable_for_a_while),
    ]);
}
