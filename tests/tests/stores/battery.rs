//! The battery over each kind of store.

use driftless_adapters::battery::{self, Options, Report};
use driftless_adapters::object::settings::{S3, Service};
use driftless_tests::servers::{Webdav, azurite, gcs, moto};

use crate::support::{azure, gcs as google, s3, webdav, with_store};

fn run(service: Service) -> Report {
    run_with(service, &Options::default())
}

fn run_with(service: Service, options: &Options) -> Report {
    with_store(service, async |store, _| battery::run(&**store, options).await)
}

fn passes(service: Service, unclaimed: &[&str]) {
    let report = run(service);
    assert!(report.passed(), "{report}");
    assert_eq!(report.unclaimed().collect::<Vec<_>>(), unclaimed);
}

/// The large object goes up in one piece here.
#[test]
fn s3_conforms() {
    let s3 = S3 { part_size: Some(8 << 20), ..s3(&moto().bucket("battery")) };
    passes(Service::S3(s3), &[]);
}

/// The large object goes up in parts here.
#[test]
fn s3_conforms_in_parts() {
    let s3 = s3(&moto().bucket("parts"));
    let s3 = S3 { part_size: Some(5 << 20), concurrency: Some(3), checksum: true, ..s3 };
    let report = run(Service::S3(s3));
    // moto minds If-Match of a single put only, not of the end of an upload in parts.
    assert_eq!(report.failed().collect::<Vec<_>>(), ["swap_of_large"], "{report}");
}

#[test]
fn azure_conforms() {
    passes(Service::Azure(azure(&azurite().container("battery"))), &[]);
}

#[test]
fn gcs_conforms() {
    passes(Service::Gcs(google(&gcs().bucket("battery"))), &[]);
}

/// What a store without conditions does not claim.
const CONDITIONS: [&str; 8] = [
    "create_is_refused",
    "decided_at_commit",
    "one_winner",
    "swap_is_exact",
    "swap_names_its_version",
    "swap_of_nothing",
    "swap_of_large",
    "swap_has_one_winner",
];

/// Fewer keys: it has no pages of its own, and the server takes its time.
#[test]
fn webdav_conforms() {
    let server = Webdav::with_password("user", "word");
    let options = Options { listed_keys: 120, ..Options::default() };
    let report = run_with(Service::WebDav(webdav(&server, "user", "word")), &options);
    // WsgiDAV decodes where an object is to be moved before it takes it apart, and so loses what
    // follows a question mark in its name.
    assert_eq!(report.failed().collect::<Vec<_>>(), ["put_then_get"], "{report}");
    assert!(report.to_string().contains("x\": get"), "{report}");
    assert_eq!(report.unclaimed().collect::<Vec<_>>(), CONDITIONS);
}
