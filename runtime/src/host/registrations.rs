//! The databases that were registered over the control socket, kept across restarts.
//!
//! A URL may hold a secret, so the file is the owner's alone from the moment it exists. It is
//! written beside the old one, synced, and put in its place: a crash leaves the one or the other,
//! and what was acknowledged is in it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A database and where it is replicated, as it was asked for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    /// The database file, absolute.
    pub(crate) database: String,
    /// The replica's URL, with whatever secrets it holds.
    pub(crate) replica: String,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    databases: Vec<Registration>,
}

const VERSION: u32 = 1;

fn place(directory: &Path) -> PathBuf {
    directory.join("registrations.json")
}

/// Reads what is registered in a state directory.
///
/// # Errors
/// As the system says, and for a file that is no list of registrations: to take that for an empty
/// one would forget them all.
pub(crate) fn load(directory: &Path) -> io::Result<Vec<Registration>> {
    let path = place(directory);
    let failed = |error: String| io::Error::other(format!("{}: {error}", path.display()));
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        text => text.map_err(|error| failed(error.to_string()))?,
    };
    // What serde says may quote the file, and that may hold a secret.
    let document: Document = serde_json::from_str(&text)
        .map_err(|error| failed(format!("no registrations from line {} on", error.line())))?;
    match document.version {
        VERSION => Ok(document.databases),
        other => Err(failed(format!("written by another version of driftless ({other})"))),
    }
}

/// Replaces what is registered, durably.
///
/// # Errors
/// As the system says; the old list stands.
pub(crate) fn save(directory: &Path, databases: &[Registration]) -> io::Result<()> {
    let (path, new) = (place(directory), directory.join("registrations.json.new"));
    let document = Document { version: VERSION, databases: databases.to_vec() };
    let text = serde_json::to_string_pretty(&document)?;
    // One that a crash has left may be anybody's.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n"));
    if let Err(error) = written.and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, &path)) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    // A rename alone may vanish when power fails.
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_is_saved_comes_back_and_is_the_owners_alone() {
        let directory = std::env::temp_dir().join(format!("driftless-registrations-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        assert!(load(&directory).unwrap().is_empty());
        // Left by a crash, and readable by all.
        fs::write(directory.join("registrations.json.new"), "half").unwrap();
        let one = Registration { database: "/a.db".into(), replica: "s3://b/p?secret=x".into() };
        save(&directory, std::slice::from_ref(&one)).unwrap();
        assert!(load(&directory).unwrap() == [one]);
        assert_eq!(fs::metadata(place(&directory)).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(place(&directory), "{\"version\":1,\"databases\":[\"s3://secret\"]}").unwrap();
        let error = load(&directory).err().unwrap().to_string();
        assert!(error.contains("line 1") && !error.contains("secret"), "{error}");
        fs::write(place(&directory), "{\"version\":2,\"databases\":[]}").unwrap();
        assert!(load(&directory).err().unwrap().to_string().contains("another version"));
        fs::remove_dir_all(directory).unwrap();
    }
}
