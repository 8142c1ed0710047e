//! S3 as moto has it: exact conditional writes, uploads in parts, lists in pages. What makes its
//! conditions exact among requests at one time is ours: `tests/servers/moto.py`.
//!
//! It takes any access key and checks no signature, unless it is started by [`Moto::strict`]: then
//! it knows the keys that [`Moto::user`] has made, checks the signature of each request over the
//! header fields that it names, and asks the policies of the user. So a request that is signed
//! wrongly, and a permission that is missing, fail here as they do at Amazon.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

use super::fresh_name;
use super::install::venv;
use super::process::Process;
use crate::http::{self, Request, Response, percent_encode};
use crate::objects::{elements, unescape};
use crate::s3::Bucket;
use crate::sign::{S3Key, amz_date, sign_v4};

/// A server of S3.
#[derive(Debug)]
pub struct Moto {
    process: Process,
    /// Whoever has this key may do all, in a strict server too.
    root: S3Key,
}

/// The server that all tests of this process share.
pub fn moto() -> &'static Moto {
    static SHARED: OnceLock<Moto> = OnceLock::new();
    SHARED.get_or_init(Moto::start)
}

impl Moto {
    /// A server of its own, which takes any key.
    pub fn start() -> Moto {
        let venv = venv("moto", include_str!("../../servers/moto.txt"));
        let process = Process::start("moto", |address| {
            let mut command = Command::new(venv.join("bin").join("python"));
            command.args(["-I", "-c", include_str!("../../servers/moto.py")]);
            command.args(["-H", "127.0.0.1", "-p", &address.port().to_string()]);
            // Keys of the real Amazon may be in the environment of a developer.
            command.env("AWS_ACCESS_KEY_ID", "moto").env("AWS_SECRET_ACCESS_KEY", "moto");
            command
        });
        Moto { process, root: S3Key { id: "test".to_owned(), secret: "secret".to_owned() } }
    }

    /// A server of its own that checks signatures and permissions.
    pub fn strict() -> Moto {
        let mut moto = Moto::start();
        moto.root = moto.user("root", r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#);
        http::send(moto.address(), &Request::new("POST", "/moto-api/reset-auth").body("0")).expect(200);
        moto
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A new, empty bucket, whose name begins with `name`.
    pub fn bucket(&self, name: &str) -> Bucket {
        let bucket = Bucket::new(self.address(), &fresh_name(name), self.root.clone());
        bucket.create();
        bucket
    }

    /// Makes a user with one policy, whose statements are given as JSON, and returns his key. moto
    /// asks for actions as `s3:ListBucket`, and for resources as
    /// `arn:aws:s3:::bucket` or `arn:aws:s3:::bucket/key`.
    pub fn user(&self, name: &str, statements: &str) -> S3Key {
        let name = fresh_name(name);
        let policy = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
        self.iam(&[("Action", "CreateUser"), ("UserName", &name)]);
        let fields = [
            ("Action", "PutUserPolicy"),
            ("UserName", &name),
            ("PolicyName", "only"),
            ("PolicyDocument", &policy),
        ];
        self.iam(&fields);
        let text = self.iam(&[("Action", "CreateAccessKey"), ("UserName", &name)]).text();
        let one = |name| unescape(elements(&text, name).first().expect("a key has both parts"));
        S3Key { id: one("AccessKeyId"), secret: one("SecretAccessKey") }
    }

    /// Takes a user's key away, while he runs.
    pub fn revoke(&self, key: &S3Key) {
        self.iam(&[("Action", "DeleteAccessKey"), ("AccessKeyId", &key.id)]);
    }

    #[track_caller]
    fn iam(&self, fields: &[(&str, &str)]) -> Response {
        let fields = fields.iter().chain(&[("Version", "2010-05-08")]);
        let pairs: Vec<String> =
            fields.map(|(name, value)| format!("{name}={}", percent_encode(value, false))).collect();
        let mut request = Request::new("POST", "/")
            .header("Host", self.address())
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(pairs.join("&"));
        sign_v4(&mut request, &self.root, "iam", &amz_date());
        http::send(self.address(), &request).expect(200)
    }
}
