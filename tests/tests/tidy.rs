//! The house rules, checked: arrows between crates, unsafe code, sizes, and what documents claim.
//!
//! Each check is a function from texts to complaints. One test hands it the repository; beside it
//! a test hands it a planted violation, because a check that cannot fail is a defect.

#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/documents.rs"]
mod documents;
#[path = "tidy/format.rs"]
mod format;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/source.rs"]
mod source;

use std::path::{Path, PathBuf};

/// The members of the workspace in the order of the arrows: each may use what stands before it,
/// except that nothing uses `tests` or `fuzz`.
const MEMBERS: [&str; 6] = ["core", "adapters", "runtime", "sim", "tests", "fuzz"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}

/// A file of the repository, by its path from the root.
fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below `folder` whose names end in `extension`, as paths from the root, in order.
fn files(folder: &str, extension: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.expect("a folder that can be read").path();
            let name = path.file_name().expect("entries have names").to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && name != "__fuzz__" {
                folders.push(path);
            } else if name.ends_with(extension) {
                let below = path.strip_prefix(root()).expect("found below the root");
                found.push(below.to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// All Rust sources of the workspace, with their paths.
fn sources() -> Vec<(String, String)> {
    MEMBERS.iter().flat_map(|member| files(member, ".rs")).map(|path| (path.clone(), read(&path))).collect()
}

/// Fails with every complaint at once.
fn check(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

/// Fails unless there is exactly one complaint and it says `part`.
fn check_caught(complaints: &[String], part: &str) {
    assert_eq!(complaints.len(), 1, "the planted violation, and only that: {complaints:#?}");
    assert!(complaints[0].contains(part), "{:?} does not say {part:?}", complaints[0]);
}
