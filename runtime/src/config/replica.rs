//! Where a replica is: a URL or a directory, and what an object store wants to know.
//!
//! Litestream takes `file://backup/app` as `/backup/app`, a misspelt scheme as a type that it does
//! not know, and a parameter that it does not know as if it were not there. Here the first is
//! refused, since half of those who write it mean a directory below the present one, and the
//! others are answered with a guess. A plain path is taken as well.
//!
//! A URL, keys of the configuration and a registration all become [`Options`] first and a
//! [`Replica`] then, by the same code.

mod encryption;
pub mod options;
pub mod provider;
mod s3;
mod services;
pub mod url;

use std::path::{Path, PathBuf};

use driftless_adapters::object::settings::Settings;
use driftless_core::lease::PlaceId;

use super::expand::Lookup;
use crate::cli::suggest::nearest;
use options::{Kind, Options, Origin};
use url::{Url, percent_decode};

/// A place that holds the segments of one database.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Replica {
    /// A directory of this host that holds `ltx/`, absolute.
    Directory(PathBuf),
    /// A place in an object store.
    Object(Box<Settings>),
}

/// A replica, and what a person may want to know about how it came to be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    /// The replica.
    pub replica: Replica,
    /// In words.
    pub about: About,
}

/// How a replica is reached, in words; never a secret.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct About {
    /// Who runs the store.
    pub provider: &'static str,
    /// Where credentials come from; empty where none are needed.
    pub credentials: String,
    /// Options beyond place and credentials as they take effect.
    pub options: Vec<(&'static str, String)>,
    /// What is understood and has no effect, or is dangerous.
    pub warnings: Vec<String>,
}

/// Why a text names no replica.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReplicaError {
    /// What is wrong.
    pub error: String,
    /// What to write instead.
    pub hint: String,
    /// On which line of the configuration, where one key is to blame.
    pub line: Option<usize>,
}

/// Where the options are about: named by a URL, or by keys.
enum Place {
    /// The URL's parts, its parameters taken out.
    Url(Url),
    /// Keys, among them perhaps `path` and its line.
    Keys { path: Option<String>, line: usize },
}

/// What a scheme or `type` stands for.
enum Scheme {
    Known(Kind),
    /// Litestream has it, and this release has not: why, and what to do.
    Refused(&'static str),
}

/// All schemes of Litestream, and `azblob`, which others use for `abs`.
const SCHEMES: [(&str, Scheme); 10] = [
    ("file", Scheme::Known(Kind::File)),
    ("s3", Scheme::Known(Kind::S3)),
    ("gs", Scheme::Known(Kind::Gcs)),
    ("abs", Scheme::Known(Kind::Azure)),
    ("azblob", Scheme::Known(Kind::Azure)),
    ("webdav", Scheme::Known(Kind::WebDav)),
    ("webdavs", Scheme::Known(Kind::WebDav)),
    (
        "oss",
        Scheme::Refused(
            "use its S3 interface: s3://BUCKET/PATH?endpoint=https://oss-REGION.aliyuncs.com&forcePathStyle=false",
        ),
    ),
    ("sftp", Scheme::Refused("mount it and name the directory, or use webdavs:// or s3://")),
    ("nats", Scheme::Refused("use s3:// or a directory")),
];

impl Replica {
    /// Reads a URL or a path; a relative path is below the present directory. What the URL leaves
    /// open is taken from the environment of the process.
    ///
    /// # Errors
    /// If it names no replica.
    pub fn parse(text: &str) -> Result<Replica, ReplicaError> {
        describe_url(text, Options::default(), &environment).map(|described| described.replica)
    }

    /// A directory.
    ///
    /// # Errors
    /// If it cannot be told where it is.
    pub fn from_path(path: &Path) -> Result<Replica, ReplicaError> {
        match super::absolute(path) {
            Ok(directory) => Ok(Replica::Directory(directory)),
            Err(cause) => Err(error(
                format!("cannot tell where {} is: {cause}", path.display()),
                "give an absolute path",
            )),
        }
    }

    fn from_file_url(url: &str, rest: &str) -> Result<Replica, ReplicaError> {
        if !rest.starts_with('/') {
            let hint = match rest {
                "" => "write file:///path, with three slashes".to_owned(),
                _ => format!("write file:///{rest} for a place from the root, {rest} for one from here"),
            };
            return Err(error(format!("{url:?} names a host, not a path"), hint));
        }
        if let Some(odd) = rest.find(['?', '#']) {
            let (mark, code) = if rest[odd..].starts_with('?') { ('?', "%3F") } else { ('#', "%23") };
            return Err(error(
                format!("{url:?} has a part after {mark:?}, which a file url does not take"),
                format!("write {code} if it belongs to the path"),
            ));
        }
        match percent_decode(rest) {
            Some(path) => Replica::from_path(Path::new(&path)),
            None => Err(error(
                format!("{url:?} has a percent sign that is no escape"),
                "write %25 for a percent sign",
            )),
        }
    }

    /// The replica of a database of a directory, whose replicas stand below this place at their paths
    /// from it: Litestream's rule. `None` for a path that is no text, of which keys are made.
    pub fn below(&self, relative: &Path) -> Option<Replica> {
        match self {
            Replica::Directory(directory) => Some(Replica::Directory(directory.join(relative))),
            Replica::Object(settings) => {
                let relative = relative.to_str()?;
                let root = match settings.root.as_str() {
                    "" => relative.to_owned(),
                    root => format!("{root}/{relative}"),
                };
                Some(Replica::Object(Box::new(Settings { root, ..(**settings).clone() })))
            }
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

    /// Whether a word under `type` means its kind.
    pub(super) fn is_of_type(&self, word: &str) -> bool {
        SCHEMES.iter().any(|(name, scheme)| {
            *name == word && matches!(scheme, Scheme::Known(kind) if kind.name() == self.kind())
        })
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

    /// Names the place in the lease, to other hosts.
    pub fn place_id(&self) -> PlaceId {
        PlaceId::of(&self.place())
    }

    /// Whether two replicas would hold their segments at one place, however they are reached.
    pub fn same_place(&self, other: &Replica) -> bool {
        match (self, other) {
            (Replica::Object(one), Replica::Object(other)) => {
                one.server() == other.server() && one.root == other.root
            }
            _ => self == other,
        }
    }
}

/// Reads a URL or a path, with what else is known of the replica. `env` is the environment.
///
/// # Errors
/// If it names no replica, or for an option that cannot take effect.
pub fn describe_url(text: &str, mut options: Options, env: Lookup<'_>) -> Result<Described, ReplicaError> {
    if let Some((scheme, rest)) = text.split_once("://") {
        let scheme = scheme.to_ascii_lowercase();
        let kind = kind_of(&scheme, rest)?;
        if kind == Kind::File {
            options.check(Kind::File)?;
            return Ok(directory(Replica::from_file_url(text, rest)?));
        }
        let url = match rest.starts_with("arn:") {
            true => arn_url(rest)?,
            false => Url::parse(&scheme, rest)?,
        };
        for (name, value) in &url.query {
            options.add(name, value, Origin::Url)?;
        }
        return service(kind, &Place::Url(url), options, scheme == "webdavs", env);
    }
    if let Some((scheme, rest)) = text.split_once(":/")
        && SCHEMES.iter().any(|(known, _)| *known == scheme)
    {
        let slashes = if scheme == "file" { "///" } else { "//" };
        return Err(error(
            format!("{text:?} is neither a url nor a path"),
            format!("did you mean {scheme}:{slashes}{rest}?"),
        ));
    }
    if text.is_empty() {
        return Err(error("a replica's place is empty", "give a url or a directory"));
    }
    options.check(Kind::File)?;
    Ok(directory(Replica::from_path(Path::new(text))?))
}

/// Reads a replica that keys name: `type`, `path` on its line, and options.
///
/// # Errors
/// If they name no replica, or for an option that cannot take effect.
pub fn describe_keys(
    kind: &str,
    path: Option<&str>,
    line: usize,
    options: Options,
    env: Lookup<'_>,
) -> Result<Described, ReplicaError> {
    let known = kind_of(kind, "…")?;
    if known == Kind::File {
        options.check(Kind::File)?;
        return match path {
            Some(path) => Ok(directory(Replica::from_path(Path::new(path))?)),
            None => {
                Err(error("a replica has neither url nor path", "give url: file:///backup/app, or s3://…"))
            }
        };
    }
    let place = Place::Keys { path: path.map(str::to_owned), line };
    service(known, &place, options, kind == "webdavs", env)
}

/// What kind of replica a scheme or `type` stands for.
fn kind_of(scheme: &str, rest: &str) -> Result<Kind, ReplicaError> {
    match SCHEMES.iter().find(|(known, _)| *known == scheme) {
        Some((_, Scheme::Known(kind))) => Ok(*kind),
        Some((_, Scheme::Refused(hint))) => {
            Err(error(format!("{scheme}:// replicas are not in this release"), *hint))
        }
        None => {
            // What may hold secrets is not repeated.
            let rest = rest.split('?').next().unwrap_or_default();
            let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
            let hint = match nearest(scheme, SCHEMES.iter().map(|(name, _)| *name)) {
                Some(near) => format!("did you mean {near}://{rest}?"),
                None => {
                    "replicas are s3://bucket/path, abs://, gs://, webdavs://, file:///path or a directory"
                        .to_owned()
                }
            };
            Err(error(format!("unknown kind of replica: {scheme}://"), hint))
        }
    }
}

fn service(
    kind: Kind,
    place: &Place,
    options: Options,
    secure: bool,
    env: Lookup<'_>,
) -> Result<Described, ReplicaError> {
    let mut described = match kind {
        Kind::S3 => s3::build(place, &options, env)?,
        Kind::Azure => services::azure(place, options.clone(), env)?,
        Kind::Gcs => services::gcs(place, &options, env)?,
        Kind::WebDav => services::webdav(place, options.clone(), secure)?,
        Kind::File => unreachable!("a directory has no service"),
    };
    options.tell_overridden(&mut described);
    if let Replica::Object(settings) = &described.replica
        && settings.transport.skip_verify
    {
        described.about.warnings.push(
            "skip-verify: certificates are not checked, so whoever stands between can read and change everything"
                .to_owned(),
        );
    }
    Ok(described)
}

fn directory(replica: Replica) -> Described {
    Described { replica, about: About { provider: "a directory", ..About::default() } }
}

/// `arn:…:accesspoint/NAME/PATH?…`, whose colons no URL has.
fn arn_url(rest: &str) -> Result<Url, ReplicaError> {
    let (before, _) = rest.split_once('?').unwrap_or((rest, ""));
    let head = before.find('/').map_or(before.len(), |slash| {
        before[slash + 1..].find('/').map_or(before.len(), |next| slash + 1 + next)
    });
    let tail = format!("x/{}", rest[head..].trim_start_matches('/'));
    Ok(Url { host: before[..head].to_owned(), ..Url::parse("s3", &tail)? })
}

fn error(error: impl Into<String>, hint: impl Into<String>) -> ReplicaError {
    ReplicaError { error: error.into(), hint: hint.into(), line: None }
}

/// The first of some variables that is set and not empty, with its name.
fn first_of(env: Lookup<'_>, names: &[&'static str]) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| env(name).filter(|value| !value.is_empty()).map(|value| (*name, value)))
}

/// A variable of this process.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// Whether a text is meant to name a replica rather than a database.
pub fn looks_like_url(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        rest.starts_with('/')
            && !scheme.is_empty()
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+')
    })
}

#[cfg(test)]
mod tests;
