//! Which crate may use which, and where unsafe code may stand.

use crate::source::{has_word, strip};
use crate::{MEMBERS, check, check_caught, read, sources};

/// The package names, in the order of [`MEMBERS`].
const PACKAGES: [&str; 6] = [
    "driftless-core",
    "driftless-adapters",
    "driftless",
    "driftless-sim",
    "driftless-tests",
    "driftless-fuzz",
];

/// Names in the dependency tables of a manifest: normal, dev and build, for any target.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut within = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_end_matches(']');
            within = header.ends_with("dependencies");
            // `[dependencies.name]` is a table of its own.
            if let Some((table, name)) = header.rsplit_once('.')
                && table.ends_with("dependencies")
            {
                found.push(name.trim_matches('"').to_string());
            }
        } else if within
            && !line.starts_with('#')
            && let Some((name, _)) = line.split_once(['=', '.'])
        {
            found.push(name.trim().trim_matches('"').to_string());
        }
    }
    found
}

/// Complaints about arrows that point the wrong way. `manifests` are in the order of [`MEMBERS`].
fn arrows(manifests: &[String]) -> Vec<String> {
    let mut complaints = Vec::new();
    for (user, manifest) in manifests.iter().enumerate() {
        for name in dependencies(manifest) {
            let Some(used) = PACKAGES.iter().position(|package| *package == name) else { continue };
            // Nothing uses the last two, and nobody what stands behind him.
            if used >= user || used >= 4 {
                complaints.push(format!("{} may not depend on {}", PACKAGES[user], name));
            }
        }
    }
    complaints
}

/// Complaints about the list of members in the root manifest.
fn members(manifest: &str) -> Vec<String> {
    let wanted: Vec<&str> = MEMBERS.to_vec();
    let found: Vec<String> = manifest
        .lines()
        .find_map(|line| line.strip_prefix("members = ["))
        .map(|line| {
            line.trim_end_matches(']').split(',').map(|m| m.trim().trim_matches('"').to_string()).collect()
        })
        .unwrap_or_default();
    if found == wanted {
        Vec::new()
    } else {
        vec![format!("the members are {found:?} and should be {wanted:?}")]
    }
}

/// Complaints about the purity that `core` promises in its first lines.
fn core_is_pure(lib: &str) -> Vec<String> {
    let code = strip(lib);
    ["#![no_std]", "#![forbid(unsafe_code)]"]
        .iter()
        .filter(|attribute| !code.contains(*attribute))
        .map(|attribute| format!("core/src/lib.rs lacks {attribute}"))
        .collect()
}

/// Complaints about unsafe code outside of the two places that need it.
fn safe(sources: &[(String, String)]) -> Vec<String> {
    sources
        .iter()
        .filter(|(path, _)| !path.starts_with("runtime/") && !path.starts_with("sim/src/vfs"))
        .filter(|(_, text)| has_word(&strip(text), "unsafe"))
        .map(|(path, _)| format!("{path} has unsafe code; only runtime/ and sim/src/vfs/ may"))
        .collect()
}

fn manifests() -> Vec<String> {
    MEMBERS.iter().map(|member| read(&format!("{member}/Cargo.toml"))).collect()
}

#[test]
fn arrows_point_one_way() {
    let manifests = manifests();
    for (manifest, package) in manifests.iter().zip(PACKAGES) {
        assert!(manifest.contains(&format!("name = \"{package}\"")), "{package} is where it should be");
    }
    check(&arrows(&manifests));
}

#[test]
fn an_arrow_that_points_back_is_caught() {
    for (member, line, part) in [
        (
            0,
            "[dev-dependencies]\ndriftless-sim = { workspace = true }",
            "driftless-core may not depend on driftless-sim",
        ),
        (1, "[target.'cfg(unix)'.dependencies]\ndriftless.workspace = true", "driftless-adapters may not"),
        (3, "[dependencies.driftless-tests]\nworkspace = true", "driftless-sim may not"),
        (5, "[dependencies]\ndriftless-tests = \"1\"", "driftless-fuzz may not depend on driftless-tests"),
    ] {
        let mut planted = manifests();
        planted[member] += &format!("\n{line}\n");
        check_caught(&arrows(&planted), part);
    }
}

#[test]
fn the_members_are_six() {
    check(&members(&read("Cargo.toml")));
}

#[test]
fn a_seventh_member_is_caught() {
    let planted = read("Cargo.toml").replacen("\"fuzz\"]", "\"fuzz\", \"extra\"]", 1);
    check_caught(&members(&planted), "extra");
    check_caught(&members("[workspace]\n"), "should be");
}

#[test]
fn core_is_no_std_and_forbids_unsafe_code() {
    check(&core_is_pure(&read("core/src/lib.rs")));
}

#[test]
fn an_impure_core_is_caught() {
    let lib = read("core/src/lib.rs");
    check_caught(&core_is_pure(&lib.replace("#![no_std]", "// #![no_std]")), "no_std");
    check_caught(&core_is_pure(&lib.replace("#![forbid(unsafe_code)]", "")), "forbid");
}

#[test]
fn unsafe_code_stays_where_it_is_needed() {
    check(&safe(&sources()));
}

#[test]
fn unsafe_code_elsewhere_is_caught() {
    let text = "/// unsafe\nfn f() { unsafe { g() } }".to_string();
    let planted = [("adapters/src/x.rs".to_string(), text.clone()), ("runtime/src/x.rs".into(), text)];
    check_caught(&safe(&planted), "adapters/src/x.rs");
}
