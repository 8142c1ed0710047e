//! As much HTTP/1.1 as a client, and a proxy between two others, need.
//!
//! A client library would follow redirects, repeat requests and decode bodies: it would hide what
//! these tests want to see. Here a request is sent once, on a connection of its own, and its answer
//! is returned as it came.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long the client waits for a connection, and for each piece of an answer.
const DEADLINE: Duration = Duration::from_secs(60);

/// A head that is longer than this is not HTTP.
const HEAD_BYTES_MAX: u64 = 256 << 10;

/// Header fields as they were sent: order and spelling kept, for a signature may cover them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The value of the first field of this name, in any spelling.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Puts this field in the place of all of its name.
    pub fn set(&mut self, name: &str, value: impl fmt::Display) {
        self.remove(name);
        self.0.push((name.to_owned(), value.to_string()));
    }

    /// Takes away all fields of this name.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
    }

    fn has_word(&self, name: &str, word: &str) -> bool {
        let values = self.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        values.flat_map(|(_, value)| value.split(',')).any(|found| found.trim().eq_ignore_ascii_case(word))
    }

    fn write(&self, out: &mut Vec<u8>) {
        for (name, value) in self.iter() {
            out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// A request.
#[derive(Clone, Default, Debug)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Path and query as they stand in the first line.
    pub target: String,
    /// Its header fields.
    pub headers: Headers,
    /// Its body, once that has been read.
    pub body: Vec<u8>,
}

impl Request {
    /// One without header fields and body.
    pub fn new(method: &str, target: &str) -> Request {
        Request { method: method.to_owned(), target: target.to_owned(), ..Request::default() }
    }

    /// The same with a header field.
    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Request {
        self.headers.set(name, value);
        self
    }

    /// The same with a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = body.into();
        self
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The query, without the question mark; empty if there is none.
    pub fn query(&self) -> &str {
        self.target.split_once('?').map_or("", |(_, query)| query)
    }

    /// The value of a field of the query, as it is written there.
    pub fn query_value(&self, name: &str) -> Option<&str> {
        self.query().split('&').find_map(|pair| match pair.split_once('=') {
            Some((found, value)) => (found == name).then_some(value),
            None => (pair == name).then_some(""),
        })
    }

    /// Whether the sender waits for `100 Continue` before it sends the body.
    pub fn expects_continue(&self) -> bool {
        self.headers.has_word("expect", "100-continue")
    }

    /// Whether the sender means to send another request on the same connection.
    pub fn keeps_alive(&self) -> bool {
        !self.headers.has_word("connection", "close")
    }

    /// How its body is delimited.
    pub fn framing(&self) -> io::Result<Framing> {
        Framing::of(&self.headers, Framing::Length(0))
    }

    /// The head for the wire.
    pub fn head(&self) -> Vec<u8> {
        self.head_with(&self.headers)
    }

    fn head_with(&self, headers: &Headers) -> Vec<u8> {
        let mut out = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        headers.write(&mut out);
        out
    }

    /// Reads a head; `None` when the sender has closed the connection before a new one.
    pub fn read_head(from: &mut impl BufRead) -> io::Result<Option<Request>> {
        let Some((line, headers)) = read_head(from)? else { return Ok(None) };
        let mut words = line.split(' ');
        match (words.next(), words.next(), words.next()) {
            (Some(method), Some(target), Some(version)) if version.starts_with("HTTP/1.") => {
                Ok(Some(Request { headers, ..Request::new(method, target) }))
            }
            _ => Err(invalid(format!("not a request: {line:?}"))),
        }
    }
}

/// An answer.
#[derive(Clone, Default, Debug)]
pub struct Response {
    /// Its status.
    pub status: u16,
    /// Its header fields.
    pub headers: Headers,
    /// Its body, once that has been read.
    pub body: Vec<u8>,
}

impl Response {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Fails the test unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Response {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }

    /// How the body of an answer to `method` is delimited.
    pub fn framing(&self, method: &str) -> io::Result<Framing> {
        if method == "HEAD" || matches!(self.status, 100..200 | 204 | 304) {
            return Ok(Framing::Length(0));
        }
        Framing::of(&self.headers, Framing::UntilClose)
    }

    /// The head for the wire.
    pub fn head(&self) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {} {}\r\n", self.status, reason(self.status)).into_bytes();
        self.headers.write(&mut out);
        out
    }

    /// Reads the head of a final answer: what says `100 Continue` is passed over.
    pub fn read_head(from: &mut impl BufRead) -> io::Result<Response> {
        loop {
            let Some((line, headers)) = read_head(from)? else {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before an answer"));
            };
            let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)?.parse().ok());
            let status: u16 = status.ok_or_else(|| invalid(format!("not an answer: {line:?}")))?;
            if status >= 200 {
                return Ok(Response { status, headers, body: Vec::new() });
            }
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        100..300 => "Fine",
        300..400 => "Elsewhere",
        400..500 => "Refused",
        _ => "Failed",
    }
}

/// The first line and the fields of a head.
fn read_head(from: &mut impl BufRead) -> io::Result<Option<(String, Headers)>> {
    let mut from = from.take(HEAD_BYTES_MAX);
    let mut first = read_line(&mut from)?;
    // An empty line before a request is allowed (RFC 9112, 2.2).
    while first.as_deref() == Some("") {
        first = read_line(&mut from)?;
    }
    let Some(first) = first else { return Ok(None) };
    let mut headers = Headers::default();
    loop {
        let line = read_line(&mut from)?.ok_or_else(|| invalid("closed within a head".to_owned()))?;
        if line.is_empty() {
            return Ok(Some((first, headers)));
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(format!("not a field: {line:?}")))?;
        headers.0.push((name.to_owned(), value.trim().to_owned()));
    }
}

fn read_line(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    from.read_until(b'\n', &mut line)?;
    match line.pop() {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(invalid("closed within a line, or a line without end".to_owned())),
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// How a body is delimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// It has this many bytes.
    Length(u64),
    /// It comes in chunks that tell their lengths.
    Chunked,
    /// It ends when the connection does.
    UntilClose,
}

impl Framing {
    fn of(headers: &Headers, otherwise: Framing) -> io::Result<Framing> {
        if headers.has_word("transfer-encoding", "chunked") {
            return Ok(Framing::Chunked);
        }
        match headers.get("content-length").map(str::parse) {
            None => Ok(otherwise),
            Some(Ok(length)) => Ok(Framing::Length(length)),
            Some(Err(_)) => Err(invalid("a length that is no number".to_owned())),
        }
    }
}

/// Reads the content of a body. An end that comes too soon is an error.
pub struct Body<'a, R> {
    from: &'a mut R,
    framing: Framing,
    /// What is left of the body, or of the present chunk.
    left: u64,
    ended: bool,
}

impl<'a, R: BufRead> Body<'a, R> {
    /// Begins behind a head.
    pub fn new(from: &'a mut R, framing: Framing) -> Body<'a, R> {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        Body { from, framing, left, ended: framing == Framing::Length(0) }
    }

    /// All of it.
    pub fn read_all(mut self) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        self.read_to_end(&mut all)?;
        Ok(all)
    }

    /// Reads the line before a chunk, and what follows the last one.
    fn next_chunk(&mut self) -> io::Result<()> {
        let mut line = || -> io::Result<String> {
            read_line(self.from)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
        };
        let head = line()?;
        let size = head.split(';').next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16);
        self.left = size.map_err(|_| invalid(format!("not the head of a chunk: {head:?}")))?;
        if self.left == 0 {
            while !line()?.is_empty() {}
            self.ended = true;
        }
        Ok(())
    }
}

impl<R: BufRead> Read for Body<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.framing == Framing::UntilClose {
            return self.from.read(buffer);
        }
        if self.left == 0 {
            self.next_chunk()?;
            if self.ended {
                return Ok(0);
            }
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.from.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        match self.framing {
            Framing::Length(_) => self.ended = self.left == 0,
            Framing::Chunked if self.left == 0 => {
                read_line(self.from)?;
            }
            _ => {}
        }
        Ok(count)
    }
}

/// Opens a connection and sends a request on it, the only one; returns where its answer is read.
pub fn open(to: SocketAddr, request: &Request) -> io::Result<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect_timeout(&to, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    stream.set_nodelay(true)?;
    let mut headers = request.headers.clone();
    headers.set("Connection", "close");
    headers.remove("Transfer-Encoding");
    if !request.body.is_empty() || matches!(request.method.as_str(), "PUT" | "POST") {
        headers.set("Content-Length", request.body.len());
    }
    if headers.get("Host").is_none() {
        headers.set("Host", to);
    }
    stream.write_all(&request.head_with(&headers))?;
    stream.write_all(&request.body)?;
    Ok(BufReader::with_capacity(64 << 10, stream))
}

/// Sends a request and reads the whole answer.
pub fn try_send(to: SocketAddr, request: &Request) -> io::Result<Response> {
    let mut from = open(to, request)?;
    let mut response = Response::read_head(&mut from)?;
    let framing = response.framing(&request.method)?;
    response.body = Body::new(&mut from, framing).read_all()?;
    Ok(response)
}

/// Sends a request and reads the whole answer; a connection that fails fails the test.
#[track_caller]
pub fn send(to: SocketAddr, request: &Request) -> Response {
    try_send(to, request)
        .unwrap_or_else(|error| panic!("{} {} to {to}: {error}", request.method, request.target))
}

/// Text for a path or a query: all but unreserved characters as `%XX`, and `/` left if it is kept.
pub fn percent_encode(text: &str, keep_slash: bool) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match plain(byte) || (keep_slash && byte == b'/') {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(bytes: &[u8], framing: Framing) -> io::Result<Vec<u8>> {
        Body::new(&mut &*bytes, framing).read_all()
    }

    #[test]
    fn bodies_end_where_they_say() {
        assert_eq!(body(b"abcd", Framing::Length(3)).unwrap(), b"abc");
        assert_eq!(body(b"abcd", Framing::UntilClose).unwrap(), b"abcd");
        let mut chunks = &b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\nnext"[..];
        assert_eq!(Body::new(&mut chunks, Framing::Chunked).read_all().unwrap(), b"abcde");
        assert_eq!(chunks, b"next", "what follows a body is left for the next request");
        for (cut, framing) in [(&b"ab"[..], Framing::Length(3)), (b"3\r\nabc\r\n", Framing::Chunked)] {
            assert_eq!(body(cut, framing).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }

    #[test]
    fn heads_are_read_and_written() {
        let text = b"PUT /a/b?list-type=2&x HTTP/1.1\r\nHost: h\r\nconTent-length: 5\r\nExpect: 100-continue\r\n\r\n";
        let request = Request::read_head(&mut &text[..]).unwrap().unwrap();
        assert_eq!((request.path(), request.query()), ("/a/b", "list-type=2&x"));
        assert_eq!((request.query_value("list-type"), request.query_value("x")), (Some("2"), Some("")));
        assert_eq!(request.query_value("y"), None);
        assert_eq!(request.framing().unwrap(), Framing::Length(5));
        assert!(request.expects_continue() && request.keeps_alive());
        assert_eq!(request.head(), text);
        assert!(Request::read_head(&mut &b""[..]).unwrap().is_none());
        assert!(Request::read_head(&mut &b"hello\r\n\r\n"[..]).is_err());

        let text = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let response = Response::read_head(&mut &text[..]).unwrap();
        assert_eq!(response.framing("GET").unwrap(), Framing::Chunked);
        assert_eq!(response.framing("HEAD").unwrap(), Framing::Length(0));
        assert_eq!(percent_encode("a/b c+é", true), "a/b%20c%2B%C3%A9");
    }
}
