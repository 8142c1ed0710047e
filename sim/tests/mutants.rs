//! The planted bugs stay where they belong: each has its place in the code, no usual build holds
//! one, and the binary does not compile with them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use driftless_core::mutant::{Mutant, PLANTED};
use driftless_sim::ring0::run_plan;
use driftless_sim::scenario::Scenario;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("sim/ lies in the repository").to_path_buf()
}

fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|it| it == "rs") && !path.ends_with("mutant.rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// What was kept of runs that failed, with planted bugs or real ones, passes now.
#[test]
fn kept_scenarios_stay_quiet() {
    let folders = ["sim/scenarios", "sim/scenarios/mutants"].map(|folder| root().join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("scenarios are kept there"));
    let paths = files.map(|file| file.expect("an entry").path());
    let paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|it| it == "json")).collect();
    assert!(!paths.is_empty(), "no scenario is kept");
    for path in paths {
        let scenario = Scenario::read(&fs::read_to_string(&path).expect("a scenario"));
        let scenario = scenario.unwrap_or_else(|error| panic!("{path:?}: {error}"));
        run_plan(scenario.seed, scenario.plan, false)
            .unwrap_or_else(|failure| panic!("{path:?}: {failure}\nits story: {}", scenario.story));
    }
}

#[test]
fn each_planted_bug_has_its_place() {
    let mut text = String::new();
    for member in ["core", "adapters", "runtime"] {
        sources(&root().join(member).join("src"), &mut text);
    }
    let lost: Vec<_> = Mutant::ALL
        .iter()
        .filter(|mutant| !text.contains(&format!("mutant::on(Mutant::{mutant:?})")))
        .collect();
    assert!(lost.is_empty(), "no line of production code has {lost:?}");
}

/// The crate's own tests say the same of the core that they see.
#[test]
fn this_build_holds_no_planted_bug() {
    assert_eq!([PLANTED], [false], "only target/mutants is built with the feature");
    assert_eq!([cfg!(feature = "mutants")], [false]);
}

/// Compiles the binary's one file beside the module that says whether bugs are planted, and
/// nothing else.
fn compile(folder: &Path, planted: bool) -> Output {
    fs::create_dir_all(folder).expect("a folder for it");
    let rustc = || {
        let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()));
        rustc.args(["--edition", "2024", "--out-dir"]).arg(folder).arg("-L").arg(folder);
        rustc
    };
    let library = |name: &str, text: String, feature: bool| {
        let path = folder.join(format!("{name}.rs"));
        fs::write(&path, text).expect("a source");
        let mut rustc = rustc();
        rustc.args(["--crate-type", "rlib"]).arg(&path);
        if feature {
            rustc.args(["--cfg", "feature=\"mutants\""]);
        }
        let output = rustc.output().expect("a compiler");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let module = root().join("core/src/mutant.rs");
    library("driftless_core", format!("#[path = {module:?}] pub mod mutant;"), planted);
    let stub = "pub mod cli { pub fn main() -> std::process::ExitCode { std::process::ExitCode::SUCCESS } }";
    library("driftless", stub.to_string(), false);
    let mut rustc = rustc();
    rustc.args(["--crate-name", "binary", "--emit", "metadata", "--extern", "driftless", "--extern"]);
    rustc.arg("driftless_core").arg(root().join("runtime/src/main.rs"));
    rustc.output().expect("a compiler")
}

#[test]
fn the_binary_does_not_compile_with_planted_bugs() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutants");
    let usual = compile(&folder.join("usual"), false);
    assert!(usual.status.success(), "{}", String::from_utf8_lossy(&usual.stderr));
    let planted = compile(&folder.join("planted"), true);
    let says = String::from_utf8_lossy(&planted.stderr);
    assert!(!planted.status.success() && says.contains("holds planted bugs"), "{says}");
}
