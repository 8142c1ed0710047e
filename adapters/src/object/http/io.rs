//! A connection's bytes, as hyper wants them, and a count of them.
//!
//! smol-hyper has such an adapter too. It clears the whole read buffer before each read, and does
//! not tell hyper of vectored writes, so that hyper copies each body into a buffer of its own.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_lite::{AsyncRead, AsyncWrite};
use hyper::rt::ReadBufCursor;

/// Both directions of a connection: TCP, TLS, or TLS through TLS.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// How many bytes a connection has moved.
#[derive(Debug, Default)]
pub(super) struct Meter {
    read: AtomicU64,
    written: AtomicU64,
}

impl Meter {
    /// Bytes handed to the connection, some of which it may hold still.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Bytes in both directions: unchanged as long as nothing moves.
    pub(super) fn moved(&self) -> u64 {
        self.read.load(Ordering::Relaxed) + self.written()
    }
}

/// A connection under hyper.
pub(super) struct Io {
    stream: Box<dyn Duplex>,
    meter: Arc<Meter>,
}

impl Io {
    pub(super) fn new(stream: Box<dyn Duplex>) -> Io {
        Io { stream, meter: Arc::default() }
    }

    pub(super) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }
}

thread_local! {
    /// Reads pass through here: hyper's buffer is not initialised, and one for each thread is
    /// less than one for each connection.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; 64 << 10].into());
}

impl hyper::rt::Read for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let len = scratch.len().min(buf.remaining());
            let n = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut scratch[..len]))?;
            self.meter.read.fetch_add(n as u64, Ordering::Relaxed);
            buf.put_slice(&scratch[..n]);
            Poll::Ready(Ok(()))
        })
    }
}

impl Io {
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(n)) = written {
            self.meter.written.fetch_add(n as u64, Ordering::Relaxed);
        }
        written
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.count(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_close(cx)
    }
}
