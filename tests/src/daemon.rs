//! A replicator that runs beside a test.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::command::{exit_code, run};
use crate::objects::ltx_range;
use crate::place::Place;
use crate::{PATIENCE, driftless_command, litestream, poll};

/// How a daemon ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Its exit code; a signal's number plus 128 if one killed it.
    pub code: i32,
    /// All it wrote, standard output and error together.
    pub log: String,
}

impl Ended {
    /// Fails the test unless it ended with this code.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "log:\n{}", self.log);
        self
    }
}

/// A running `driftless replicate` or `litestream replicate`, killed when dropped. What it writes
/// goes to a file.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    ended: Option<i32>,
}

impl Daemon {
    /// `driftless replicate DB REPLICA`, its log in `<db>.driftless.log`.
    pub fn replicate(db: &Path, replica: &(impl Place + ?Sized)) -> Daemon {
        let mut command = driftless_command();
        replica.equip(&mut command).arg("replicate").arg(db).arg(replica.argument());
        Daemon::spawn(&mut command, &beside(db, ".driftless.log"))
    }

    /// `driftless replicate -config CONFIG`, which names this replica.
    pub fn replicate_at(db: &Path, replica: &(impl Place + ?Sized), config: &Path) -> Daemon {
        let mut command = driftless_command();
        replica.equip(&mut command).arg("replicate").arg("-config").arg(config);
        Daemon::spawn(&mut command, &beside(db, ".driftless.log"))
    }

    /// `driftless replicate ARGS…`, its log in `<db>.driftless.log`.
    pub fn replicate_with<S: AsRef<OsStr>>(db: &Path, args: &[S]) -> Daemon {
        let mut command = driftless_command();
        command.arg("replicate").args(args);
        Daemon::spawn(&mut command, &beside(db, ".driftless.log"))
    }

    /// `litestream replicate ARGS…`, its log in `<db>.litestream.log`.
    pub fn litestream<S: AsRef<OsStr>>(db: &Path, args: &[S]) -> Daemon {
        let mut command = Command::new(litestream());
        command.arg("replicate").args(args);
        Daemon::spawn(&mut command, &beside(db, ".litestream.log"))
    }

    /// `litestream replicate -config CONFIG`, which names this replica.
    pub fn litestream_at(db: &Path, replica: &(impl Place + ?Sized), config: &Path) -> Daemon {
        let mut command = Command::new(litestream());
        replica.equip(&mut command).arg("replicate").arg("-config").arg(config);
        Daemon::spawn(&mut command, &beside(db, ".litestream.log"))
    }

    /// Any command; its log is appended to `log`.
    pub fn spawn(command: &mut Command, log: &Path) -> Daemon {
        let open = || -> File {
            let file = OpenOptions::new().create(true).append(true).open(log);
            file.unwrap_or_else(|error| panic!("cannot open {}: {error}", log.display()))
        };
        // One log file serves several runs; each reads its own part only.
        let _ = fs::remove_file(log);
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(open())
            .stderr(open())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        Daemon { child, log: log.to_path_buf(), ended: None }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.reap().is_none()
    }

    /// Waits until its log satisfies `predicate`. Fails the test if it ends before, or after
    /// `deadline`.
    #[track_caller]
    pub fn wait_for(&mut self, what: &str, deadline: Duration, predicate: impl Fn(&str) -> bool) {
        let found = poll(deadline, || {
            let ended = self.reap();
            match (predicate(&self.log()), ended) {
                (true, _) => Some(None),
                (false, Some(code)) => Some(Some(code)),
                (false, None) => None,
            }
        });
        match found {
            Some(None) => {}
            Some(Some(code)) => panic!("ended with {code} before {what}:\n{}", self.log()),
            None => panic!("waited {deadline:?} in vain for {what}:\n{}", self.log()),
        }
    }

    /// Waits for a line of the log that contains `text`, and returns it.
    #[track_caller]
    pub fn wait_for_line(&mut self, text: &str) -> String {
        self.wait_for(&format!("the line {text:?}"), PATIENCE, |log| {
            log.lines().any(|line| line.contains(text))
        });
        let log = self.log();
        log.lines().find(|line| line.contains(text)).expect("found above").to_owned()
    }

    /// Waits until `condition` holds while it runs. Fails the test if it ends before, or after
    /// `deadline`.
    #[track_caller]
    pub fn wait_until(&mut self, what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) {
        let found = poll(deadline, || match (condition(), self.reap()) {
            (true, _) => Some(None),
            (false, ended) => ended.map(Some),
        });
        match found {
            Some(None) => {}
            Some(Some(code)) => panic!("ended with {code} before {what}:\n{}", self.log()),
            None => panic!("waited {deadline:?} in vain for {what}:\n{}", self.log()),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a child has an id");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("cannot signal {pid:?}: {error}"));
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill9(mut self) -> Ended {
        self.child.kill().expect("our own child");
        self.ended(PATIENCE)
    }

    /// SIGTERM, and waits for its end: the final sync included.
    #[track_caller]
    pub fn term(mut self) -> Ended {
        if self.is_running() {
            self.signal(Signal::TERM);
        }
        self.ended(PATIENCE)
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn wait_end(mut self, deadline: Duration) -> Ended {
        self.ended(deadline)
    }

    #[track_caller]
    fn ended(&mut self, deadline: Duration) -> Ended {
        match poll(deadline, || self.reap()) {
            Some(code) => Ended { code, log: self.log() },
            None => panic!("still runs after {deadline:?}:\n{}", self.log()),
        }
    }

    fn reap(&mut self) -> Option<i32> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("our own child").map(exit_code);
        }
        self.ended
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.reap().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.log());
        }
    }
}

fn beside(db: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = db.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// `driftless status -json DB`, parsed: the object of this database.
#[track_caller]
pub fn status(db: &Path) -> Value {
    let value = run([OsStr::new("status"), OsStr::new("-json"), db.as_os_str()]).expect_ok().json();
    match value {
        Value::Array(mut list) if list.len() == 1 => list.remove(0),
        other => other,
    }
}

/// What the process of a state directory says over its control socket, without a look of its own.
#[track_caller]
pub fn told(state: &Path) -> Value {
    let socket = state.join("socket");
    let mut stream =
        UnixStream::connect(&socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
    stream
        .write_all(b"GET /status?look=no HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        .expect("it reads");
    let mut reply = String::new();
    let _ = stream.read_to_string(&mut reply);
    let body = reply.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {reply}"))
}

/// The TXIDs at which level-0 files of a file replica end, in order.
pub fn level0(replica: &Path) -> Vec<u64> {
    ltx_files(replica, 0).into_iter().map(|(_, max)| max).collect()
}

/// First and last TXID of the files of a level of a file replica, in order.
pub fn ltx_files(replica: &Path, level: u32) -> Vec<(u64, u64)> {
    let Ok(entries) = fs::read_dir(replica.join("ltx").join(level.to_string())) else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut ranges: Vec<(u64, u64)> = names.filter_map(|name| ltx_range(&name)).collect();
    ranges.sort_unstable();
    ranges
}
