//! The state directory's lock and the control socket.
//!
//! One process at a time may use a state directory: two would each believe that the journal says
//! what they wrote. The lock is the kernel's and dies with the process. The socket answers one
//! question per connection, with one JSON document; it is the owner's alone.

use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use driftless_adapters::fs::{Fs as _, RealFs};
use driftless_core::engine::{Phase, Status};
use driftless_core::ids::Mono;
use driftless_core::machine::{Event, Exit};
use futures_lite::io::{AsyncReadExt as _, AsyncWriteExt as _};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};

use crate::clock;
use crate::host::Host;
use crate::host::databases::Entry;

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

fn socket_path(directory: &Path) -> PathBuf {
    directory.join("socket")
}

/// Serves the socket for as long as the process runs.
pub(crate) async fn serve(host: Rc<Host>, directory: PathBuf) {
    let path = socket_path(&directory);
    // A socket of a dead process: the lock says that there is no living one.
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path).and_then(Async::new) {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::warn!(path = %path.display(), %error, "no control socket: driftless status will not see this process");
        }
    };
    let _ = std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // One at a time: a question is answered in microseconds.
                let _ = answer(stream, &host).await;
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket failed");
                async_io::Timer::after(Duration::from_secs(1)).await;
            }
        }
    }
}

async fn answer(mut stream: Async<UnixStream>, host: &Host) -> io::Result<()> {
    let asked = async {
        let mut request = [0; 64];
        let n = stream.read(&mut request).await?;
        Ok::<_, io::Error>(request[..n].to_vec())
    };
    let timeout = async {
        async_io::Timer::after(Duration::from_secs(1)).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    let request = futures_lite::future::or(asked, timeout).await?;
    let reply = if request.starts_with(b"status") {
        let asked = clock::mono();
        host.for_each(|entry| entry.send(Event::SourceChanged));
        async_io::Timer::after(Duration::from_millis(20)).await;
        // The answer is of now: one that is a look old would say "all replicated" of a commit that
        // whoever asks has just made. A database that is followed is looked at four times a second.
        for _ in 0..50 {
            if all_looked_since(host, asked) {
                break;
            }
            async_io::Timer::after(Duration::from_millis(10)).await;
        }
        status(host)
    } else {
        json!({ "error": "unknown request" })
    };
    stream.write_all(reply.to_string().as_bytes()).await?;
    stream.flush().await
}

/// Whether each database that is followed has been looked at since then.
fn all_looked_since(host: &Host, asked: Mono) -> bool {
    let mut looked = true;
    host.for_each(|entry| {
        let status = entry.status.as_ref().filter(|_| entry.is_live());
        looked &= status.is_none_or(|status| {
            status.phase != Phase::Following || status.looked_at.is_some_and(|at| at >= asked)
        });
    });
    looked
}

fn status(host: &Host) -> Value {
    let mut databases = Vec::new();
    host.for_each(|entry| databases.push(entry_status(entry)));
    json!({ "pid": std::process::id(), "version": env!("CARGO_PKG_VERSION"), "databases": databases })
}

fn entry_status(entry: &Entry) -> Value {
    let mut value = entry.status.as_ref().map_or(json!({}), describe);
    value["database"] = json!(entry.database.display().to_string());
    value["replica"] = json!(entry.replica.place());
    value["ended"] = json!(entry.exit().is_some());
    value
}

/// A status as JSON; the field names are those of `driftless status -json`.
pub fn describe(status: &Status) -> Value {
    let lag = status.behind_since.map(|since| clock::mono().since(since).as_secs_f64());
    json!({
        "phase": status.phase.word(),
        "replicated_txid": status.replicated.map(|txid| txid.to_string()),
        "post_checksum": status.post.map(|post| post.to_string()),
        "lineage": status.lineage.map(|lineage| lineage.to_string()),
        "lag_frames": status.frames_behind,
        "lag_seconds": lag.unwrap_or(0.0),
        "wal_frames": status.wal_frames,
        "pages_waiting": status.pages_waiting,
        "uploading": status.uploading,
        "waiting": status.waiting.as_ref().map(|waiting| waiting.why.clone()),
        "commits_unseen": status.waiting.as_ref().is_some_and(|waiting| waiting.unseen),
        "hint": status.waiting.as_ref().map(|waiting| &waiting.hint).or(status.hint.as_ref()),
        "last_error": status.last_error,
        "store": {
            "create_if_absent": status.store.create_if_absent.word(),
            "swap": status.store.swap.word(),
            "remove": status.store.remove.word(),
        },
        "warning": status.warning,
    })
}

/// Asks the process that uses `directory`.
///
/// # Errors
/// When it does not answer within five seconds, or not in JSON.
pub fn query(directory: &Path) -> io::Result<Option<Value>> {
    let mut stream = match UnixStream::connect(socket_path(directory)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"status\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply)?;
    serde_json::from_str(&reply).map(Some).map_err(io::Error::from)
}
