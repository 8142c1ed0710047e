//! What a server refuses for good reason is one line, with what helps.

use driftless_adapters::object::settings::{AccessKeys, Azure, S3, Secret, Service, Transport, WebDav};
use driftless_adapters::object::{self};
use driftless_adapters::store::{ByteRange, PutCondition, StoreErrorKind as Kind};
use driftless_tests::proxy::Proxy;
use driftless_tests::servers::{Moto, Rclone, Tls, Webdav, azurite, moto};
use driftless_tests::sign::S3Key;

use crate::support::{azure, bytes, failure, get, host, put, s3, settings, webdav, with_store};

fn with_key(s3: S3, key: &S3Key) -> S3 {
    let secret = Secret::new(key.secret.clone());
    S3 { keys: Some(AccessKeys { id: key.id.clone(), secret, session_token: None }), ..s3 }
}

/// What a put and a list fail with.
fn refused(service: Service) -> [(Kind, String); 2] {
    with_store(service, async |store, _| {
        let put = failure(put(&**store, "object", PutCondition::Always, b"x").await);
        [put, failure(store.list("", None, 10).await)]
    })
}

#[track_caller]
fn check(service: Service, kind: Kind, words: &str) {
    for (got, line) in refused(service) {
        assert_eq!(got, kind, "{line}");
        assert!(line.contains(words), "{line} lacks {words:?}");
    }
}

#[test]
fn a_bucket_that_is_not_there() {
    let bucket = moto().bucket("refusals");
    let elsewhere = S3 { bucket: "no-such-bucket-here".into(), ..s3(&bucket) };
    check(Service::S3(elsewhere), Kind::Misconfigured, "create the bucket");
    let container = azurite().container("refusals");
    let elsewhere = Azure { container: "no-such-container".into(), ..azure(&container) };
    check(Service::Azure(elsewhere), Kind::Misconfigured, "create the container");
}

#[test]
fn keys_that_are_wrong() {
    let server = Moto::strict();
    let bucket = server.bucket("refusals");
    let good = server.user("good", r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#);
    with_store(Service::S3(with_key(s3(&bucket), &good)), async |store, _| {
        put(&**store, "object", PutCondition::IfAbsent, b"x").await.unwrap();
        assert_eq!(get(&**store, "object", ByteRange::Tail(9)).await.unwrap(), b"x");
        assert_eq!(store.list("", None, 10).await.unwrap().entries.len(), 1);
    });
    let unknown = S3Key { id: "AKIAUNKNOWN".into(), ..good.clone() };
    check(Service::S3(with_key(s3(&bucket), &unknown)), Kind::Denied, "does not know this access key");
    let wrong = S3Key { secret: "wrong".into(), ..good };
    let wrong = with_key(s3(&bucket), &wrong);
    check(Service::S3(wrong.clone()), Kind::Denied, "secret key does not belong");
    for (_, line) in refused(Service::S3(wrong)) {
        assert!(!line.contains("wrong"), "{line}");
    }
    let container = azurite().container("refusals");
    let wrong = Azure { account_key: Some(Secret::new("d3Jvbmc=")), ..azure(&container) };
    check(Service::Azure(wrong), Kind::Denied, "403");
}

#[test]
fn a_permission_that_is_missing_is_named() {
    let server = Moto::strict();
    let bucket = server.bucket("refusals");
    let allow = |action: &str| {
        let key = server.user("user", &format!(r#"{{"Effect":"Allow","Action":"{action}","Resource":"*"}}"#));
        Service::S3(with_key(s3(&bucket), &key))
    };
    with_store(allow("s3:PutObject"), async |store, _| {
        put(&**store, "object", PutCondition::Always, b"x").await.unwrap();
        let (kind, line) = failure(store.list("", None, 10).await);
        assert_eq!(kind, Kind::Denied, "{line}");
        assert!(line.contains("s3:ListBucket"), "{line}");
        let (kind, line) = failure(store.delete(&crate::support::key("object")).await);
        assert_eq!(kind, Kind::Denied, "{line}");
        assert!(line.contains("s3:DeleteObject"), "{line}");
    });
    with_store(allow("s3:ListBucket"), async |store, _| {
        let (kind, line) = failure(put(&**store, "new", PutCondition::Always, b"x").await);
        assert_eq!(kind, Kind::Denied, "{line}");
        assert!(line.contains("s3:PutObject"), "{line}");
    });
}

#[test]
fn a_password_that_is_wrong() {
    let server = Webdav::with_password("user", "word");
    check(Service::WebDav(webdav(&server, "user", "other")), Kind::Denied, "user name and password");
    let anonymous = WebDav { username: None, password: None, ..webdav(&server, "", "") };
    check(Service::WebDav(anonymous), Kind::Denied, "user name and password");
}

#[test]
fn a_certificate_that_nobody_vouches_for() {
    let bucket = moto().bucket("refusals");
    // moto closes each connection, and the proxy does not.
    let proxy = Proxy::start(bucket.server());
    let tls = Tls::before(proxy.address());
    let secure = S3 { endpoint: Some(tls.url()), ..s3(&bucket) };
    check(Service::S3(secure.clone()), Kind::Misconfigured, "AWS_CA_BUNDLE");
    host(async |net| {
        let mut settings = settings(Service::S3(secure));
        settings.transport = Transport { skip_verify: true };
        let store = object::open(&settings, net).unwrap();
        put(&*store, "object", PutCondition::IfAbsent, &bytes(300_000)).await.unwrap();
        assert_eq!(get(&*store, "object", ByteRange::ALL).await.unwrap(), bytes(300_000));
        assert_eq!(net.connections_opened(), 1);
    });
}

/// rclone takes conditions and ignores them: the battery says so, as the start-up probe must.
#[test]
fn a_server_that_ignores_conditions_is_found_out() {
    use driftless_adapters::battery::{self, Options};
    let server = Rclone::start();
    let service = Service::S3(s3(&server.bucket("refusals")));
    let options = Options { listed_keys: 20, races: 3, ..Options::default() };
    let report = with_store(service, async |store, _| battery::run(&**store, &options).await);
    assert!(report.failed().any(|check| check == "create_is_refused"), "{report}");
}
