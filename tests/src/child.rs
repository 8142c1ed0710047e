//! An application that a replicator runs (`-exec`): a Python script that does what its words say
//! and tells what happens to it in a file.

use std::fs;
use std::path::{Path, PathBuf};

/// The words, each with what it does:
///
/// - `create`: make the database and its table;
/// - `insert:N`: N transactions of one row;
/// - `sleep:S`: wait S seconds;
/// - `signals`: from now on tell of each signal instead of being ended by it;
/// - `ignore`: from now on take no notice of SIGTERM;
/// - `until:NAME`: wait for that signal;
/// - `facts`: tell of descriptors, signal masks and variables;
/// - `orphan`: leave a process behind that soon ends, and tell of the zombies a moment later;
/// - `exit:N`, `kill:N`: end with a code, or by a signal, without closing the database.
const SCRIPT: &str = r#"
import os, signal, sqlite3, sys, time
path, told, words = sys.argv[1], open(sys.argv[2], "a", buffering=1), sys.argv[3:]
tell = lambda *what: print(*what, file=told)
seen = []
def handle(number, frame):
    name = signal.Signals(number).name
    seen.append(name)
    tell("signal", name)
tell("begun", os.getpid())
db = None
for word in words:
    name, _, value = word.partition(":")
    if name == "create":
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("pragma journal_mode=wal")
        db.execute("create table if not exists t(id integer primary key, x)")
    elif name == "insert":
        db = db or sqlite3.connect(path, isolation_level=None)
        for _ in range(int(value)):
            db.execute("insert into t(x) values (randomblob(300))")
    elif name == "sleep":
        time.sleep(float(value))
    elif name == "signals":
        for s in ("TERM", "INT", "HUP", "QUIT", "USR1", "USR2", "WINCH"):
            signal.signal(getattr(signal, "SIG" + s), handle)
        tell("ready")
    elif name == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        tell("ready")
    elif name == "until":
        while value not in seen:
            time.sleep(0.005)
    elif name == "facts":
        for fd in os.listdir("/proc/self/fd"):
            try: tell("fd", fd, os.readlink("/proc/self/fd/" + fd))
            except FileNotFoundError: pass
        for line in open("/proc/self/status"):
            if line.startswith("Sig"): tell(*line.split())
        for variable in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "MARK"): tell("env", variable, os.environ.get(variable))
    elif name == "orphan":
        if os.fork() == 0:
            if os.fork() == 0: time.sleep(0.05)
            os._exit(0)
        os.wait()
        time.sleep(0.3)
        states = [open("/proc/%s/stat" % p).read().rsplit(")", 1)[1].split() for p in os.listdir("/proc") if p.isdigit()]
        tell("parent", os.getppid())
        tell("zombies", sum(s[0] == "Z" for s in states))
    elif name == "exit":
        tell("exit")
        os._exit(int(value))
    elif name == "kill":
        os.kill(os.getpid(), int(value))
tell("end")
"#;

/// The script of one application, and the file of what it tells.
#[derive(Debug)]
pub struct Script {
    path: PathBuf,
    database: PathBuf,
    told: PathBuf,
}

impl Script {
    /// In this directory, on this database.
    pub fn new(dir: &Path, database: &Path) -> Script {
        let path = dir.join("child.py");
        fs::write(&path, SCRIPT).expect("the test's directory can be written");
        Script { path, database: database.into(), told: dir.join("told") }
    }

    /// The command that does what `words` say.
    pub fn command(&self, words: &str) -> String {
        let (path, database, told) = (self.path.display(), self.database.display(), self.told.display());
        format!("python3 -I '{path}' '{database}' '{told}' {words}")
    }

    /// The lines it has told so far.
    pub fn told(&self) -> Vec<String> {
        fs::read_to_string(&self.told).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// How many of those lines begin with `start`.
    pub fn count(&self, start: &str) -> usize {
        self.told().iter().filter(|line| line.starts_with(start)).count()
    }

    /// Its process number; it must have begun.
    pub fn pid(&self) -> u32 {
        let told = self.told();
        let line = told.iter().find_map(|line| line.strip_prefix("begun ")).expect("it has begun");
        line.parse().expect("it tells its number")
    }
}
