//! `docs/PARITY.md` against both programs: each row is run here, and nothing that Litestream has
//! lacks one.
//!
//! A table says of a flag, key, parameter or variable whether it is the same, better, warned or
//! refused. What is accepted must not be an error of usage, and must show in the report of
//! `driftless check` where that has a word for it; what is warned must be accepted and named in a
//! warning; what is refused must end with exit code 2, a reason and a hint.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use driftless_tests::command::{finish, run_litestream};
use driftless_tests::programs::workspace;
use driftless_tests::scene::Scene;
use driftless_tests::{Ran, driftless, litestream};

/// Commands that stand in the table and are not there yet. Each must still be refused: a command
/// that arrives has to be taken off this list.
const COMMANDS_AWAITED: &[&str] = &[];

/// Flags of which the same holds.
const FLAGS_AWAITED: &[(&str, &str)] = &[];

/// A row of a table, with the headings that it stands under.
#[derive(Clone, Debug)]
struct Row {
    section: String,
    cells: Vec<String>,
}

impl Row {
    /// The first cell without backticks, and without the dash of a flag.
    fn name(&self) -> &str {
        self.cells[0].trim_matches('`').trim_start_matches('-')
    }

    fn example(&self) -> &str {
        self.cells[1].trim_matches('`')
    }

    /// The status of a row that has an example, or of one that has none.
    fn status(&self) -> &str {
        &self.cells[self.cells.len() - 2]
    }
}

/// The rows of a chapter.
fn rows(chapter: &str) -> Vec<Row> {
    let text = fs::read_to_string(workspace().join("docs/PARITY.md")).expect("the document is there");
    let (mut current, mut section, mut in_table) = (String::new(), String::new(), false);
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix("## ") {
            (current, section) = (heading.to_owned(), String::new());
        } else if let Some(heading) = line.strip_prefix("### ") {
            section = heading.trim_matches('`').to_owned();
        }
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        if inner.starts_with("---") {
            in_table = true;
        } else if in_table && current == chapter {
            let cells = inner.split('|').map(|cell| cell.trim().to_owned()).collect();
            found.push(Row { section: section.clone(), cells });
        }
    }
    assert!(!found.is_empty(), "docs/PARITY.md has no table under {chapter}");
    found
}

/// A replicated database, with what else rows speak of.
struct Place {
    scene: Scene,
}

impl Place {
    fn new(name: &str) -> Place {
        let scene = Scene::replicated(name, 2);
        fs::write(scene.dir.join("key"), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n").expect("our own");
        fs::create_dir(scene.dir.join("empty")).expect("our own");
        Place { scene }
    }

    fn path(&self, name: &str) -> String {
        self.scene.dir.join(name).display().to_string()
    }

    /// Replaces words in capitals by paths.
    fn fill(&self, text: &str) -> String {
        let scene = &self.scene;
        let mut text = text.to_owned();
        for (word, path) in [
            ("KEYFILE", scene.dir.join("key")),
            ("CONFIG", scene.config.clone()),
            ("REPLICA", scene.replica.clone()),
            ("STATE", scene.dir.join("state")),
            ("EMPTY", scene.dir.join("empty")),
            ("SOCKET", scene.dir.join("none.sock")),
            ("OUT", scene.dir.join("out.db")),
            ("DB", scene.db.clone()),
        ] {
            text = text
                .split(' ')
                .map(|part| if part == word { path.display().to_string() } else { part.to_owned() })
                .collect::<Vec<_>>()
                .join(" ");
        }
        text
    }

    /// Runs a line with words in capitals replaced, in a clean environment with `env` in it.
    #[track_caller]
    fn run(&self, line: &str, env: &[(String, String)]) -> Ran {
        let _ = fs::remove_file(self.scene.dir.join("out.db"));
        let mut command = Command::new(driftless());
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", self.scene.dir.path());
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.args(self.fill(line).split(' ').filter(|part| !part.is_empty()));
        finish(command.current_dir(self.scene.dir.path()))
    }

    /// Runs `check` on a configuration.
    #[track_caller]
    fn check_file(&self, text: &str) -> Ran {
        let file = self.path("row.yml");
        fs::write(&file, text).expect("our own directory");
        self.run(&format!("check -json -config {file}"), &[])
    }
}

/// Whether a run ended because it did not understand its line or its configuration.
fn is_not_understood(ran: &Ran) -> bool {
    let words = ["unknown flag", "unknown command", "not in this release", "wants a value", "is a switch"];
    ran.code == 2 && words.iter().any(|word| ran.err.contains(word))
}

/// What a report says, without the paths of the row's own file.
fn report(ran: &Ran) -> String {
    ran.out.lines().filter(|line| !line.contains("\"config\"")).collect::<Vec<_>>().join("\n")
}

/// The line that a flag is tried with: its command, in a use where it makes sense.
fn line_of(command: &str, flag: &str) -> String {
    let base = match (command, flag) {
        ("databases", "config") => "databases",
        ("databases", _) => "databases -config CONFIG",
        ("ltx" | "status" | "restore", "config" | "no-expand-env") => {
            let more = if command == "restore" { "-o OUT" } else { "" };
            return format!(
                "{command} {more} -config CONFIG {} DB",
                if flag == "config" { "" } else { "-no-expand-env" }
            );
        }
        ("ltx", _) => "ltx REPLICA",
        ("status", _) => "status DB REPLICA",
        ("restore", "if-db-not-exists") => return "restore -o DB -if-db-not-exists REPLICA".to_owned(),
        ("restore", "if-replica-exists") => return "restore -o OUT -if-replica-exists EMPTY".to_owned(),
        // Of a replica that holds something it would go on for ever.
        ("restore", "f" | "follow-interval") => {
            return "restore -f -follow-interval 1s -o OUT -if-replica-exists EMPTY".to_owned();
        }
        ("restore", "o") => "restore REPLICA",
        ("restore", _) => "restore -o OUT REPLICA",
        ("replicate", "config" | "no-expand-env") => {
            return format!(
                "replicate -once -config CONFIG {}",
                if flag == "config" { "" } else { "-no-expand-env" }
            );
        }
        ("replicate", "exec") => "replicate DB REPLICA",
        ("replicate", "once") => "replicate DB REPLICA",
        ("replicate", _) => "replicate -once DB REPLICA",
        ("register", "replica") => "register -socket SOCKET DB",
        ("register", _) => "register -socket SOCKET -replica file:///tmp/parity-replica DB",
        ("info" | "list", "socket") => command,
        ("info" | "list", _) => return format!("{command} -socket SOCKET {}", flag_with_value(flag)),
        ("version", _) => "version",
        ("reset", "config") => "reset DB",
        ("reset", _) => "reset -config CONFIG DB",
        (_, "socket") => return format!("{command} -socket SOCKET DB"),
        _ => return format!("{command} -socket SOCKET {} DB", flag_with_value(flag)),
    };
    format!("{base} {}", flag_with_value(flag))
}

fn flag_with_value(flag: &str) -> String {
    let value = match flag {
        "config" => "CONFIG",
        "level" => "all",
        "log-level" => "debug",
        "txid" => "1",
        "timestamp" => "2099-01-01T00:00:00Z",
        "o" => "OUT",
        "follow-interval" => "1s",
        "parallelism" => "4",
        "integrity-check" => "quick",
        "exec" => "true",
        "socket" => "SOCKET",
        "timeout" => "1",
        "replica" => "file:///tmp/parity-replica",
        _ => "",
    };
    format!("-{flag} {value}").trim_end().to_owned()
}

#[test]
fn each_command_is_what_its_row_says() {
    let place = Place::new("parity-commands");
    for row in rows("Commands") {
        let command = row.name();
        let ran = place.run(&format!("{command} -h"), &[]);
        let awaited = COMMANDS_AWAITED.contains(&command);
        match (row.status(), awaited) {
            ("refused", _) | (_, true) => {
                drop(ran.expect_error(2, &[command, "not in this release"]).expect_hint())
            }
            (status, false) => {
                assert!(matches!(status, "same" | "better"), "{row:?}");
                assert!(ran.expect_ok().out.contains(&format!("driftless {command}:")), "{row:?}");
            }
        }
    }
}

#[test]
fn each_flag_is_what_its_row_says() {
    let place = Place::new("parity-flags");
    for row in rows("Flags") {
        let (command, flag) = (row.section.as_str(), row.name());
        if COMMANDS_AWAITED.contains(&command) {
            // The command itself is tried above.
            continue;
        }
        let ran = place.run(&line_of(command, flag), &[]);
        let awaited = FLAGS_AWAITED.contains(&(command, flag));
        match (row.status(), awaited) {
            ("refused", _) | (_, true) => {
                drop(ran.expect_error(2, &[&format!("-{flag}"), "not in this release"]).expect_hint());
            }
            (status, false) => {
                assert!(matches!(status, "same" | "better"), "{row:?}");
                assert!(!is_not_understood(&ran), "{row:?}: {ran:?}");
                // Commands that ask a process have none here to answer.
                if matches!(command, "databases" | "ltx" | "replicate" | "restore" | "status" | "version") {
                    ran.expect_ok();
                }
            }
        }
    }
}

/// A configuration with one database and `fragment` where the section's keys stand.
fn file_of(row: &Row, fragment: &str, place: &Place) -> String {
    let (db, replica) = (place.scene.db.display(), place.scene.replica.display());
    // What the fragment sets itself is left out of its surroundings.
    let keys: BTreeSet<&str> = top_keys(fragment);
    let with = |base: &[(&str, String)]| {
        let base = base.iter().filter(|(key, _)| !keys.contains(key));
        let pairs = base.map(|(key, value)| format!("{key}: {value}"));
        pairs.chain([fragment.to_owned()]).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(", ")
    };
    let text = |text: &str| text.to_owned();
    let file = format!("{{type: file, path: {replica}}}");
    let in_replica =
        |base: &[(&str, String)]| format!("dbs: [{{path: {db}, replica: {{{}}}}}]\n", with(base));
    match row.section.as_str() {
        "Keys of the whole file" => {
            format!("{{{}}}\n", with(&[("dbs", format!("[{{path: {db}, replica: {file}}}]"))]))
        }
        "Keys of a database" => {
            let replica_key =
                if keys.contains("replicas") { vec![] } else { vec![("replica", file.clone())] };
            let path = if keys.contains("dir") { vec![] } else { vec![("path", db.to_string())] };
            format!("dbs: [{{{}}}]\n", with(&[path, replica_key].concat()))
        }
        "Keys of a replica" => {
            let path = if keys.contains("url") { vec![] } else { vec![("path", replica.to_string())] };
            in_replica(&path)
        }
        "Keys of an S3 replica" => {
            in_replica(&[("type", text("s3")), ("bucket", text("bucket")), ("path", text("app"))])
        }
        "Keys of an Azure replica" => in_replica(&[
            ("type", text("abs")),
            ("bucket", text("cont")),
            ("path", text("app")),
            ("account-name", text("acc")),
        ]),
        "Keys of a WebDAV replica" => in_replica(&[
            ("type", text("webdav")),
            ("webdav-url", text("https://h.example")),
            ("path", text("app")),
        ]),
        "Keys of replicas that this release does not have" => in_replica(&[("path", replica.to_string())]),
        other => panic!("keys under an unknown heading: {other}"),
    }
}

/// Keys at the outermost level of a flow mapping's inside.
fn top_keys(fragment: &str) -> BTreeSet<&str> {
    let (mut depth, mut start, mut keys) = (0, 0, BTreeSet::new());
    for (at, c) in fragment.char_indices().chain([(fragment.len(), ',')]) {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            ',' if depth == 0 => {
                keys.extend(fragment[start..at].split_once(':').map(|(key, _)| key.trim()));
                start = at + 1;
            }
            _ => {}
        }
    }
    keys
}

#[test]
fn each_key_is_what_its_row_says() {
    let place = Place::new("parity-keys");
    for row in rows("Keys") {
        let with = place.check_file(&file_of(&row, &place.fill(row.example()), &place));
        let parts: Vec<&str> = row.name().split('.').collect();
        let is_warned =
            |ran: &Ran| parts.iter().any(|part| ran.out.contains(&format!("{part} has no effect")));
        match row.status() {
            "refused" => drop(with.expect_error(2, &[parts[0], "not in this release"]).expect_hint()),
            "warned" => assert!(is_warned(&with.clone().expect_ok()), "{row:?}: {with:?}"),
            status => {
                assert!(matches!(status, "same" | "better"), "{row:?}");
                let with = with.expect_ok();
                assert!(!is_warned(&with), "{row:?}: {with:?}");
                if !["type", "sse-customer-key-path"].contains(&row.name()) {
                    let without = place.check_file(&file_of(&row, "", &place)).expect_ok();
                    assert_ne!(report(&with), report(&without), "{row:?} shows nowhere in the report");
                }
            }
        }
    }
}

#[test]
fn each_url_is_what_its_row_says() {
    let place = Place::new("parity-urls");
    let plain = report(&place.run("check -json DB s3://bucket/app", &[]).expect_ok());
    for row in rows("URLs") {
        let ran = place.run(&format!("check -json DB {}", row.example()), &[]);
        match row.status() {
            "refused" => drop(ran.expect_error(2, &[row.name(), "not in this release"]).expect_hint()),
            "warned" => assert!(ran.clone().expect_ok().out.contains("has no effect"), "{row:?}: {ran:?}"),
            status => {
                assert!(matches!(status, "same" | "better"), "{row:?}");
                let ran = ran.expect_ok();
                assert!(!ran.out.contains("has no effect"), "{row:?}: {ran:?}");
                if row.section == "Parameters of URLs" {
                    assert_ne!(report(&ran), plain, "{row:?} shows nowhere in the report");
                }
            }
        }
    }
}

#[test]
fn each_variable_is_what_its_row_says() {
    let place = Place::new("parity-environment");
    for row in rows("Environment") {
        let pairs: Vec<(String, String)> = row
            .example()
            .split(' ')
            .map(|pair| pair.split_once('=').expect("NAME=value"))
            .map(|(name, value)| (name.to_owned(), place.fill(value)))
            .collect();
        assert_eq!(pairs[0].0, row.name(), "{row:?}");
        let name = row.name();
        if name.ends_with("_CONFIG") {
            let listed = place.run("databases", &pairs).expect_ok();
            assert!(listed.out.contains(&place.scene.db.display().to_string()), "{row:?}: {listed:?}");
            place.run("databases", &[]).expect_error(2, &["no configuration"]);
            continue;
        }
        if name.ends_with("LOG_LEVEL") {
            place.run("check DB REPLICA", &pairs).expect_error(2, &["unknown log level", "bogus"]);
            continue;
        }
        let url = match name {
            _ if name.contains("AZURE") => "abs://acc@cont/app",
            "STORAGE_EMULATOR_HOST" | "GOOGLE_APPLICATION_CREDENTIALS" => "gs://bucket/app",
            _ => "s3://bucket/app",
        };
        let line = format!("check -json DB {url}");
        let (with, without) = (place.run(&line, &pairs).expect_ok(), place.run(&line, &[]).expect_ok());
        assert_eq!(with.out.contains(&format!("{name} has no effect")), row.status() == "warned", "{row:?}");
        assert_ne!(report(&with), report(&without), "{row:?} shows nowhere in the report");
    }
}

#[test]
fn each_thing_beyond_litestream_is_there() {
    let place = Place::new("parity-beyond");
    for row in rows("Beyond Litestream") {
        place.run(row.cells[1].trim_matches('`'), &[]).expect_ok();
    }
}

/// Flags in a help text of Litestream: lines that begin with one.
fn flags_of_help(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter_map(|line| line.trim_start().strip_prefix('-'));
    lines.map(|line| line.split_whitespace().next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn nothing_of_litestreams_command_line_lacks_a_row() {
    let help = run_litestream(["-h"]);
    let listed = help.out.lines().skip_while(|line| !line.contains("commands are")).skip(1);
    let commands: BTreeSet<String> =
        listed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect();
    assert!(commands.len() >= 14 && commands.contains("replicate"), "{commands:?}");
    let in_table: BTreeSet<String> = rows("Commands").iter().map(|row| row.name().to_owned()).collect();
    let hidden = BTreeSet::from(["wal".to_owned()]);
    assert_eq!(in_table, commands.union(&hidden).cloned().collect(), "commands");
    let flags = rows("Flags");
    for command in &commands {
        let ran = run_litestream([command.as_str(), "-h"]);
        let theirs = flags_of_help(&format!("{}{}", ran.out, ran.err));
        assert!(!theirs.is_empty(), "{command}: no flag in {ran:?}");
        let ours: BTreeSet<String> =
            flags.iter().filter(|row| row.section == *command).map(|row| row.name().to_owned()).collect();
        assert_eq!(ours, theirs, "flags of {command}");
    }
    assert!(flags.iter().all(|row| commands.contains(&row.section)), "a section of no command");
}

/// Texts between two marks in a binary.
fn between<'a>(bytes: &'a [u8], open: &[u8], close: u8) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(open.len()).position(|window| window == open) {
        rest = &rest[at + open.len()..];
        let end = rest.iter().take(64).position(|byte| *byte == close);
        found.extend(end.and_then(|end| std::str::from_utf8(&rest[..end]).ok()));
    }
    found
}

#[test]
fn nothing_of_litestreams_configuration_lacks_a_row() {
    let bytes = fs::read(litestream()).expect("Litestream can be read");
    // Go keeps the tags of its structures in the binary.
    let theirs: BTreeSet<&str> = between(&bytes, b"yaml:\"", b'"')
        .into_iter()
        .filter(|tag| *tag != "-" && !tag.contains(','))
        .collect();
    assert!(theirs.len() > 70 && theirs.contains("sse-customer-key-path"), "{theirs:?}");
    let keys = rows("Keys");
    let ours: BTreeSet<&str> = keys.iter().flat_map(|row| row.name().split('.')).collect();
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "keys without a row: {missing:?}");
    let invented: Vec<_> = ours.difference(&theirs).collect();
    assert!(invented.is_empty(), "rows without a key: {invented:?}");
    let has = |word: &str| bytes.windows(word.len()).any(|window| window == word.as_bytes());
    for row in rows("URLs").iter().filter(|row| row.section == "Parameters of URLs") {
        assert!(has(row.name()), "Litestream knows no {}", row.name());
    }
    let variables = rows("Environment");
    for row in variables.iter().filter(|row| row.name().starts_with("LITESTREAM_")) {
        assert!(has(row.name()), "Litestream knows no {}", row.name());
    }
    let read = variables_in(&bytes, b"LITESTREAM_");
    assert!(read.len() >= 7, "{read:?}");
    for name in read {
        // Strings stand side by side in a Go binary, so that a name may run into the next one.
        assert!(variables.iter().any(|row| name.starts_with(row.name())), "{name} has no row");
    }
}

/// Words of capitals that begin with `prefix`.
fn variables_in(bytes: &[u8], prefix: &[u8]) -> BTreeSet<String> {
    let starts = bytes.windows(prefix.len()).enumerate().filter(|(_, window)| *window == prefix);
    let word = |(at, _): (usize, &[u8])| {
        let word =
            bytes[at..].iter().take_while(|byte| byte.is_ascii_uppercase() || b"_0123456789".contains(byte));
        String::from_utf8(word.copied().collect()).expect("ascii")
    };
    starts.map(word).collect()
}
