//! Which commit this is: a failure names it, and the fresh seeds of a test follow from it.

use std::path::Path;
use std::process::Command;

/// The full hash of the commit that is checked out where this was built, with `+changes` if the
/// sources differ from it. Where there is no git, the version of the package, said to be so.
///
/// It is asked for at run time: a build script would have to run again after each commit.
pub fn current() -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(folder).args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "HEAD"]) else {
        return format!("version {}, without git", env!("CARGO_PKG_VERSION"));
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => hash,
        _ => format!("{hash}+changes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_or_a_version_is_named() {
        let current = current();
        let hash = current.split('+').next().unwrap();
        let is_hash = hash.len() == 40 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(is_hash || current.starts_with("version "), "{current}");
    }
}
