//! `-exec`: an application that lives and dies under the replicator.
//!
//! What it has committed when it ends is on the replica when we end, its exit code is ours, and it
//! is never left running while nobody replicates it.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use driftless_tests::child::Script;
use driftless_tests::command::{exit_code, finish, restore};
use driftless_tests::db::content_lines;
use driftless_tests::programs::{terminal, with_default_signals};
use driftless_tests::scene::Scene;
use driftless_tests::store_faults::Away;
use driftless_tests::{
    Daemon, PATIENCE, Ran, TempDir, driftless, driftless_command, dump_digest, proc, wait_for,
};
use rustix::process::Signal;

/// A directory, a database that is not there yet, a replica, and an application.
struct Stage {
    dir: TempDir,
    database: PathBuf,
    replica: PathBuf,
    script: Script,
}

impl Stage {
    fn new(name: &str) -> Stage {
        let dir = TempDir::new(name);
        let database = dir.join("app.db");
        let script = Script::new(dir.path(), &database);
        Stage { database, replica: dir.join("replica"), script, dir }
    }

    fn arguments(&self, words: &str) -> [String; 4] {
        let paths = [&self.database, &self.replica].map(|path| path.display().to_string());
        let [database, replica] = paths;
        ["-exec".to_owned(), self.script.command(words), database, replica]
    }

    /// Runs the application under the replicator to the end of both.
    fn run(&self, words: &str) -> Ran {
        finish(driftless_command().arg("replicate").args(self.arguments(words)))
    }

    /// The same, and goes on beside it.
    fn start(&self, words: &str) -> Daemon {
        Daemon::replicate_with(&self.database, &self.arguments(words))
    }

    fn wait_told(&self, line: &str) {
        wait_for(line, PATIENCE, || self.script.count(line) > 0);
    }

    /// Fails unless the replica holds this many rows, and what the database holds.
    #[track_caller]
    fn check(&self, rows: usize) {
        let copy = self.dir.join("copy.db");
        let _ = fs::remove_file(&copy);
        restore(&self.replica, &copy, None);
        assert_eq!(dump_digest(&copy), dump_digest(&self.database));
        assert_eq!(content_lines(&copy, "select count(*) from t"), [format!("Integer({rows})")]);
    }
}

#[test]
fn a_short_life_is_replicated_to_its_last_transaction() {
    for (life, rows) in [("0", 1), ("0", 300), ("0.05", 20), ("0.2", 100)] {
        let stage = Stage::new("short");
        stage.run(&format!("create insert:{rows} sleep:{life} insert:{rows}")).expect_ok();
        stage.check(2 * rows);
        // A second life goes on where the first ended; its last commit is its last act.
        let ran = stage.run(&format!("sleep:{life} insert:{rows} exit:3"));
        ran.expect_error(3, &["the application ended with exit code 3"]).expect_hint();
        stage.check(3 * rows);
    }
}

#[test]
fn a_crash_passes_on_its_signal_and_what_it_had_committed() {
    let stage = Stage::new("crash");
    for (signal, name, rows) in [(11, "SIGSEGV", 50), (9, "SIGKILL", 100)] {
        let ran = stage.run(&format!("create insert:50 kill:{signal}"));
        ran.expect_error(128 + signal, &["was ended by", name]);
        stage.check(rows);
    }
}

#[test]
fn signals_reach_the_application_and_it_says_when_the_end_is() {
    let stage = Stage::new("signals");
    let daemon = stage.start("create signals until:SIGTERM sleep:0.3 insert:7 exit:4");
    stage.wait_told("ready");
    for (signal, name) in [
        (Signal::HUP, "SIGHUP"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
        (Signal::WINCH, "SIGWINCH"),
        (Signal::INT, "SIGINT"),
        (Signal::TERM, "SIGTERM"),
    ] {
        daemon.signal(signal);
        stage.wait_told(&format!("signal {name}"));
    }
    daemon.wait_end(PATIENCE).expect_code(4);
    assert_eq!(stage.script.count("signal"), 7, "{:?}", stage.script.told());
    stage.check(7);
}

/// As under nohup: the end of a terminal is not to reach the application.
#[test]
fn an_ignored_hangup_stays_ignored() {
    let stage = Stage::new("nohup");
    let line = format!("trap '' HUP; exec '{}' replicate \"$@\"", driftless().display());
    let mut command = Command::new("bash");
    command.args(["-c", &line, "bash"]).args(stage.arguments("create signals until:SIGTERM insert:2 exit:4"));
    let daemon = Daemon::spawn(&mut command, &stage.dir.join("log"));
    stage.wait_told("ready");
    daemon.signal(Signal::HUP);
    daemon.signal(Signal::TERM);
    daemon.wait_end(PATIENCE).expect_code(4);
    assert_eq!(stage.script.count("signal"), 1, "{:?}", stage.script.told());
    stage.check(2);
}

#[test]
fn one_that_does_nothing_about_sigterm_ends_by_it() {
    let stage = Stage::new("default");
    let mut daemon = stage.start("create insert:3 sleep:60");
    stage.wait_told("begun");
    daemon.wait_for_line("replicated txid=");
    daemon.term().expect_code(128 + 15);
    stage.check(3);
}

#[test]
fn ctrl_c_reaches_it_once() {
    let stage = Stage::new("terminal");
    let [exec, command, database, replica] = stage.arguments("create signals until:SIGINT sleep:0.3 exit:5");
    let line =
        format!("'{}' replicate '{exec}' \"{command}\" '{database}' '{replica}'", driftless().display());
    let mut terminal = terminal(&line)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("script, of util-linux, makes a terminal");
    stage.wait_told("ready");
    let keyboard = terminal.stdin.as_mut().expect("piped");
    keyboard.write_all(b"\x03").and_then(|()| keyboard.flush()).expect("the terminal listens");
    let status = terminal.wait().expect("our own child");
    assert_eq!(exit_code(status), 5);
    assert_eq!(stage.script.count("signal SIGINT"), 1, "{:?}", stage.script.told());
}

#[test]
fn it_gets_nothing_of_ours_and_everything_of_our_surroundings() {
    let stage = Stage::new("facts");
    let of_facts = |mut command: Command| {
        let before = stage.script.told().len();
        command.env("MARK", "kept").env("WATCHDOG_USEC", "30000000").env("NOTIFY_SOCKET", "/nowhere");
        finish(&mut command).expect_ok();
        stage.script.told().split_off(before)
    };
    let mut alone = with_default_signals(Path::new("sh"));
    alone.args(["-c", &stage.script.command("facts")]);
    let mut under_us = driftless_command();
    under_us.arg("replicate").args(stage.arguments("facts"));
    let (alone, told) = (of_facts(alone), of_facts(under_us));
    // Which descriptors there are, and which signals are blocked and ignored.
    let inherited = |told: &[String]| -> Vec<String> {
        let words = told.iter().map(|line| line.split(' ').collect::<Vec<_>>());
        let known = words.filter(|words| ["fd", "SigBlk:", "SigIgn:"].contains(&words[0]));
        known.map(|words| words[..2].join(" ")).collect()
    };
    assert_eq!(inherited(&told), inherited(&alone), "{told:?}");
    for line in ["env MARK kept", "env NOTIFY_SOCKET None", "env WATCHDOG_USEC None"] {
        assert!(told.contains(&line.to_owned()), "{line}: {told:?}");
    }
}

#[test]
fn what_cannot_be_started_is_told_with_its_reason() {
    let scene = Scene::fresh("no-program");
    let run = |exec: &str, more: &[&str]| {
        let mut command = driftless_command();
        command.args(["replicate", "-exec", exec]).args(more).arg(&scene.db).arg(&scene.replica);
        finish(&mut command)
    };
    run("/nowhere/app -x", &[]).expect_error(2, &["cannot start the application /nowhere/app"]).expect_hint();
    run("app > log", &[]).expect_error(2, &["'>' stands outside of quotes"]).expect_hint();
    run("'app", &[]).expect_error(2, &["single quote is not closed"]).expect_hint();
    run("", &[]).expect_error(2, &["names no program"]).expect_hint();
    run("true", &["-once"]).expect_error(2, &["-exec and -once exclude each other"]).expect_hint();
}

#[test]
fn the_configuration_names_it_too_and_the_flag_wins() {
    let stage = Stage::new("key");
    let config = stage.dir.join("driftless.yml");
    let (command, database) = (stage.script.command("create insert:2 exit:6"), stage.database.display());
    let text = format!(
        "exec: \"{command}\"\ndbs:\n  - path: {database}\n    replica: {}\n",
        stage.replica.display()
    );
    fs::write(&config, text).expect("the test's directory");
    let run =
        |more: &[&str]| finish(driftless_command().args(["replicate", "-config"]).arg(&config).args(more));
    run(&[]).expect_error(6, &["the application ended with exit code 6"]);
    stage.check(2);
    run(&["-exec", "true"]).expect_ok();
    assert_eq!(stage.script.count("begun"), 1, "the flag's command was run instead");
}

/// Puts the second segment of another history where ours would put its next.
fn take_over(replica: &Path, other: &Scene, txid: u64) {
    let name = format!("ltx/0/{txid:016x}-{txid:016x}.ltx");
    fs::copy(other.level0(txid), replica.join(name)).expect("both are directories of this test");
}

#[test]
fn when_replication_is_lost_the_application_is_stopped() {
    for (words, code_by_itself) in [("signals until:SIGTERM", true), ("ignore sleep:60", false)] {
        let other = Scene::replicated("other", 2);
        let stage = Stage::new("fenced");
        let mut daemon = stage.start(&format!("create {words}"));
        stage.wait_told("ready");
        daemon.wait_for_line("replicated txid=");
        take_over(&stage.replica, &other, 2);
        let begun = Instant::now();
        driftless_tests::db::open_wal(&stage.database).execute_batch("insert into t(x) values (1)").unwrap();
        let ended = daemon.wait_end(PATIENCE).expect_code(5);
        assert_eq!(stage.script.count("end") == 1, code_by_itself, "{:?}", stage.script.told());
        if !code_by_itself {
            assert!(begun.elapsed() >= Duration::from_secs(10), "killed at once:\n{}", ended.log);
        }
    }
}

#[test]
fn it_does_not_begin_where_it_would_not_be_replicated() {
    let other = Scene::replicated("other", 2);
    let stage = Stage::new("foreign");
    driftless_tests::db::open_wal(&stage.database).execute_batch("create table t(x)").unwrap();
    fs::create_dir_all(stage.replica.join("ltx/0")).unwrap();
    (1..=2).for_each(|txid| take_over(&stage.replica, &other, txid));
    stage.run("create").expect_code(5);
    assert_eq!(stage.script.told(), [""; 0]);
}

#[test]
fn its_own_failure_comes_before_ours() {
    for (exit, code) in [(0, 6), (3, 3)] {
        let stage = Stage::new("away");
        let config = stage.dir.join("driftless.yml");
        let command = stage.script.command(&format!("create signals until:SIGUSR1 insert:1 exit:{exit}"));
        let text = format!(
            "exec: \"{command}\"\nshutdown-sync-timeout: 2s\ndbs:\n  - path: {}\n    replica: {}\n",
            stage.database.display(),
            stage.replica.display()
        );
        fs::write(&config, text).unwrap();
        let mut daemon = Daemon::replicate_with(&stage.database, &["-config".as_ref(), config.as_os_str()]);
        stage.wait_told("ready");
        daemon.wait_for_line("replicated txid=");
        let away = Away::take(&stage.replica);
        daemon.signal(Signal::USR1);
        stage.wait_told("exit");
        // It is gone while the final sync still tries, and leaves no zombie.
        wait_for("no child", PATIENCE, || proc::child_states(daemon.id()).is_empty());
        assert!(daemon.is_running(), "it has not tried for two seconds");
        let log = daemon.wait_end(PATIENCE).expect_code(code).log;
        assert!(log.contains("stopped with"), "{log}");
        assert_eq!(log.contains("error: the application ended with exit code 3"), exit == 3, "{log}");
        away.bring_back();
    }
}

#[test]
fn a_parent_that_ignores_children_loses_no_exit_code() {
    let stage = Stage::new("sigchld");
    let line = format!("trap '' CHLD; exec '{}' replicate \"$@\"", driftless().display());
    let mut command = Command::new("bash");
    command.args(["-c", &line, "bash"]).args(stage.arguments("create insert:1 exit:9"));
    finish(&mut command).expect_code(9);
    stage.check(1);
}

/// As in a container: whoever loses its parent gets us for one.
#[test]
fn as_the_first_process_it_reaps_what_others_have_left() {
    let stage = Stage::new("first-process");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc"]).arg(driftless()).arg("replicate");
    finish(command.args(stage.arguments("create orphan insert:3 exit:7"))).expect_code(7);
    let told = stage.script.told();
    assert!(told.contains(&"parent 1".to_owned()) && told.contains(&"zombies 0".to_owned()), "{told:?}");
    stage.check(3);
}

/// A quiet database, a waiting application, a port for metrics, a service manager: nobody wakes us.
#[test]
fn waiting_costs_nothing() {
    let stage = Stage::new("idle");
    let manager = stage.dir.join("notify");
    let socket = UnixDatagram::bind(&manager).expect("the test's directory");
    let mut command = driftless_command();
    command.args(["replicate", "-addr", "127.0.0.1:0"]).env("NOTIFY_SOCKET", &manager);
    command.args(stage.arguments("create insert:1 signals until:SIGTERM exit:0"));
    let mut daemon = Daemon::spawn(&mut command, &stage.dir.join("log"));
    daemon.wait_for("quiet", PATIENCE * 2, |log| log.contains("the database is quiet"));
    assert!(proc::child_states(daemon.id()).len() == 1, "the application runs");
    proc::assert_no_switches(daemon.id(), Duration::from_secs(10));
    daemon.term().expect_code(0);
    drop(socket);
    stage.check(1);
}
