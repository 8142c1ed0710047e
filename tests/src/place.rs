//! Where a replica lies: what the product is told, and how a test looks behind its back.
//!
//! The same stories are told of directories and of object stores. A directory is a [`Path`]; a place
//! in a store is a [`Remote`], perhaps reached through a [`crate::proxy::Proxy`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::command::{Ran, finish};
use crate::objects::{Objects, ltx_range};
use crate::s3::{Bucket, give_key};
use crate::servers::{ACCOUNT, ACCOUNT_KEY, Container, GcsBucket, Webdav};
use crate::sign::S3Key;
use crate::{daemon, driftless_command};

/// A place that holds the segments of one database.
pub trait Place {
    /// What stands for it on a command line and in a configuration.
    fn argument(&self) -> OsString;

    /// Its URL, with all that is needed to get there but keys.
    fn url(&self) -> String;

    /// What Litestream's configuration says under `replica`, as names and values.
    fn litestream_keys(&self) -> Vec<(&'static str, String)>;

    /// Gives a program what it needs to reach it.
    fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command;

    /// First and last TXID of the files of a level, in order.
    fn ltx_files(&self, level: u32) -> Vec<(u64, u64)>;

    /// All files of all levels, with their content.
    fn snapshot(&self) -> BTreeMap<String, Vec<u8>>;

    /// The same place, owned.
    fn to_box(&self) -> Box<dyn Place>;

    /// Runs `driftless ARGS… PLACE` to its end.
    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        let mut command = driftless_command();
        finish(self.equip(command.args(args)).arg(self.argument()))
    }
}

impl Place for Path {
    fn argument(&self) -> OsString {
        self.as_os_str().to_owned()
    }

    fn url(&self) -> String {
        format!("file://{}", self.display())
    }

    fn litestream_keys(&self) -> Vec<(&'static str, String)> {
        vec![("type", "file".to_owned()), ("path", self.display().to_string())]
    }

    fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
    }

    fn ltx_files(&self, level: u32) -> Vec<(u64, u64)> {
        daemon::ltx_files(self, level)
    }

    fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        let levels = fs::read_dir(self.join("ltx")).into_iter().flatten().flatten();
        for entry in levels.flat_map(|level| fs::read_dir(level.path()).into_iter().flatten().flatten()) {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "ltx") {
                let content = fs::read(&path).expect("nothing deletes files here");
                all.insert(path.to_string_lossy().into_owned(), content);
            }
        }
        all
    }

    fn to_box(&self) -> Box<dyn Place> {
        Box::new(self.to_path_buf())
    }
}

impl Place for PathBuf {
    fn argument(&self) -> OsString {
        self.as_path().argument()
    }

    fn url(&self) -> String {
        self.as_path().url()
    }

    fn litestream_keys(&self) -> Vec<(&'static str, String)> {
        self.as_path().litestream_keys()
    }

    fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command
    }

    fn ltx_files(&self, level: u32) -> Vec<(u64, u64)> {
        self.as_path().ltx_files(level)
    }

    fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        self.as_path().snapshot()
    }

    fn to_box(&self) -> Box<dyn Place> {
        self.as_path().to_box()
    }
}

/// What a program signs with.
#[derive(Clone, Debug)]
enum Credentials {
    /// Keys of S3 in the environment.
    Key(S3Key),
    /// A file of profiles, whose first is `default`.
    Profile(PathBuf),
    /// Other variables.
    Variables(Vec<(&'static str, String)>),
}

/// A place in an object store.
#[derive(Clone)]
pub struct Remote {
    url: String,
    credentials: Credentials,
    objects: Arc<dyn Objects + Send + Sync>,
    /// The directory of each level, up to its number.
    levels: Levels,
    root: String,
}

/// How the directories of levels are named (`docs/FORMAT.md`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Levels {
    /// `0000`, …: S3.
    Hex,
    /// `ltx/0`, …: all others.
    Ltx,
}

impl Remote {
    /// The directory `app` of a bucket, whose server is found at `server`: itself or a proxy.
    pub fn s3(bucket: &Bucket, server: SocketAddr) -> Remote {
        Remote::s3_at(bucket, &format!("http://{server}"))
    }

    /// The same by the URL of the server.
    pub fn s3_at(bucket: &Bucket, endpoint: &str) -> Remote {
        Remote {
            url: format!("s3://{}/app?endpoint={endpoint}&forcePathStyle=true", bucket.name()),
            credentials: Credentials::Key(bucket.key().clone()),
            objects: Arc::new(bucket.clone()),
            levels: Levels::Hex,
            root: "app/".to_owned(),
        }
    }

    /// The directory `app` of a container of Azure.
    pub fn azure(container: &Container, server: SocketAddr) -> Remote {
        let endpoint = format!("http://{server}/{ACCOUNT}");
        Remote {
            url: format!("abs://{ACCOUNT}@{}/app?endpoint={endpoint}", container.name()),
            credentials: Credentials::Variables(vec![(
                "LITESTREAM_AZURE_ACCOUNT_KEY",
                ACCOUNT_KEY.to_owned(),
            )]),
            objects: Arc::new(container.clone()),
            levels: Levels::Ltx,
            root: "app/".to_owned(),
        }
    }

    /// The directory `app` of a bucket of Google's.
    pub fn gcs(bucket: &GcsBucket, server: SocketAddr) -> Remote {
        Remote {
            url: format!("gs://{}/app?endpoint=http://{server}&anonymous=true", bucket.name()),
            credentials: Credentials::Variables(Vec::new()),
            objects: Arc::new(bucket.clone()),
            levels: Levels::Ltx,
            root: "app/".to_owned(),
        }
    }

    /// The directory `app` of a WebDAV server.
    pub fn webdav(webdav: Webdav, server: SocketAddr) -> Remote {
        Remote {
            url: format!("webdav://{server}/app"),
            credentials: Credentials::Variables(Vec::new()),
            objects: Arc::new(webdav),
            levels: Levels::Ltx,
            root: "app/".to_owned(),
        }
    }

    /// The same place, reached with another option as well: `name=value`.
    pub fn with(mut self, option: &str) -> Remote {
        let mark = if self.url.contains('?') { '&' } else { '?' };
        self.url = format!("{}{mark}{option}", self.url);
        self
    }

    /// The URL of another directory beside it.
    pub fn beside(&self, name: &str) -> String {
        self.url.replacen("/app", &format!("/{name}"), 1)
    }

    /// The same place, named by another URL.
    pub fn named(mut self, url: String) -> Remote {
        self.url = url;
        self
    }

    /// The same place, its requests signed with another key.
    pub fn signed(mut self, key: &S3Key) -> Remote {
        self.credentials = Credentials::Key(key.clone());
        self
    }

    /// The same place, with the keys of a file of profiles.
    pub fn profile(mut self, file: &Path) -> Remote {
        self.credentials = Credentials::Profile(file.into());
        self
    }

    /// The objects of the store that it is in.
    pub fn objects(&self) -> &(dyn Objects + Send + Sync) {
        &*self.objects
    }

    /// The name of a file of one level in the store.
    pub fn key(&self, level: u32, min: u64, max: u64) -> String {
        format!("{}{min:016x}-{max:016x}.ltx", self.level(level))
    }

    fn level(&self, level: u32) -> String {
        match self.levels {
            Levels::Hex => format!("{}{level:04x}/", self.root),
            Levels::Ltx => format!("{}ltx/{level}/", self.root),
        }
    }
}

impl Place for Remote {
    fn argument(&self) -> OsString {
        self.url.clone().into()
    }

    fn url(&self) -> String {
        self.url.clone()
    }

    fn litestream_keys(&self) -> Vec<(&'static str, String)> {
        let mut keys = vec![("url", self.url.clone())];
        if let Credentials::Key(key) = &self.credentials {
            keys.push(("access-key-id", key.id.clone()));
            keys.push(("secret-access-key", key.secret.clone()));
        }
        keys
    }

    fn equip<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        match &self.credentials {
            Credentials::Key(key) => give_key(command, key),
            Credentials::Profile(file) => {
                give_key(command, &S3Key { id: String::new(), secret: String::new() });
                command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
                command.env("AWS_SHARED_CREDENTIALS_FILE", file).env("AWS_CONFIG_FILE", "/dev/null")
            }
            Credentials::Variables(variables) => command.envs(variables.iter().cloned()),
        }
    }

    fn ltx_files(&self, level: u32) -> Vec<(u64, u64)> {
        let folder = self.level(level);
        let names = self.objects.list().into_keys();
        let mut ranges: Vec<(u64, u64)> =
            names.filter_map(|name| ltx_range(name.strip_prefix(folder.as_str())?)).collect();
        ranges.sort_unstable();
        ranges
    }

    fn snapshot(&self) -> BTreeMap<String, Vec<u8>> {
        let names = self.objects.list().into_keys();
        let files = names.filter(|name| name.starts_with(&self.root) && name.ends_with(".ltx"));
        let content = |name: &String| self.objects.get(name).expect("nothing deletes objects here");
        files.map(|name| (name.clone(), content(&name))).collect()
    }

    fn to_box(&self) -> Box<dyn Place> {
        Box::new(self.clone())
    }
}
