//! Where an object store is and how it is spoken to, as plain data.
//!
//! A configuration file, a URL and a registration over the control socket all end in these
//! structures, so that an option means the same on each way. Nothing here connects.

use std::fmt;

/// A replica's place in an object store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// What every key begins with: components separated by `/`, none of them empty, no slash at
    /// either end; empty for the root of the bucket.
    pub root: String,
    /// Whose protocol, and its options.
    pub service: Service,
    /// How the server is reached, whichever the protocol.
    pub transport: Transport,
}

/// The protocol of a store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Service {
    /// Amazon S3 and all that speak like it.
    S3(S3),
    /// Azure Blob Storage.
    Azure(Azure),
    /// Google Cloud Storage.
    Gcs(Gcs),
    /// A WebDAV server.
    WebDav(WebDav),
}

/// Text that must not be shown: its `Debug` and `Display` hide it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text, for whoever sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How servers are reached.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Transport {
    /// Do not check certificates. Whoever sits between may then read and change everything.
    pub skip_verify: bool,
}

/// An S3 bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct S3 {
    /// The bucket's name.
    pub bucket: String,
    /// The region; found from the environment, else `us-east-1`, where it is not given.
    pub region: Option<String>,
    /// The server's URL without the bucket; Amazon's for the region where it is not given.
    pub endpoint: Option<String>,
    /// Whether the bucket stands in the path (`true`) or in the host's name (`false`).
    pub path_style: bool,
    /// Keys that the user gave. Without them: the environment, profile files, web identity, the
    /// container's and the instance's metadata, in this order.
    pub keys: Option<AccessKeys>,
    /// A profile of the shared configuration files, instead of `AWS_PROFILE`.
    pub profile: Option<String>,
    /// The storage class of new objects; the bucket's default where it is not given.
    pub storage_class: Option<String>,
    /// How the server encrypts new objects.
    pub encryption: Option<ServerEncryption>,
    /// Bytes of one part of a multipart upload, at least 5 MiB; grows with the object, so that
    /// 10,000 parts suffice. The adapter's default where it is not given.
    pub part_size: Option<u64>,
    /// How many parts of one upload are under way at a time; the adapter's default where it is
    /// not given.
    pub concurrency: Option<u32>,
    /// Send a checksum with each body for servers that require one (`Content-MD5` or its
    /// successors).
    pub checksum: bool,
}

/// A pair of S3 keys.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AccessKeys {
    /// The public half.
    pub id: String,
    /// The secret half.
    pub secret: Secret,
    /// Comes with keys that expire.
    pub session_token: Option<Secret>,
}

/// How an S3 server encrypts what it stores.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ServerEncryption {
    /// SSE-S3: with the server's own key.
    Server,
    /// SSE-KMS: with a key of the key service; its default key where none is named.
    Kms {
        /// The key's id or ARN.
        key_id: Option<String>,
    },
    /// SSE-C: with a key that comes with each request and that the server forgets.
    Customer {
        /// 32 bytes.
        key: Secret32,
    },
}

/// Thirty-two secret bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret32(pub [u8; 32]);

impl fmt::Debug for Secret32 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// An Azure container.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Azure {
    /// The container's name.
    pub container: String,
    /// The storage account.
    pub account: String,
    /// The account's key. Without it and without `sas_token`: the environment, workload identity,
    /// managed identity.
    pub account_key: Option<Secret>,
    /// A shared access signature, instead of the key.
    pub sas_token: Option<Secret>,
    /// The server's URL; `https://<account>.blob.core.windows.net` where it is not given.
    pub endpoint: Option<String>,
}

/// A Google bucket.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Gcs {
    /// The bucket's name.
    pub bucket: String,
    /// The server's URL; Google's where it is not given.
    pub endpoint: Option<String>,
    /// A file with a service account's or a workload identity's credentials. Without it:
    /// `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own file, the instance's metadata.
    pub credential_path: Option<String>,
    /// Send requests without credentials, as emulators want it.
    pub anonymous: bool,
}

/// A directory of a WebDAV server.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct WebDav {
    /// The server's URL.
    pub url: String,
    /// Who asks.
    pub username: Option<String>,
    /// And their password.
    pub password: Option<Secret>,
}

impl Settings {
    /// The word for the protocol, as Litestream has it under `type`.
    pub fn kind(&self) -> &'static str {
        match self.service {
            Service::S3(_) => "s3",
            Service::Azure(_) => "abs",
            Service::Gcs(_) => "gs",
            Service::WebDav(_) => "webdav",
        }
    }

    /// The place as a URL for people, without options and secrets.
    pub fn url(&self) -> String {
        let slash = if self.root.is_empty() { "" } else { "/" };
        let root = &self.root;
        match &self.service {
            Service::S3(s3) => format!("s3://{}{slash}{root}", s3.bucket),
            Service::Azure(azure) => format!("abs://{}@{}{slash}{root}", azure.account, azure.container),
            Service::Gcs(gcs) => format!("gs://{}{slash}{root}", gcs.bucket),
            Service::WebDav(webdav) => {
                let url = webdav.url.trim_end_matches('/');
                match url.split_once("://") {
                    Some(("https", rest)) => format!("webdavs://{rest}{slash}{root}"),
                    _ => format!("webdav://{}{slash}{root}", url.trim_start_matches("http://")),
                }
            }
        }
    }

    /// What two replicas have in common when they lie on one server under one account: what is
    /// found out about the one holds for the other.
    pub fn server(&self) -> String {
        match &self.service {
            Service::S3(s3) => format!("s3 {} {}", s3.endpoint.as_deref().unwrap_or("amazon"), s3.bucket),
            Service::Azure(azure) => format!("abs {} {}", azure.account, azure.container),
            Service::Gcs(gcs) => format!("gs {}", gcs.bucket),
            Service::WebDav(webdav) => format!("webdav {}", webdav.url),
        }
    }
}
