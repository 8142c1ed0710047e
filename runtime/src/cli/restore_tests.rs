use std::ffi::OsString;
use std::fs;

use super::*;
use crate::cli::commands;

fn args(line: &str) -> Args {
    let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    Args::parse(commands::find("restore").unwrap(), &args, Args::default()).unwrap()
}

#[test]
fn transactions_are_one_to_sixteen_digits() {
    for (text, number) in [("1", 1), ("1f", 31), ("1F", 31), ("000000000000001f", 31), ("0x1f", 31)] {
        assert_eq!(parse_txid(text), Ok(Txid::new(number).unwrap()), "{text}");
    }
    for text in ["", "0", "0000000000000000", "g", "-1", "+1", "00000000000000001", "1 "] {
        assert_eq!(parse_txid(text).unwrap_err().code, 2, "{text}");
    }
}

#[test]
fn times_want_an_offset() {
    for (text, millis) in [
        ("1970-01-01T00:00:01Z", 1000),
        ("1970-01-01T02:00:01+02:00", 1000),
        ("1970-01-01T00:00:00.0019Z", 1),
        ("1969-12-31T23:59:59.9999Z", -1),
    ] {
        assert_eq!(parse_timestamp(text, now()), Ok(Wall(millis)), "{text}");
    }
    let hint = |text| parse_timestamp(text, now()).unwrap_err().hint.unwrap();
    assert_eq!(hint("2026-01-31T12:00:00"), "add the offset from utc: 2026-01-31T12:00:00Z");
    assert_eq!(hint("2026-01-31"), "add the offset from utc: 2026-01-31T00:00:00Z");
    assert!(hint("yesterday").contains("2026-01-31T12:00:00Z"));
}

#[test]
fn times_may_be_counted_back_from_now() {
    const SECOND: i64 = 1_000;
    const DAY: i64 = 24 * 60 * 60 * SECOND;
    let now_ms = now().as_millisecond();
    for (text, back) in [
        ("10 minutes ago", 600 * SECOND),
        ("1h30m ago", 5_400 * SECOND),
        ("0 seconds ago", 0),
        ("1 day ago", DAY),
        ("1 week 2 days ago", 9 * DAY),
        // The month before that now is in has 30 days.
        ("1 month ago", 30 * DAY),
        ("250ms ago", 250),
    ] {
        assert_eq!(parse_timestamp(text, now()), Ok(Wall(now_ms - back)), "{text}");
    }
    for text in ["10 minutes", "ago", "-10 minutes ago", "10 ago", "in 10 minutes", "99999 years ago"] {
        let error = parse_timestamp(text, now()).unwrap_err();
        assert!(error.code == 2 && error.hint.unwrap().contains("10 minutes ago"), "{text}");
    }
}

fn now() -> jiff::Timestamp {
    "2026-05-20T12:00:00Z".parse().unwrap()
}

#[test]
fn milliseconds_of_the_core_become_dates() {
    assert_eq!(
        with_dates("nothing at 1577836800000 ms since 1970; the first is 1577836800001 ms, after 5 ms"),
        "nothing at 2020-01-01T00:00:00Z; the first is 2020-01-01T00:00:00.001Z, after 5 ms"
    );
}

#[test]
fn flags_that_contradict_each_other_are_refused() {
    assert!(wanted_state(&args("-txid 1 -timestamp 1970-01-01T00:00:00Z x")).is_err());
    assert_eq!(wanted_state(&args("x")), Ok(RestoreTarget::Latest));
    assert_eq!(parallelism(Some("0")).unwrap_err().code, 2);
    assert_eq!(parallelism(Some("16")), Ok(16));
    let target = Target { replica: Replica::parse("/r").unwrap(), database: None, config: None };
    assert_eq!(output_path(&args("/r"), &target).unwrap_err().code, 2);
    assert_eq!(output_path(&args("/r -o /"), &target).unwrap_err().code, 2);
    assert_eq!(output_path(&args("/r -o /tmp/./x"), &target), Ok(PathBuf::from("/tmp/x")));
}

#[test]
fn an_existing_target_is_safe_unless_told_otherwise() {
    let directory = std::env::temp_dir().join(format!("driftless-may-write-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join("a.db");
    let check = |line: &str, expected: Option<Verdict>| {
        assert_eq!(may_write(&file, &args(line)).ok(), expected, "{line}");
    };
    check("x", Some(Verdict::Write { replace: false, vacant: true }));
    fs::write(&file, b"").unwrap();
    check("x", Some(Verdict::Write { replace: true, vacant: true }));
    fs::write(directory.join("a.db-wal"), b"w").unwrap();
    check("x", None);
    fs::write(&file, b"x").unwrap();
    check("x", None);
    check("x -force", Some(Verdict::Write { replace: true, vacant: false }));
    check("x -if-db-not-exists", Some(Verdict::Skip));
    check("x -if-db-not-exists -force", Some(Verdict::Skip));
    fs::remove_file(&file).unwrap();
    check("x", None);
    check("x -if-db-not-exists", None);
    check("x -force", Some(Verdict::Write { replace: true, vacant: false }));
    fs::remove_dir_all(directory).unwrap();
}
