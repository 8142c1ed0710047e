//! Azure Blob Storage as azurite has it, in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

use super::fresh_name;
use super::install::{node, npm};
use super::process::Process;
use crate::http::{self, Request, Response, percent_encode};
use crate::objects::{Objects, elements, unescape};
use crate::sign::{base64, from_base64, hmac, http_date};

/// The account that every azurite knows, and its key: public, and in Microsoft's documentation.
pub const ACCOUNT: &str = "devstoreaccount1";
/// The key of [`ACCOUNT`].
pub const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// A version that it knows; it is told not to mind newer ones.
const API_VERSION: &str = "2024-11-04";

/// A server of Azure blobs.
#[derive(Debug)]
pub struct Azurite {
    process: Process,
}

/// The server that all tests of this process share.
pub fn azurite() -> &'static Azurite {
    static SHARED: OnceLock<Azurite> = OnceLock::new();
    SHARED.get_or_init(Azurite::start)
}

impl Azurite {
    /// A server of its own.
    pub fn start() -> Azurite {
        let package = include_str!("../../servers/azurite/package.json");
        let lock = include_str!("../../servers/azurite/package-lock.json");
        let program = npm("azurite", package, lock).join("node_modules/azurite/dist/src/blob/main.js");
        let process = Process::start("azurite", |address| {
            let mut command = Command::new(node());
            command.arg(program).args(["--blobHost", "127.0.0.1", "--blobPort", &address.port().to_string()]);
            command.args([
                "--inMemoryPersistence",
                "--skipApiVersionCheck",
                "--disableTelemetry",
                "--silent",
            ]);
            command
        });
        Azurite { process }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The endpoint of the account, `http://127.0.0.1:PORT/devstoreaccount1`.
    pub fn endpoint(&self) -> String {
        format!("http://{}/{ACCOUNT}", self.address())
    }

    /// A new, empty container, whose name begins with `name`.
    pub fn container(&self, name: &str) -> Container {
        let container = Container { server: self.address(), name: fresh_name(name) };
        container.send(Request::new("PUT", &format!("{}?restype=container", container.base()))).expect(201);
        container
    }
}

/// A container of blobs.
#[derive(Clone, Debug)]
pub struct Container {
    server: SocketAddr,
    name: String,
}

impl Container {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn base(&self) -> String {
        format!("/{ACCOUNT}/{}", self.name)
    }

    fn target(&self, key: &str) -> String {
        format!("{}/{}", self.base(), percent_encode(key, true))
    }

    /// Stores a blob only if there is none: 201, or 409 if there is one.
    #[track_caller]
    pub fn create_blob(&self, key: &str, body: &[u8]) -> u16 {
        let request = Request::new("PUT", &self.target(key)).header("x-ms-blob-type", "BlockBlob");
        self.send(request.header("If-None-Match", "*").body(body)).status
    }

    /// Signs with the shared key and sends.
    #[track_caller]
    pub fn send(&self, request: Request) -> Response {
        let mut request = request
            .header("x-ms-date", http_date())
            .header("x-ms-version", API_VERSION)
            .header("Host", self.server);
        let signature = base64(&hmac(&from_base64(ACCOUNT_KEY), to_sign(&request).as_bytes()));
        request.headers.set("Authorization", format!("SharedKey {ACCOUNT}:{signature}"));
        http::send(self.server, &request)
    }
}

/// What is signed of a request ("Authorize with Shared Key", the form of 2015-02-21 and later).
fn to_sign(request: &Request) -> String {
    let header = |name| request.headers.get(name).unwrap_or_default();
    let length = if request.body.is_empty() { String::new() } else { request.body.len().to_string() };
    let mut lines = vec![request.method.clone(), String::new(), String::new(), length];
    let names = ["content-md5", "content-type", "date", "if-modified-since", "if-match", "if-none-match"];
    lines.extend(names.map(|name| header(name).to_owned()));
    lines.extend(["if-unmodified-since", "range"].map(|name| header(name).to_owned()));
    let mut own: Vec<String> = request
        .headers
        .iter()
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    own.sort();
    lines.extend(own);
    // The account stands there twice with an emulator: once as the owner, and once in its path.
    lines.push(format!("/{ACCOUNT}{}", request.path()));
    let mut query: Vec<String> = request
        .query()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.replacen('=', ":", 1))
        .collect();
    query.sort();
    lines.extend(query);
    lines.join("\n")
}

impl Objects for Container {
    fn list(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut next = String::new();
        loop {
            let target = format!("{}?comp=list&restype=container{next}", self.base());
            let text = self.send(Request::new("GET", &target)).expect(200).text();
            for blob in elements(&text, "Blob") {
                let one = |name| *elements(blob, name).first().expect("a blob has name and length");
                found.insert(unescape(one("Name")), one("Content-Length").parse().expect("a number"));
            }
            match elements(&text, "NextMarker").first() {
                Some(marker) if !marker.is_empty() => next = format!("&marker={}", unescape(marker)),
                _ => return found,
            }
        }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let response = self.send(Request::new("GET", &self.target(key)));
        (response.status != 404).then(|| response.expect(200).body)
    }

    fn put(&self, key: &str, body: &[u8]) {
        let request = Request::new("PUT", &self.target(key)).header("x-ms-blob-type", "BlockBlob");
        self.send(request.body(body)).expect(201);
    }

    fn delete(&self, key: &str) {
        let status = self.send(Request::new("DELETE", &self.target(key))).status;
        assert!(matches!(status, 202 | 404), "{status}");
    }
}
