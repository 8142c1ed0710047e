//! Restores against the files of three Litestream releases and against histories made here.

mod host;
mod naive;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use super::*;
use crate::checksum::{DbXor, page_checksum};
use crate::ids::{Incarnation, Level, Lineage, PageNo, TxidRange};
use crate::ltx::{Encoder, LTX_HEADER_BYTES, LtxHeader};
use crate::machine::{Exit, StoreError, StoreErrorKind, StoreRequest};
pub(crate) use host::Host;

const FIXTURES: [&str; 4] = ["ltx-0.5.5-4k-plain", "ltx-0.5.11-1k-plain", "ltx-0.5.17-4k-plain", "ltx-0.5.17-4k-shrink"];

/// The fixtures live outside the repository; see `core/tests/fixtures.rs`.
fn fixture(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let above = || root.ancestors().map(|it| it.join("shared")).find(|it| it.join("fixtures").exists());
    let shared = std::env::var_os("DRIFTLESS_SHARED").map(PathBuf::from).or_else(above);
    let shared = shared.expect("the fixtures are at hand");
    shared.join("fixtures").join(name)
}

pub(crate) fn txid(n: u64) -> Txid {
    Txid::new(n).unwrap()
}

fn at(n: u64) -> RestoreConfig {
    RestoreConfig { target: RestoreTarget::At(txid(n)), ..RestoreConfig::default() }
}

/// The restore points of `expected.json`: transaction (0 for the latest) and pages, `None` for
/// those that must fail. Read by hand, since the core has no parser of its own.
fn restore_points(dir: &Path) -> Vec<(u64, Option<u32>)> {
    let text = std::fs::read_to_string(dir.join("expected.json")).unwrap();
    let mut points = Vec::new();
    let mut key = None;
    for line in text.lines() {
        let words: Vec<&str> = line.trim().split('"').collect();
        let name = words.get(1).copied().unwrap_or_default();
        if name == "latest" {
            key = Some(0);
        } else if name.len() == 16 && line.ends_with('{') {
            key = u64::from_str_radix(name, 16).ok();
        } else if name == "error" {
            points.push((key.take().unwrap(), None));
        } else if let ("pages", Some(txid)) = (name, key) {
            let pages = words[2].trim_matches([':', ' ', ',']).parse().unwrap();
            points.push((txid, Some(pages)));
            key = None;
        }
    }
    points
}

#[test]
fn every_restore_point_of_every_release_comes_back_page_by_page() {
    for name in FIXTURES {
        let dir = fixture(name);
        let points = restore_points(&dir);
        assert!(points.len() > 15, "{name}: the restore points were read");
        for (n, (point, pages)) in points.into_iter().enumerate() {
            let mut host = Host::from_dir(&dir.join("replica/ltx")).seeded(n as u64 * 77 + 5, 60);
            let config = if point == 0 { RestoreConfig::default() } else { at(point) };
            let (exit, status) = host.restore(config);
            let Some(pages) = pages else {
                let Exit::NothingToRestore { error, .. } = &exit else { panic!("{name} {point:x}: {exit:?}") };
                assert!(error.contains("is missing on the way") || error.contains("no file ends at"), "{name} {point:x}: {error}");
                assert_eq!((host.target, host.output), (None, None));
                continue;
            };
            assert_eq!(exit, Exit::Done, "{name} {point:x}");
            let found = host.target.expect("the target is in place");
            let target = status.target.unwrap();
            assert!(point == 0 || target == txid(point));
            assert_eq!(status.pages, pages, "{name} {point:x}");
            assert_eq!(found.len(), pages as usize * status.page_size.unwrap().bytes(), "{name} {point:x}");
            assert!(found == naive::restore(&host.store, target).unwrap(), "{name} {point:x} differs");
        }
    }
}
