//! Where a replica is: a URL or a directory, and what an object store wants to know.
//!
//! Litestream takes `file://backup/app` as `/backup/app`, and a misspelt scheme as a type that it
//! does not know. Here the first is refused, since half of those who write it mean a directory
//! below the present one, and the second is answered with a guess. A plain path is taken as well.

use std::path::{Path, PathBuf};

use driftless_adapters::object::settings::Settings;

use crate::cli::suggest::nearest;

/// A place that holds the segments of one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replica {
    /// A directory of this host that holds `ltx/`, absolute.
    Directory(PathBuf),
    /// A place in an object store.
    Object(Box<Settings>),
}

/// Schemes of Litestream that a later release brings.
const LATER: [&str; 9] = ["s3", "gs", "abs", "azblob", "oss", "webdav", "webdavs", "sftp", "nats"];

/// Why a text names no replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaError {
    /// What is wrong.
    pub error: String,
    /// What to write instead.
    pub hint: String,
}

impl Replica {
    /// Reads a URL or a path; a relative path is below the present directory.
    pub fn parse(text: &str) -> Result<Replica, ReplicaError> {
        let refuse = |error: String, hint: String| Err(ReplicaError { error, hint });
        if let Some((scheme, rest)) = text.split_once("://") {
            return match scheme.to_ascii_lowercase().as_str() {
                "file" => Replica::from_file_url(text, rest),
                known if LATER.contains(&known) => refuse(
                    format!("{known}:// replicas are not in this release"),
                    "replicate to a directory for now: file:///path".to_owned(),
                ),
                unknown => {
                    let near = nearest(unknown, ["file"].into_iter().chain(LATER));
                    let hint = match near {
                        Some(near) => format!("did you mean {near}://{rest}?"),
                        None => "replicas are file:///path or a directory".to_owned(),
                    };
                    refuse(format!("unknown kind of replica: {unknown}://"), hint)
                }
            };
        }
        if let Some((scheme, rest)) = text.split_once(":/")
            && (scheme == "file" || LATER.contains(&scheme))
        {
            return refuse(
                format!("{text:?} is neither a url nor a path"),
                format!("did you mean {scheme}:///{rest}?"),
            );
        }
        if text.is_empty() {
            return refuse(
                "the replica is empty".to_owned(),
                "replicas are file:///path or a directory".to_owned(),
            );
        }
        Replica::from_path(Path::new(text))
    }

    /// A directory.
    pub fn from_path(path: &Path) -> Result<Replica, ReplicaError> {
        match super::absolute(path) {
            Ok(directory) => Ok(Replica::Directory(directory)),
            Err(error) => Err(ReplicaError {
                error: format!("cannot tell where {} is: {error}", path.display()),
                hint: "give an absolute path".to_owned(),
            }),
        }
    }

    fn from_file_url(url: &str, rest: &str) -> Result<Replica, ReplicaError> {
        let refuse = |error: String, hint: String| Err(ReplicaError { error, hint });
        if !rest.starts_with('/') {
            let hint = match rest {
                "" => "write file:///path, with three slashes".to_owned(),
                _ => format!("write file:///{rest} for a place from the root, {rest} for one from here"),
            };
            return refuse(format!("{url:?} names a host, not a path"), hint);
        }
        if let Some(odd) = rest.find(['?', '#']) {
            let (mark, code) = if rest[odd..].starts_with('?') { ('?', "%3F") } else { ('#', "%23") };
            return refuse(
                format!("{url:?} has a part after {mark:?}, which a file url does not take"),
                format!("write {code} if it belongs to the path"),
            );
        }
        match percent_decode(rest) {
            Some(path) => Replica::from_path(Path::new(&path)),
            None => refuse(
                format!("{url:?} has a percent sign that is no escape"),
                "write %25 for a percent sign".to_owned(),
            ),
        }
    }

    /// The directory that holds `ltx/`, absolute, if it is one.
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Replica::Directory(directory) => Some(directory),
            Replica::Object(_) => None,
        }
    }

    /// The word for its kind, as Litestream has it.
    pub fn kind(&self) -> &'static str {
        match self {
            Replica::Directory(_) => "file",
            Replica::Object(settings) => settings.kind(),
        }
    }

    /// The server that it shares with others, if there is one.
    pub fn server(&self) -> Option<String> {
        match self {
            Replica::Directory(_) => None,
            Replica::Object(settings) => Some(settings.server()),
        }
    }

    /// The URL, without options and secrets.
    pub fn url(&self) -> String {
        match self {
            Replica::Directory(directory) => format!("file://{}", directory.display()),
            Replica::Object(settings) => settings.url(),
        }
    }

    /// The place as people write it: a plain path, or the URL.
    pub fn place(&self) -> String {
        match self {
            Replica::Directory(directory) => directory.display().to_string(),
            Replica::Object(settings) => settings.url(),
        }
    }
}

/// Whether a text is meant to name a replica rather than a database.
pub fn looks_like_url(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        rest.starts_with('/')
            && !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
    })
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let (high, low) = (digit(rest.next()?)?, digit(rest.next()?)?);
                u8::try_from(high * 16 + low).expect("two hexadecimal digits make a byte")
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, directory: impl AsRef<Path>) {
        assert_eq!(Replica::parse(text), Ok(Replica::Directory(directory.as_ref().to_owned())), "{text}");
    }

    fn check_error(text: &str, error: &str, hint: &str) {
        let found = Replica::parse(text).unwrap_err();
        assert!(found.error.contains(error) && found.hint.contains(hint), "{text}: {found:?}");
    }

    #[test]
    fn urls_and_paths_name_directories() {
        let here = std::env::current_dir().unwrap();
        check("file:///srv/backup", "/srv/backup");
        check("FILE:///srv/backup", "/srv/backup");
        check("file:///srv/a%20b%25", "/srv/a b%");
        check("/srv/backup", "/srv/backup");
        check("/srv/50%", "/srv/50%");
        check("backup", here.join("backup"));
        check("./backup/", here.join("backup"));
        check("a:b", here.join("a:b"));
    }

    #[test]
    fn mistakes_are_answered_with_what_was_meant() {
        check_error("flie:///tmp/x", "unknown kind of replica: flie://", "did you mean file:///tmp/x?");
        check_error("S4://bucket/x", "unknown kind of replica: s4://", "did you mean s3://bucket/x?");
        check_error("gopher://x", "unknown kind of replica: gopher://", "file:///path");
        check_error("file://backup/app", "names a host", "file:///backup/app");
        check_error("file://", "names a host", "three slashes");
        check_error("file:/srv", "neither", "file:///srv");
        check_error("file:///a?b=c", "after '?'", "%3F");
        check_error("file:///a%zz", "no escape", "%25");
        check_error("", "empty", "directory");
        for scheme in ["s3", "gs", "abs", "azblob", "webdav", "sftp", "nats"] {
            check_error(&format!("{scheme}://b/p"), "not in this release", "file:///path");
        }
    }
}
