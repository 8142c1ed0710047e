//! The state directory's lock and the control sockets.
//!
//! One process at a time may use a state directory: two would each believe that the journal says
//! what they wrote. The lock is the kernel's and dies with the process.
//!
//! Whoever may connect to a socket may have any file that this process can read replicated to any
//! place. So sockets are the owner's alone unless the configuration says otherwise, from the
//! moment they exist. What comes in is bounded in size and time, and no request keeps another
//! waiting. They speak HTTP with Litestream's paths and fields, so that its commands work with this
//! process and ours with it (`answers`).

mod answers;
pub mod client;
pub(crate) mod connections;
pub(crate) mod http;
mod listen;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless_adapters::fs::{Fs as _, RealFs};
use driftless_core::machine::Exit;
use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

pub use self::answers::describe;
pub(crate) use self::answers::phase;
pub use self::listen::SocketPlace;
pub(crate) use self::listen::{Socket, open, serve};

/// Holds a state directory for this process.
pub struct StateLock(#[expect(dead_code, reason = "the descriptor holds the lock")] std::fs::File);

impl StateLock {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// When another process holds it, or it cannot be made.
    pub fn take(directory: &Path) -> Result<StateLock, Exit> {
        let hint = "give a directory that can be written with -state-dir";
        let failed = |error: String, hint: &str| Exit::Misconfigured { error, hint: hint.into() };
        RealFs.create_dir_all(directory).map_err(|error| failed(error.to_string(), hint))?;
        let path = directory.join("lock");
        let file = std::fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed(format!("{}: {error}", path.display()), hint))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(StateLock(file)),
            Err(_) => Err(failed(
                format!("another driftless process uses the state directory {}", directory.display()),
                "stop the other process, or give this one a directory of its own with -state-dir",
            )),
        }
    }
}

/// The socket of the process that uses a state directory.
pub fn socket_in(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// Asks the process that uses `directory` how its databases are; `None` if there is none.
///
/// # Errors
/// When it does not answer within five seconds, or not in JSON.
pub fn query(directory: &Path) -> io::Result<Option<Value>> {
    match client::ask(&socket_in(directory), "GET", "/status", None, Duration::from_secs(5)) {
        Ok(reply) => Ok(Some(reply.body)),
        Err(error) if client::is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
