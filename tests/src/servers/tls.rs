//! TLS before any server, or before a proxy, with a certificate that nobody trusts unless told to.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install::venv;
use super::process::Process;
use crate::dir::TempDir;

/// What ends TLS, and passes on what is within.
#[derive(Debug)]
pub struct Tls {
    process: Process,
    authority: PathBuf,
    _directory: TempDir,
}

impl Tls {
    /// Puts it before the server at this address.
    pub fn before(server: SocketAddr) -> Tls {
        // moto's environment: it has a library that makes certificates.
        let venv = venv("moto", include_str!("../../servers/moto.txt"));
        let directory = TempDir::new("tls");
        let authority = directory.join("authority.pem");
        let start = |address: SocketAddr| {
            let mut command = Command::new(venv.join("bin").join("python3"));
            command.args(["-I", "-c", include_str!("../../servers/tls.py"), &address.port().to_string()]);
            command.arg(server.port().to_string()).arg(&authority);
            command
        };
        // It listens before it makes the certificates, and accepts when it has them.
        let process = Process::start_until("tls", start, |_| authority.exists());
        Tls { process, authority, _directory: directory }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The beginning of a URL that the certificate is valid for, `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address())
    }

    /// The authority's certificate, for `AWS_CA_BUNDLE` and its like.
    pub fn authority(&self) -> &Path {
        &self.authority
    }
}
