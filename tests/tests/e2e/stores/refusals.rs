//! What a person gets wrong about a store, and what the product then says.
//!
//! `replicate` tries again for as long as it may help, and tells the status; `-once` and `restore`,
//! which somebody waits for, end with one error. A place that cannot exist is exit code 2.

use std::path::{Path, PathBuf};
use std::thread;

use driftless_tests::command::error_text;
use driftless_tests::db::open_wal;
use driftless_tests::place::{Place as _, Remote};
use driftless_tests::port::Port;
use driftless_tests::proxy::{Answer, Fault, Rule};
use driftless_tests::s3::Bucket;
use driftless_tests::servers::{Moto, Tls, moto};
use driftless_tests::sidecar::{Sidecar, restore};
use driftless_tests::sign::S3Key;
use driftless_tests::{PATIENCE, Ran, TempDir, wait_for};

use super::s3;
use crate::side_by_side::{Scene, status};

/// A database in WAL mode with a row, closed.
fn database(dir: &TempDir) -> PathBuf {
    let db = dir.join("app.db");
    open_wal(&db).execute_batch("create table t(x); insert into t values (1)").expect("a fresh database");
    db
}

/// Nothing that was said holds a secret.
#[track_caller]
fn keeps(secret: &str, said: &str) {
    assert!(!said.contains(secret), "a secret is told: {said}");
}

/// What a person is told about a place by each of the ways to use it.
struct Told<'a> {
    place: &'a Remote,
    /// The exit code of what somebody waits for.
    code: i32,
    /// In the error's text.
    words: &'a [&'a str],
    /// In its hint.
    hint: &'a str,
    secret: &'a str,
}

impl Told<'_> {
    #[track_caller]
    fn says(&self, ran: Ran) {
        let ran = ran.expect_error(self.code, self.words).expect_hint();
        let text = error_text(&ran.err);
        let (_, hint) = text.split_once("hint: ").expect("there is one");
        assert!(hint.contains(self.hint), "{:?} is not in the hint:\n{text}", self.hint);
        keeps(self.secret, &format!("{}{}", ran.out, ran.err));
    }

    /// By `replicate -once`.
    #[track_caller]
    fn once(&self) -> &Self {
        let dir = TempDir::new("once");
        let db = database(&dir);
        self.says(self.place.run(&["replicate", "-once", db.to_str().expect("a plain path")]));
        self
    }

    /// By `restore`, `ltx` and `verify`.
    #[track_caller]
    fn reading(&self) -> &Self {
        let dir = TempDir::new("reading");
        let target = dir.join("copy.db");
        let copy = target.to_str().expect("a plain path");
        let restore = ["restore", "-o", copy];
        // Side by side: they try again for a while where that may help.
        thread::scope(|scope| {
            for args in [&restore[..], &["ltx"], &["verify"]] {
                scope.spawn(move || self.says(self.place.run(args)));
            }
        });
        assert!(!target.exists());
        self
    }

    /// By the status of a process that keeps trying; returned after that.
    #[track_caller]
    fn trying(&self) -> (Scene<Remote>, Sidecar) {
        let scene = Scene::at("trying", self.place.clone());
        let mut app = scene.app();
        app.tx("a");
        let mut sidecar = scene.sidecar();
        wait_for("the error in the status", PATIENCE, || status(&sidecar)["last_error"].is_string());
        let told = status(&sidecar);
        let error = told["last_error"].as_str().unwrap_or_default();
        assert!(self.words.iter().all(|word| error.contains(word)), "{:?} {told}", self.words);
        assert!(told["hint"].as_str().is_some_and(|hint| hint.contains(self.hint)), "{told}");
        sidecar.wait_line("again in");
        keeps(self.secret, &format!("{told}{:?}", sidecar.lines()));
        (scene, sidecar)
    }

    /// All of them, and then the cause is mended: it goes on by itself.
    #[track_caller]
    fn everywhere_until(&self, mend: impl FnOnce()) {
        self.once().reading();
        let (scene, sidecar) = self.trying();
        mend();
        scene.ends_well(sidecar);
    }
}

fn told<'a>(place: &'a Remote, code: i32, words: &'a [&'a str], hint: &'a str, key: &'a S3Key) -> Told<'a> {
    Told { place, code, words, hint, secret: &key.secret }
}

#[test]
fn a_bucket_that_is_not_there() {
    let key = S3Key { id: "AKIA1".into(), secret: "TOPSECRET".into() };
    let bucket = Bucket::new(moto().address(), "nowhere", key.clone());
    let place = Remote::s3(&bucket, bucket.server());
    let told = told(&place, 2, &["NoSuchBucket", "nowhere"], "create the bucket", &key);
    told.once().reading();
    // Starting it again unchanged would fail again.
    let scene = Scene::at("nowhere", place.clone());
    let mut app = scene.app();
    app.tx("a");
    let mut sidecar = scene.sidecar();
    assert_eq!(sidecar.wait(PATIENCE).code(), Some(2), "{:?}", sidecar.lines());
}

/// Keys that the server does not know, or that are not what they were.
#[test]
fn wrong_keys() {
    let moto = Moto::strict();
    let bucket = moto.bucket("keys");
    let place = Remote::s3(&bucket, bucket.server());
    let unknown = S3Key { id: "AKIAUNKNOWN".into(), secret: "UNKNOWNSECRET".into() };
    let signed = place.clone().signed(&unknown);
    told(&signed, 1, &["InvalidAccessKeyId"], "access key id", &unknown).once().reading().trying();
    let forged = S3Key { secret: "GUESSEDSECRET".into(), ..bucket.key().clone() };
    let signed = place.clone().signed(&forged);
    told(&signed, 1, &["SignatureDoesNotMatch"], "secret key", &forged).once().reading().trying();
    // The right ones.
    let scene = Scene::at("right", place);
    let mut app = scene.app();
    app.tx("a");
    let sidecar = scene.sidecar();
    drop(app);
    scene.ends_well(sidecar);
}

#[test]
fn a_clock_that_is_wrong() {
    let (proxy, scene) = s3("skew");
    let key = moto().bucket("any").key().clone();
    let skewed = Answer::time_skewed().header("Date", "Thu, 01 Jan 2026 00:00:00 GMT");
    proxy.add(Rule::new(Fault::Answer(skewed)));
    let told = told(&scene.replica, 1, &["RequestTimeTooSkewed"], "clock is", &key);
    told.everywhere_until(|| proxy.clear());
}

/// What one user may do, as a policy has it.
fn user(moto: &Moto, bucket: &Bucket, actions: &[&str]) -> S3Key {
    let name = bucket.name();
    let list = actions.iter().map(|action| format!("\"{action}\"")).collect::<Vec<_>>().join(",");
    let statement = format!(
        r#"{{"Effect":"Allow","Action":[{list}],"Resource":["arn:aws:s3:::{name}","arn:aws:s3:::{name}/*"]}}"#
    );
    moto.user("limited", &statement)
}

#[test]
fn permissions_that_are_missing() {
    let moto = Moto::strict();
    let bucket = moto.bucket("rights");
    let place = Remote::s3(&bucket, bucket.server());
    let denied = &["AccessDenied"];
    let no_list = user(&moto, &bucket, &["s3:GetObject", "s3:PutObject", "s3:DeleteObject"]);
    let signed = place.clone().signed(&no_list);
    told(&signed, 1, denied, "s3:ListBucket", &no_list).once().reading().trying();

    let no_put = user(&moto, &bucket, &["s3:GetObject", "s3:ListBucket", "s3:DeleteObject"]);
    let signed = place.clone().signed(&no_put);
    told(&signed, 1, denied, "s3:PutObject", &no_put).once().trying();

    // A replica needs no right to delete; the probe cannot clean up behind itself, and says so.
    let no_delete = user(&moto, &bucket, &["s3:GetObject", "s3:PutObject", "s3:ListBucket"]);
    let scene = Scene::at("no-delete", place.clone().signed(&no_delete));
    let mut app = scene.app();
    app.tx("a");
    let mut sidecar = scene.sidecar();
    sidecar.wait_line("the store was probed");
    sidecar.caught_up();
    let told = status(&sidecar);
    assert_eq!(told["store"]["remove"], "denied", "{told}");
    assert_eq!(told["store"]["create_if_absent"], "holds", "{told}");
    keeps(&no_delete.secret, &format!("{told}{:?}", sidecar.lines()));
    drop(app);
    scene.ends_well(sidecar);

    // A user who may only read restores.
    let reads = user(&moto, &bucket, &["s3:GetObject", "s3:ListBucket"]);
    restore(&place.signed(&reads), None, &scene.dir.join("copy.db")).expect("reading is allowed");
}

#[test]
fn a_provider_that_does_not_exist() {
    let (_, scene) = s3("typo");
    let key = moto().bucket("any").key().clone();
    let url = scene.replica.url().replace("s3://", "s4://");
    let typo = scene.replica.clone().named(url);
    told(&typo, 2, &["s4://"], "s3://", &key).once().reading();
    let key = S3Key { id: "AKIA1".into(), secret: "INTHEURL".into() };
    let url = "b3://AKIA1:INTHEURL@bucket/app?secret-access-key=INTHEURL".to_owned();
    let typo = scene.replica.clone().named(url);
    told(&typo, 2, &["b3://"], "", &key).once().reading();
    let typo = scene.replica.with("storage-clas=STANDARD_IA");
    told(&typo, 2, &["storage-clas"], "storage-class", &key).once().reading();
}

/// A server that knows no conditions: who waits is told, and a process that stays finds it out and goes on.
#[test]
fn conditions_that_are_not_implemented() {
    let (proxy, scene) = s3("501");
    let key = moto().bucket("any").key().clone();
    let unknown = Answer::s3(501, "NotImplemented", "A header you provided implies functionality");
    proxy.add(Rule::new(Fault::Answer(unknown)).has_header("if-none-match"));
    told(&scene.replica, 1, &["NotImplemented"], "without -once", &key).once();
    let mut app = scene.app();
    app.tx("a");
    let sidecar = scene.sidecar();
    sidecar.caught_up();
    assert_eq!(status(&sidecar)["store"]["create_if_absent"], "unsupported");
    drop(app);
    scene.ends_well(sidecar);
}

/// Nobody listens at the endpoint: who reads gives up after some attempts. `-once` has all the time of
/// its caller, so it is not tried here.
pub(super) fn unreachable_to_readers(_: &str) {
    let port = Port::reserve();
    let bucket = moto().bucket("unreachable");
    let place = Remote::s3(&bucket, port.address());
    told(&place, 1, &["refused", bucket.name()], "endpoint", bucket.key()).reading();
}

/// The same for a process that keeps trying.
pub(super) fn unreachable_for_a_while(name: &str) {
    let (proxy, scene) = s3(name);
    proxy.refuse(None);
    let key = moto().bucket("any").key().clone();
    let (scene, sidecar) = told(&scene.replica, 1, &["refused"], "endpoint", &key).trying();
    proxy.heal();
    scene.ends_well(sidecar);
}

#[test]
fn an_authority_that_is_not_trusted() {
    let bucket = moto().bucket("tls");
    let tls = Tls::before(bucket.server());
    let place = Remote::s3_at(&bucket, &tls.url());
    let words = &["certificate"];
    told(&place, 2, words, "AWS_CA_BUNDLE", bucket.key()).once().reading();
    // Told whom to trust, it goes there; told not to look, too, and that is said.
    goes_by_tls(Scene::at("trusted", place.clone()), Some(tls.authority()), None);
    let unchecked = Remote::s3_at(&moto().bucket("tls"), &tls.url()).with("skip-verify=true");
    goes_by_tls(Scene::at("unchecked", unchecked), None, Some("certificates are not checked"));
}

fn goes_by_tls(scene: Scene<Remote>, authority: Option<&Path>, warning: Option<&str>) {
    let mut app = scene.app();
    app.tx("a");
    let authority = authority.map(|file| ("AWS_CA_BUNDLE", file.to_path_buf()));
    let setup = match &authority {
        Some(variable) => scene.setup().environment(std::slice::from_ref(variable)),
        None => scene.setup(),
    };
    let sidecar = setup.start();
    sidecar.caught_up();
    if let Some(warning) = warning {
        assert!(sidecar.count(warning) > 0, "{:?}", sidecar.lines());
    }
    assert_eq!(scene.replica.ltx_files(0), [(1, 1)]);
    sidecar.stop();
}
