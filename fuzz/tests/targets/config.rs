//! What people write: a configuration, a duration, a replica's URL.

use std::time::Duration;

use driftless::config::replica::Replica;
use driftless::config::{Config, duration, yaml};
use driftless_fuzz::Feed;

/// Pieces of configurations, so that what comes out is often nearly one.
const PIECES: [&str; 40] = [
    "dbs:\n",
    "  - path: /tmp/a.db\n",
    "    replica:\n",
    "      url: s3://bucket/a\n",
    "      path: /tmp/r\n",
    "      type: file\n",
    "    replicas:\n",
    "      - url: file:///tmp/r\n",
    "addr: ':9090'\n",
    "exec: true\n",
    "      sync-interval: 1s\n",
    "      retention: 24h\n",
    "levels:\n",
    "  - interval: 30s\n",
    "socket:\n",
    "  enabled: true\n",
    "  permissions: 0600\n",
    "snapshot:\n",
    "  interval: 24h\n",
    "logging:\n",
    "  level: debug\n",
    "access-key-id: x\n",
    "\"",
    "'",
    "[",
    "]",
    "{",
    "}",
    ": ",
    "- ",
    "#",
    "&a ",
    "*a",
    "|\n",
    "\t",
    "\n",
    "    ",
    "  dir: /tmp\n",
    "  pattern: '*.db'\n",
    "${HOME}",
];

const URL_PIECES: [&str; 24] = [
    "s3://",
    "file://",
    "gs://",
    "abs://",
    "webdav://",
    "https://",
    "bucket",
    "/",
    "//",
    "?",
    "&",
    "=",
    "%2F",
    "%",
    "#",
    "@",
    ":",
    "endpoint",
    "region=us-east-1",
    "forcePathStyle=true",
    "..",
    "~",
    "user:pass@",
    "é",
];

fn assemble(feed: &mut Feed<'_>, pieces: &[&str], most: u32) -> String {
    let mut text = String::new();
    for _ in 0..feed.below(most) {
        if feed.below(12) == 0 {
            text.push(char::from(feed.u8()));
        } else {
            text.push_str(pieces[feed.below(pieces.len() as u32) as usize]);
        }
    }
    text
}

/// A line is named only if there is one.
fn check_config(text: &str, expand: bool) {
    // A carriage return ends a line, too.
    let lines = text.matches(['\n', '\r']).count() + 1;
    if let Err(error) = yaml::parse(text) {
        // The parser tells of the end as of a line behind the last.
        assert!(error.line <= lines + 1, "line {} of {lines}", error.line);
    }
    match Config::parse(text, expand, &|_| None) {
        Ok(config) => assert_eq!(Config::parse(text, expand, &|_| None).as_ref().ok(), Some(&config)),
        Err(error) => assert!(!error.error.is_empty(), "an error says what is wrong"),
    }
}

#[test]
fn configurations() {
    bolero::check!().with_iterations(15_000).with_max_len(256).for_each(|bytes: &[u8]| {
        check_config(&String::from_utf8_lossy(bytes), false);
        let mut feed = Feed::new(bytes);
        let expand = feed.bool();
        check_config(&assemble(&mut feed, &PIECES, 30), expand);
    });
}

/// What is shown is read again, to the millisecond.
fn check_duration(duration: Duration) {
    let shown = duration::show(duration);
    let read = duration::parse(&shown).unwrap_or_else(|error| panic!("{shown}: {error}"));
    let off = read.abs_diff(duration);
    assert!(off <= Duration::from_millis(1) + duration / 1_000_000_000, "{shown} is off by {off:?}");
}

#[test]
fn durations() {
    bolero::check!().with_iterations(40_000).with_max_len(24).for_each(|bytes: &[u8]| {
        if let Ok(duration) = duration::parse(&String::from_utf8_lossy(bytes)) {
            check_duration(duration);
        }
        let mut feed = Feed::new(bytes);
        check_duration(Duration::from_millis(feed.u64() >> (20 + feed.below(40))));
    });
}

/// A replica that was read is written as a URL that names the same place.
fn check_replica(text: &str) {
    match Replica::parse(text) {
        Ok(replica) => {
            assert!(!replica.place().is_empty());
            assert!(replica.same_place(&replica.clone()));
        }
        Err(error) => assert!(!error.error.is_empty()),
    }
}

#[test]
fn replica_urls() {
    bolero::check!().with_iterations(30_000).with_max_len(96).for_each(|bytes: &[u8]| {
        check_replica(&String::from_utf8_lossy(bytes));
        let mut feed = Feed::new(bytes);
        check_replica(&assemble(&mut feed, &URL_PIECES, 14));
    });
}
