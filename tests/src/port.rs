//! A port of this machine that nobody else gets.
//!
//! The usual way is to let the kernel choose a port, to close the socket, and to tell a server the
//! number: in between, another test may be given the same. Here the socket stays, bound and not
//! listening. The kernel gives its port to nobody who asks for any; a server that asks for this one
//! gets it, for it sets `SO_REUSEADDR` as all servers do; and while none listens, a connection is
//! refused, as by a machine whose server is down.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

/// How many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// A port of 127.0.0.1 that is ours while this lives.
#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    address: SocketAddr,
    listens: Mutex<bool>,
}

impl Port {
    /// Any free one.
    pub fn reserve() -> Port {
        let any = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = address(&any);
        // A port that was chosen by the kernel is lost when its socket ceases to listen; one that was
        // asked for by number is not.
        let socket = bind(address).expect("a second socket that does not listen either");
        Port { socket, address, listens: Mutex::new(false) }
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Begins to listen, or begins again, and returns where connections are accepted. The listener
    /// shares the socket of this port.
    pub fn listen(&self) -> io::Result<TcpListener> {
        let mut listens = self.listens();
        net::listen(&self.socket, BACKLOG)?;
        *listens = true;
        Ok(TcpListener::from(self.socket.try_clone()?))
    }

    /// Ceases to listen: who is waiting in `accept` is woken by an error, connections that nobody has
    /// accepted are reset, and further ones are refused.
    pub fn refuse(&self) {
        // The kernel remembers a shutdown of a socket that does not listen, and each connection that is
        // accepted after it listens again begins with it: its first read that finds nothing is the end.
        if std::mem::take(&mut *self.listens()) {
            net::shutdown(&self.socket, Shutdown::Read).expect("a socket that listens");
        }
    }

    fn listens(&self) -> MutexGuard<'_, bool> {
        self.listens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bind(to: SocketAddr) -> io::Result<OwnedFd> {
    let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &to)?;
    Ok(socket)
}

fn address(socket: &OwnedFd) -> SocketAddr {
    let address = net::getsockname(socket).expect("our own socket");
    SocketAddr::try_from(address).expect("an internet address")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_port_stays_ours_whether_it_listens_or_not() {
        let port = Port::reserve();
        let refused = || TcpStream::connect(port.address()).unwrap_err().kind();
        assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
        for _ in 0..3 {
            let listener = port.listen().unwrap();
            TcpStream::connect(port.address()).unwrap();
            listener.accept().unwrap();
            assert!(TcpListener::bind(port.address()).is_err(), "nobody else can listen there");
            port.refuse();
            assert!(listener.accept().is_err());
            assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
            let others: Vec<Port> = (0..64).map(|_| Port::reserve()).collect();
            assert!(others.iter().all(|other| other.address() != port.address()));
        }
    }
    #[test]
    fn who_refuses_twice_listens_as_before() {
        let port = Port::reserve();
        port.refuse();
        drop(port.listen().unwrap());
        port.refuse();
        port.refuse();
        let listener = port.listen().unwrap();
        let mut client = TcpStream::connect(port.address()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let reader = thread::spawn(move || {
            let mut byte = [0];
            server.read(&mut byte).map(|count| (count, byte))
        });
        thread::sleep(Duration::from_millis(50));
        client.write_all(b"a").unwrap();
        assert_eq!(reader.join().unwrap().unwrap(), (1, *b"a"), "it waits for what comes");
    }
}
