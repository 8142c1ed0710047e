//! From a host's name to a connection that speaks HTTP.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _, FutureExt as _};

use super::io::{Duplex, Io};
use super::pool::{Connection, Key};
use super::proxy::Proxy;
use super::socket::{self, Socket, Watch};
use super::{Failure, Http, cause};
use crate::pool::unblock_store;
use crate::timer::Timer;

/// How long one address may take to accept a connection, and a server to answer in a handshake.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest answer of a proxy to CONNECT.
const PROXY_ANSWER_MAX: usize = 8 << 10;
/// The most that hyper reads ahead or holds of a head, in bytes.
const BUFFER: usize = 128 << 10;

impl Http {
    /// A new connection for requests of `key`.
    pub(super) async fn connect(self: &Arc<Self>, key: &Key) -> Result<Connection, Failure> {
        let (io, socket) = match self.proxy(key)? {
            Some(proxy) => {
                let via = format!("proxy {}:{}", proxy.host, proxy.port);
                let tunnel = self.tunnel(proxy, key).await.map_err(|failure| failure.at(&via));
                let (stream, socket) = tunnel?;
                let secured =
                    if key.secure { self.tls(&key.host, key.skip_verify, stream).await? } else { stream };
                (secured, socket)
            }
            None => {
                let socket = tcp(&key.host, key.port).await.map_err(|e| Failure::unsent(e.to_string()))?;
                self.secured(key.secure, &key.host, key.skip_verify, socket).await?
            }
        };
        let io = Io::new(io);
        let meter = Arc::clone(io.meter());
        let handshake = hyper::client::conn::http1::Builder::new().max_buf_size(BUFFER).handshake(io).await;
        let (sender, driver) = handshake.map_err(|error| Failure::unsent(cause(&error)))?;
        let task = self.executor.spawn(async move {
            // Whoever awaits the answer is told too.
            let _ = driver.await;
        });
        self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Connection::new(sender, meter, socket, task))
    }

    /// A way to the server, or for plain HTTP to the proxy, which is told by each request.
    async fn tunnel(self: &Arc<Self>, proxy: &Proxy, key: &Key) -> Result<(Box<dyn Duplex>, Watch), Failure> {
        let tcp = tcp(&proxy.host, proxy.port).await.map_err(|e| Failure::unsent(e.to_string()))?;
        let (mut stream, socket) = self.secured(proxy.secure, &proxy.host, false, tcp).await?;
        if key.secure {
            within("the proxy's answer", ask(&mut stream, proxy, key))
                .await
                .map_err(|e| Failure::unsent(e.to_string()))?;
        }
        Ok((stream, socket))
    }

    async fn secured(
        self: &Arc<Self>,
        secure: bool,
        host: &str,
        skip_verify: bool,
        tcp: Socket,
    ) -> Result<(Box<dyn Duplex>, Watch), Failure> {
        let socket = socket::watch(&tcp);
        let stream = if secure { self.tls(host, skip_verify, tcp).await? } else { Box::new(tcp) };
        Ok((stream, socket))
    }
}

/// Asks a proxy for a tunnel to the server.
async fn ask(stream: &mut Box<dyn Duplex>, proxy: &Proxy, key: &Key) -> io::Result<()> {
    let host = if key.host.contains(':') { format!("[{}]", key.host) } else { key.host.clone() };
    let target = format!("{host}:{}", key.port);
    let mut head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        head.extend_from_slice(b"Proxy-Authorization: ");
        head.extend_from_slice(authorization.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    stream.write_all(&head).await?;
    stream.flush().await?;
    // Byte by byte, so that nothing of what follows is taken from the tunnel.
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if answer.len() == PROXY_ANSWER_MAX || stream.read(&mut byte).await? == 0 {
            return Err(io::Error::other("it answered no HTTP"));
        }
        answer.push(byte[0]);
    }
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let status = line.split(' ').nth(1).unwrap_or_default();
    if line.starts_with("HTTP/1.") && status.len() == 3 && status.starts_with('2') {
        return Ok(());
    }
    Err(io::Error::other(format!("it refused a tunnel to {target}: {line}")))
}

/// Tries the addresses of a host in the order of the system's resolver.
async fn tcp(host: &str, port: u16) -> io::Result<Socket> {
    let mut last = io::Error::other(format!("{host} has no address"));
    for address in resolve(host, port).await? {
        match within("connecting", socket::connect(address)).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = io::Error::new(error.kind(), format!("{address}: {error}")),
        }
    }
    Err(last)
}

/// The system's resolver blocks. smol's way around that keeps threads that never sleep
/// (`docs/decisions/0007-own-pool.md`).
async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = host.to_string();
    let resolved = unblock_store(move || (name.as_str(), port).to_socket_addrs());
    let resolved = within("looking up the name", async { resolved.await.map(Iterator::collect) }).await;
    resolved.map_err(|error| io::Error::new(error.kind(), format!("{host}: {error}")))
}

pub(super) async fn within<T>(what: &str, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = async {
        Timer::after(CONNECT).await;
        let cause = format!("{what} took longer than {} s", CONNECT.as_secs());
        Err(io::Error::new(io::ErrorKind::TimedOut, cause))
    };
    work.or(late).await
}
