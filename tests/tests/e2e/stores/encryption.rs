//! Storage class and encryption: what is asked for stands on every request that stores something,
//! whichever way it was asked for.

use std::collections::BTreeSet;

use driftless_tests::app::App;
use driftless_tests::place::Remote;
use driftless_tests::proxy::{Proxy, Record};
use driftless_tests::servers::moto;
use driftless_tests::{PATIENCE, wait_for};

use crate::side_by_side::Scene;

/// 32 bytes in base64.
const CUSTOMER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const CUSTOMER_KEY_MD5: &str = "tP/LI3N87DFaSk0aoqYgzg==";

/// The header fields of a request that this is about, sorted.
fn about_storing(record: &Record) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = record
        .headers
        .iter()
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .filter(|(name, _)| name.starts_with("x-amz-server-side-encryption") || name == "x-amz-storage-class")
        .collect();
    fields.sort();
    fields
}

/// What each kind of request says of it.
type Said = BTreeSet<(&'static str, Vec<(String, String)>)>;

fn said(proxy: &Proxy) -> Said {
    let about = ["PUT", "CREATE-UPLOAD", "PUT-PART", "COMPLETE-UPLOAD", "GET", "HEAD"];
    let records = proxy.records().into_iter().filter(|record| about.contains(&record.operation()));
    records.map(|record| (record.operation(), about_storing(&record))).collect()
}

/// Replicates a base in parts and a small capture, and restores; `options` as names and values.
fn requests(options: &[(&str, &str)], by_url: bool) -> Said {
    let bucket = moto().bucket("encrypted");
    let proxy = Proxy::start(bucket.server());
    let mut remote = Remote::s3(&bucket, proxy.address());
    let mut yaml = String::new();
    for (name, value) in options {
        if by_url {
            remote = remote.with(&format!("{name}={}", value.replace('+', "%2B").replace('/', "%2F")));
        } else {
            yaml.push_str(&format!("{name}: {value}\n"));
        }
    }
    let scene = Scene::at("encrypted", remote);
    let mut app = App::start();
    app.prepare("a", &scene.database);
    app.sql("a", "CREATE TABLE big(x)");
    app.sql("a", "INSERT INTO big SELECT randomblob(12000000)");
    app.sql("a", "PRAGMA wal_checkpoint(TRUNCATE)");
    let sidecar = scene.setup().settings(&yaml).start();
    sidecar.caught_up();
    app.tx("a");
    wait_for("a small capture", PATIENCE, || sidecar.replicated() >= Some(2));
    sidecar.caught_up();
    sidecar.stop();
    said(&proxy)
}

/// The same by both ways, and as it should be.
#[track_caller]
fn check(options: &[(&str, &str)], expected: &[(&'static str, &[(&str, &str)])]) {
    let owned = |fields: &[(&str, &str)]| {
        fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>()
    };
    let expected: Said = expected.iter().map(|(kind, fields)| (*kind, owned(fields))).collect();
    for by_url in [true, false] {
        assert_eq!(requests(options, by_url), expected, "by url: {by_url}");
    }
}

#[test]
fn storage_class_and_kms_are_the_same_on_every_path() {
    let asked: &[(&str, &str)] = &[
        ("x-amz-server-side-encryption", "aws:kms"),
        ("x-amz-server-side-encryption-aws-kms-key-id", "a-key"),
        ("x-amz-storage-class", "STANDARD_IA"),
    ];
    check(
        &[("sse-kms-key-id", "a-key"), ("storage-class", "STANDARD_IA"), ("part-size", "5MiB")],
        &[
            ("PUT", asked),
            ("CREATE-UPLOAD", asked),
            ("PUT-PART", &[]),
            ("COMPLETE-UPLOAD", &[]),
            ("GET", &[]),
        ],
    );
}

#[test]
fn a_customers_key_is_on_every_request_that_needs_it() {
    let key: &[(&str, &str)] = &[
        ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ("x-amz-server-side-encryption-customer-key", CUSTOMER_KEY),
        ("x-amz-server-side-encryption-customer-key-md5", CUSTOMER_KEY_MD5),
    ];
    check(
        &[("sse-customer-key", CUSTOMER_KEY), ("part-size", "5MiB")],
        &[("PUT", key), ("CREATE-UPLOAD", key), ("PUT-PART", key), ("COMPLETE-UPLOAD", key), ("GET", key)],
    );
}
