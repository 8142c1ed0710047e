//! What Litestream wrote, restored by us: each restore point of `shared/fixtures/ltx-*`.
//!
//! The fixtures were made by Litestream 0.5.5, 0.5.11 and 0.5.17, which also restored them; each
//! `expected.json` has the digest and the page count of what came out, and an error where no file
//! covers a transaction.

use std::fs;
use std::path::Path;

use driftless_tests::command::{error_text, finish};
use driftless_tests::{TempDir, driftless, dump_digest, fixtures, integrity_check, pages};
use serde_json::Value;

/// Restores every point of one fixture and returns how many restored and how many were refused.
fn check(name: &str, counts: (usize, usize)) {
    let fixture = fixtures().join(name);
    let expected = fs::read_to_string(fixture.join("expected.json")).expect("a fixture has its expectations");
    let expected: Value = serde_json::from_str(&expected).expect("valid JSON");
    let replica = fixture.join("replica");
    let dir = TempDir::new(name);
    let (mut restored, mut refused) = (0, 0);
    for (point, expected) in expected["restores"].as_object().expect("points by txid") {
        let target = dir.join(point);
        let mut command = std::process::Command::new(driftless());
        command.arg("restore").arg("-o").arg(&target);
        if point != "latest" {
            command.args(["-txid", point]);
        }
        let ran = finish(command.arg(&replica));
        if expected.get("error").is_some() {
            let error = error_text(&ran.err);
            assert_eq!(ran.code, 3, "{}", ran.err);
            assert!(error.contains(point), "the transaction asked for is not named: {error}");
            assert!(error.contains("is missing on the way to"), "what is missing is not named: {error}");
            assert!(!target.exists(), "a refused restore left {}", target.display());
            refused += 1;
            continue;
        }
        ran.expect_ok();
        check_restored(&target, expected);
        restored += 1;
    }
    let target = dir.join("latest");
    assert_eq!(
        dump_digest(&target),
        expected["source_dump_sha256"],
        "the newest state is that of the source"
    );
    integrity_check(&target);
    assert_eq!((restored, refused), counts, "restored and refused points of {name}");
}

fn check_restored(target: &Path, expected: &Value) {
    assert_eq!(dump_digest(target), expected["dump_sha256"], "{}", target.display());
    assert_eq!(pages(target), expected["pages"], "{}", target.display());
}

#[test]
fn every_point_of_litestream_0_5_5_restores() {
    check("ltx-0.5.5-4k-plain", (27, 18));
}

#[test]
fn every_point_of_litestream_0_5_11_restores() {
    check("ltx-0.5.11-1k-plain", (15, 10));
}

#[test]
fn every_point_of_litestream_0_5_17_restores() {
    check("ltx-0.5.17-4k-plain", (14, 9));
}

#[test]
fn every_point_of_a_shrinking_database_restores() {
    check("ltx-0.5.17-4k-shrink", (22, 0));
}

#[test]
fn no_ltx_fixture_is_left_out() {
    let mut names: Vec<String> = fs::read_dir(fixtures())
        .expect("checked by fixtures()")
        .filter_map(|entry| entry.expect("readable").file_name().into_string().ok())
        .filter(|name| name.starts_with("ltx-"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        ["ltx-0.5.11-1k-plain", "ltx-0.5.17-4k-plain", "ltx-0.5.17-4k-shrink", "ltx-0.5.5-4k-plain"]
    );
}
