//! `status -watch`: on a terminal and elsewhere.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use driftless_tests::command::exit_code;
use driftless_tests::db::open_wal;
use driftless_tests::programs::terminal;
use driftless_tests::scene::Scene;
use driftless_tests::{Daemon, PATIENCE, driftless, wait_for};
use rustix::process::Signal;
use serde_json::Value;

fn start(scene: &Scene) -> Daemon {
    start_until(scene, "replicated txid=")
}

fn start_until(scene: &Scene, line: &str) -> Daemon {
    let mut daemon = Daemon::replicate_with(&scene.db, &["-config".as_ref(), scene.config.as_os_str()]);
    daemon.wait_for_line(line);
    daemon
}

/// `driftless status -watch MORE…`, what it writes going to a file.
fn watch(scene: &Scene, more: &[&str]) -> (Daemon, PathBuf) {
    let mut command = Command::new(driftless());
    command.args(["status", "-watch", "-interval", "200ms", "-config"]).arg(&scene.config).args(more);
    let log = scene.dir.join("watch.log");
    (Daemon::spawn(&mut command, &log), log)
}

#[test]
fn a_terminal_is_drawn_on_and_given_back() {
    let scene = Scene::fresh("watch");
    let mut daemon = start(&scene);
    let line = format!(
        "stty rows 10 cols 100; '{}' status -watch -interval 200ms -config '{}'; echo \"code $?\"",
        driftless().display(),
        scene.config.display()
    );
    let mut terminal = terminal(&line)
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script, of util-linux, makes a terminal");
    let mut stdout = terminal.stdout.take().expect("piped");
    let (tell, seen) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = stdout.read(&mut buffer) {
            let _ = tell.send(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
    });
    let mut drawn = String::new();
    let wait = |what: &str, drawn: &mut String| {
        wait_for(what, PATIENCE * 2, || {
            drawn.extend(seen.try_iter());
            drawn.contains(what)
        });
    };
    wait("1 database, 0 in trouble", &mut drawn);
    assert!(drawn.contains("\x1b[?1049h"), "{drawn:?}");
    // Watching keeps no database from falling quiet.
    wait("quiet", &mut drawn);
    daemon.wait_for("quiet", PATIENCE, |log| log.contains("the database is quiet"));
    let pages: Vec<&str> = drawn.split("\x1b[H").skip(1).collect();
    assert!(pages.len() > 3, "{drawn:?}");
    let complete = &pages[..pages.len() - 1];
    assert!(complete.iter().all(|page| page.split("\r\n").count() <= 10), "{drawn:?}");
    // A commit shows.
    open_wal(&scene.db).execute_batch("insert into t(x) values (1)").expect("the application writes");
    wait("following", &mut drawn);
    let keyboard = terminal.stdin.as_mut().expect("piped");
    keyboard.write_all(b"\x03").and_then(|()| keyboard.flush()).expect("the terminal listens");
    wait("code 0", &mut drawn);
    assert_eq!(exit_code(terminal.wait().expect("our own child")), 0);
    let end = drawn.rfind("\x1b[?25h\x1b[?1049l").expect("the terminal is given back");
    assert!(!drawn[end..].contains("\x1b[H"), "{drawn:?}");
    daemon.term().expect_code(0);
}

#[test]
fn elsewhere_it_is_plain_text() {
    let scene = Scene::fresh("watch-plain");
    let daemon = start(&scene);
    let (mut watching, log) = watch(&scene, &[]);
    watching.wait_for("three tables", PATIENCE, |log| log.matches("txids/s").count() >= 3);
    // The process goes, and comes back.
    daemon.term().expect_code(0);
    watching.wait_for("its absence", PATIENCE, |log| {
        log.contains("no process answers") && log.contains("no process has it")
    });
    let before = fs::read_to_string(&log).expect("its output").matches("process ").count();
    let daemon = start_until(&scene, "the replica ends at");
    watching.wait_for("its return", PATIENCE, |log| log.matches("process ").count() > before + 2);
    watching.signal(Signal::INT);
    let text = watching.wait_end(PATIENCE).expect_code(0).log;
    assert!(!text.contains('\x1b'), "{text:?}");
    daemon.term().expect_code(0);
}

#[test]
fn with_json_each_look_is_a_line() {
    let scene = Scene::fresh("watch-json");
    let daemon = start(&scene);
    let (mut watching, _) = watch(&scene, &["-json"]);
    watching.wait_for("three lines", PATIENCE, |log| log.lines().count() >= 3);
    watching.signal(Signal::TERM);
    let text = watching.wait_end(PATIENCE).expect_code(0).log;
    for line in text.lines() {
        let look: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(look[0]["database"], scene.db.display().to_string());
        assert_eq!((&look[0]["segments"], &look[0]["lag_frames"]), (&1.into(), &0.into()));
    }
    daemon.term().expect_code(0);
    driftless_tests::run(["status", "-interval", "1s", "x"]).expect_error(2, &["-interval goes with -watch"]);
}

/// Nobody reads any more: it ends by itself.
#[test]
fn a_closed_pipe_ends_it() {
    let scene = Scene::fresh("watch-pipe");
    let daemon = start(&scene);
    let line = format!(
        "'{}' status -watch -interval 100ms -config '{}' | head -n 1",
        driftless().display(),
        scene.config.display()
    );
    let mut command = Command::new("bash");
    command.args(["-c", &format!("set -o pipefail; {line}")]);
    let ran = driftless_tests::command::finish(&mut command).expect_ok();
    assert_eq!(ran.out.lines().count(), 1);
    assert!(ran.took < Duration::from_secs(20), "{:?}", ran.took);
    daemon.term().expect_code(0);
}
