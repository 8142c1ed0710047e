//! A program run to its end, and what it said.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::place::Place;
use crate::{driftless, litestream};

/// A command that has not ended after this is killed, and its test fails.
const DEADLINE: Duration = Duration::from_secs(90);

/// How a program ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The command line, for messages.
    pub line: String,
    /// Its exit code; a signal's number plus 128 if one killed it.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ran {
        assert_eq!(self.code, code, "{}\nstdout:\n{}\nstderr:\n{}", self.line, self.out, self.err);
        self
    }

    /// Fails the test unless it succeeded.
    #[track_caller]
    pub fn expect_ok(self) -> Ran {
        self.expect_code(0)
    }

    /// Fails the test unless standard error is one error as `docs/OPERATING.md` has it: a line
    /// `error: …`, lines `caused by: …`, and perhaps a blank line and `hint: …`; and unless that
    /// text contains each of `words`.
    #[track_caller]
    pub fn expect_error(self, code: i32, words: &[&str]) -> Ran {
        let ran = self.expect_code(code);
        let text = error_text(&ran.err);
        for word in words {
            assert!(text.contains(word), "{}: {word:?} is not in the error:\n{}", ran.line, ran.err);
        }
        ran
    }

    /// Fails the test unless there is a `hint:` line.
    #[track_caller]
    pub fn expect_hint(self) -> Ran {
        assert!(self.err.contains("\n\nhint: "), "{}: no hint in:\n{}", self.line, self.err);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{}: not JSON: {error}:\n{}", self.line, self.out))
    }
}

/// The error that a program's standard error ends with, its form checked.
#[track_caller]
pub fn error_text(err: &str) -> String {
    let lines: Vec<&str> = err.lines().collect();
    let errors = lines.iter().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 1, "there should be one line `error: …` in:\n{err}");
    let start = lines.iter().position(|line| line.starts_with("error: ")).expect("counted above");
    let mut rest = lines[start + 1..].iter();
    let mut next = rest.next();
    while next.is_some_and(|line| line.starts_with("caused by: ")) {
        next = rest.next();
    }
    if let Some(blank) = next {
        assert_eq!(*blank, "", "after error and causes comes a blank line in:\n{err}");
        let hint = rest.next().unwrap_or_else(|| panic!("a blank line without a hint in:\n{err}"));
        assert!(hint.starts_with("hint: "), "a hint starts with `hint: ` in:\n{err}");
    }
    assert!(!err.contains("panicked at"), "a panic is no error message:\n{err}");
    lines[start..].join("\n")
}

/// Runs `driftless` with these arguments.
#[track_caller]
pub fn run<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new(driftless());
    command.args(args);
    finish(&mut command)
}

/// Runs Litestream with these arguments.
#[track_caller]
pub fn run_litestream<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Ran {
    let mut command = Command::new(litestream());
    command.args(args);
    finish(&mut command)
}

/// Restores `replica` to `to` with our binary: the newest state, or that of a TXID. The target must
/// not exist. Fails the test if the restore fails.
#[track_caller]
pub fn restore(replica: &(impl Place + ?Sized), to: &Path, txid: Option<&str>) -> Ran {
    let mut command = Command::new(driftless());
    command.arg("restore").arg("-o").arg(to);
    if let Some(txid) = txid {
        command.args(["-txid", txid]);
    }
    finish(replica.equip(&mut command).arg(replica.argument())).expect_ok()
}

/// Restores `replica` to `to` with Litestream: the newest state. Fails the test if that fails.
#[track_caller]
pub fn litestream_restore(replica: &(impl Place + ?Sized), to: &Path) -> Ran {
    let mut command = Command::new(litestream());
    command.arg("restore").arg("-o").arg(to);
    finish(replica.equip(&mut command).arg(replica.url())).expect_ok()
}

/// Runs a command to its end, within the deadline.
#[track_caller]
pub fn finish(command: &mut Command) -> Ran {
    let line = format!("{command:?}");
    let started = Instant::now();
    let mut child = command
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {line}: {error}"));
    let (mut out, mut err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
    let out = thread::spawn(move || read_all(&mut out));
    let err = thread::spawn(move || read_all(&mut err));
    let mut pause = Duration::from_millis(1);
    let status = loop {
        if let Some(status) = child.try_wait().expect("our own child") {
            break Some(status);
        }
        if started.elapsed() > DEADLINE {
            child.kill().expect("our own child");
            child.wait().expect("our own child");
            break None;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    };
    let (out, err) = (out.join().expect("reads to the end"), err.join().expect("reads to the end"));
    let Some(status) = status else {
        panic!("{line} did not end within {DEADLINE:?}\nstdout:\n{out}\nstderr:\n{err}");
    };
    Ran { line, code: exit_code(status), out, err, took: started.elapsed() }
}

fn read_all(from: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).expect("a pipe of our own");
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The exit code as a shell has it: the signal's number plus 128 if one ended it.
pub fn exit_code(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
