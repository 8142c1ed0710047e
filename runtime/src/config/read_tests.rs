use std::path::Path;
use std::time::Duration;

use driftless_core::compact::CompactConfig;
use driftless_core::engine::Compression;

use crate::config::{Config, Socket};

fn parse(text: &str) -> Config {
    Config::parse(text, false, &|_| None).unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn check_error(text: &str, line: usize, error: &str, hint: &str) {
    let found = Config::parse(text, false, &|_| None).unwrap_err();
    let found_hint = found.hint.clone().unwrap_or_default();
    assert!(
        found.line == line && found.error.contains(error) && found_hint.contains(hint),
        "{text}: {found:?}"
    );
}

#[test]
fn the_forms_of_a_replica_mean_the_same() {
    for replica in [
        "replica: {type: file, path: /backup/a}",
        "replica: {path: /backup/a}",
        "replica: {url: 'file:///backup/a'}",
        "replica: file:///backup/a",
        "replicas: [{url: 'file:///backup/a'}]",
        "replicas: [{type: file, path: /backup/a/, name: old}]",
        "url: file:///backup/a",
        "replica:\n      path: /backup/a",
    ] {
        let config = parse(&format!("dbs:\n  - path: /srv/a.db\n    {replica}\n"));
        assert_eq!(config.databases[0].path, Path::new("/srv/a.db"), "{replica}");
        assert_eq!(config.databases[0].replica.directory(), Some(Path::new("/backup/a")), "{replica}");
    }
}

#[test]
fn settings_are_inherited_and_overridden() {
    let config = parse(
        "sync-interval: 5s\nmin-checkpoint-page-count: 50\nshutdown-sync-timeout: 1m\n\
         logging: {level: debug, type: json, stderr: false}\n\
         dbs:\n\
         - {path: /a, replica: /ra}\n\
         - {path: /b, replica: {path: /rb, sync-interval: 250ms}, min-checkpoint-page-count: 7}\n",
    );
    let engines: Vec<_> = config.databases.iter().map(|database| &database.settings.engine).collect();
    assert_eq!((engines[0].sync_interval, engines[0].min_checkpoint_pages), (Duration::from_secs(5), 50));
    assert_eq!((engines[1].sync_interval, engines[1].min_checkpoint_pages), (Duration::from_millis(250), 7));
    assert_eq!(config.shutdown_sync_timeout, Some(Duration::from_secs(60)));
    assert_eq!(config.logging.level.as_deref(), Some("debug"));
    assert_eq!(config.logging.format.as_deref(), Some("json"));
    assert_eq!(config.logging.stderr, Some(false));
}

#[test]
fn compression_is_set_for_all_and_for_one() {
    let config = parse(
        "compression: zstd\ncompression-level: 9\n\
         dbs:\n\
         - {path: /a, replica: /ra}\n\
         - {path: /b, replica: /rb, compression: lz4}\n\
         - {path: /c, replica: /rc, compression-level: 1}\n",
    );
    let found: Vec<_> = config.databases.iter().map(|it| it.settings.engine.compression).collect();
    assert_eq!(found, [Compression::Zstd { level: 9 }, Compression::Lz4, Compression::Zstd { level: 1 }]);
    assert_eq!(parse("dbs: []").settings.engine.compression, Compression::Lz4);
    for (text, says) in [
        ("compression: gzip", "there is no compression \"gzip\""),
        ("compression: zstd\ncompression-level: 20", "compression-level is a number from 1 to 19"),
        ("compression-level: 3", "compression-level is for zstd, and this is lz4"),
    ] {
        let error = Config::parse(text, false, &|_| None).expect_err(text);
        assert!(error.error.contains(says), "{error:?}");
    }
}

#[test]
fn idle_keys_are_told_and_the_rest_works() {
    let config = parse(
        "mcp-addr: ':3001'\nl0-retention-check-interval: 15s\nverify-compaction: true\n\
         dbs: [{path: /a, replica: /ra, monitor-interval: 1s, busy-timeout: 1s}]",
    );
    assert_eq!(config.databases.len(), 1);
    assert_eq!(config.warnings.len(), 5, "{:?}", config.warnings);
    assert_eq!(
        config.warnings[0],
        "line 1: mcp-addr has no effect: there is no mcp server; commands with -json answer the same questions"
    );
    assert_eq!(parse("dbs: []"), Config::default());
    assert_eq!(parse(""), Config::default());
}

#[test]
fn levels_are_made_where_they_are_asked_for() {
    let levels = |text: &str| {
        let config = parse(text);
        assert_eq!(config.warnings, [""; 0], "{text}");
        config.databases[0].settings.levels.clone()
    };
    let default = CompactConfig::default();
    let seconds = |of: &[u64]| of.iter().map(|n| Duration::from_secs(*n)).collect::<Vec<_>>();
    assert_eq!(levels("dbs: [{path: /a, replica: /ra}]"), None);
    assert_eq!(levels("levels: []\nverify-compaction: false\ndbs: [{path: /a, replica: /ra}]"), None);
    let made = levels(
        "levels: [{interval: 1m}, {interval: 2h}]\nverify-compaction: true\ndbs: [{path: /a, replica: /ra}]",
    );
    assert_eq!(made, Some(CompactConfig { levels: seconds(&[60, 7_200]), verify: true, ..default.clone() }));
    let made = levels("dbs: [{path: /a, replica: /ra, snapshot: {interval: 1h}}]");
    let hourly = CompactConfig { snapshot_interval: Duration::from_secs(3_600), ..default };
    assert_eq!(made, Some(hourly.clone()));
    let both = "snapshot: {interval: 12h}\nlevels: [{interval: 10s}]\n\
                dbs: [{path: /a, replica: /ra, snapshot: {interval: 1h}}]";
    assert_eq!(levels(both), Some(CompactConfig { levels: seconds(&[10]), ..hourly }));
    let times = |text: &str| {
        let retention = levels(text).expect("levels are made").retention;
        retention.map(|it| (it.snapshot_retention.as_secs(), it.l0_retention.as_secs()))
    };
    let db = "dbs: [{path: /a, replica: /ra}]";
    assert_eq!(times(&format!("levels: [{{interval: 1m}}]\n{db}")), Some((86_400, 300)));
    assert_eq!(times(&format!("l0-retention: 10m\n{db}")), Some((86_400, 600)));
    assert_eq!(
        times(&format!("retention: {{enabled: true}}\nsnapshot: {{retention: 1h}}\n{db}")),
        Some((3_600, 300))
    );
    assert_eq!(
        times("l0-retention: 1m\ndbs: [{path: /a, replica: /ra, snapshot: {retention: 2h}}]"),
        Some((7_200, 60))
    );
    assert_eq!(times(&format!("retention: {{enabled: false}}\nsnapshot: {{retention: 1h}}\n{db}")), None);
    let none = "retention: {enabled: false}\ndbs: [{path: /a, replica: /ra, snapshot: {interval: 2h, retention: 2h}}]";
    assert_eq!(times(none), None);
    assert_eq!(levels(&format!("retention: {{enabled: false}}\n{db}")), None);
    check_error("l0-retention: 0s", 1, "l0-retention is at least 1s", "");
    check_error("levels: [{}]", 1, "a level has no interval", "interval: 5m");
    check_error("levels: [{interval: 0s}]", 1, "interval is at least 1s", "");
    check_error("levels: [{every: 1m}]", 1, "a level has no key \"every\"", "");
    let nine = "levels: [".to_owned() + &"{interval: 1m}, ".repeat(9) + "]";
    check_error(&nine, 1, "there are 9 levels", "level 9 holds snapshots");
    check_error("snapshot: {interval: soon}", 1, "soon", "");
}

#[test]
fn the_service_is_described() {
    let config = parse(
        "exec: app -x\naddr: ':9090'\nheartbeat-url: https://beat/1\nheartbeat-interval: 5m\n\
         socket: {enabled: true, path: /run/d.sock, permissions: 0660}\nshutdown-sync-interval: 250ms\n\
         dbs: [{path: /a, replica: /ra, restore-if-db-not-exists: true}, {path: /b, replica: /rb}]",
    );
    assert_eq!(config.warnings, [""; 0]);
    assert_eq!(config.exec.as_deref(), Some("app -x"));
    assert_eq!(config.addr.as_deref(), Some(":9090"));
    assert_eq!(config.heartbeat_url.as_deref(), Some("https://beat/1"));
    assert_eq!(config.heartbeat_interval, Some(Duration::from_secs(300)));
    assert_eq!(config.databases[1].settings.engine.shutdown_sync_interval, Duration::from_millis(250));
    let socket = Socket { enabled: Some(true), path: Some("/run/d.sock".into()), permissions: Some(0o660) };
    assert_eq!(config.socket, socket);
    let restored: Vec<bool> =
        config.databases.iter().map(|database| database.restore_if_db_not_exists).collect();
    assert_eq!(restored, [true, false]);
    assert_eq!(parse("exec: ''\naddr: ''\nheartbeat-url: ''\nsocket:"), Config::default());
    check_error("addr: 9090", 1, "without a port", "127.0.0.1:9090");
    check_error("heartbeat-url: ftp://x", 1, "http or https", "https://host/path");
    check_error("heartbeat-interval: 59s", 1, "heartbeat-interval is at least 1m", "");
    check_error("shutdown-sync-interval: 0", 1, "at least 1ms", "");
    check_error("socket:\n  permissions: rw", 2, "octal", "0600");
    check_error("socket:\n  pth: /x", 2, "socket has no key \"pth\"", "path");
}

#[test]
fn state_directories_go_by_both_names() {
    let of = |text: &str| parse(text).state_dir;
    assert_eq!(of("dbs: [{path: /a, replica: /ra, meta-path: /m}]"), Some("/m".into()));
    assert_eq!(of("dbs: [{path: /a, replica: /ra, state-dir: /m}]"), Some("/m".into()));
    let two = parse("state-dir: /s\ndbs: [{path: /a, replica: /ra, meta-path: /m}]");
    assert_eq!((two.state_dir, two.warnings.len()), (Some("/s".into()), 1));
}

#[test]
fn mistakes_are_named_with_their_line() {
    check_error("dbs:\n- pth: /a\n", 2, "a database has no key \"pth\"", "did you mean \"path\"?");
    check_error("dsb: []", 1, "the configuration has no key \"dsb\"", "did you mean \"dbs\"?");
    check_error("dbs:\n- path: /a\n  replica:\n    typ: file\n", 4, "a replica has no key", "type");
    check_error("logging:\n  levle: x", 2, "logging has no key \"levle\"", "level");
    check_error("dbs:\n- path: /a\n", 2, "no replica", "s3://bucket/app or file:///");
    check_error("dbs:\n- replica: /a\n", 2, "no path", "path:");
    check_error("dbs:\n- path: /a\n  replica: {}\n", 3, "neither url nor path", "s3://");
    check_error("dbs:\n- path: /a\n  replica: {path: /r, url: '/r'}", 3, "both url and path", "");
    check_error("dbs:\n- path: /a\n  replica: {path: 'file:///r'}", 3, "path is a url", "url: file:///r");
    check_error("dbs:\n- path: /a\n  replicas: [/r, /s]", 3, "second replica", "one replica");
    check_error("dbs:\n- {path: /a, replica: /r, url: /r}", 2, "several of", "");
    check_error("dbs:\n- {path: /a, replica: {type: sftp, path: p}}", 2, "not in this release", "webdavs://");
    check_error("dbs:\n- {path: /a, replica: 'flie:///r'}", 2, "unknown kind", "file:///r");
    check_error("dbs:\n- {path: /a, replica: {type: fiel, path: /r}}", 2, "unknown kind", "file://");
    check_error("dbs: {path: /a}", 1, "dbs takes a list", "dash");
    check_error("dbs: [{path: [a]}]", 1, "path takes text", "");
    check_error("sync-interval: 5", 1, "no unit", "");
    check_error("sync-interval: 1ms", 1, "at least 10ms", "");
    check_error("min-checkpoint-page-count: 0", 1, "from 1", "");
    check_error("logging: {stderr: maybe}", 1, "true or false", "");
    check_error("just text", 1, "takes keys with values", "");
}

#[test]
fn a_variable_that_is_not_set_is_told_with_the_error() {
    let text = "access-key-id: $GONE\nsecret-access-key: s\ndbs: [{path: /a, replica: 's3://b/x'}]";
    let error = Config::parse(text, true, &|_| None).unwrap_err();
    assert_eq!((error.line, error.error.as_str()), (2, "secret-access-key is given without access-key-id"));
    assert_eq!(error.hint.as_deref(), Some("give both; line 1: $GONE is not set and stands for nothing"));
}

#[test]
fn two_engines_never_share_a_file() {
    check_error(
        "dbs:\n- {path: /a, replica: /r}\n- {path: /b, replica: 'file:///r/'}",
        3,
        "has the replica of /a",
        "its own",
    );
    check_error("dbs:\n- {path: /a, replica: /r}\n- {path: /a, replica: /s}", 3, "stands twice", "");
}

#[test]
fn promises_that_cannot_be_kept_are_refused() {
    check_error(
        "dbs:\n- path: /a\n  replica:\n    path: /r\n    age: {recipients: [x]}",
        5,
        "age is not",
        "sse-kms-key-id",
    );
    parse("dbs:\n- path: /a\n  replica: {path: /r, age: {recipients: []}}\n  watch: false");
}

#[test]
fn databases_are_found_however_they_are_written() {
    let config = parse("dbs: [{path: /srv/./a.db, replica: /r}]");
    for path in ["/srv/a.db", "/srv/./a.db", "/srv//a.db"] {
        assert!(config.database(Path::new(path)).is_some(), "{path}");
    }
    assert!(config.database(Path::new("/srv/b.db")).is_none());
}

#[test]
fn replicas_are_validated_as_often_as_the_nearest_key_says() {
    let of = |text: &str| {
        let config = parse(text);
        let first = config.databases.first().map(|database| database.settings.validation);
        (config.settings.validation, first.unwrap_or_default())
    };
    let (minute, hour) = (Some(Duration::from_secs(60)), Some(Duration::from_secs(3_600)));
    assert_eq!(of("dbs: [{path: /a, replica: /r}]"), (None, None), "nobody asked for it");
    assert_eq!(of("validation: {interval: 1h}\ndbs: [{path: /a, replica: /r}]"), (hour, hour));
    assert_eq!(of("validation-interval: 1h\ndbs: [{path: /a, replica: /r}]"), (hour, hour));
    assert_eq!(of("validation-interval: 1h\nvalidation: {interval: 1m}").0, minute, "the newer spelling");
    let own = |interval: &str| {
        of(&format!(
            "validation: {{interval: 1h}}\ndbs: [{{path: /a, replica: {{path: /r, validation-interval: {interval}}}}}]"
        ))
    };
    assert_eq!(own("1m"), (hour, minute));
    assert_eq!(own("0"), (hour, None));
    assert_eq!(of("dbs: [{path: /a, replicas: [{path: /r, validation-interval: 1m}]}]"), (None, minute));
    assert_eq!(parse("validation: {interval: 0s}\nvalidation-interval: 0"), Config::default());
    assert_eq!(parse("validation:\n"), Config::default());
    check_error("validation: {interval: 1ms}", 1, "interval is at least 1s", "");
    check_error("validation-interval: often", 1, "validation-interval: ", "");
    check_error("validation: {intervall: 1h}", 1, "has no key", "interval");
}

#[test]
fn directories_are_described() {
    let config = parse(
        "sync-interval: 5s\ndbs:\n- {dir: /d/, pattern: '*.db', replica: /r}\n\
         - {dir: /d, pattern: '*.sqlite', recursive: true, watch: true, meta-dir: /m, replica: {path: /r, sync-interval: 1s}}\n\
         - {dir: /e, pattern: '*.db', replica: 's3://bucket'}\n\
         - {dir: /f, pattern: '*.db', replica: {type: s3, bucket: b}}\n",
    );
    assert_eq!((config.databases.len(), config.directories.len()), (0, 4));
    assert_eq!((config.state_dir.as_deref(), config.warnings.len()), (Some(Path::new("/m")), 0));
    let all: Vec<_> =
        config.directories.iter().map(|it| (it.root.as_path(), it.recursive, it.watch)).collect();
    let (d, e, f) = (Path::new("/d"), Path::new("/e"), Path::new("/f"));
    assert_eq!(all, [(d, false, false), (d, true, true), (e, false, false), (f, false, false)]);
    let intervals: Vec<u64> =
        config.directories.iter().map(|it| it.settings.engine.sync_interval.as_secs()).collect();
    assert_eq!(intervals, [5, 1, 5, 5]);
    let url = |path: &str| config.database(Path::new(path)).map(|database| database.replica.url());
    assert_eq!(url("/d/a.db").as_deref(), Some("file:///r/a.db"));
    assert_eq!(url("/d/x/y/a.sqlite").as_deref(), Some("file:///r/x/y/a.sqlite"));
    assert_eq!(url("/d/x/a.db"), None);
    assert_eq!(url("/e/a.db").as_deref(), Some("s3://bucket/a.db"));
    assert_eq!(url("/f/./a.db").as_deref(), Some("s3://b/a.db"));
    let inside = parse("dbs: [{dir: /d, pattern: '*', replica: /r}]");
    assert_eq!(inside.state_home().as_deref(), Some(Path::new("/d/.driftless")));
}

#[test]
fn mistakes_about_directories_are_named() {
    let one = |keys: &str| format!("dbs:\n- {{{keys}, replica: /r}}");
    check_error(&one("path: /a.db, dir: /d, pattern: '*'"), 2, "both path and dir", "keep path for one");
    check_error(&one("dir: /d"), 2, "the directory /d has no pattern", "pattern: \"*.db\"");
    check_error(&one("dir: /d, pattern: ''"), 2, "has no pattern", "for every database");
    check_error(&one("dir: /d, pattern: 'a['"), 2, "a bracket is not closed", "as for a shell");
    check_error(&one("dir: /d, pattern: '*/*.db'"), 2, "has a slash", "recursive: true");
    check_error(&one("path: /a.db, pattern: '*'"), 2, "pattern goes with dir", "leave it out");
    check_error(&one("path: /a.db, watch: true"), 2, "watch goes with dir", "");
    check_error(&one("path: /a.db, meta-dir: /m"), 2, "meta-dir goes with dir", "");
    check_error(&one("dir: /d, pattern: '*', meta-dir: /m, meta-path: /n"), 2, "both meta-path and", "");
    check_error("dbs:\n- {dir: /d, pattern: '*'}", 2, "the directory /d has no replica", "");
    let two = |first: &str, second: &str| format!("dbs:\n- {{{first}}}\n- {{{second}}}");
    check_error(
        &two("dir: /d, pattern: '*.db', replica: /r", "dir: /d, pattern: '*.db', replica: /s"),
        3,
        "stands twice",
        "one entry",
    );
    check_error(
        &two(
            "dir: /d, pattern: '*.db', recursive: true, replica: /r",
            "dir: /d/e, pattern: '*.db', replica: /s",
        ),
        3,
        "/d/e and /d would both find",
        "one entry",
    );
    check_error(
        &two("dir: /d, pattern: '*.db', replica: /r", "dir: /e, pattern: '*.x', replica: /r"),
        3,
        "/e has the replica of /d",
        "a place of its own",
    );
}

#[test]
fn a_lease_is_read_and_what_is_unsafe_beside_it_is_refused() {
    let db = |replica: &str| format!("dbs:\n  - path: /srv/a.db\n    replica: {replica}\n");
    let s3 = db("s3://bucket/a");
    let lease = parse(&format!("lease: {{}}\n{s3}")).lease.unwrap();
    assert_eq!(
        (lease.ttl, lease.replica.place().to_string()),
        (Duration::from_secs(10), "s3://bucket/a".into())
    );
    let full = "lease: {ttl: 4s, url: 's3://other/b', address: 'one:80', promote: up -x, demote: down}\n";
    let lease = parse(&format!("{full}{s3}  - path: /srv/b.db\n    replica: s3://bucket/b\n")).lease.unwrap();
    assert_eq!(
        (lease.ttl, lease.replica.place().to_string()),
        (Duration::from_secs(4), "s3://other/b".into())
    );
    assert_eq!((lease.address.as_deref(), lease.promote.as_deref()), (Some("one:80"), Some("up -x")));
    assert_eq!(lease.demote.as_deref(), Some("down"));
    assert_eq!(parse(&s3).lease, None);

    check_error(&format!("lease: {{}}\n{}", db("file:///backup/a")), 1, "cannot hold a lease", "lease.url");
    check_error(&format!("lease: {{ttl: 1s}}\n{s3}"), 1, "ttl", "");
    check_error(&format!("lease: {{ttl: 1h}}\n{s3}"), 1, "longer than ten minutes", "10s");
    check_error(&format!("lease: {{tll: 4s}}\n{s3}"), 1, "tll", "ttl");
    check_error("lease: {}\n", 1, "no database", "dbs");
    let two = format!("lease: {{}}\n{s3}  - path: /srv/b.db\n    replica: s3://bucket/b\n");
    check_error(&two, 1, "a replica of its own", "url");
    let many = "dbs:\n  - dir: /srv\n    pattern: '*'\n    replica: s3://bucket/d\n";
    check_error(&format!("lease: {{}}\n{many}"), 1, "a replica of its own", "url");
    assert!(parse(&format!("lease: {{url: 's3://bucket/l'}}\n{many}")).lease.is_some());
    for (text, days) in [("", 30), ("fence-retention: 168h", 7)] {
        let levels = parse(&format!("lease: {{{text}}}\nlevels: [{{interval: 30s}}]\n{s3}"));
        let retention = levels.databases[0].settings.levels.as_ref().unwrap().retention.as_ref().unwrap();
        assert_eq!(retention.fence_retention, Duration::from_secs(days * 86_400));
        let text = format!(
            "{}url: 's3://bucket/l'",
            if text.is_empty() { String::new() } else { format!("{text}, ") }
        );
        let levels = parse(&format!("lease: {{{text}}}\nlevels: [{{interval: 30s}}]\n{many}"));
        let retention = levels.directories[0].settings.levels.as_ref().unwrap().retention.as_ref().unwrap();
        assert_eq!(retention.fence_retention, Duration::from_secs(days * 86_400));
    }
    check_error(&format!("lease: {{fence-retention: 1h}}\n{s3}"), 1, "fence-retention is at least", "");
}
