use super::*;

fn entry(database: &str, lag: f64, segments: u64, trouble: Option<&str>) -> Value {
    json!({
        "database": database, "phase": "following", "replicated_txid": "00000000000000ab", "uploading": false,
        "lag_seconds": lag, "lag_frames": if lag > 0.0 { 7 } else { 0 }, "last_error": trouble,
        "segments": segments, "segment_bytes": segments * 1000,
    })
}

fn look(databases: Vec<Value>) -> Look {
    Look { processes: vec!["process 7".to_owned()], databases, error: None }
}

#[test]
fn the_worst_come_first() {
    let databases = [
        entry("/b", 0.0, 0, None),
        entry("/a", 0.0, 0, None),
        entry("/late", 3.0, 0, None),
        entry("/ill", 1.0, 0, Some("no")),
    ];
    let order: Vec<String> = lines(&databases, None).into_iter().map(|line| line.database).collect();
    assert_eq!(order, ["/ill", "/late", "/a", "/b"]);
}

#[test]
fn rates_are_of_the_time_between_two_looks() {
    let before = count(&[entry("/a", 0.0, 10, None)]);
    let rate = |segments, over| {
        let line = line(&entry("/a", 0.0, segments, None), Some((Duration::from_secs(over), &before)));
        (line.segments_rate, line.bytes_rate)
    };
    assert_eq!(rate(16, 2), (Some(3.0), Some(3000.0)));
    // The process was started anew.
    assert_eq!(rate(1, 2), (Some(0.0), Some(0.0)));
    assert_eq!(
        line(&entry("/new", 0.0, 1, None), Some((Duration::from_secs(1), &before))).segments_rate,
        None
    );
}

#[test]
fn a_page_fits_its_screen() {
    let databases: Vec<Value> =
        (0..100).map(|n| entry(&format!("/srv/databases/number-{n:03}.db"), 0.0, 1, None)).collect();
    let seen = look(databases);
    let lines = lines(&seen.databases, None);
    let page = page(&seen, &lines, 24, 40, false);
    let shown: Vec<&str> = page.split("\r\n").collect();
    assert_eq!(shown.len(), 24);
    assert!(shown.iter().all(|line| console::measure_text_width(line) <= 40), "{page}");
    assert!(shown[23].starts_with("and 80 more"), "{page}");
    assert!(page.starts_with("\x1b[H100 databases, 0 in trouble"), "{page}");
    let small = super::page(&seen, &lines, 2, 10, false);
    assert_eq!(small.split("\r\n").count(), 2);
}

#[test]
fn nothing_of_a_name_reaches_the_terminal_as_a_command() {
    let seen = look(vec![entry("/a\x1b]0;x\x07.db", 1.0, 1, Some("bad\r\n\x1b[2J"))]);
    let lines = lines(&seen.databases, None);
    let page = page(&seen, &lines, 24, 200, true);
    assert!(page.contains("/a?]0;x?.db") && page.contains("bad???[2J"), "{page:?}");
    // What is in trouble is red.
    assert!(page.contains("\x1b[31m/a"), "{page:?}");
}

#[test]
fn an_interval_has_a_least_value() {
    let parse = |line: &str| {
        let args: Vec<std::ffi::OsString> = line.split_whitespace().map(Into::into).collect();
        interval(
            &Args::parse(super::super::commands::find("status").unwrap(), &args, Args::default()).unwrap(),
        )
    };
    assert_eq!(parse("-watch"), Ok(INTERVAL));
    assert_eq!(parse("-watch -interval 250ms"), Ok(Duration::from_millis(250)));
    assert_eq!(parse("-interval 10ms").unwrap_err().code, 2);
    assert_eq!(parse("-interval soon").unwrap_err().code, 2);
}
