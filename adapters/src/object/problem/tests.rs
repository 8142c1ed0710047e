use super::*;

const COMMIT: Effect = Effect::Commit { conditional: true };

fn refusal(status: u16, code: &str) -> Refusal {
    Refusal { status, code: code.into(), ..Refusal::default() }
}

fn of(dialect: Dialect, operation: &'static str, effect: Effect, refusal: Refusal) -> StoreError {
    Problem { operation, what: What::Refused(refusal) }.into_error(dialect, effect, "key")
}

#[test]
fn what_became_of_a_put() {
    let check = |dialect, operation, status, code, kind| {
        let error = of(dialect, operation, COMMIT, refusal(status, code));
        assert_eq!(error.kind, kind, "{dialect:?} {operation} {status} {code}");
    };
    let s3 = |status, code, kind| check(Dialect::S3, "PutObject", status, code, kind);
    s3(412, "PreconditionFailed", Kind::AlreadyExists);
    s3(412, "", Kind::AlreadyExists);
    s3(404, "NoSuchKey", Kind::AlreadyExists); // the object that was to be replaced
    s3(409, "ConditionalRequestConflict", Kind::Conflict);
    s3(409, "OperationAborted", Kind::Conflict);
    s3(409, "", Kind::Conflict);
    s3(429, "TooManyRequests", Kind::Retry);
    s3(429, "", Kind::Retry);
    s3(503, "SlowDown", Kind::Retry);
    s3(503, "SlowDownWrite", Kind::Retry);
    s3(503, "ServiceUnavailable", Kind::Ambiguous);
    s3(503, "", Kind::Ambiguous);
    s3(500, "InternalError", Kind::Ambiguous);
    s3(502, "", Kind::Ambiguous);
    s3(504, "", Kind::Ambiguous);
    s3(400, "RequestTimeout", Kind::Retry);
    s3(400, "BadDigest", Kind::Retry);
    s3(400, "ExpiredToken", Kind::Denied);
    s3(401, "", Kind::Denied);
    s3(403, "AccessDenied", Kind::Denied);
    s3(403, "", Kind::Denied);
    s3(400, "KMS.DisabledException", Kind::Denied);
    s3(404, "NoSuchBucket", Kind::Misconfigured);
    s3(404, "", Kind::Misconfigured);
    s3(301, "PermanentRedirect", Kind::Misconfigured);
    s3(307, "TemporaryRedirect", Kind::Retry);
    s3(400, "AuthorizationHeaderMalformed", Kind::Misconfigured);
    s3(400, "InvalidBucketName", Kind::Misconfigured);
    s3(400, "InvalidStorageClass", Kind::Misconfigured);
    s3(501, "NotImplemented", Kind::Unsupported);
    s3(501, "", Kind::Unsupported);
    s3(507, "XMinioStorageFull", Kind::NoSpace);
    s3(403, "QuotaExceeded", Kind::NoSpace);
    let complete = |status, code, kind| check(Dialect::S3, "CompleteMultipartUpload", status, code, kind);
    complete(200, "InternalError", Kind::Ambiguous);
    complete(200, "SlowDown", Kind::Retry);
    complete(200, "PreconditionFailed", Kind::AlreadyExists);
    // A proxy may have sent it twice, and this be the second answer.
    complete(404, "NoSuchUpload", Kind::Ambiguous);
    let azure = |status, code, kind| check(Dialect::Azure, "PutBlob", status, code, kind);
    azure(409, "BlobAlreadyExists", Kind::AlreadyExists);
    azure(412, "ConditionNotMet", Kind::AlreadyExists);
    azure(412, "LeaseIdMissing", Kind::Denied);
    azure(404, "ContainerNotFound", Kind::Misconfigured);
    azure(409, "ContainerBeingDeleted", Kind::Retry);
    azure(503, "ServerBusy", Kind::Retry);
    azure(500, "OperationTimedOut", Kind::Ambiguous);
    azure(403, "AuthenticationFailed", Kind::Denied);
    let gcs = |status, code, kind| check(Dialect::Gcs, "UploadResumableChunk", status, code, kind);
    gcs(412, "conditionNotMet", Kind::AlreadyExists);
    gcs(429, "rateLimitExceeded", Kind::Retry);
    gcs(503, "backendError", Kind::Ambiguous);
    let webdav = |status, kind| check(Dialect::WebDav, "Move", status, "", kind);
    webdav(507, Kind::NoSpace);
    webdav(423, Kind::Retry);
    webdav(409, Kind::Retry);
    webdav(502, Kind::Ambiguous);
}

#[test]
fn what_became_of_anything_else() {
    let check = |operation, status, code, kind| {
        let error = of(Dialect::S3, operation, Effect::None, refusal(status, code));
        assert_eq!(error.kind, kind, "{operation} {status} {code}");
    };
    check("GetObject", 404, "NoSuchKey", Kind::NotFound);
    check("HeadObject", 404, "", Kind::NotFound);
    check("GetObject", 404, "NoSuchBucket", Kind::Misconfigured);
    check("GetObject", 412, "PreconditionFailed", Kind::Retry);
    check("GetObject", 503, "", Kind::Retry);
    check("GetObject", 500, "InternalError", Kind::Retry);
    check("ListObjectsV2", 403, "AccessDenied", Kind::Denied);
    check("UploadPart", 500, "", Kind::Retry);
    check("UploadPart", 404, "NoSuchUpload", Kind::Retry);
    check("AbortMultipartUpload", 404, "NoSuchUpload", Kind::NotFound);
}

#[test]
fn requests_without_an_answer() {
    let check = |stage, effect, kind| {
        let failure = Failure { stage, cause: "reset".into() };
        let problem = Problem { operation: "PutObject", what: What::NoAnswer(failure) };
        assert_eq!(problem.into_error(Dialect::S3, effect, "key").kind, kind, "{stage:?} {effect:?}");
    };
    check(Stage::Unsent, COMMIT, Kind::Retry);
    check(Stage::Sent, COMMIT, Kind::Ambiguous);
    check(Stage::Sent, Effect::None, Kind::Retry);
    check(Stage::Untrusted, COMMIT, Kind::Misconfigured);
    check(Stage::Setup, COMMIT, Kind::Misconfigured);
}

#[test]
fn answers_are_read_as_each_service_writes_them() {
    let read = |status: u16, headers: &[(&str, &str)], body: &str| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
        }
        Refusal::read(StatusCode::from_u16(status).unwrap(), &map, body.as_bytes())
    };
    let s3 = read(
        400,
        &[],
        "<?xml version=\"1.0\"?><Error><Code>AuthorizationHeaderMalformed</Code><Message>the region \
         'us-east-1' is wrong; expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>",
    );
    assert_eq!((s3.code.as_str(), s3.region.as_deref()), ("AuthorizationHeaderMalformed", Some("eu-west-1")));
    let azure = read(
        404,
        &[("x-ms-error-code", "BlobNotFound")],
        "\u{feff}<?xml version=\"1.0\"?><Error><Code>BlobNotFound</Code><Message>The specified blob does not \
         exist.\nRequestId:1\nTime:2</Message></Error>",
    );
    assert_eq!(azure.to_string(), "404 BlobNotFound: The specified blob does not exist");
    let gcs = read(
        412,
        &[],
        r#"{"error":{"code":412,"message":"At least one of the pre-conditions you specified did not hold.","errors":[{"reason":"conditionNotMet"}]}}"#,
    );
    assert_eq!(gcs.code, "conditionNotMet");
    assert_eq!(read(502, &[], "<html><body>Bad Gateway</body></html>").to_string(), "502");
    assert_eq!(read(416, &[("content-range", "bytes */7")], "").object_len, Some(7));
}

#[test]
fn hints_name_what_helps() {
    let hint = |dialect, operation, refusal| of(dialect, operation, Effect::None, refusal).hint.unwrap();
    let list = hint(Dialect::S3, "ListObjectsV2", refusal(403, "AccessDenied"));
    assert!(list.contains("s3:ListBucket"), "{list}");
    let moved = Refusal { region: Some("eu-west-1".into()), ..refusal(301, "PermanentRedirect") };
    let moved = hint(Dialect::S3, "GetObject", moved);
    assert!(moved.contains("eu-west-1"), "{moved}");
    let late = Timestamp::now() - jiff::Span::new().minutes(20);
    for (dialect, code) in [(Dialect::S3, "RequestTimeTooSkewed"), (Dialect::Azure, "AuthenticationFailed")] {
        let skewed = Refusal { date: Some(late), ..refusal(403, code) };
        let skewed = hint(dialect, "GetObject", skewed);
        assert!(skewed.contains("s ahead of the server's") && skewed.contains("120"), "{skewed}");
    }
    let wrong = hint(Dialect::S3, "GetObject", refusal(403, "SignatureDoesNotMatch"));
    assert!(wrong.contains("secret key"), "{wrong}");
    assert!(hint(Dialect::S3, "GetObject", refusal(404, "NoSuchBucket")).contains("create the bucket"));
}
