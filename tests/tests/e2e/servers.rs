//! That the servers are what tests take them for.

use std::process::Command;
use std::sync::Barrier;
use std::thread;

use driftless_tests::db::open_wal;
use driftless_tests::http::{self, Request, Response};
use driftless_tests::objects::Objects;
use driftless_tests::place::{Place as _, Remote};
use driftless_tests::proc;
use driftless_tests::proxy::Proxy;
use driftless_tests::s3::{Bucket, give_key};
use driftless_tests::servers::{Gcs, Moto, Process, Rclone, Tls, Webdav, azurite, gcs, moto};
use driftless_tests::sign::S3Key;
use driftless_tests::{Daemon, PATIENCE, TempDir, content_lines, litestream, python, wait_for};

const ODD_NAME: &str = "0000/a b+c&é<1>.ltx";

/// A store keeps objects under odd names, replaces and deletes them.
#[track_caller]
fn keeps_objects(store: &impl Objects) {
    assert!(store.list().is_empty());
    assert_eq!(store.get(ODD_NAME), None);
    store.put(ODD_NAME, b"first");
    store.put(ODD_NAME, b"second one");
    store.put("app/0000/0000000000000002-0000000000000003.ltx", b"");
    assert_eq!(store.list().get(ODD_NAME), Some(&10));
    assert_eq!(store.get(ODD_NAME).as_deref(), Some(&b"second one"[..]));
    assert_eq!(store.snapshot().len(), 2);
    store.delete(ODD_NAME);
    assert_eq!(store.get(ODD_NAME), None);
    assert_eq!(store.list().len(), 1);
}

/// How many of eight that create one object at the same time are told that they have, and by which
/// statuses the others are refused.
fn race(create: impl Fn(&[u8]) -> u16 + Sync) -> (usize, Vec<u16>) {
    let barrier = Barrier::new(8);
    let run = |i: u8| {
        barrier.wait();
        create(&[i])
    };
    let statuses: Vec<u16> = thread::scope(|scope| {
        let run = &run;
        let threads: Vec<_> = (0..8).map(|i| scope.spawn(move || run(i))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (won, mut lost): (Vec<u16>, Vec<u16>) = statuses.iter().partition(|status| **status < 300);
    lost.dedup();
    (won.len(), lost)
}

#[test]
fn moto_is_a_store_of_s3() {
    let bucket = moto().bucket("objects");
    keeps_objects(&bucket);
    for i in 0..10 {
        assert_eq!(race(|body| bucket.create_object(&format!("race/{i}"), body)), (1, vec![412]));
    }
    let head = bucket.head("race/0").unwrap();
    assert_eq!((head.size, head.storage_class.as_str()), (1, "STANDARD"));
    assert!(bucket.head("race/none").is_none());
    let id = bucket.begin_upload(ODD_NAME);
    assert_eq!(bucket.uploads(), [(ODD_NAME.to_owned(), id)]);
    assert_eq!(moto().bucket("objects").count(), 0, "each test has its own bucket");
}

#[track_caller]
fn refused(response: Response, code: &str) {
    let text = response.expect(403).text();
    assert!(text.contains(&format!("<Code>{code}</Code>")), "{code} not in {text}");
}

#[test]
fn a_strict_moto_checks_signatures_and_permissions() {
    let moto = Moto::strict();
    let bucket = moto.bucket("strict");
    keeps_objects(&bucket);
    let of = |key: &S3Key| Bucket::new(moto.address(), bucket.name(), key.clone());
    let (get, put) = (Request::new("GET", &bucket.target("x")), Request::new("PUT", &bucket.target("x")));
    let list = Request::new("GET", &format!("/{}?list-type=2", bucket.name()));
    let delete = Request::new("DELETE", &bucket.target("x"));

    let writer =
        moto.user("writer", r#"{"Effect":"Allow","Action":["s3:PutObject","s3:GetObject"],"Resource":"*"}"#);
    of(&writer).send(put.clone().body("1")).expect(200);
    of(&writer).send(get.clone()).expect(200);
    refused(of(&writer).send(list), "AccessDenied");
    refused(of(&writer).send(delete), "AccessDenied");
    let forger = S3Key { id: writer.id.clone(), secret: "guessed".to_owned() };
    refused(of(&forger).send(put.body("2")), "SignatureDoesNotMatch");
    moto.revoke(&writer);
    refused(of(&writer).send(get), "InvalidAccessKeyId");
    assert_eq!(bucket.get("x").as_deref(), Some(&b"1"[..]));
}

/// Litestream signs with Amazon's own library: a witness for the servers, the proxy, and the keys.
#[test]
fn litestream_is_at_home_behind_the_proxy() {
    let moto = Moto::strict();
    let bucket = moto.bucket("litestream");
    let proxy = Proxy::start(moto.address());
    let dir = TempDir::new("litestream-s3");
    let db = dir.join("app.db");
    open_wal(&db).execute_batch("create table t(x); insert into t values (1)").unwrap();
    let url = format!("s3://{}/app?endpoint={}&forcePathStyle=true", bucket.name(), proxy.url());
    let with_keys = |key: &S3Key| {
        let mut command = Command::new(litestream());
        give_key(&mut command, key);
        command
    };
    let mut replicate = with_keys(bucket.key());
    replicate.arg("replicate").arg(&db).arg(&url);
    let mut daemon = Daemon::spawn(&mut replicate, &dir.join("litestream.log"));
    let place = Remote::s3(&bucket, bucket.server());
    daemon.wait_until("a first segment", PATIENCE, || place.ltx_files(0).contains(&(1, 1)));
    daemon.term().expect_code(0);
    let puts: Vec<_> = proxy.records().into_iter().filter(|record| record.operation() == "PUT").collect();
    assert!(puts.iter().any(|put| put.path.ends_with("/app/0000/0000000000000001-0000000000000001.ltx")));
    assert!(
        puts.iter().all(|put| put.key() == Some(&bucket.key().id) && put.status == Some(200)),
        "{puts:?}"
    );

    let restore = |key: &S3Key, to: &str| {
        let mut command = with_keys(key);
        command.arg("restore").arg("-o").arg(dir.join(to)).arg(&url).output().unwrap()
    };
    let restored = restore(bucket.key(), "restored.db");
    assert!(restored.status.success(), "{}", String::from_utf8_lossy(&restored.stderr));
    assert_eq!(content_lines(&dir.join("restored.db"), "select x from t"), ["Integer(1)"]);
    let forger = S3Key { secret: "guessed".to_owned(), ..bucket.key().clone() };
    let refused = restore(&forger, "refused.db");
    assert!(!refused.status.success() && !dir.join("refused.db").exists());
}

#[test]
fn azurite_is_a_store_of_azure() {
    let container = azurite().container("objects");
    keeps_objects(&container);
    for i in 0..10 {
        assert_eq!(race(|body| container.create_blob(&format!("race/{i}"), body)), (1, vec![409]));
    }
}

#[test]
fn gcs_is_a_store_of_google() {
    let bucket = gcs().bucket("objects");
    keeps_objects(&bucket);
    for i in 0..10 {
        assert_eq!(race(|body| bucket.create_object(&format!("race/{i}"), body)), (1, vec![412]));
        let key = format!("race/resumable/{i}");
        assert_eq!(race(|body| bucket.create_object_resumably(&key, body)), (1, vec![412]));
    }
}

#[test]
fn fake_gcs_ignores_conditions_of_resumable_uploads() {
    let gcs = Gcs::start_fake();
    let bucket = gcs.bucket("objects");
    keeps_objects(&bucket);
    assert_eq!(bucket.create_object_resumably("x", b"1"), 200);
    assert_eq!(bucket.create_object_resumably("x", b"2"), 200, "it should have been refused, and was not");
}

#[test]
fn rclone_ignores_conditions() {
    let rclone = Rclone::start();
    let bucket = rclone.bucket("objects");
    keeps_objects(&bucket);
    assert_eq!(bucket.create_object("x", b"1"), 200);
    assert_eq!(bucket.create_object("x", b"2"), 200, "the second should have been refused, and was not");
    assert_eq!(bucket.get("x").as_deref(), Some(&b"2"[..]));
}

#[test]
fn webdav_serves_a_directory_with_and_without_a_password() {
    let open = Webdav::start();
    keeps_objects(&open);
    http::send(open.address(), &Request::new("MKCOL", "/folder")).expect(201);
    http::send(open.address(), &Request::new("PUT", "/folder/x").body("1")).expect(201);
    assert_eq!(open.get("folder/x").as_deref(), Some(&b"1"[..]));
    let closed = Webdav::with_password("user", "word");
    http::send(closed.address(), &Request::new("PUT", "/x").body("1")).expect(401);
    let request = |pass| Request::new("PUT", "/x").header("Authorization", pass).body("1");
    http::send(closed.address(), &request("Basic dXNlcjp3cm9uZw==")).expect(401);
    http::send(closed.address(), &request("Basic dXNlcjp3b3Jk")).expect(201);
    assert_eq!(closed.list().len(), 1);
}

#[test]
fn tls_is_trusted_by_those_who_are_told_to() {
    let bucket = moto().bucket("tls");
    bucket.put("x", b"within");
    let tls = Tls::before(bucket.server());
    let client = "
import ssl, sys, urllib.request
url, key, authority = sys.argv[1:]
request = urllib.request.Request(url, headers={'Authorization': key})
for context in [ssl.create_default_context(), ssl.create_default_context(cafile=authority)]:
    try:
        print(urllib.request.urlopen(request, context=context, timeout=30).read().decode())
    except OSError as error:
        print(error)
";
    let url = format!("{}{}", tls.url(), bucket.target("x"));
    let signed = bucket.sign(Request::new("GET", &bucket.target("x")));
    let key = signed.headers.get("authorization").unwrap();
    let told = python(client, &[url.as_ref(), key.as_ref(), tls.authority().as_os_str()]);
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].contains("CERTIFICATE_VERIFY_FAILED"), "{told}");
    assert_eq!(lines[1..], ["within"]);
}

/// Says that this process is to start a server, tell its process id, and die.
const CHILD: &str = "DRIFTLESS_TEST_SERVER_CHILD";

fn any_server() -> Process {
    Process::start("any", |address| {
        let mut command = Command::new("python3");
        command.args(["-m", "http.server", "--bind", "127.0.0.1", &address.port().to_string()]);
        command
    })
}

#[test]
fn a_server_lives_as_long_as_the_process_of_its_tests() {
    if std::env::var_os(CHILD).is_some() {
        // Started by a thread that is gone, as the thread of a test is.
        let server = thread::spawn(any_server).join().unwrap();
        http::send(server.address(), &Request::new("GET", "/")).expect(200);
        std::fs::write(std::env::var_os(CHILD).unwrap(), server.id().to_string()).unwrap();
        std::process::abort();
    }
    let dir = TempDir::new("server-child");
    let told = dir.join("id");
    let name = "servers::a_server_lives_as_long_as_the_process_of_its_tests";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name])
        .env(CHILD, &told)
        .output()
        .unwrap();
    assert!(!output.status.success());
    let id: u32 = std::fs::read_to_string(&told)
        .unwrap_or_else(|error| panic!("{error}:\n{}", String::from_utf8_lossy(&output.stderr)))
        .parse()
        .unwrap();
    wait_for("the death of the server", PATIENCE, || proc::status_kib(id, "VmRSS") == 0);
}
