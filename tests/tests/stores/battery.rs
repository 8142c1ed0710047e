//! The battery over each kind of store.

use driftless_adapters::battery::{self, Options};
use driftless_adapters::object::settings::Service;
use driftless_tests::servers::moto;

use crate::support::{s3, with_store};

fn passes(service: Service, unclaimed: &[&str]) {
    let report = with_store(service, async |store, _| battery::run(&**store, &Options::default()).await);
    assert!(report.passed(), "{report}");
    assert_eq!(report.unclaimed().collect::<Vec<_>>(), unclaimed);
}

#[test]
fn s3_conforms() {
    passes(Service::S3(s3(&moto().bucket("battery"))), &[]);
}
