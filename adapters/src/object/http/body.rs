//! Bodies in both directions, in chunks, without copies of our own.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_lite::{FutureExt as _, Stream};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use opendal::Buffer;

use super::pool::{Connection, Key};
use super::{Failure, Http};
use crate::timer::Timer;

/// A request's body.
pub(crate) struct Body {
    source: Source,
    /// Bytes yet to yield.
    left: u64,
    /// Raised once hyper has taken all of it.
    taken: Arc<AtomicBool>,
}

enum Source {
    Memory(Buffer),
    Stream(Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>),
}

impl Body {
    /// A body in memory, in any number of pieces.
    pub(crate) fn memory(buffer: impl Into<Buffer>) -> Body {
        let buffer = buffer.into();
        let left = buffer.len() as u64;
        Body { source: Source::Memory(buffer), left, taken: Arc::new(AtomicBool::new(left == 0)) }
    }

    /// A body of exactly `len` bytes that is produced while it is sent.
    pub(crate) fn stream(len: u64, stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Body {
        let source = Source::Stream(Box::pin(stream));
        Body { source, left: len, taken: Arc::new(AtomicBool::new(len == 0)) }
    }

    /// Its length in bytes, before anything was taken.
    pub(super) fn len(&self) -> u64 {
        self.left
    }

    pub(super) fn taken(&self) -> &Arc<AtomicBool> {
        &self.taken
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let next = match &mut self.source {
            Source::Memory(buffer) => buffer.next().map(Ok),
            Source::Stream(stream) => ready!(stream.as_mut().poll_next(cx)),
        };
        let chunk = match next {
            Some(Ok(chunk)) if chunk.len() as u64 <= self.left => chunk,
            Some(Ok(_)) => {
                return Poll::Ready(Some(Err(io::Error::other("the body is longer than announced"))));
            }
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(Some(Err(io::Error::other("the body is shorter than announced")))),
        };
        self.left -= chunk.len() as u64;
        if self.left == 0 {
            self.taken.store(true, Ordering::Relaxed);
        }
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// An answer's body. Its connection goes back to the pool at the end, and is closed if the body is
/// dropped before.
pub(crate) struct Answer {
    incoming: Incoming,
    held: Option<Held>,
    /// Runs while nothing comes.
    stall: Option<(Timer, u64)>,
}

struct Held {
    http: Arc<Http>,
    key: Key,
    connection: Connection,
    request_taken: Arc<AtomicBool>,
}

impl Answer {
    pub(super) fn new(
        incoming: Incoming,
        http: Arc<Http>,
        key: Key,
        connection: Connection,
        request_taken: Arc<AtomicBool>,
    ) -> Answer {
        let held = Some(Held { http, key, connection, request_taken });
        let mut answer = Answer { incoming, held, stall: None };
        if http_body::Body::is_end_stream(&answer.incoming) {
            answer.release();
        }
        answer
    }

    fn release(&mut self) {
        self.stall = None;
        let Some(Held { http, key, connection, request_taken }) = self.held.take() else { return };
        // An answer that came before the end of the request leaves the rest of it on the way.
        if request_taken.load(Ordering::Relaxed) {
            http.keep(key, connection);
        }
    }

    /// All of it, if it is no longer than `max` bytes.
    pub(crate) async fn whole(mut self, max: usize) -> Result<Vec<u8>, Failure> {
        let mut bytes = Vec::new();
        while let Some(chunk) = futures_lite::StreamExt::next(&mut self).await {
            bytes.extend_from_slice(&chunk?);
            if bytes.len() > max {
                return Err(Failure::sent(format!("the answer is longer than {max} bytes")));
            }
        }
        Ok(bytes)
    }

    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let Some(held) = &self.held else { return Poll::Pending };
        loop {
            let moved = held.connection.meter().moved();
            let start = || (Timer::after(held.http.stall), moved);
            let (timer, before) = self.stall.get_or_insert_with(start);
            ready!(timer.poll(cx));
            if *before == moved {
                return Poll::Ready(held.http.stall);
            }
            self.stall = None;
        }
    }
}

impl Stream for Answer {
    type Item = Result<Bytes, Failure>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let frame = match http_body::Body::poll_frame(Pin::new(&mut self.incoming), cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    let stall = ready!(self.poll_stalled(cx));
                    self.held = None;
                    return Poll::Ready(Some(Err(Failure::sent(stalled(stall)))));
                }
            };
            return Poll::Ready(match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        if http_body::Body::is_end_stream(&self.incoming) {
                            self.release();
                        }
                        Some(Ok(data))
                    }
                    Err(_trailers) => continue,
                },
                Some(Err(error)) => {
                    self.held = None;
                    Some(Err(Failure::sent(super::cause(&error))))
                }
                None => {
                    self.release();
                    None
                }
            });
        }
    }
}

pub(super) fn stalled(after: Duration) -> String {
    format!("nothing came or went for {} s", after.as_secs())
}
