//! Sockets: making them so that they are never open to more than they should be, and serving.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::{answers, connections, http, socket_in};
use crate::host::Host;
use crate::host::requests::{Failure, FailureKind, within};
use crate::host::twins::Refusal;

/// Connections that are served at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 128;
/// How long a connection may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// How long a connection may take to read the answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// The permission bits of the owner.
const OWNER: u32 = 0o700;

/// Where a control socket is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SocketPlace {
    /// Its path.
    pub path: PathBuf,
    /// Its permission bits.
    pub permissions: u32,
}

/// A socket that listens.
pub(crate) struct Socket {
    listener: Async<UnixListener>,
    path: PathBuf,
    id: (u64, u64),
}

impl Socket {
    /// Removes its name, as the process ends.
    pub(crate) fn remove(&self) {
        // Another process may have put its own there.
        if facts(&self.path).is_ok_and(|id| id == self.id) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn facts(path: &Path) -> io::Result<(u64, u64)> {
    path.symlink_metadata().map(|facts| (facts.dev(), facts.ino()))
}

/// Opens the socket of the state directory, and the one that the configuration names.
///
/// # Errors
/// When the second cannot be had. Without the first the process goes on, and says so.
pub(crate) fn open(directory: &Path, configured: Option<&SocketPlace>) -> Result<Vec<Rc<Socket>>, Refusal> {
    let own = SocketPlace { path: socket_in(directory), permissions: 0o600 };
    let mut sockets = Vec::new();
    match listen(&own) {
        Ok(socket) => sockets.push(Rc::new(socket)),
        Err(error) => {
            tracing::warn!(path = %own.path.display(), %error, "no control socket here: driftless status will not see this process");
        }
    }
    if let Some(place) = configured.filter(|place| place.path != own.path) {
        let socket = listen(place).map_err(|error| Refusal {
            error: format!("the control socket {} cannot be made: {error}", place.path.display()),
            hint: "name a path in a directory that can be written under socket, path".into(),
        })?;
        if place.permissions & 0o007 != 0 {
            tracing::warn!(path = %place.path.display(), "any user of this host may use the control socket, and read what this process can");
        }
        sockets.push(Rc::new(socket));
    }
    Ok(sockets)
}

fn listen(place: &SocketPlace) -> io::Result<Socket> {
    make_way(&place.path)?;
    let (path, mode) = (&place.path, place.permissions & 0o777);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the name the mode of the socket less the umask. Set before there is a name, so
    // that nobody else can connect in between; other systems do not know this way.
    let early = rustix::fs::fchmod(&socket, Mode::from_raw_mode((mode & OWNER) as rustix::fs::RawMode));
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    if early.is_err() || mode & !OWNER != 0 || facts_mode(path)? != mode {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    }
    rustix::net::listen(&socket, 128)?;
    let listener = Async::new(UnixListener::from(socket))?;
    Ok(Socket { listener, path: path.clone(), id: facts(path)? })
}

fn facts_mode(path: &Path) -> io::Result<u32> {
    path.symlink_metadata().map(|facts| facts.permissions().mode() & 0o777)
}

/// Removes the socket of a dead process. Anything else stays.
fn make_way(path: &Path) -> io::Result<()> {
    let facts = match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        facts => facts?,
    };
    if !facts.file_type().is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket stands there"));
    }
    // Without waiting: whoever listens there and does not accept is alive as well.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => {
            Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there"))
        }
        Err(Errno::CONNREFUSED) => std::fs::remove_file(path),
        Err(error) => Err(error.into()),
    }
}

/// Serves a socket for as long as the process runs.
pub(crate) async fn serve(host: Rc<Host>, socket: Rc<Socket>) {
    let accept = async || Ok(socket.listener.accept().await?.0);
    connections::serve(host, CONNECTIONS_MAX, "the control socket failed", accept, answer).await;
}

async fn answer(mut stream: Async<UnixStream>, host: Rc<Host>) -> io::Result<()> {
    let request = within(REQUEST_TIME, http::read_request(&mut stream)).await;
    host.answering.set(host.answering.get() + 1);
    let written = answer_to(&mut stream, &host, request).await;
    host.answering.set(host.answering.get() - 1);
    host.changes.tell();
    written
}

async fn answer_to(
    stream: &mut Async<UnixStream>,
    host: &Rc<Host>,
    request: Option<Result<http::Request, http::Unreadable>>,
) -> io::Result<()> {
    let reply = match request {
        Some(Ok(request)) => answers::answer(host, &request).await,
        Some(Err(http::Unreadable::Closed)) => return Ok(()),
        Some(Err(http::Unreadable::Wrong { status, error })) => http::Reply::error(status, error),
        None => {
            let late = Failure::new(FailureKind::Late, 1, "the request took too long", "");
            answers::failed(&late)
        }
    };
    within(ANSWER_TIME, http::write_reply(stream, &reply)).await.unwrap_or(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_that_hangs_holds_up_no_start() {
        let path = std::env::temp_dir().join(format!("driftless-hung-{}.sock", std::process::id()));
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            || rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let (hung, address) = (socket(), SocketAddrUnix::new(&path).unwrap());
        rustix::net::bind(&hung, &address).unwrap();
        rustix::net::listen(&hung, 1).unwrap();
        let mut waiting = Vec::new();
        // Until there is no room for one more, which is where a connect would wait.
        let full = loop {
            let client = socket();
            match rustix::net::connect(&client, &address) {
                Ok(()) => waiting.push(client),
                Err(error) => break error,
            }
        };
        assert_eq!(full, Errno::AGAIN);
        let refused = make_way(&path).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::AddrInUse));
        drop(hung);
        make_way(&path).unwrap();
        assert!(!path.exists(), "a dead one's is removed");
    }
}
