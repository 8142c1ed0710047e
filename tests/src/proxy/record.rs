//! What a proxy has seen, request by request.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::http::{Headers, Request};

/// A request that arrived, and what came of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its head had been read, since the proxy began.
    pub at: Duration,
    /// On which connection, counted from 0.
    pub connection: u64,
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// Its path, as it was sent.
    pub path: String,
    /// Its query, as it was sent.
    pub query: String,
    /// The machine that it was meant for if the proxy was used as one of `HTTP_PROXY`.
    pub authority: Option<String>,
    /// What kind of request it is: see [`Record::operation`].
    operation: &'static str,
    /// Its header fields.
    pub headers: Headers,
    /// How many bytes of its body arrived.
    pub body_bytes: u64,
    /// The faults it met.
    pub faults: Vec<&'static str>,
    /// What the server answered; `None` while it has not, or if it was not asked.
    pub server_status: Option<u16>,
    /// What its sender was told; `None` while nothing was.
    pub status: Option<u16>,
    /// How many bytes of an answer's body were sent.
    pub answer_bytes: u64,
    /// How long it took until all was over; `None` before.
    pub took: Option<Duration>,
}

impl Record {
    pub(super) fn new(at: Duration, connection: u64, request: &Request) -> Record {
        Record {
            at,
            connection,
            method: request.method.clone(),
            path: request.path().to_owned(),
            query: request.query().to_owned(),
            authority: None,
            operation: operation(request),
            headers: request.headers.clone(),
            body_bytes: 0,
            faults: Vec::new(),
            server_status: None,
            status: None,
            answer_bytes: 0,
            took: None,
        }
    }

    /// The method, except where S3 (or Azure, of whose blocks the same is said) means something else by it: `LIST`, `LIST-UPLOADS`,
    /// `CREATE-UPLOAD`, `PUT-PART`, `COMPLETE-UPLOAD`, `ABORT-UPLOAD`, `LIST-PARTS`,
    /// `DELETE-MANY`, `COPY`.
    pub fn operation(&self) -> &'static str {
        self.operation
    }

    /// The access key that signed it.
    pub fn key(&self) -> Option<&str> {
        credential(&self.headers, &self.query)
    }

    /// Whether it makes a segment visible.
    pub fn shows_segment(&self) -> bool {
        matches!(self.operation(), "PUT" | "COMPLETE-UPLOAD") && self.path.ends_with(".ltx")
    }

    /// Whether the effect happened, as far as the server's answer tells.
    pub fn took_effect(&self) -> bool {
        self.server_status.is_some_and(|status| status < 300)
    }
}

/// Segments that became visible by more than one request, and by how many.
pub fn put_more_than_once(records: &[Record]) -> BTreeMap<String, usize> {
    let mut effects: BTreeMap<String, usize> = BTreeMap::new();
    for record in records.iter().filter(|record| record.shows_segment() && record.took_effect()) {
        *effects.entry(record.path.clone()).or_default() += 1;
    }
    effects.retain(|_, times| *times > 1);
    effects
}

/// The access key in a signature of version 4, in the header or in the query.
pub(super) fn credential<'a>(headers: &'a Headers, query: &'a str) -> Option<&'a str> {
    let from_header = headers.get("authorization").and_then(|value| value.split_once("Credential="));
    let from_query = || query.split_once("X-Amz-Credential=");
    let (_, scope) = from_header.or_else(from_query)?;
    scope.split(['/', ',', '&', '%']).next()
}

pub(super) fn operation(request: &Request) -> &'static str {
    let has = |name| request.query_value(name).is_some();
    let comp = request.query_value("comp");
    match request.method.as_str() {
        "GET" if has("uploads") => "LIST-UPLOADS",
        "GET" if has("uploadId") => "LIST-PARTS",
        "GET" if has("list-type") || has("prefix") || comp == Some("list") => "LIST",
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" if has("partNumber") || comp == Some("block") => "PUT-PART",
        "PUT" if comp == Some("blocklist") => "COMPLETE-UPLOAD",
        "PUT" if request.headers.get("x-amz-copy-source").is_some() => "COPY",
        "PUT" => "PUT",
        "POST" if has("uploads") => "CREATE-UPLOAD",
        "POST" if has("uploadId") => "COMPLETE-UPLOAD",
        "POST" if has("delete") => "DELETE-MANY",
        "POST" => "POST",
        "DELETE" if has("uploadId") => "ABORT-UPLOAD",
        "DELETE" => "DELETE",
        "CONNECT" => "CONNECT",
        "MKCOL" => "MKCOL",
        "MOVE" => "MOVE",
        "PROPFIND" => "PROPFIND",
        _ => "OTHER",
    }
}

/// How many requests of each operation there are among these.
pub fn counts(records: &[Record]) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(record.operation).or_default() += 1;
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_and_keys_are_told() {
        for (method, target, expected) in [
            ("GET", "/b?list-type=2&prefix=x", "LIST"),
            ("GET", "/b/k", "GET"),
            ("GET", "/b?uploads", "LIST-UPLOADS"),
            ("PUT", "/b/k?partNumber=1&uploadId=2", "PUT-PART"),
            ("POST", "/b/k?uploads=", "CREATE-UPLOAD"),
            ("POST", "/b/k?uploadId=2", "COMPLETE-UPLOAD"),
            ("DELETE", "/b/k?uploadId=2", "ABORT-UPLOAD"),
            ("POST", "/b?delete", "DELETE-MANY"),
        ] {
            assert_eq!(operation(&Request::new(method, target)), expected, "{method} {target}");
        }
        let signed = Request::new("GET", "/").header(
            "Authorization",
            "AWS4-HMAC-SHA256 Credential=AKIA1/20260101/us-east-1/s3/aws4_request, SignedHeaders=host",
        );
        assert_eq!(credential(&signed.headers, ""), Some("AKIA1"));
        let none = Headers::default();
        assert_eq!(credential(&none, "a=b&X-Amz-Credential=AKIA2%2F20260101"), Some("AKIA2"));
        assert_eq!(credential(&none, "a=b"), None);
    }
}
