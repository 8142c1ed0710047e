//! Asking a process over its control socket.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::http::HEADERS_MAX;

/// Bytes of an answer: some thousand for each of ten thousand databases.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// What came back.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The status; 200 where all is well.
    pub status: u16,
    /// The body; null if it is empty.
    pub body: Value,
}

/// Whether nobody listens at a socket.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Sends one request and reads the answer.
///
/// # Errors
/// When nobody listens there ([`is_absent`]), or no answer comes within `timeout`.
pub fn ask(
    socket: &Path,
    method: &str,
    target: &str,
    body: Option<&Value>,
    timeout: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    let mut stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(timeout))?;
    let body = body.map_or(String::new(), Value::to_string);
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    parse(&read_all(stream, deadline)?)
}

fn read_all(mut stream: UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(bytes),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time"));
            }
            Err(error) => return Err(error),
        }
        if bytes.len() as u64 > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer has no end"));
        }
    }
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let odd = || io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP response");
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let Ok(httparse::Status::Complete(head)) = response.parse(bytes) else { return Err(odd()) };
    let length = response
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let body = &bytes[head..];
    if length.is_some_and(|length| body.len() < length) {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the answer was cut short"));
    }
    let text = &body[..length.unwrap_or(body.len())];
    let body = match text.trim_ascii() {
        [] => Value::Null,
        // Litestream says in plain text that a path is unknown to it.
        text => serde_json::from_slice(text)
            .unwrap_or_else(|_| serde_json::json!({ "error": String::from_utf8_lossy(text) })),
    };
    Ok(Answer { status: response.code.ok_or_else(odd)?, body })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_or_not_at_all() {
        let answer = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"a\": 1}").unwrap();
        assert_eq!((answer.status, &answer.body["a"]), (200, &serde_json::json!(1)));
        let answer = parse(b"HTTP/1.1 404 Not Found\r\n\r\n404 page not found\n").unwrap();
        assert_eq!(answer.body["error"], "404 page not found");
        assert!(parse(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}").is_err());
        assert!(parse(b"{}").is_err());
    }
}
