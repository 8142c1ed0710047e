//! As much of HTTP/1.1 as one request and one answer on a connection take.
//!
//! A head and a body with a length, both bounded; no chunks, no second request. The head is read by
//! httparse.

use std::io;

use futures_lite::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use serde_json::{Value, json};

/// Bytes of a request's head.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// Bytes of a request's body: a path and a URL.
const BODY_BYTES_MAX: usize = 64 << 10;
/// Headers of a request or an answer.
pub(super) const HEADERS_MAX: usize = 32;

/// What a connection asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    /// What stands after the question mark.
    pub(crate) query: String,
    pub(crate) body: Vec<u8>,
}

/// Why there is no request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Unreadable {
    /// Nothing came, or not all of it.
    Closed,
    /// It is none, or too large.
    Wrong {
        /// The answer's status.
        status: u16,
        /// What is wrong.
        error: &'static str,
    },
}

/// An answer.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Value,
}

impl Reply {
    /// All is well.
    pub(super) fn ok(body: Value) -> Reply {
        Reply { status: 200, body }
    }

    /// A request that cannot be read.
    pub(super) fn error(status: u16, error: &str) -> Reply {
        Reply { status, body: json!({ "error": error }) }
    }
}

/// Reads one request. The caller bounds the time.
pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> Result<Request, Unreadable> {
    let mut bytes = Vec::new();
    let (mut request, head_bytes, body_bytes) = loop {
        if !read_more(stream, &mut bytes, HEAD_BYTES_MAX).await? {
            return Err(Unreadable::Wrong { status: 431, error: "the head of the request is too large" });
        }
        if let Some(found) = parse_head(&bytes)? {
            break found;
        }
    };
    while bytes.len() < head_bytes + body_bytes {
        read_more(stream, &mut bytes, head_bytes + body_bytes).await?;
    }
    request.body = bytes[head_bytes..head_bytes + body_bytes].to_vec();
    Ok(request)
}

/// Reads some bytes, up to `max` in all; false if there are so many already.
async fn read_more(
    stream: &mut (impl AsyncRead + Unpin),
    bytes: &mut Vec<u8>,
    max: usize,
) -> Result<bool, Unreadable> {
    let mut buffer = [0; 4096];
    let room = buffer.len().min(max - bytes.len());
    if room == 0 {
        return Ok(false);
    }
    match stream.read(&mut buffer[..room]).await {
        Ok(0) | Err(_) => Err(Unreadable::Closed),
        Ok(n) => {
            bytes.extend_from_slice(&buffer[..n]);
            Ok(true)
        }
    }
}

/// The request without its body, the bytes of its head and of its body; `None` if there is more of
/// the head to come.
fn parse_head(bytes: &[u8]) -> Result<Option<(Request, usize, usize)>, Unreadable> {
    let wrong = |status, error| Err(Unreadable::Wrong { status, error });
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let head_bytes = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => head_bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return wrong(400, "this is no HTTP request"),
    };
    let has = |name: &str| parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
    if has("transfer-encoding").is_some() {
        return wrong(411, "the body of a request needs a length");
    }
    let body_bytes = match has("content-length").map(|header| std::str::from_utf8(header.value)) {
        None => 0,
        Some(text) => match text.ok().and_then(|text| text.trim().parse().ok()) {
            Some(length) if length <= BODY_BYTES_MAX => length,
            Some(_) => return wrong(413, "the body of the request is too large"),
            None => return wrong(400, "the length of the body is no number"),
        },
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        body: Vec::new(),
    };
    Ok(Some((request, head_bytes, body_bytes)))
}

/// Writes an answer, after which the connection ends. The caller bounds the time.
pub(super) async fn write_reply(stream: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> io::Result<()> {
    let body = format!("{}\n", reply.body);
    write_text(stream, reply.status, "application/json", &body, true).await
}

/// Writes an answer of any type of content, or only its head. The caller bounds the time.
pub(crate) async fn write_text(
    stream: &mut (impl AsyncWrite + Unpin),
    status: u16,
    content_type: &str,
    body: &str,
    with_body: bool,
) -> io::Result<()> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Internal Server Error",
    };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len(),
    );
    stream.write_all(head.as_bytes()).await?;
    if with_body {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.close().await
}

/// The value of a name in a query, without its escapes.
pub(super) fn query_value(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(known, _)| *known == name)?.1;
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                (digit(rest.next())? * 16 + digit(rest.next())?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::block_on;

    fn read(text: &str) -> Result<Request, Unreadable> {
        block_on(read_request(&mut futures_lite::io::Cursor::new(text.as_bytes().to_vec())))
    }

    fn status(text: &str) -> u16 {
        match read(text) {
            Err(Unreadable::Wrong { status, .. }) => status,
            other => panic!("{text:.80}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_to_its_end() {
        let request = read("POST /sync?path=%2Fa+b HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}and more").unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/sync"));
        assert_eq!(query_value(&request.query, "path").as_deref(), Some("/a b"));
        assert_eq!(query_value("path=%4", "path"), None);
        assert_eq!(query_value("x=1", "path"), None);
        assert_eq!(request.body, b"{}");
    }

    #[test]
    fn what_is_none_or_too_much_is_refused() {
        assert_eq!(read(""), Err(Unreadable::Closed));
        assert_eq!(read("GET /list HTTP/1.1\r\n"), Err(Unreadable::Closed));
        assert_eq!(read("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{}"), Err(Unreadable::Closed));
        assert_eq!(status("\u{1}\u{2}garbage\r\n\r\n"), 400);
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n"), 400);
        assert_eq!(status("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), 411);
        assert_eq!(status("POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n"), 413);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 20))), 431);
        assert_eq!(status(&format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(99))), 400);
    }
}
