//! Answers that a proxy gives in a server's name.

use crate::http::{Framing, Headers, Request, Response};

/// An answer that a rule gives instead of the server's.
#[derive(Clone, Debug)]
pub struct Answer {
    status: u16,
    headers: Headers,
    body: Vec<u8>,
}

impl Answer {
    /// A status with nothing else.
    pub fn status(status: u16) -> Answer {
        Answer { status, headers: Headers::default(), body: Vec::new() }
    }

    /// The same with a header field.
    pub fn header(mut self, name: &str, value: &str) -> Answer {
        self.headers.set(name, value);
        self
    }

    /// The same with a body.
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self
    }

    /// What a server has answered before, for instance a list that is out of date by now.
    pub fn again(response: &Response) -> Answer {
        let mut headers = response.headers.clone();
        headers.remove("Transfer-Encoding");
        Answer { status: response.status, headers, body: response.body.clone() }
    }

    /// An error of S3, by status and code (the S3 API reference, "Error responses").
    pub fn s3(status: u16, code: &str, message: &str) -> Answer {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code>\
             <Message>{message}</Message><Resource>/</Resource><RequestId>PROXY</RequestId></Error>"
        );
        Answer::status(status)
            .header("Content-Type", "application/xml")
            .header("x-amz-request-id", "PROXY")
            .body(body)
    }

    /// 503 `SlowDown`: how S3 throttles.
    pub fn slow_down() -> Answer {
        Answer::s3(503, "SlowDown", "Please reduce your request rate.")
    }

    /// 429: how most other stores throttle. The client is asked to wait for these seconds.
    pub fn too_many_requests(retry_after_seconds: u32) -> Answer {
        Answer::s3(429, "TooManyRequests", "Please reduce your request rate.")
            .header("Retry-After", &retry_after_seconds.to_string())
    }

    /// 500 `InternalError`.
    pub fn internal_error() -> Answer {
        Answer::s3(500, "InternalError", "We encountered an internal error. Please try again.")
    }

    /// 503 `ServiceUnavailable`.
    pub fn unavailable() -> Answer {
        Answer::s3(503, "ServiceUnavailable", "Service is unable to handle request.")
    }

    /// 400 `ExpiredToken`, the status of S3 itself; others answer 403: see [`Answer::s3`].
    pub fn expired_token() -> Answer {
        Answer::s3(400, "ExpiredToken", "The provided token has expired.")
    }

    /// 403 `InvalidAccessKeyId`.
    pub fn invalid_key() -> Answer {
        Answer::s3(
            403,
            "InvalidAccessKeyId",
            "The AWS Access Key Id you provided does not exist in our records.",
        )
    }

    /// 403 `SignatureDoesNotMatch`: a wrong secret key.
    pub fn wrong_signature() -> Answer {
        let message = "The request signature we calculated does not match the signature you provided.";
        Answer::s3(403, "SignatureDoesNotMatch", message)
    }

    /// 403 `RequestTimeTooSkewed`: a wrong clock.
    pub fn time_skewed() -> Answer {
        let message = "The difference between the request time and the current time is too large.";
        Answer::s3(403, "RequestTimeTooSkewed", message)
    }

    /// 403 `AccessDenied`: no permission.
    pub fn access_denied() -> Answer {
        Answer::s3(403, "AccessDenied", "Access Denied")
    }

    /// 404 `NoSuchBucket`.
    pub fn no_such_bucket() -> Answer {
        Answer::s3(404, "NoSuchBucket", "The specified bucket does not exist")
    }

    /// 404 `NoSuchKey`.
    pub fn no_such_key() -> Answer {
        Answer::s3(404, "NoSuchKey", "The specified key does not exist.")
    }

    /// 409 `ConditionalRequestConflict`: another conditional write was under way; to be repeated.
    pub fn conflict() -> Answer {
        let message = "The conditional request cannot succeed due to a conflicting operation.";
        Answer::s3(409, "ConditionalRequestConflict", message)
    }

    /// 412 `PreconditionFailed`: the object exists.
    pub fn precondition_failed() -> Answer {
        let message = "At least one of the pre-conditions you specified did not hold";
        Answer::s3(412, "PreconditionFailed", message)
    }

    /// The answer to a request. One to HEAD tells the length and has no body.
    pub(super) fn to(&self, request: &Request) -> Response {
        let mut headers = self.headers.clone();
        headers.set("Content-Length", self.body.len());
        let mut response = Response { status: self.status, headers, body: self.body.clone() };
        if response.framing(&request.method).is_ok_and(|framing| framing == Framing::Length(0)) {
            response.body.clear();
        }
        response
    }
}
