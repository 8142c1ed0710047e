use std::path::Path;

use driftless_adapters::object::settings::{
    AccessKeys, Azure, Gcs, S3, Secret, Secret32, ServerEncryption, Service, Settings, Transport, WebDav,
};

use super::*;
use crate::config::{Config, Database};

fn no_env(_: &str) -> Option<String> {
    None
}

fn describe(url: &str, env: &[(&str, &str)]) -> Result<Described, ReplicaError> {
    let env = |name: &str| env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    describe_url(url, Options::default(), &env)
}

fn settings(described: &Described) -> &Settings {
    match &described.replica {
        Replica::Object(settings) => settings,
        Replica::Directory(directory) => panic!("{} is a directory", directory.display()),
    }
}

fn s3(described: &Described) -> &S3 {
    match &settings(described).service {
        Service::S3(s3) => s3,
        service => panic!("not S3: {service:?}"),
    }
}

/// The database of a configuration that has one, and its warnings.
fn read(replica: &str, top: &str) -> Result<(Database, Vec<String>), String> {
    let text = format!("{top}\ndbs:\n  - path: /srv/a.db\n    replica: {replica}\n");
    let config = Config::parse(&text, false, &no_env).map_err(|error| {
        format!("line {}: {} / {}", error.line, error.error, error.hint.unwrap_or_default())
    })?;
    Ok((config.databases.into_iter().next().expect("one is listed"), config.warnings))
}

fn check(text: &str, directory: impl AsRef<Path>) {
    assert_eq!(Replica::parse(text), Ok(Replica::Directory(directory.as_ref().to_owned())), "{text}");
}

fn check_error(text: &str, error: &str, hint: &str) {
    let found = describe(text, &[]).unwrap_err();
    assert!(found.error.contains(error) && found.hint.contains(hint), "{text}: {found:?}");
}

#[test]
fn urls_and_paths_name_directories() {
    let here = std::env::current_dir().unwrap();
    check("file:///srv/backup", "/srv/backup");
    check("FILE:///srv/backup", "/srv/backup");
    check("file:///srv/a%20b%25", "/srv/a b%");
    check("/srv/backup", "/srv/backup");
    check("/srv/50%", "/srv/50%");
    check("backup", here.join("backup"));
    check("./backup/", here.join("backup"));
    check("a:b", here.join("a:b"));
}

#[test]
fn mistakes_are_answered_with_what_was_meant() {
    check_error("flie:///tmp/x", "unknown kind of replica: flie://", "did you mean file:///tmp/x?");
    check_error("S4://bucket/x", "unknown kind of replica: s4://", "did you mean s3://bucket/x?");
    check_error("gcs://b/x", "unknown kind of replica: gcs://", "did you mean gs://b/x?");
    check_error("s33://u:hunter2@b/x?secret=1", "unknown kind of replica: s33://", "did you mean s3://b/x?");
    check_error("gopher://x", "unknown kind of replica: gopher://", "file:///path");
    check_error("file://backup/app", "names a host", "file:///backup/app");
    check_error("file://", "names a host", "three slashes");
    check_error("file:/srv", "neither", "file:///srv");
    check_error("s3:/bucket/x", "neither", "s3://bucket/x");
    check_error("file:///a?b=c", "after '?'", "%3F");
    check_error("file:///a%zz", "no escape", "%25");
    check_error("", "empty", "directory");
    check_error("sftp://h/p", "not in this release", "webdavs://");
    check_error("nats://h/p", "not in this release", "s3://");
    check_error("oss://b/p", "not in this release", "endpoint=https://oss-REGION.aliyuncs.com");
    check_error("s3://", "no bucket", "s3://BUCKET/PATH");
    check_error("s3://bkt", "no path below the bucket", "s3://bkt/NAME");
    check_error("s3://k:s@bkt/x", "no user and password", "access-key-id");
    check_error("s3://bkt/x?regoin=eu", "no parameter \"regoin\"", "did you mean region?");
    check_error("s3://bkt/x?region=a&region=b", "region is given twice", "keep one");
    check_error("s3://bkt/x?forcePathStyle=true&force-path-style=true", "given twice", "keep one");
    check_error("s3://bkt/x?forcePathStyle=maybe", "neither true nor false", "");
    check_error("s3://bkt/x?endpoint=ftp://h", "endpoint is not the url of a server", "https://host");
    check_error("s3://bkt/x?concurrency=0", "not a number from 1", "");
    check_error("s3://bkt/x?part-size=1MB", "from 5242880", "");
    check_error("s3://bkt/x?part-size=big", "not a number of bytes", "8MiB");
    check_error(
        "s3://bkt/x?account-key=a",
        "account-key has no effect on a replica of type s3",
        "of type abs take it",
    );
    check_error(
        "s3://localhost:9000/bkt/x",
        "a server and no bucket",
        "s3://bkt/x?endpoint=http://localhost:9000",
    );
    check_error("s3://bkt:9000/x", "a server and no bucket", "");
    check_error("s3://nyc3.digitaloceanspaces.com/bkt/x", "a server and no bucket", "https://nyc3");
    check_error("s3://acc.r2.cloudflarestorage.com/bkt/x", "a server and no bucket", "https://acc.r2");
    check_error("s3://arn:aws:s3::1234:accesspoint/a.mrap/x", "several regions", "");
    check_error("s3://arn:aws:s3-outposts:r:1:outpost/o/accesspoint/a", "no arn of an access point", "");
    check_error("s3://arn:aws:s3:r:1:accesspoint/a/x?endpoint=https://h", "an endpoint of its own", "");
    check_error("abs://cont/x", "no account", "abs://ACCOUNT@CONTAINER/PATH");
    check_error("abs://acc:key@cont/x", "takes no password", "account-key");
    check_error("abs://acc@cont/x?account-key=*", "not base64", "access keys");
    check_error(
        "abs://acc@cont/x?region=eu",
        "region has no effect on a replica of type abs",
        "of type s3 take it",
    );
    check_error("gs://u@b/x", "takes no user", "gs://BUCKET/PATH");
    check_error("gs://b/x?anonymous=1&credential-path=/k", "no effect on an anonymous", "");
    check_error("webdavs:///x", "no server", "webdavs://HOST/PATH");
    check_error("webdavs://:p@h/x", "without a user", "webdav-username");
}

/// URLs, and the server that Litestream 0.5.17 asked for their objects, seen behind a proxy; a
/// bucket that stood in the path is at the end.
const SEEN: &[(&str, &str)] = &[
    ("s3://bkt/x?region=eu-west-1", "https://bkt.s3.eu-west-1.amazonaws.com/"),
    ("s3://bkt.s3.eu-west-1.amazonaws.com/x", "https://bkt.s3.eu-west-1.amazonaws.com/"),
    ("s3://bkt.s3.amazonaws.com/x", "https://bkt.s3.us-east-1.amazonaws.com/"),
    ("s3://bkt.nyc3.digitaloceanspaces.com/x", "https://bkt.nyc3.digitaloceanspaces.com/"),
    ("s3://a.b.nyc3.digitaloceanspaces.com/x", "https://nyc3.digitaloceanspaces.com/a.b/"),
    ("s3://bkt.s3.us-west-002.backblazeb2.com/x", "https://s3.us-west-002.backblazeb2.com/bkt/"),
    ("s3://bkt.s3.filebase.com/x", "https://s3.filebase.com/bkt/"),
    ("s3://bkt.s3.fr-par.scw.cloud/x", "https://bkt.s3.fr-par.scw.cloud/"),
    ("s3://bkt.localhost:9000/x", "http://localhost:9000/bkt/"),
    ("s3://bkt.minio.example:9000/x", "http://minio.example:9000/bkt/"),
    ("s3://bkt.10.0.0.1:9000/x", "http://10.0.0.1:9000/bkt/"),
    ("s3://bkt.name/x?region=us-east-1", "https://s3.us-east-1.amazonaws.com/bkt.name/"),
    ("s3://Bkt_x/x?region=us-east-1", "https://s3.us-east-1.amazonaws.com/Bkt_x/"),
    ("s3://bkt/x?endpoint=https://nyc3.digitaloceanspaces.com", "https://nyc3.digitaloceanspaces.com/bkt/"),
    ("s3://bkt/x?endpoint=https://a.r2.cloudflarestorage.com", "https://a.r2.cloudflarestorage.com/bkt/"),
    (
        "s3://bkt/x?endpoint=https://a.r2.cloudflarestorage.com&forcePathStyle=false",
        "https://bkt.a.r2.cloudflarestorage.com/",
    ),
    ("s3://bkt/x?endpoint=minio.example:9000", "https://minio.example:9000/bkt/"),
    ("s3://bkt/x?endpoint=minio:9000", "https://minio:9000/bkt/"),
    ("s3://bkt/x?endpoint=192.168.1.1:9000", "http://192.168.1.1:9000/bkt/"),
    ("s3://bkt/x?endpoint=minio.local", "http://minio.local/bkt/"),
    ("s3://bkt/x?endpoint=http://127.0.0.1:9000&forcePathStyle=false", "http://127.0.0.1:9000/bkt/"),
    ("s3://bkt/x?endpoint=http://h.example/deep/", "http://h.example/deep/bkt/"),
    (
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/ap/x",
        "https://ap-123456789012.s3-accesspoint.us-west-2.amazonaws.com/",
    ),
];

/// URLs that are read in another way here. Of the first, Litestream's preset wins over what the URL
/// says, though not over what a key says; the others it takes for buckets of Amazon's.
const OTHERWISE: &[(&str, &str)] = &[
    (
        "s3://bkt/x?endpoint=https://minio.example:9000&forcePathStyle=false",
        "https://bkt.minio.example:9000/",
    ),
    ("s3://bkt.fly.storage.tigris.dev/x", "https://bkt.fly.storage.tigris.dev/"),
    ("s3://bkt.acc.r2.cloudflarestorage.com/x", "https://bkt.acc.r2.cloudflarestorage.com/"),
    ("s3://bkt.fsn1.your-objectstorage.com/x", "https://bkt.fsn1.your-objectstorage.com/"),
    ("s3://bkt.s3.wasabisys.com/x", "https://bkt.s3.wasabisys.com/"),
    ("s3://bkt.s3.cn-north-1.amazonaws.com.cn/x", "https://bkt.s3.cn-north-1.amazonaws.com.cn/"),
];

#[test]
fn hosts_and_endpoints_mean_what_litestream_makes_of_them() {
    for (url, expected) in SEEN.iter().chain(OTHERWISE) {
        let described = describe(url, &[]).unwrap_or_else(|error| panic!("{url}: {error:?}"));
        assert_eq!(address(&described), *expected, "{url}");
        assert_eq!(settings(&described).root, "x", "{url}");
    }
}

/// Which server is asked for the objects of a bucket.
fn address(described: &Described) -> String {
    let s3 = s3(described);
    let region = s3.region.as_deref().unwrap_or("us-east-1");
    let endpoint = s3.endpoint.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    match s3.path_style {
        true => format!("{endpoint}/{}/", s3.bucket),
        false => format!("{}/", endpoint.replacen("://", &format!("://{}.", s3.bucket), 1)),
    }
}

#[test]
fn providers_bring_their_presets() {
    for (endpoint, provider, region, path_style, concurrency) in [
        ("https://acc.r2.cloudflarestorage.com", "Cloudflare R2", "auto", false, Some(2)),
        ("https://acc.eu.r2.cloudflarestorage.com", "Cloudflare R2", "auto", false, Some(2)),
        ("https://s3.us-west-002.backblazeb2.com", "Backblaze B2", "us-west-002", true, None),
        ("https://fly.storage.tigris.dev", "Tigris", "auto", false, None),
        ("https://t3.storage.dev", "Tigris", "auto", false, None),
        ("https://nyc3.digitaloceanspaces.com", "DigitalOcean Spaces", "nyc3", false, None),
        ("https://fsn1.your-objectstorage.com", "Hetzner Object Storage", "fsn1", false, None),
        ("https://s3.fr-par.scw.cloud", "Scaleway Object Storage", "fr-par", false, None),
        ("https://s3.filebase.com", "Filebase", "us-east-1", true, None),
        ("https://p.supabase.co/storage/v1/s3", "Supabase Storage", "us-east-1", true, None),
        ("https://s3.eu-central-1.wasabisys.com", "Wasabi", "eu-central-1", false, None),
        ("https://minio.example:9000", "MinIO or another S3 server", "us-east-1", true, None),
        ("https://s3.example", "another S3 server", "us-east-1", false, None),
        ("https://s3.eu-west-1.amazonaws.com", "Amazon S3", "eu-west-1", false, None),
        (
            "https://storage.googleapis.com",
            "Google Cloud Storage by its S3 interface",
            "us-east-1",
            false,
            None,
        ),
    ] {
        // An endpoint that is given is path-style unless told otherwise, so that is told.
        let env = [("AWS_ENDPOINT_URL_S3", endpoint), ("AWS_REGION", "unused")];
        let by_env = describe("s3://bkt/x", &env).unwrap();
        assert_eq!((by_env.about.provider, s3(&by_env).path_style), (provider, path_style), "{endpoint}");
        let by_url = describe(&format!("s3://bkt/x?endpoint={endpoint}"), &[]).unwrap();
        assert_eq!((by_url.about.provider, s3(&by_url).path_style), (provider, true), "{endpoint}");
        assert_eq!(s3(&by_url).region.as_deref(), Some(region), "{endpoint}");
        assert_eq!(s3(&by_url).concurrency, concurrency, "{endpoint}");
        let told = describe(&format!("s3://bkt/x?endpoint={endpoint}&region=r&concurrency=7"), &[]).unwrap();
        assert_eq!((s3(&told).region.as_deref(), s3(&told).concurrency), (Some("r"), Some(7)), "{endpoint}");
    }
}

#[test]
fn all_ways_lead_to_the_same_settings() {
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=";
    let expected = Settings {
        root: "a/b".to_owned(),
        service: Service::S3(S3 {
            bucket: "bkt".to_owned(),
            region: Some("r-1".to_owned()),
            endpoint: Some("https://h.example".to_owned()),
            path_style: false,
            keys: Some(AccessKeys {
                id: "id".to_owned(),
                secret: Secret::new("s/+="),
                session_token: Some(Secret::new("tok")),
            }),
            profile: None,
            storage_class: Some("STANDARD_IA".to_owned()),
            encryption: Some(ServerEncryption::Customer {
                key: Secret32(*b"01234567890123456789012345678901"),
            }),
            part_size: Some(8 << 20),
            concurrency: Some(3),
            checksum: true,
        }),
        transport: Transport { skip_verify: true },
    };
    let pairs = [
        ("region", "region", "r-1"),
        ("endpoint", "endpoint", "h.example"),
        ("force-path-style", "forcePathStyle", "false"),
        ("access-key-id", "accessKeyId", "id"),
        ("secret-access-key", "secretAccessKey", "s/+="),
        ("session-token", "sessionToken", "tok"),
        ("storage-class", "storageClass", "STANDARD_IA"),
        ("sse-customer-algorithm", "sseCustomerAlgorithm", "AES256"),
        ("sse-customer-key", "sseCustomerKey", key),
        ("sse-customer-key-md5", "sseCustomerKeyMD5", "computed"),
        ("part-size", "partSize", "8MiB"),
        ("concurrency", "concurrency", "3"),
        ("require-content-md5", "requireContentMD5", "true"),
        ("skip-verify", "skipVerify", "true"),
        ("sign-payload", "signPayload", "false"),
    ];
    let encode = |value: &str| value.replace('+', "%2B").replace('=', "%3D");
    for hyphens in [true, false] {
        let query = pairs
            .map(|(name, camel, value)| format!("{}={}", if hyphens { name } else { camel }, encode(value)));
        let described = describe(&format!("s3://bkt/a/b/?{}", query.join("&")), &[]).unwrap();
        assert_eq!(*settings(&described), expected);
    }
    let keys = pairs.map(|(name, _, value)| format!("{name}: {value:?}"));
    let inner = format!("{{type: s3, bucket: bkt, path: a/b, {}}}", keys.join(", "));
    for (replica, top) in [
        (inner.as_str(), String::new()),
        ("{type: s3, bucket: bkt, path: a/b}", keys.join("\n")),
        ("{type: s3, path: a/b}", format!("bucket: bkt\n{}", keys.join("\n"))),
        ("{url: 's3://bkt/a/b'}", keys.join("\n")),
        ("s3://bkt/a/b", keys.join("\n")),
    ] {
        let (database, _) = read(replica, &top).unwrap_or_else(|error| panic!("{replica} {top}: {error}"));
        assert_eq!(database.replica, Replica::Object(Box::new(expected.clone())), "{replica}");
        assert!(!format!("{database:?}").contains("s/+="), "a secret is shown");
    }
}

#[test]
fn keys_win_over_the_url_and_it_is_told() {
    let (database, warnings) =
        read("{url: 's3://bkt/x?region=u&storage-class=U', region: k}", "storage-class: T\nregion: t")
            .unwrap();
    let described = Described { replica: database.replica, about: database.about };
    assert_eq!(s3(&described).region.as_deref(), Some("k"));
    assert_eq!(s3(&described).storage_class.as_deref(), Some("T"));
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("region of the url is not used: the key on line 5 wins"), "{warnings:?}");
    assert!(read("{url: 's3://bkt/x?region=k', region: k}", "").unwrap().1.is_empty());
}

#[test]
fn keys_without_a_use_are_refused() {
    for (replica, top, error) in [
        (
            "{path: /r, region: eu}",
            "",
            "line 4: region has no effect on a replica of type file / leave it out: replicas of type s3",
        ),
        (
            "{url: 'webdavs://h/x', access-key-id: a}",
            "",
            "line 4: access-key-id has no effect on a replica of type webdav",
        ),
        (
            "{url: 's3://b/x', account-name: a}",
            "",
            "line 4: account-name has no effect on a replica of type s3",
        ),
        ("/r", "region: eu", "line 1: region has no effect: no replica of the file takes it"),
        ("s3://b/x", "webdav-url: http://h", "line 1: webdav-url has no effect"),
        ("{url: 's3://b/x', bucket: c}", "", "line 4: a replica has both url and bucket"),
        ("{url: 's3://b/x', path: c}", "", "line 4: a replica has both url and path"),
        ("{type: s3, path: x}", "", "line 4: an s3 replica has no bucket"),
        ("{type: s3, bucket: b}", "", "line 4: an s3 replica has no path below the bucket"),
        ("{type: s3, bucket: b, path: /x/}", "", "line 4: path is \"/x/\""),
        ("{type: abs, bucket: b, account-name: a, path: /x}", "", "line 4: path is \"/x\""),
        ("{type: s3, bucket: b, path: x, access-key-id: a}", "", "access-key-id is given without secret"),
        ("{type: s3, bucket: b, path: x, secret-access-key: a}", "", "without access-key-id"),
        (
            "{type: s3, bucket: b, path: x, host: a}",
            "",
            "line 4: host is not in this release / it belongs to sftp",
        ),
        ("{type: s3, bucket: b, path: x, regoin: a}", "", "has no key \"regoin\" / did you mean \"region\"?"),
        ("{type: s3, bucket: b, path: x, sse-kms-key-id: k, sse-customer-key: x}", "", "not 32 bytes"),
        ("{type: s3, bucket: b, path: x, sse-customer-algorithm: AES256}", "", "without a key"),
        (
            "{type: s3, bucket: b, path: x, sse-customer-key-path: /nowhere/k}",
            "",
            "cannot read sse-customer-key-path",
        ),
    ] {
        let found = read(replica, top).unwrap_err();
        assert!(found.contains(error), "{replica} {top}: {found}");
    }
    // One replica that takes it is enough.
    let text = "region: eu\ndbs:\n- {path: /a, replica: /r}\n- {path: /b, replica: 's3://b/x'}";
    Config::parse(text, false, &no_env).unwrap();
}

#[test]
fn one_place_is_one_replica_however_it_is_reached() {
    let text = "dbs:\n- {path: /a, replica: 's3://b/x?concurrency=3'}\n- {path: /b, replica: {type: s3, bucket: b, path: x}}";
    let error = Config::parse(text, false, &no_env).unwrap_err();
    assert!(error.error.contains("has the replica of /a"), "{error:?}");
}

#[test]
fn customers_keys_stay_off_open_networks() {
    let key = "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE%3D";
    let with =
        |endpoint: &str| describe(&format!("s3://bkt/x?endpoint={endpoint}&sseCustomerKey={key}"), &[]);
    for endpoint in ["https://h.example", "http://localhost:9000", "http://10.1.2.3", "http://[::1]:9000"] {
        with(endpoint).unwrap_or_else(|error| panic!("{endpoint}: {error:?}"));
    }
    assert!(with("http://h.example").unwrap_err().error.contains("in the clear"));
    let both = describe(&format!("s3://bkt/x?sseCustomerKey={key}&sseKmsKeyId=k"), &[]).unwrap_err();
    assert!(both.error.contains("exclude each other"), "{both:?}");
    let kms = describe("s3://bkt/x?sseKmsKeyId=arn:aws:kms:r:1:key/k", &[]).unwrap();
    let key_id = Some("arn:aws:kms:r:1:key/k".to_owned());
    assert_eq!(s3(&kms).encryption, Some(ServerEncryption::Kms { key_id }));
}

#[test]
fn the_environment_fills_what_is_left_open() {
    let amazon = [("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b"), ("AWS_SESSION_TOKEN", "c")];
    let ours = [("DRIFTLESS_ACCESS_KEY_ID", "d"), ("DRIFTLESS_SECRET_ACCESS_KEY", "e")];
    let theirs = [("LITESTREAM_ACCESS_KEY_ID", "f"), ("LITESTREAM_SECRET_ACCESS_KEY", "g")];
    let keys = |env: &[(&str, &str)]| s3(&describe("s3://bkt/x", env).unwrap()).keys.clone();
    let pair = |id: &str, secret: &str, token: Option<&str>| {
        let session_token = token.map(Secret::new);
        Some(AccessKeys { id: id.to_owned(), secret: Secret::new(secret), session_token })
    };
    assert_eq!(keys(&[]), None);
    assert_eq!(keys(&amazon), None);
    assert_eq!(keys(&[amazon.as_slice(), &theirs].concat()), None);
    assert_eq!(keys(&[amazon.as_slice(), &theirs, &ours].concat()), pair("d", "e", None));
    assert_eq!(keys(&theirs), pair("f", "g", None));
    assert_eq!(keys(&[theirs[0], amazon[1], amazon[2]]), pair("f", "b", Some("c")));
    let half = describe("s3://bkt/x", &theirs[..1]).unwrap_err();
    assert!(half.error.contains("LITESTREAM_ACCESS_KEY_ID is set"), "{half:?}");
    let given = describe("s3://bkt/x?accessKeyId=h&secretAccessKey=i", &ours).unwrap();
    assert_eq!(s3(&given).keys, pair("h", "i", None));
    assert_eq!(given.about.credentials, "access-key-id and secret-access-key, as given");

    let endpoint = |env: &[(&str, &str)]| {
        let described = describe("s3://bkt/x", env).unwrap();
        (s3(&described).endpoint.clone().unwrap_or_default(), s3(&described).path_style)
    };
    assert_eq!(endpoint(&[("LITESTREAM_S3_ENDPOINT", "h.example")]), ("https://h.example".to_owned(), true));
    assert_eq!(endpoint(&[("AWS_ENDPOINT_URL", "http://h.example")]), ("http://h.example".to_owned(), false));
    let both = [("AWS_ENDPOINT_URL_S3", "https://a"), ("DRIFTLESS_S3_ENDPOINT", "https://d")];
    assert_eq!(endpoint(&both), ("https://d".to_owned(), true));
    let off = [("AWS_ENDPOINT_URL", "http://h"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
    assert_eq!(endpoint(&off), (String::new(), false));
}

#[test]
fn other_services_are_read() {
    let azure = |url: &str, env: &[(&str, &str)]| settings(&describe(url, env).unwrap()).clone();
    let expected = Azure {
        container: "cont".to_owned(),
        account: "acc".to_owned(),
        account_key: Some(Secret::new("a2V5")),
        ..Azure::default()
    };
    for (url, env) in [
        ("abs://acc@cont/a/b", [("LITESTREAM_AZURE_ACCOUNT_KEY", "a2V5")].as_slice()),
        (
            "azblob://acc@cont/a/b/",
            &[("DRIFTLESS_AZURE_ACCOUNT_KEY", "a2V5"), ("LITESTREAM_AZURE_ACCOUNT_KEY", "eA==")],
        ),
        ("abs://cont/a/b?account-name=acc&accountKey=a2V5", &[]),
    ] {
        let found = azure(url, env);
        assert_eq!(
            (found.root.as_str(), &found.service),
            ("a/b", &Service::Azure(expected.clone())),
            "{url}"
        );
    }
    let sas =
        azure("abs://acc@cont?sas-token=%3Fsv%3D1%26sig%3Dx", &[("DRIFTLESS_AZURE_ACCOUNT_KEY", "a2V5")]);
    let Service::Azure(sas) = sas.service else { panic!("not azure") };
    assert_eq!((sas.account_key, sas.sas_token), (None, Some(Secret::new("sv=1&sig=x"))));

    let gcs = |url: &str, env: &[(&str, &str)]| settings(&describe(url, env).unwrap()).service.clone();
    let bucket = || Gcs { bucket: "b".to_owned(), ..Gcs::default() };
    assert_eq!(gcs("gs://b/x", &[]), Service::Gcs(bucket()));
    assert_eq!(
        gcs("gs://b/x", &[("STORAGE_EMULATOR_HOST", "localhost:4443")]),
        Service::Gcs(Gcs { endpoint: Some("http://localhost:4443".to_owned()), anonymous: true, ..bucket() })
    );
    assert_eq!(
        gcs("gs://b/x?credentialPath=/k.json", &[]),
        Service::Gcs(Gcs { credential_path: Some("/k.json".to_owned()), ..bucket() })
    );

    let dav = WebDav {
        url: "https://h:81".to_owned(),
        username: Some("u@x".to_owned()),
        password: Some(Secret::new("p")),
    };
    let described = describe("webdavs://u%40x:p@h:81/a/b/", &[]).unwrap();
    assert_eq!(settings(&described).service, Service::WebDav(dav.clone()));
    assert_eq!(described.replica.url(), "webdavs://h:81/a/b");
    let (database, warnings) = read(
        "{type: webdav, webdav-url: 'https://h:81/', webdav-username: u@x, webdav-password: p, path: /a/b}",
        "",
    )
    .unwrap();
    assert_eq!(database.replica, described.replica);
    assert!(warnings.is_empty(), "{warnings:?}");
    let clear = describe("webdav://u:p@h.example/x", &[]).unwrap();
    assert!(clear.about.warnings[0].contains("in the clear"), "{clear:?}");
}
