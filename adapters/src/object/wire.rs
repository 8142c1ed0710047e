//! opendal's requests on our transport, one [`Wire`] for each call of a store.
//!
//! It signs what goes to S3, and keeps what the caller must know and opendal does not tell: the
//! head of the answer, and the first thing that went wrong.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_lite::{Stream, stream};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header, request, response};
use opendal::raw::ServiceOperation;
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

use super::credentials::Keyring;
use super::http::{Answer, Body, Failure, Http, Route, Stage, may_follow};
use super::problem::{Problem, Refusal, What};

/// The longest answer that is read whole to see what it says, in bytes.
const SAYING_MAX: usize = 64 << 10;
/// The longest list or account of an upload, in bytes: a page of 1,000 names of 1,024 bytes, each
/// byte of which may take six in XML.
const WORDS_MAX: usize = 8 << 20;

/// A server, and how to speak to it.
pub(super) struct Server {
    pub(super) http: Arc<Http>,
    pub(super) route: Route,
    /// Signs for S3. Other services sign in opendal.
    pub(super) keyring: Option<Keyring>,
    /// Whether opendal is shown refusals. It goes on from some of WebDAV's, and tries parts of
    /// uploads again by itself after others.
    pub(super) shows_refusals: bool,
}

/// What is known of a call.
#[derive(Default)]
pub(super) struct Notes {
    /// Status and headers of the last answer that was no refusal.
    pub(super) head: Option<(StatusCode, HeaderMap)>,
    /// What went wrong last.
    pub(super) problem: Option<Problem>,
    /// Whether a request that makes an object visible was begun.
    pub(super) committing: bool,
}

/// The way of one call to the server.
#[derive(Clone)]
pub(super) struct Wire {
    server: Arc<Server>,
    notes: Arc<Mutex<Notes>>,
}

/// Whether a request of this name makes an object visible.
pub(super) fn commits(operation: &str) -> bool {
    matches!(
        operation,
        // S3, Azure, GCS (where any piece of a resumable upload may be the last), WebDAV.
        "PutObject"
            | "CompleteMultipartUpload"
            | "PutBlob"
            | "PutBlockList"
            | "InsertObject"
            | "UploadResumableChunk"
            | "Move"
    )
}

/// What the body of an answer must hold to be believed: that a list is empty, or that an upload is
/// complete. opendal reads any XML as either.
fn proof(operation: &str) -> Option<&'static str> {
    Some(match operation {
        "ListObjectsV2" => "ListBucketResult",
        "ListBlobs" => "EnumerationResults",
        "ListObjects" => "storage#objects",
        "CompleteMultipartUpload" => "CompleteMultipartUploadResult",
        _ => return None,
    })
}

/// Puts whose answers name the content that is there now.
const TAGGED: [&str; 3] = ["PutObject", "PutBlob", "PutBlockList"];

impl Wire {
    pub(super) fn new(server: &Arc<Server>) -> Wire {
        Wire { server: Arc::clone(server), notes: Arc::default() }
    }

    pub(super) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, operation: &'static str, what: What) {
        self.notes().problem = Some(Problem { operation, what });
    }

    /// Notes the failure; opendal's error only has to be one, and no reason to try again.
    fn failed(&self, operation: &'static str, what: What) -> Error {
        let cause = match &what {
            What::Credentials { cause, .. } => cause.clone(),
            What::NoAnswer(failure) => failure.cause.clone(),
            What::Refused(refusal) => refusal.to_string(),
        };
        self.note(operation, what);
        Error::new(ErrorKind::Unexpected, cause)
    }

    /// Sends a request under the name `operation`, and takes its answer's head apart.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        mut parts: request::Parts,
        body: Body,
    ) -> Result<(response::Parts, Reply), Error> {
        let server = &self.server;
        if matches!(operation, "UploadPart" | "CompleteMultipartUpload") {
            leave_encryption_to_the_upload(&mut parts);
        }
        if let Some(keyring) = &server.keyring {
            parts.uri = strictly_encoded(&parts.uri);
            let signed = keyring.sign(&mut parts).await;
            signed.map_err(|what| self.failed(operation, what))?;
        }
        if commits(operation) {
            self.notes().committing = true;
        }
        // A redirect would break the signature of S3, which covers the host.
        let follow = may_follow(&parts.method) && server.keyring.is_none();
        let answer = if follow {
            server.http.follow(Request::from_parts(parts, ()), server.route).await
        } else {
            server.http.send(Request::from_parts(parts, body), server.route).await
        };
        let answer = answer.map_err(|failure| self.failed(operation, What::NoAnswer(failure)))?;
        let (head, answer) = answer.into_parts();
        if is_refusal(head.status, operation) {
            // What cannot be read of the words changes nothing about the status.
            let words = answer.whole(SAYING_MAX).await.unwrap_or_default();
            let refusal = Refusal::read(head.status, &head.headers, &words);
            let error = self.refused(operation, refusal);
            return if server.shows_refusals { Ok((head, Reply::Whole(words))) } else { Err(error) };
        }
        if let Some(mark) = proof(operation) {
            // S3 answers 200 before it is done, to keep the line open, and may say no afterwards. And
            // whatever stands before a server or in its place answers 200 to anything.
            let words = answer.whole(WORDS_MAX).await;
            let words = words.map_err(|failure| self.failed(operation, What::NoAnswer(failure)))?;
            let refusal = Refusal::read(head.status, &head.headers, &words);
            if !refusal.code.is_empty() {
                return Err(self.refused(operation, refusal));
            }
            if !words.windows(mark.len()).any(|part| part == mark.as_bytes()) {
                return Err(self.no_proof(operation, mark));
            }
            return Ok((head, Reply::Whole(words)));
        }
        if TAGGED.contains(&operation) && !head.headers.contains_key(header::ETAG) {
            return Err(self.no_proof(operation, "ETag"));
        }
        self.notes().head = Some((head.status, head.headers.clone()));
        Ok((head, Reply::Streamed(answer)))
    }

    /// An answer that says yes, and does not look like the service's: what became of the request is
    /// unknown.
    fn no_proof(&self, operation: &'static str, mark: &str) -> Error {
        let cause = format!("the answer has no {mark}: is something else in the place of the server?");
        self.failed(operation, What::NoAnswer(Failure { stage: Stage::Sent, cause }))
    }

    fn refused(&self, operation: &'static str, refusal: Refusal) -> Error {
        if let Some(keyring) = self.server.keyring.as_ref().filter(|_| refusal.doubts_credentials()) {
            keyring.doubt();
        }
        self.failed(operation, What::Refused(refusal))
    }
}

/// The same with a query as signatures want it. opendal leaves slashes as they are; some servers
/// check what they were sent, and not what it would be if it were encoded anew.
fn strictly_encoded(uri: &Uri) -> Uri {
    const RESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let Some(query) = uri.query() else { return uri.clone() };
    let encode = |text: &str| {
        let plain: Vec<u8> = percent_decode_str(text).collect();
        percent_encode(&plain, &RESERVED).to_string()
    };
    let pairs = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, value)) => format!("{}={}", encode(name), encode(value)),
        None => encode(pair),
    });
    let target = format!("{}?{}", uri.path(), pairs.collect::<Vec<_>>().join("&"));
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().expect("an encoded query"));
    Uri::from_parts(parts).expect("the parts of a URI")
}

/// An upload is told once, when it begins, how the server is to encrypt: Amazon refuses these fields
/// on what follows, where opendal has them too. A customer's own key does go with each part.
fn leave_encryption_to_the_upload(parts: &mut request::Parts) {
    parts.headers.remove("x-amz-server-side-encryption");
    parts.headers.remove("x-amz-server-side-encryption-aws-kms-key-id");
}

/// In Google's resumable uploads 308 means "go on", and 499 "cancelled, as you wished".
fn is_refusal(status: StatusCode, operation: &str) -> bool {
    let agrees = match operation {
        "UploadResumableChunk" | "QueryResumableUpload" => status == StatusCode::PERMANENT_REDIRECT,
        "CancelResumableUpload" => status.as_u16() == 499,
        _ => false,
    };
    !status.is_success() && !agrees
}

/// The body of an answer.
pub(super) enum Reply {
    Whole(Vec<u8>),
    Streamed(Answer),
}

impl Reply {
    /// All of it.
    pub(super) async fn whole(self, max: usize) -> Result<Vec<u8>, Failure> {
        match self {
            Reply::Whole(bytes) => Ok(bytes),
            Reply::Streamed(answer) => answer.whole(max).await,
        }
    }
}

impl HttpTransport for Wire {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let operation = request.extensions().get::<ServiceOperation>().map_or("request", |named| named.0);
        let (parts, body) = request.into_parts();
        let (mut head, reply) = self.send(operation, parts, Body::memory(body)).await?;
        // Lengths are checked by the transport, and are no longer true of what was read whole.
        head.headers.remove(header::TRANSFER_ENCODING);
        let body = match reply {
            Reply::Whole(bytes) => HttpBody::new(stream::iter([Ok(Buffer::from(bytes))]), None),
            Reply::Streamed(answer) => HttpBody::new(Noted { answer, wire: self.clone(), operation }, None),
        };
        Ok(Response::from_parts(head, body))
    }
}

/// A body whose failure is noted.
struct Noted {
    answer: Answer,
    wire: Wire,
    operation: &'static str,
}

impl Stream for Noted {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next: Option<Result<Bytes, Failure>> = ready!(Pin::new(&mut self.answer).poll_next(cx));
        Poll::Ready(next.map(|chunk| {
            let failed = |failure| self.wire.failed(self.operation, What::NoAnswer(failure));
            chunk.map(Buffer::from).map_err(failed)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded_once_and_wholly() {
        let check = |from: &str, to: &str| {
            let from: Uri = format!("http://host:1/a%20b/c?{from}").parse().unwrap();
            assert_eq!(strictly_encoded(&from).to_string(), format!("http://host:1/a%20b/c?{to}"));
        };
        check("uploads&prefix=a/b%20c%2Fd", "uploads&prefix=a%2Fb%20c%2Fd");
        check("uploadId=a==~.b", "uploadId=a%3D%3D~.b");
        check("list-type=2&start-after=%C3%BC%252F", "list-type=2&start-after=%C3%BC%252F");
        let bare: Uri = "http://host/a".parse().unwrap();
        assert_eq!(strictly_encoded(&bare), bare);
    }
}
