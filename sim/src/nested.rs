//! A cargo within: ring 1 is built with a flag that changes what time, threads and sockets are.
//!
//! The flag is the compiler's (`--cfg madsim`) and holds for every crate, so the build has a target
//! directory of its own, `target/madsim`. Flags in the environment would take the flag's place, and
//! the suite would not be compiled; so they are taken away here. Without the flag the suite is an
//! error of the compiler and never a suite without tests.

use std::path::PathBuf;
use std::process::Command;

/// `SCENARIO A B`: the seeds from A up to B of one scenario, or of `all`.
pub const SEEDS: &str = "DRIFTLESS_RING1_SEEDS";
/// Set to have a run tell what happens.
pub const VERBOSE: &str = "DRIFTLESS_RING1_VERBOSE";

/// Flags of the compiler that the environment may hold.
const FLAGS: [&str; 4] =
    ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"];

/// The suite's main file.
pub fn suite() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/ring1/main.rs")
}

fn target_directory() -> PathBuf {
    let outer = std::env::var_os("CARGO_TARGET_DIR").filter(|directory| !directory.is_empty());
    let outer =
        outer.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    outer.join("madsim")
}

/// The command that builds the suite and runs its tests whose names hold `filter`.
pub fn ring1(filter: &str) -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    for flags in FLAGS {
        cargo.env_remove(flags);
    }
    cargo.env("RUSTFLAGS", "--cfg madsim");
    cargo.args(["test", "--package", "driftless-sim", "--no-default-features", "--features", "ring1"]);
    cargo.args(["--test", "ring1", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")]);
    cargo.arg("--target-dir").arg(target_directory());
    cargo.args(["--", "--nocapture", filter]);
    cargo
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_environment_do_not_reach_the_suite() {
        let command = ring1("");
        let set: Vec<_> = command.get_envs().collect();
        for name in FLAGS.into_iter().filter(|name| *name != "RUSTFLAGS") {
            assert!(set.contains(&(name.as_ref(), None)), "{name} is left: {set:?}");
        }
        assert!(set.contains(&("RUSTFLAGS".as_ref(), Some("--cfg madsim".as_ref()))), "{set:?}");
        assert!(target_directory().ends_with("madsim"));
    }
}
