//! The battery over each kind of store.

use driftless_adapters::battery::{self, Options, Report};
use driftless_adapters::object::settings::{S3, Service};
use driftless_tests::servers::{azurite, gcs, moto};

use crate::support::{azure, gcs as google, s3, with_store};

fn run(service: Service) -> Report {
    with_store(service, async |store, _| battery::run(&**store, &Options::default()).await)
}

fn passes(service: Service, unclaimed: &[&str]) {
    let report = run(service);
    assert!(report.passed(), "{report}");
    assert_eq!(report.unclaimed().collect::<Vec<_>>(), unclaimed);
}

#[test]
fn s3_conforms() {
    passes(Service::S3(s3(&moto().bucket("battery"))), &[]);
}

/// The large object goes up in parts here.
#[test]
fn s3_conforms_in_parts() {
    let s3 =
        S3 { part_size: Some(5 << 20), concurrency: Some(3), checksum: true, ..s3(&moto().bucket("parts")) };
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
