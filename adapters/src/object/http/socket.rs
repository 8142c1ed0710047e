//! A TCP connection: the system's, or that of a simulated network.

#[cfg(madsim)]
pub(super) use simulated::{Socket, Watch, connect, watch};
#[cfg(not(madsim))]
pub(super) use system::{Socket, Watch, connect, watch};

#[cfg(not(madsim))]
mod system {
    use std::io;
    use std::net::{SocketAddr, TcpStream};
    use std::sync::{Arc, Weak};

    use smol::Async;

    pub(in crate::object::http) use smol::net::TcpStream as Socket;

    /// A look at a connection that hyper's task holds, which keeps no descriptor open.
    pub(in crate::object::http) struct Watch(Weak<Async<TcpStream>>);

    impl Watch {
        /// Whether it is open, and nothing has come that waits to be read.
        pub(in crate::object::http) fn is_quiet(&self) -> bool {
            let Some(socket) = self.0.upgrade() else { return false };
            socket.get_ref().peek(&mut [0]).is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
        }
    }

    pub(in crate::object::http) fn watch(socket: &Socket) -> Watch {
        Watch(Arc::downgrade(&Arc::from(socket.clone())))
    }

    pub(in crate::object::http) async fn connect(address: SocketAddr) -> io::Result<Socket> {
        let stream = Async::<TcpStream>::connect(address).await?;
        stream.get_ref().set_nodelay(true)?;
        Ok(Socket::from(stream))
    }
}

#[cfg(madsim)]
mod simulated {
    use std::io;
    use std::net::SocketAddr;
    use std::pin::Pin;
    use std::sync::{Arc, Weak};
    use std::task::{Context, Poll, ready};
    use std::time::Duration;

    use futures_lite::{AsyncRead, AsyncWrite};
    use madsim::net::TcpStream;
    use madsim::rand::{Rng as _, thread_rng};
    use tokio::io::ReadBuf;

    use crate::timer::Timer;

    /// The longest time in which an address that cannot be reached says nothing, in milliseconds.
    const SILENCE_MAX: u64 = 20_000;

    /// A stream of madsim's, as hyper's adapter wants it.
    pub(in crate::object::http) struct Socket {
        stream: TcpStream,
        /// Whether anything was written since the last flush: madsim sends an empty packet otherwise.
        unsent: bool,
        alive: Arc<()>,
    }

    /// A look at a connection that hyper's task holds. Whether anything waits to be read cannot be
    /// seen: a connection that the server has closed may be taken for a good one, as between two
    /// machines.
    pub(in crate::object::http) struct Watch(Weak<()>);

    impl Watch {
        pub(in crate::object::http) fn is_quiet(&self) -> bool {
            self.0.strong_count() > 0
        }
    }

    pub(in crate::object::http) fn watch(socket: &Socket) -> Watch {
        Watch(Arc::downgrade(&socket.alive))
    }

    pub(in crate::object::http) async fn connect(address: SocketAddr) -> io::Result<Socket> {
        match TcpStream::connect(address).await {
            Ok(stream) => Ok(Socket { stream, unsent: false, alive: Arc::default() }),
            Err(error) => {
                // madsim refuses at once what a network in two parts would leave without an answer.
                let silence = thread_rng().gen_range(0..SILENCE_MAX);
                Timer::after(Duration::from_millis(silence)).await;
                Err(error)
            }
        }
    }

    impl AsyncRead for Socket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &mut [u8],
        ) -> Poll<io::Result<usize>> {
            let mut buf = ReadBuf::new(buf);
            ready!(tokio::io::AsyncRead::poll_read(Pin::new(&mut self.stream), cx, &mut buf))?;
            Poll::Ready(Ok(buf.filled().len()))
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.unsent = true;
            tokio::io::AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            if std::mem::take(&mut self.unsent) {
                return tokio::io::AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx);
            }
            Poll::Ready(Ok(()))
        }

        fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.poll_flush(cx)
        }
    }
}
