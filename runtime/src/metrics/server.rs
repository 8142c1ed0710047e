//! The server of `/metrics` and `/healthz`, and of nothing else.
//!
//! Whoever may connect may read, so there is nothing here that a stranger must not see, and nothing
//! that costs more than a look. What comes in is bounded in size, time and number.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs as _};
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;

use super::{collect, text};
use crate::control::{connections, http};
use crate::host::Host;
use crate::host::requests::within;
use crate::host::twins::Refusal;

/// Connections that are served at a time; others wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// How long a connection may take to say what it wants.
const REQUEST_TIME: Duration = Duration::from_secs(5);
/// How long a connection may take to read the answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// An address that listens.
pub(crate) struct Endpoint {
    listener: Async<TcpListener>,
    address: SocketAddr,
}

impl Endpoint {
    /// Listens at `host:port`, or at `:port` on all addresses.
    ///
    /// # Errors
    /// When the address is none, or taken.
    pub(crate) fn bind(addr: &str) -> Result<Endpoint, Refusal> {
        let refused = |error: io::Error| Refusal {
            error: format!("metrics cannot be served at {addr}: {error}"),
            hint: match error.kind() {
                io::ErrorKind::AddrInUse => {
                    "choose another port, or stop the process that listens there".into()
                }
                _ => "addr is host:port or :port".into(),
            },
        };
        let bind = || {
            let addresses: Vec<SocketAddr> = match addr.strip_prefix(':') {
                // Both versions of the protocol by the first, where the system has both.
                Some(port) => [format!("[::]:{port}"), format!("0.0.0.0:{port}")]
                    .iter()
                    .map(|address| address.to_socket_addrs())
                    .collect::<io::Result<Vec<_>>>()?
                    .into_iter()
                    .flatten()
                    .collect(),
                None => addr.to_socket_addrs()?.collect(),
            };
            let listener = TcpListener::bind(&addresses[..])?;
            let address = listener.local_addr()?;
            Ok(Endpoint { listener: Async::new(listener)?, address })
        };
        bind().map_err(refused)
    }
}

/// Serves for as long as the process runs.
pub(crate) async fn serve(host: Rc<Host>, endpoint: Endpoint) {
    tracing::info!("serving metrics on http://{}/metrics", endpoint.address);
    let accept = async || Ok(endpoint.listener.accept().await?.0);
    connections::serve(host, CONNECTIONS_MAX, "metrics cannot be served for now", accept, answer).await;
}

async fn answer(mut stream: Async<TcpStream>, host: Rc<Host>) -> io::Result<()> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (status, kind, body, with_body) = match within(REQUEST_TIME, http::read_request(&mut stream)).await {
        None | Some(Err(http::Unreadable::Closed)) => return Ok(()),
        Some(Err(http::Unreadable::Wrong { status, error })) => (status, PLAIN, format!("{error}\n"), true),
        Some(Ok(request)) => {
            let with_body = request.method != "HEAD";
            let (status, kind, body) = match (request.method.as_str(), request.path.as_str()) {
                ("GET" | "HEAD", "/metrics") => (200, text::CONTENT_TYPE, collect::metrics(&host).await),
                ("GET" | "HEAD", "/healthz" | "/health") => {
                    let (status, body) = collect::health(&host);
                    (status, PLAIN, body)
                }
                ("GET" | "HEAD", "/primary") => role(&host, true),
                ("GET" | "HEAD", "/standby") => role(&host, false),
                (_, "/metrics" | "/healthz" | "/health" | "/primary" | "/standby") => {
                    (405, PLAIN, "this is a GET\n".to_owned())
                }
                _ => (
                    404,
                    PLAIN,
                    "/metrics, /healthz, /health, /primary and /standby are all there is\n".to_owned(),
                ),
            };
            (status, kind, body, with_body)
        }
    };
    let written = http::write_text(&mut stream, status, kind, &body, with_body);
    within(ANSWER_TIME, written).await.unwrap_or(Ok(()))
}

/// For load balancers: 200 where the process has this role, 503 where it has not.
fn role(host: &Host, primary: bool) -> (u16, &'static str, String) {
    let (has, word) = match &host.lease {
        None => (primary, "without a lease"),
        Some(lease) if primary => (lease.is_active(), lease.status().role.word()),
        Some(lease) => (lease.is_standby(), lease.status().role.word()),
    };
    (if has { 200 } else { 503 }, "text/plain; charset=utf-8", format!("{word}\n"))
}

#[cfg(test)]
mod tests {
    use super::Endpoint;

    #[test]
    fn addresses_are_those_of_litestream() {
        for addr in [":0", "127.0.0.1:0", "localhost:0"] {
            assert!(Endpoint::bind(addr).is_ok(), "{addr}");
        }
        let Ok(taken) = Endpoint::bind("127.0.0.1:0") else { panic!("no free port") };
        let refusal = Endpoint::bind(&taken.address.to_string()).err().expect("it is taken");
        assert!(refusal.hint.contains("another port"), "{} {}", refusal.error, refusal.hint);
        for addr in ["", "9090", "127.0.0.1", ":port", "127.0.0.1:99999"] {
            let refusal = Endpoint::bind(addr).err().expect(addr);
            assert!(refusal.hint.contains("host:port"), "{addr}: {}", refusal.error);
        }
    }
}
