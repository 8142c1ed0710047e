//! The options of a replica: one table of names, whatever way they come in.
//!
//! A URL's parameters (`?forcePathStyle=true` or `?force-path-style=true`), the keys of a replica
//! in the configuration, the same keys for all replicas at its top, and a registration's URL are
//! pairs of a name and a text. They are collected here and read by the service that the replica
//! belongs to, so that an option means the same on each way. Where one is given on several ways the
//! replica's key wins over the key at the top, and that over the URL, which is Litestream's order.
//!
//! An option that its replica has no use for is an error, since whoever wrote it expects something
//! of it. Keys at the top are for those replicas that have a use for them.

use std::fmt;

use super::{Described, ReplicaError};
use crate::cli::suggest::nearest;

/// What a replica speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A directory of this host.
    File,
    /// S3 and all that speak like it.
    S3,
    /// Azure Blob Storage.
    Azure,
    /// Google Cloud Storage.
    Gcs,
    /// WebDAV.
    WebDav,
}

impl Kind {
    /// The word under `type`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::File => "file",
            Kind::S3 => "s3",
            Kind::Azure => "abs",
            Kind::Gcs => "gs",
            Kind::WebDav => "webdav",
        }
    }
}

/// An option that there is.
#[derive(Debug)]
pub struct Name {
    /// Its name as a key of the configuration and in URLs.
    pub name: &'static str,
    /// Its other name in URLs.
    pub camel: &'static str,
    /// Which replicas take it.
    pub kinds: &'static [Kind],
}

const fn option(name: &'static str, camel: &'static str, kinds: &'static [Kind]) -> Name {
    Name { name, camel, kinds }
}

const S3: &[Kind] = &[Kind::S3];
const AZURE: &[Kind] = &[Kind::Azure];
const GCS: &[Kind] = &[Kind::Gcs];
const DAV: &[Kind] = &[Kind::WebDav];

/// All options.
pub const NAMES: &[Name] = &[
    option("access-key-id", "accessKeyId", S3),
    option("secret-access-key", "secretAccessKey", S3),
    option("session-token", "sessionToken", S3),
    option("profile", "profile", S3),
    option("region", "region", S3),
    option("bucket", "bucket", &[Kind::S3, Kind::Azure, Kind::Gcs]),
    option("endpoint", "endpoint", &[Kind::S3, Kind::Azure, Kind::Gcs]),
    option("force-path-style", "forcePathStyle", S3),
    option("sign-payload", "signPayload", S3),
    option("sign-accept-encoding", "signAcceptEncoding", S3),
    option("require-content-md5", "requireContentMD5", S3),
    option("skip-verify", "skipVerify", &[Kind::S3, Kind::Azure, Kind::Gcs, Kind::WebDav]),
    option("storage-class", "storageClass", S3),
    option("part-size", "partSize", S3),
    option("concurrency", "concurrency", S3),
    option("sse-customer-algorithm", "sseCustomerAlgorithm", S3),
    option("sse-customer-key", "sseCustomerKey", S3),
    option("sse-customer-key-md5", "sseCustomerKeyMD5", S3),
    option("sse-customer-key-path", "sseCustomerKeyPath", S3),
    option("sse-kms-key-id", "sseKmsKeyId", S3),
    option("account-name", "accountName", AZURE),
    option("account-key", "accountKey", AZURE),
    option("sas-token", "sasToken", AZURE),
    option("credential-path", "credentialPath", GCS),
    option("anonymous", "anonymous", GCS),
    option("webdav-url", "webdavUrl", DAV),
    option("webdav-username", "webdavUsername", DAV),
    option("webdav-password", "webdavPassword", DAV),
];

/// The option of a key of the configuration.
pub fn find(key: &str) -> Option<&'static Name> {
    NAMES.iter().find(|known| known.name == key)
}

/// On which way an option was given, those that win first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Origin {
    /// A key of the replica, on this line.
    Key(usize),
    /// A key for all replicas, on this line.
    Shared(usize),
    /// A part of the URL.
    Url,
}

impl Origin {
    fn line(self) -> Option<usize> {
        match self {
            Origin::Key(line) | Origin::Shared(line) => Some(line),
            Origin::Url => None,
        }
    }

    fn same_way(self, other: Origin) -> bool {
        core::mem::discriminant(&self) == core::mem::discriminant(&other)
    }
}

/// An option that was given. It may be a secret, so there is no `Debug` of its text.
#[derive(Clone)]
pub struct Given {
    name: &'static str,
    kinds: &'static [Kind],
    /// Its text, never empty.
    pub value: String,
    origin: Origin,
}

impl Given {
    /// An error about it.
    pub fn wrong(&self, error: impl Into<String>, hint: impl Into<String>) -> ReplicaError {
        ReplicaError { error: error.into(), hint: hint.into(), line: self.origin.line() }
    }
}

/// The options of one replica.
#[derive(Clone, Default)]
pub struct Options {
    given: Vec<Given>,
    many: bool,
}

impl Options {
    /// Adds one; an empty text is as good as none.
    ///
    /// # Errors
    /// If there is no such option, or if it was given on this way already.
    pub fn add(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), ReplicaError> {
        let by_name = |known: &&Name| known.name == key || (origin == Origin::Url && known.camel == key);
        let Some(known) = NAMES.iter().find(by_name) else {
            let hint = match nearest(key, NAMES.iter().flat_map(|known| [known.name, known.camel])) {
                Some(near) => format!("did you mean {near}?"),
                None => "docs/PROVIDERS.md lists them".to_owned(),
            };
            let error = format!("replica urls have no parameter {key:?}");
            return Err(ReplicaError { error, hint, line: origin.line() });
        };
        if value.is_empty() {
            return Ok(());
        }
        let mut before = self.given.iter().filter(|given| given.name == known.name);
        if before.any(|given| given.origin.same_way(origin)) {
            let error = format!("{} is given twice", known.name);
            return Err(ReplicaError { error, hint: "keep one of them".to_owned(), line: origin.line() });
        }
        let (name, kinds) = (known.name, known.kinds);
        self.given.push(Given { name, kinds, value: value.to_owned(), origin });
        self.given.sort_by_key(|given| given.origin);
        Ok(())
    }

    /// Says that the place is for several replicas, each below it, so that it may be a whole bucket.
    pub fn for_many(self, many: bool) -> Options {
        Options { many, ..self }
    }

    /// Whether the place is for several replicas.
    pub fn are_for_many(&self) -> bool {
        self.many
    }

    /// Refuses what a replica of this kind has no use for.
    ///
    /// # Errors
    /// The first option without a use.
    pub fn check(&self, kind: Kind) -> Result<(), ReplicaError> {
        let useless = self
            .given
            .iter()
            .find(|given| !given.kinds.contains(&kind) && !matches!(given.origin, Origin::Shared(_)));
        let Some(useless) = useless else { return Ok(()) };
        let of: Vec<&str> = useless.kinds.iter().map(|kind| kind.name()).collect();
        Err(useless.wrong(
            format!("{} has no effect on a replica of type {}", useless.name, kind.name()),
            format!("leave it out: replicas of type {} take it", of.join(", ")),
        ))
    }

    /// The one that counts.
    pub fn get(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.name == name)
    }

    /// The one of the replica itself, where a key for all replicas does not count.
    pub fn own(&self, name: &str) -> Option<&Given> {
        self.given.iter().find(|given| given.name == name && !matches!(given.origin, Origin::Shared(_)))
    }

    /// Its text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(|given| given.value.clone())
    }

    /// A truth value.
    ///
    /// # Errors
    /// If it is none.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, ReplicaError> {
        let Some(given) = self.get(name) else { return Ok(None) };
        match truth(&given.value) {
            Some(flag) => Ok(Some(flag)),
            None => Err(given.wrong(
                format!("{name} is {:?}, neither true nor false", given.value),
                "write true or false",
            )),
        }
    }

    /// A number of things, at least 1.
    ///
    /// # Errors
    /// If it is none, or larger than `most`.
    pub fn number(&self, name: &str, most: u32) -> Result<Option<u32>, ReplicaError> {
        let Some(given) = self.get(name) else { return Ok(None) };
        match given.value.parse().ok().filter(|number| (1..=most).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(given.wrong(
                format!("{name} is {:?}, not a number from 1 to {most}", given.value),
                "write a whole number",
            )),
        }
    }

    /// A number of bytes, plain or with a unit: `8388608`, `8MiB`, `8MB`.
    ///
    /// # Errors
    /// If it is none, or not from `least` to `most`.
    pub fn bytes(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, ReplicaError> {
        let Some(given) = self.get(name) else { return Ok(None) };
        match parse_bytes(&given.value) {
            None => Err(given.wrong(
                format!("{name} is {:?}, not a number of bytes", given.value),
                "write 8MiB, 8MB or a number",
            )),
            Some(bytes) if !(least..=most).contains(&bytes) => Err(given.wrong(
                format!("{name} is {bytes} bytes, and has to be from {least} to {most}"),
                "leave it out for the default",
            )),
            Some(bytes) => Ok(Some(bytes)),
        }
    }

    /// Says which parts of the URL a key has overridden.
    pub fn tell_overridden(&self, described: &mut Described) {
        for given in self.given.iter().filter(|given| given.origin == Origin::Url) {
            let winner = self.get(given.name).expect("it is there itself");
            if winner.origin != Origin::Url && winner.value != given.value {
                let line = winner.origin.line().unwrap_or_default();
                described.about.warnings.push(format!(
                    "{} of the url is not used: the key on line {line} wins, as in litestream",
                    given.name
                ));
            }
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.given.iter().map(|given| given.name)).finish()
    }
}

/// A truth value as YAML, Go and people write it.
pub fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "t" | "y" => Some(true),
        "false" | "no" | "off" | "0" | "f" | "n" => Some(false),
        _ => None,
    }
}

/// Bytes with units of a thousand (`MB`, `M`) or of 1,024 (`MiB`).
fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = (text[..digits].parse::<f64>().ok()?, text[digits..].trim().to_ascii_lowercase());
    let factor: u64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        _ => return None,
    };
    let bytes = number * factor as f64;
    // Past this a float does not name each number, and no size of ours is near it.
    (bytes < (1u64 << 53) as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_units() {
        for (text, bytes) in [
            ("5242880", Some(5 << 20)),
            ("5MiB", Some(5 << 20)),
            ("8 MB", Some(8_000_000)),
            ("8m", Some(8_000_000)),
            ("1.5gib", Some(3 << 29)),
            ("100B", Some(100)),
            ("", None),
            ("-1", None),
            ("5x", None),
            ("1e9", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse_bytes(text), bytes, "{text}");
        }
    }

    #[test]
    fn names_are_told_apart() {
        for (i, one) in NAMES.iter().enumerate() {
            assert!(!one.kinds.is_empty() && !one.name.contains(char::is_uppercase), "{}", one.name);
            for other in &NAMES[i + 1..] {
                assert!(one.name != other.name && one.camel != other.camel, "{}", one.name);
            }
        }
    }
}
