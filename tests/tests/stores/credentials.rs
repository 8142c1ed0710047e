//! Where S3 credentials come from, and what else the environment says.
//!
//! Each source is asked by a process of its own, since the environment is a process's: this test
//! program again, in which only [`client`] runs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use driftless_adapters::object::settings::{S3, Service};
use driftless_adapters::store::PutCondition;
use driftless_tests::dir::TempDir;
use driftless_tests::proxy::Proxy;
use driftless_tests::s3::Bucket;
use driftless_tests::servers::{Moto, Tls, moto};
use driftless_tests::sign::{S3Key, http_date};

use crate::support::{put, with_store};

/// Puts an object for each line that it reads, and says in a line how that went.
#[test]
#[ignore = "the other tests start it, with settings in the environment"]
fn client() {
    let var = |name| std::env::var(name).ok();
    let s3 = S3 {
        bucket: var("CLIENT_BUCKET").expect("it is started by another test"),
        endpoint: var("CLIENT_ENDPOINT"),
        path_style: var("CLIENT_HOST_STYLE").is_none(),
        profile: var("CLIENT_PROFILE"),
        ..S3::default()
    };
    with_store(Service::S3(s3), async |store, _| {
        for line in std::io::stdin().lines() {
            match put(&**store, &line.expect("text"), PutCondition::Always, b"x").await {
                Ok(()) => eprintln!("done"),
                Err(error) => eprintln!("{error}; {}", error.hint.as_deref().unwrap_or_default()),
            }
        }
    });
}

struct Client {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<std::process::ChildStderr>,
    _unused: Option<ChildStdout>,
}

impl Client {
    /// Starts a client of a bucket, with nothing else of Amazon's in the environment.
    fn start(bucket: &str, endpoint: &str, vars: &[(&str, &str)]) -> Client {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "credentials::client", "--ignored", "--nocapture", "--test-threads=1"]);
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().to_uppercase();
            if name.starts_with("AWS_") || name.ends_with("_PROXY") {
                command.env_remove(&name).env_remove(name.to_lowercase());
            }
        }
        command.env("CLIENT_BUCKET", bucket).env("CLIENT_ENDPOINT", endpoint);
        command.env("HOME", "/nonexistent").env("AWS_EC2_METADATA_DISABLED", "true");
        command.envs(vars.iter().copied());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("this program runs");
        let output = BufReader::new(child.stderr.take().expect("piped"));
        Client { input: child.stdin.take(), _unused: child.stdout.take(), child, output }
    }

    /// What it says of another put.
    fn put(&mut self) -> String {
        writeln!(self.input.as_mut().expect("open"), "object").expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        line.trim().to_owned()
    }

    #[track_caller]
    fn succeeds(&mut self) {
        assert_eq!(self.put(), "done");
    }

    #[track_caller]
    fn fails(&mut self, words: &str) {
        let line = self.put();
        assert!(line.contains(words), "{line} lacks {words:?}");
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.wait();
    }
}

/// A bucket whose server checks keys, and a user who may do all.
fn place() -> (Moto, Bucket, S3Key) {
    let server = Moto::strict();
    let bucket = server.bucket("credentials");
    let key = server.user("user", EVERYTHING);
    (server, bucket, key)
}

const EVERYTHING: &str = r#"{"Effect":"Allow","Action":"*","Resource":"*"}"#;

fn client_of(bucket: &Bucket, vars: &[(&str, &str)]) -> Client {
    Client::start(bucket.name(), &bucket.endpoint(), vars)
}

#[test]
fn the_environment() {
    let (_server, bucket, key) = place();
    client_of(&bucket, &[("AWS_ACCESS_KEY_ID", &key.id), ("AWS_SECRET_ACCESS_KEY", &key.secret)]).succeeds();
    client_of(&bucket, &[]).fails("no credentials found); give access-key-id");
    let secret = ("AWS_SECRET_ACCESS_KEY", "wrong");
    client_of(&bucket, &[("AWS_ACCESS_KEY_ID", &key.id), secret]).fails("SignatureDoesNotMatch");
}

#[test]
fn a_profile_that_is_rotated_while_it_runs() {
    let (server, bucket, key) = place();
    let home = TempDir::new("credentials");
    let file = home.join("credentials");
    let write = |key: &S3Key| {
        let text = format!(
            "[default]\naws_access_key_id = AKIANOBODY\naws_secret_access_key = x\n\n[prod]\n\
             aws_access_key_id = {}\naws_secret_access_key = {}\n",
            key.id, key.secret
        );
        std::fs::write(&file, text).unwrap();
    };
    write(&key);
    let path = file.to_str().unwrap();
    let vars = [("AWS_SHARED_CREDENTIALS_FILE", path), ("AWS_PROFILE", "prod")];
    let mut by_variable = client_of(&bucket, &vars);
    let mut by_setting = client_of(&bucket, &[vars[0], ("CLIENT_PROFILE", "prod")]);
    let clients = [&mut by_variable, &mut by_setting];
    let next = server.user("next", EVERYTHING);
    for client in clients {
        client.succeeds();
        client.succeeds();
    }
    server.revoke(&key);
    write(&next);
    for client in [&mut by_variable, &mut by_setting] {
        // The first refusal has the file read again.
        client.fails("InvalidAccessKeyId");
        client.succeeds();
    }
    client_of(&bucket, &[("AWS_SHARED_CREDENTIALS_FILE", path)]).fails("InvalidAccessKeyId");
    client_of(&bucket, &[vars[0], ("CLIENT_PROFILE", "absent")]).fails("no credentials found");
}

/// Answers every request that a path belongs to with its text.
fn metadata(answers: Vec<(&'static str, String)>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).unwrap_or(0) > 0 {}
            let path = head.split(' ').nth(1).unwrap_or_default();
            let found = answers.iter().find(|(known, _)| *known == path);
            let (status, body) = found.map_or(("404 Not Found", ""), |(_, body)| ("200 OK", body));
            let length = body.len();
            let date = http_date();
            let answer = format!(
                "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            let _ = stream.get_mut().write_all(answer.as_bytes());
        }
    });
    address
}

fn issued(key: &S3Key) -> String {
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{}","SecretAccessKey":"{}","Token":"token","Expiration":"2099-01-01T00:00:00Z"}}"#,
        key.id, key.secret
    )
}

#[test]
fn the_metadata_of_containers_and_instances() {
    let bucket = moto().bucket("credentials");
    let key = S3Key { id: "ASIATEMPORARY".into(), secret: "secret".into() };
    let proxy = Proxy::start(bucket.server());
    proxy.allow_key_with_token(&key.id, "token");
    let client_of = |vars: &[(&str, &str)]| Client::start(bucket.name(), &proxy.url(), vars);
    let container = metadata(vec![("/credentials", issued(&key))]);
    let uri = format!("http://{container}/credentials");
    client_of(&[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &uri)]).succeeds();
    let instance = metadata(vec![
        ("/latest/api/token", "the-token".into()),
        ("/latest/meta-data/iam/security-credentials/", "role".into()),
        ("/latest/meta-data/iam/security-credentials/role", issued(&key)),
    ]);
    let endpoint = format!("http://{instance}");
    let there = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", endpoint.as_str());
    client_of(&[("AWS_EC2_METADATA_DISABLED", "false"), there]).succeeds();
    // A source that was meant and fails is not replaced by another's rights.
    let broken = [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        there,
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/credentials"),
    ];
    client_of(&broken).fails("container metadata");
}

/// Not on Amazon's machines, and nothing is configured: it is said soon.
#[test]
fn no_instance_is_found_out_within_seconds() {
    let bucket = moto().bucket("credentials");
    let begun = std::time::Instant::now();
    client_of(&bucket, &[("AWS_EC2_METADATA_DISABLED", "false")]).fails("no credentials found");
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn a_command_of_the_profile() {
    let (_server, bucket, key) = place();
    let home = TempDir::new("credentials");
    let (config, answer) = (home.join("config"), home.join("answer"));
    let json = format!(r#"{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}"#, key.id, key.secret);
    std::fs::write(&answer, json).unwrap();
    std::fs::write(&config, format!("[default]\ncredential_process = /bin/cat {}\n", answer.display()))
        .unwrap();
    client_of(&bucket, &[("AWS_CONFIG_FILE", config.to_str().unwrap())]).succeeds();
}

/// The bucket stands in the host's name, which only the proxy has to find.
#[test]
fn a_proxy_of_the_environment() {
    let bucket = moto().bucket("credentials");
    let proxy = Proxy::start(bucket.server());
    let url = proxy.url();
    let vars = [
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("http_proxy", url.as_str()),
        ("CLIENT_HOST_STYLE", "yes"),
    ];
    let _ = Client::start(bucket.name(), "http://store.invalid:81", &vars).put();
    let records = proxy.records();
    let record = records.first().expect("it came by way of the proxy");
    assert_eq!(record.authority, Some(format!("{}.store.invalid:81", bucket.name())));
    assert_eq!(record.path, "/some/place/object");
    let excepted = [vars[0], vars[1], vars[2], ("no_proxy", ".invalid")];
    Client::start(bucket.name(), "http://store.invalid:81", &excepted).fails("store.invalid");
    assert_eq!(proxy.records().len(), records.len());
}

#[test]
fn an_authority_of_the_environment() {
    let bucket = moto().bucket("credentials");
    let tls = Tls::before(bucket.server());
    let vars = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    Client::start(bucket.name(), &tls.url(), &vars).fails("AWS_CA_BUNDLE");
    for name in ["AWS_CA_BUNDLE", "SSL_CERT_FILE"] {
        let authority = (name, tls.authority().to_str().unwrap());
        Client::start(bucket.name(), &tls.url(), &[vars[0], vars[1], authority]).succeeds();
    }
}
