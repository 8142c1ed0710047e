//! WebDAV as WsgiDAV has it, over a directory.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::install::venv;
use super::process::Process;
use crate::dir::TempDir;
use crate::objects::Objects;

/// WsgiDAV on its own web server, cheroot. Arguments: port, directory, and perhaps user and password.
///
/// cheroot lets five connections wait to be accepted. One more, and the kernel answers with SYN
/// cookies and then resets what it cannot keep, beside a busy machine half of the time.
const SERVER: &str = "
import sys
from cheroot import wsgi
from wsgidav.wsgidav_app import WsgiDAVApp
port, root, *user = sys.argv[1:]
users = {user[0]: {'password': user[1]}} if user else True
app = WsgiDAVApp({
    'provider_mapping': {'/': root},
    'simple_dc': {'user_mapping': {'*': users}},
    'http_authenticator': {'accept_basic': True, 'accept_digest': False, 'default_to_digest': False},
    'lock_storage': True,
    'verbose': 1,
    'logging': {'enable_loggers': []},
})
wsgi.Server(('127.0.0.1', int(port)), app, request_queue_size=128).start()
";

/// A server of WebDAV.
#[derive(Debug)]
pub struct Webdav {
    process: Process,
    root: TempDir,
}

impl Webdav {
    /// A server of its own, open to everybody.
    pub fn start() -> Webdav {
        Webdav::start_with(&[])
    }

    /// A server of its own that wants a name and a password, in the manner called basic.
    pub fn with_password(user: &str, password: &str) -> Webdav {
        Webdav::start_with(&[user, password])
    }

    fn start_with(user: &[&str]) -> Webdav {
        let venv = venv("webdav", include_str!("../../servers/webdav.txt"));
        let root = TempDir::new("webdav");
        let process = Process::start("webdav", |address| {
            let mut command = Command::new(venv.join("bin").join("python3"));
            command.args(["-I", "-c", SERVER, &address.port().to_string()]).arg(root.path()).args(user);
            command
        });
        Webdav { process, root }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.process.address()
    }

    /// The directory that it serves.
    pub fn root(&self) -> &Path {
        self.root.path()
    }
}

/// By way of the directory: what a client sees is what lies there.
impl Objects for Webdav {
    fn list(&self) -> BTreeMap<String, u64> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.root.path().to_path_buf()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                let path: PathBuf = entry.path();
                // Gone since it was listed, perhaps: the server renames.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(path);
                } else {
                    let below = path.strip_prefix(self.root.path()).expect("found below the root");
                    found.insert(below.to_string_lossy().into_owned(), meta.len());
                }
            }
        }
        found
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        fs::read(self.root.join(key)).ok()
    }

    fn put(&self, key: &str, body: &[u8]) {
        let path = self.root.join(key);
        fs::create_dir_all(path.parent().expect("below the root")).expect("the test's directory");
        fs::write(path, body).expect("the test's directory");
    }

    fn delete(&self, key: &str) {
        let _ = fs::remove_file(self.root.join(key));
    }
}
