//! What went wrong with a request, and which error of the contract it is.
//!
//! opendal sorts statuses for its own retries and keeps neither the status nor the code. Here they
//! are kept as the server gave them, since the one question that matters, whether a put may have
//! happened, is answered by them alone.

use std::fmt;

use http::{HeaderMap, StatusCode, header};
use jiff::Timestamp;
use serde::Deserialize;

use super::http::{Failure, Stage};
use crate::store::{StoreError, StoreErrorKind as Kind};

/// The longest text of a server that is passed on.
const MESSAGE_MAX: usize = 200;

/// A request that did not do what it was for.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    /// The protocol's name for it, such as `PutObject`.
    pub(super) operation: &'static str,
    pub(super) what: What,
}

#[derive(Clone, Debug)]
pub(super) enum What {
    /// It was not sent for want of credentials.
    Credentials {
        retry: bool,
        cause: String,
    },
    NoAnswer(Failure),
    Refused(Refusal),
}

/// An answer that says no.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The service's own code; empty where it gave none.
    pub(super) code: String,
    pub(super) message: String,
    /// The server's clock.
    date: Option<Timestamp>,
    /// Where S3 says that the bucket is.
    region: Option<String>,
    /// The length of an object that a range lies outside of.
    pub(super) object_len: Option<u64>,
}

/// Whose words are spoken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Dialect {
    S3,
    Azure,
    Gcs,
    WebDav,
}

/// What the failed call was to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    /// Nothing, or nothing that can be seen; or it may be done twice.
    None,
    /// Make an object visible, with or without a condition.
    Commit { conditional: bool },
}

impl Refusal {
    /// Reads what a server says beside the status.
    pub(super) fn read(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Refusal {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut refusal = Refusal {
            status: status.as_u16(),
            code: text("x-ms-error-code").unwrap_or_default(),
            date: text(header::DATE.as_str()).and_then(|date| parse_date(&date)),
            region: text("x-amz-bucket-region"),
            object_len: text(header::CONTENT_RANGE.as_str())
                .and_then(|range| range.strip_prefix("bytes */")?.parse().ok()),
            ..Refusal::default()
        };
        if let Some(Words { code, message, region }) = Words::of_xml(body).or_else(|| Words::of_json(body)) {
            if refusal.code.is_empty() {
                refusal.code = code;
            }
            refusal.message = one_line(&message);
            refusal.region = refusal.region.or(region);
        }
        refusal
    }

    fn is(&self, codes: &[&str]) -> bool {
        codes.contains(&self.code.as_str())
    }

    /// Whether other credentials may be to be had by now.
    pub(super) fn doubts_credentials(&self) -> bool {
        let named = self.is(&["ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken"])
            || self.is(&["TokenRefreshRequired", "SignatureDoesNotMatch", "InvalidClientTokenId"]);
        // An answer to HEAD has no body, and so no code.
        named || self.code.is_empty() && matches!(self.status, 400 | 401 | 403)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if !self.message.is_empty() {
            write!(f, ": {}", self.message.trim_end_matches('.'))?;
        }
        Ok(())
    }
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct XmlWords {
    code: String,
    message: String,
    region: Option<String>,
}

#[derive(Deserialize)]
struct JsonWords {
    error: JsonError,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonError {
    message: String,
    errors: Vec<JsonReason>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JsonReason {
    reason: String,
}

struct Words {
    code: String,
    message: String,
    region: Option<String>,
}

impl Words {
    fn of_xml(body: &[u8]) -> Option<Words> {
        let XmlWords { code, message, region } = quick_xml::de::from_reader(body).ok()?;
        (!code.is_empty()).then_some(Words { code, message, region })
    }

    fn of_json(body: &[u8]) -> Option<Words> {
        let JsonWords { error } = serde_json::from_slice(body).ok()?;
        let code = error.errors.into_iter().next().unwrap_or_default().reason;
        Some(Words { code, message: error.message, region: None })
    }
}

pub(super) fn parse_date(date: &str) -> Option<Timestamp> {
    let zoned = jiff::fmt::rfc2822::DateTimeParser::new().parse_zoned(date).ok()?;
    Some(zoned.timestamp())
}

/// The first line, not longer than fits a message.
pub(super) fn one_line(text: &str) -> String {
    let line = text.trim().lines().next().unwrap_or_default().trim_end();
    match line.char_indices().nth(MESSAGE_MAX) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

impl Problem {
    /// The error that it is. `subject` is the key, or what else it was about.
    pub(super) fn into_error(
        self,
        dialect: Dialect,
        effect: Effect,
        subject: impl fmt::Display,
    ) -> StoreError {
        let operation = self.operation;
        match self.what {
            What::Credentials { retry, cause } => {
                let kind = if retry { Kind::Retry } else { Kind::Denied };
                StoreError::new(kind, subject, cause).with_hint(dialect.credentials_hint())
            }
            What::NoAnswer(failure) => no_answer(failure, operation, effect, subject),
            What::Refused(refusal) => {
                let kind = kind(&refusal, dialect, effect, operation);
                let error = StoreError::new(kind, subject, format!("{operation}: {refusal}"));
                match hint(&refusal, kind, dialect, operation) {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                }
            }
        }
    }
}

fn no_answer(failure: Failure, operation: &str, effect: Effect, subject: impl fmt::Display) -> StoreError {
    let cause = format!("{operation}: {}", failure.cause);
    match failure.stage {
        Stage::Setup => StoreError::new(Kind::Misconfigured, subject, failure.cause),
        Stage::Untrusted => StoreError::new(Kind::Misconfigured, subject, failure.cause)
            .with_hint("name the file of the authority's certificate in AWS_CA_BUNDLE or SSL_CERT_FILE"),
        Stage::Unsent => StoreError::new(Kind::Retry, subject, cause)
            .with_hint("check the endpoint, and whether the network leads there"),
        Stage::Sent if effect == Effect::None => StoreError::new(Kind::Retry, subject, cause),
        Stage::Sent => StoreError::new(Kind::Ambiguous, subject, cause),
    }
}

fn kind(refusal: &Refusal, dialect: Dialect, effect: Effect, operation: &str) -> Kind {
    let commit = effect != Effect::None;
    let reads = operation.starts_with("Get") || operation.starts_with("Head");
    match kind_of_code(refusal, effect, operation) {
        // What was to be read has been replaced since it was looked at.
        Some(Kind::AlreadyExists) if reads => return Kind::Retry,
        Some(kind) => return kind,
        None => {}
    }
    match refusal.status {
        // The status was sent before the server had finished, and the body then said no.
        200..=299 if commit => Kind::Ambiguous,
        // Azure says so of a part that is not there any more, and S3 of a name that moved.
        307 | 308 => Kind::Retry,
        300..=399 => Kind::Misconfigured,
        401 | 403 | 407 => Kind::Denied,
        404 if commit => match effect {
            Effect::Commit { conditional: true } if refusal.is(&["NoSuchKey", "BlobNotFound"]) => {
                Kind::AlreadyExists
            }
            _ => Kind::Misconfigured,
        },
        404 | 410 => Kind::NotFound,
        408 | 423 | 425 | 429 => Kind::Retry,
        405 | 413 | 414 => Kind::Unsupported,
        409 if dialect == Dialect::WebDav => Kind::Retry,
        409 => Kind::Conflict,
        412 if reads => Kind::Retry,
        412 => Kind::AlreadyExists,
        501 => Kind::Unsupported,
        507 => Kind::NoSpace,
        500..=599 if commit => Kind::Ambiguous,
        // A part of a GCS upload may be the last one.
        500..=599 => Kind::Retry,
        _ if operation.is_empty() => Kind::Retry,
        _ => Kind::Misconfigured,
    }
}

/// What codes say more exactly than statuses.
fn kind_of_code(refusal: &Refusal, effect: Effect, operation: &str) -> Option<Kind> {
    let commit = effect != Effect::None;
    let code = refusal.code.as_str();
    Some(match code {
        "PreconditionFailed" | "ConditionNotMet" | "conditionNotMet" => Kind::AlreadyExists,
        "BlobAlreadyExists" | "TargetConditionNotMet" => Kind::AlreadyExists,
        "ConditionalRequestConflict" | "OperationAborted" => Kind::Conflict,
        // Refused before anything was looked at.
        "ServerBusy" | "TooManyRequests" | "Throttling" | "ThrottlingException" | "RequestLimitExceeded" => {
            Kind::Retry
        }
        _ if code.starts_with("SlowDown") || code.contains("RateLimit") || code.contains("rateLimit") => {
            Kind::Retry
        }
        // The server did not get the whole body, or not the right one.
        "RequestTimeout" | "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" => Kind::Retry,
        "NoSuchBucket" | "ContainerNotFound" | "ContainerDisabled" | "InvalidBucketName" => {
            Kind::Misconfigured
        }
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "InvalidResourceName" => Kind::Misconfigured,
        "IllegalLocationConstraintException" | "InvalidLocationConstraint" => Kind::Misconfigured,
        "ContainerBeingDeleted" | "TemporaryRedirect" => Kind::Retry,
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "InvalidAccessKeyId" => Kind::Denied,
        "SignatureDoesNotMatch" | "RequestTimeTooSkewed" | "AccessDenied" | "AllAccessDisabled" => {
            Kind::Denied
        }
        "LeaseIdMissing" | "AccountProblem" | "InvalidPayer" | "RequestExpired" => Kind::Denied,
        _ if code.starts_with("KMS.") => Kind::Denied,
        "NotImplemented" | "MethodNotAllowed" | "NotSupported" | "UnsupportedHeader" => Kind::Unsupported,
        "EntityTooLarge" | "RequestBodyTooLarge" | "MaxBlobSizeExceeded" => Kind::Unsupported,
        // Parts are gone, as after another's clean-up; or a proxy has sent the commit twice.
        "NoSuchUpload" | "InvalidPart" | "InvalidBlockList" if commit => Kind::Ambiguous,
        "NoSuchUpload" if operation == "AbortMultipartUpload" => Kind::NotFound,
        "NoSuchUpload" => Kind::Retry,
        "InternalError" | "ServiceUnavailable" if !commit => Kind::Retry,
        _ if code.contains("QuotaExceeded")
            || code.contains("StorageFull")
            || code == "InsufficientAccountStorage" =>
        {
            Kind::NoSpace
        }
        _ if refusal.message.contains("functionality that is not implemented") => Kind::Unsupported,
        _ => return None,
    })
}

fn hint(refusal: &Refusal, kind: Kind, dialect: Dialect, operation: &'static str) -> Option<String> {
    match kind {
        Kind::Denied => Some(denied_hint(refusal, dialect, operation)),
        Kind::Misconfigured => misconfigured_hint(refusal, dialect),
        Kind::NoSpace => Some("free some space, raise the quota or move the replica".into()),
        Kind::Unsupported => Some(
            "the server, or a proxy before it, lacks what the request needs; `driftless replicate` without \
             -once probes it, and goes on where only conditions of puts are missing"
                .into(),
        ),
        _ => None,
    }
}

fn denied_hint(refusal: &Refusal, dialect: Dialect, operation: &'static str) -> String {
    match refusal.code.as_str() {
        "InvalidAccessKeyId" => {
            "the server does not know this access key id: is it of this provider and account?".into()
        }
        "SignatureDoesNotMatch" | "AuthenticationFailed" if !is_skewed(refusal) => {
            "the secret key does not belong to the access key, or a proxy changes requests".into()
        }
        "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired" | "RequestExpired" => {
            "the session token has ended: renew it where it comes from; it is read again".into()
        }
        "RequestTimeTooSkewed" | "AuthenticationFailed" | "SignatureDoesNotMatch" => skew_hint(refusal),
        code if code.starts_with("KMS.") => {
            "the key of the key service is disabled or may not be used by this user".into()
        }
        _ if refusal.status == 401 && dialect == Dialect::WebDav => "check user name and password".into(),
        _ => match permission(dialect, operation) {
            Some(permission) => format!("the user needs the permission {permission}"),
            None => dialect.credentials_hint().into(),
        },
    }
}

fn skew_seconds(refusal: &Refusal) -> Option<i64> {
    Some(Timestamp::now().as_second() - refusal.date?.as_second())
}

/// Azure does not say that it is the clock; it allows 15 minutes.
fn is_skewed(refusal: &Refusal) -> bool {
    skew_seconds(refusal).is_some_and(|skew| skew.abs() > 15 * 60)
}

fn skew_hint(refusal: &Refusal) -> String {
    match skew_seconds(refusal) {
        Some(skew) if skew.abs() > 60 => {
            let way = if skew > 0 { "ahead of" } else { "behind" };
            format!("this host's clock is {} s {way} the server's: set it right", skew.abs())
        }
        _ => "this host's clock differs from the server's: set it right".into(),
    }
}

fn misconfigured_hint(refusal: &Refusal, dialect: Dialect) -> Option<String> {
    let region = refusal.region.as_deref();
    Some(match (refusal.code.as_str(), region) {
        ("NoSuchBucket", _) => "create the bucket, or check its name, the endpoint and the region".into(),
        ("ContainerNotFound", _) => "create the container, or check its name".into(),
        ("InvalidBucketName", _) => {
            "bucket names have 3 to 63 lower-case letters, digits, dots and hyphens".into()
        }
        (_, Some(region)) if refusal.status != 404 => {
            format!("the bucket is in region {region}: set `region` to it")
        }
        ("PermanentRedirect" | "AuthorizationHeaderMalformed", _) => {
            "set `region` to that of the bucket".into()
        }
        _ if matches!(refusal.status, 301 | 302) => {
            "the server is elsewhere: check the endpoint and the region".into()
        }
        _ if refusal.status == 404 => match dialect {
            Dialect::Azure => "check the account, the container and the endpoint".into(),
            Dialect::WebDav => "check the URL".into(),
            Dialect::S3 | Dialect::Gcs => {
                "check the bucket's name, the endpoint, and whether the bucket stands in the path".into()
            }
        },
        _ => return None,
    })
}

impl Dialect {
    pub(super) fn credentials_hint(self) -> &'static str {
        match self {
            Dialect::S3 => {
                "give access-key-id and secret-access-key, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
            }
            Dialect::Azure => "give account-key or sas-token, or AZURE_STORAGE_KEY, or a managed identity",
            Dialect::Gcs => "name a file of credentials in GOOGLE_APPLICATION_CREDENTIALS",
            Dialect::WebDav => "give a user name and a password",
        }
    }
}

fn permission(dialect: Dialect, operation: &'static str) -> Option<&'static str> {
    Some(match (dialect, operation) {
        (Dialect::S3, "GetObject" | "HeadObject") => {
            "s3:GetObject (and s3:ListBucket, without which a missing object looks like a forbidden one)"
        }
        (Dialect::S3, "PutObject" | "CreateMultipartUpload" | "UploadPart" | "CompleteMultipartUpload") => {
            "s3:PutObject"
        }
        (Dialect::S3, "ListObjectsV2" | "ListObjects") => "s3:ListBucket",
        (Dialect::S3, "DeleteObject" | "DeleteObjects") => "s3:DeleteObject",
        (Dialect::S3, "AbortMultipartUpload") => "s3:AbortMultipartUpload",
        (Dialect::S3, "ListMultipartUploads") => "s3:ListBucketMultipartUploads",
        (Dialect::Azure, "GetBlob" | "GetBlobProperties" | "ListBlobs") => {
            "to read and list (the role Storage Blob Data Contributor; r and l of a signature)"
        }
        (Dialect::Azure, _) => {
            "to create, write and delete (the role Storage Blob Data Contributor; c, w and d of a signature)"
        }
        (Dialect::Gcs, "GetObject") => "storage.objects.get",
        (Dialect::Gcs, "ListObjects") => "storage.objects.list",
        (Dialect::Gcs, "DeleteObject") => "storage.objects.delete",
        (Dialect::Gcs, _) => "storage.objects.create",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
