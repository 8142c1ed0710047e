//! A bucket, looked at from outside: by a client that is none of the product's.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::process::Command;

use crate::http::{self, Request, Response, percent_encode};
use crate::objects::{Objects, elements, unescape};
use crate::sign::{S3Key, amz_date, sign_v4};

/// A bucket of a server, addressed by path.
#[derive(Clone, Debug)]
pub struct Bucket {
    server: SocketAddr,
    name: String,
    key: S3Key,
}

/// What a bucket tells of an object without its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ObjectHead {
    /// Its bytes.
    pub size: u64,
    /// Its entity tag, in quotes.
    pub etag: String,
    /// Its storage class; `STANDARD` where none is told.
    pub storage_class: String,
    /// All header fields of the answer, for encryption and the like.
    pub headers: http::Headers,
}

/// Lets a program sign with this key, and takes away what the environment says of Amazon otherwise:
/// other keys, a profile, and a bundle of authorities, with which Litestream does not start.
pub fn give_key<'a>(command: &'a mut Command, key: &S3Key) -> &'a mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AWS_") {
            command.env_remove(name);
        }
    }
    command.env("AWS_ACCESS_KEY_ID", &key.id).env("AWS_SECRET_ACCESS_KEY", &key.secret);
    command.env("AWS_REGION", "us-east-1").env("AWS_EC2_METADATA_DISABLED", "true")
}

impl Bucket {
    /// One that exists, or is to be made by [`Bucket::create`].
    pub fn new(server: SocketAddr, name: &str, key: S3Key) -> Bucket {
        Bucket { server, name: name.to_owned(), key }
    }

    /// Makes the bucket.
    #[track_caller]
    pub fn create(&self) {
        self.send(Request::new("PUT", &format!("/{}", self.name))).expect(200);
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its server listens.
    pub fn server(&self) -> SocketAddr {
        self.server
    }

    /// The endpoint for a client that talks to the server itself, `http://127.0.0.1:PORT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.server)
    }

    /// The access key that its requests are signed with.
    pub fn key(&self) -> &S3Key {
        &self.key
    }

    /// The target of an object.
    pub fn target(&self, key: &str) -> String {
        format!("/{}/{}", self.name, percent_encode(key, true))
    }

    /// Signs and sends any request; a connection that fails fails the test.
    #[track_caller]
    pub fn send(&self, request: Request) -> Response {
        http::send(self.server, &self.sign(request))
    }

    /// Signs and sends any request.
    pub fn try_send(&self, request: Request) -> io::Result<Response> {
        http::try_send(self.server, &self.sign(request))
    }

    /// The request with the signature that belongs to it.
    pub fn sign(&self, request: Request) -> Request {
        let mut request = request.header("Host", self.server);
        sign_v4(&mut request, &self.key, "s3", &amz_date());
        request
    }

    /// Stores an object only if there is none: 200, or 412 if there is one.
    #[track_caller]
    pub fn create_object(&self, key: &str, body: &[u8]) -> u16 {
        let request = Request::new("PUT", &self.target(key)).header("If-None-Match", "*").body(body);
        self.send(request).status
    }

    /// What is told of an object, if there is one.
    #[track_caller]
    pub fn head(&self, key: &str) -> Option<ObjectHead> {
        let response = self.send(Request::new("HEAD", &self.target(key)));
        if response.status == 404 {
            return None;
        }
        let response = response.expect(200);
        let text = |name| response.headers.get(name).map(str::to_owned);
        Some(ObjectHead {
            size: text("content-length").and_then(|size| size.parse().ok()).expect("a length"),
            etag: text("etag").unwrap_or_default(),
            storage_class: text("x-amz-storage-class").unwrap_or_else(|| "STANDARD".to_owned()),
            headers: response.headers,
        })
    }

    /// How many objects there are.
    pub fn count(&self) -> usize {
        self.list().len()
    }

    /// The objects that were begun in parts and neither completed nor aborted: key and upload id.
    #[track_caller]
    pub fn uploads(&self) -> Vec<(String, String)> {
        let text = self.send(Request::new("GET", &format!("/{}?uploads=", self.name))).expect(200).text();
        elements(&text, "Upload")
            .iter()
            .map(|upload| {
                let one = |name| unescape(elements(upload, name).first().expect("it has one"));
                (one("Key"), one("UploadId"))
            })
            .collect()
    }

    /// Begins an upload in parts, and leaves it: an orphan. Returns its id.
    #[track_caller]
    pub fn begin_upload(&self, key: &str) -> String {
        let request = Request::new("POST", &format!("{}?uploads=", self.target(key)));
        let text = self.send(request).expect(200).text();
        unescape(elements(&text, "UploadId").first().expect("it has an id"))
    }
}

impl Objects for Bucket {
    fn list(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut next = String::new();
        loop {
            let target = format!("/{}?list-type=2{next}", self.name);
            let text = self.send(Request::new("GET", &target)).expect(200).text();
            for object in elements(&text, "Contents") {
                let one = |name| *elements(object, name).first().expect("an object has key and size");
                found.insert(unescape(one("Key")), one("Size").parse().expect("a number"));
            }
            match elements(&text, "NextContinuationToken").first() {
                Some(token) => {
                    next = format!("&continuation-token={}", percent_encode(&unescape(token), false))
                }
                None => return found,
            }
        }
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let response = self.send(Request::new("GET", &self.target(key)));
        (response.status != 404).then(|| response.expect(200).body)
    }

    fn put(&self, key: &str, body: &[u8]) {
        self.send(Request::new("PUT", &self.target(key)).body(body)).expect(200);
    }

    fn delete(&self, key: &str) {
        self.send(Request::new("DELETE", &self.target(key))).expect(204);
    }
}
