//! Two hosts and one store: the writer is struck, and the other must take over.
//!
//! Each host is a directory, a process of the binary with an application under it, and a way to the store of
//! its own. The application writes numbered rows, and asks now and then whether all is replicated; what was
//! answered with yes is *acknowledged*, and must be in the history that is left.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use driftless_core::ltx::LtxHeader;
use rustix::process::{Pid, Signal, kill_process};

use crate::command::{finish, restore};
use crate::db::{dump_digest, integrity_check, open_to_read, open_wal};
use crate::objects::ltx_range;
use crate::place::{Place, Remote};
use crate::proxy::Proxy;
use crate::{Daemon, TempDir, driftless_command, poll};

/// The time to live of the lease.
const TTL: Duration = Duration::from_secs(3);
/// The same beside hundreds of databases: a server of tests answers some hundred requests a second, and the
/// lease waits for its turn among them.
const TTL_OF_MANY: Duration = Duration::from_secs(10);
/// How long a takeover may take beyond it.
const BEYOND: Duration = Duration::from_secs(3);
/// How long commits may stand still while the writer hands over.
const HANDOVER: Duration = Duration::from_secs(2);
/// How long anything may take that is not measured.
const PATIENCE: Duration = Duration::from_secs(40);
/// The same for each database that is not written.
const PATIENCE_EACH: Duration = Duration::from_millis(200);

/// Writes rows; tells of each commit, of what is known to be replicated, and when.
const APPLICATION: &str = r#"
import json, os, signal, socket, sqlite3, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
path, told, control, host = sys.argv[1:]
told = open(told, "a", buffering=1)
print("begun", os.getpid(), file=told)
db = sqlite3.connect(path, isolation_level=None, timeout=10)
db.execute("pragma journal_mode=wal")
db.execute("create table if not exists log(n integer primary key, host text, pad blob)")
def replicated():
    try:
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(15)
        s.connect(control)
        body = json.dumps({"path": path, "wait": True, "timeout": 10})
        s.sendall(("POST /sync HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)).encode())
        answer = b""
        while chunk := s.recv(4096): answer += chunk
        return answer.startswith(b"HTTP/1.1 200")
    except OSError:
        return False
for turn in range(1 << 60):
    n = db.execute("insert into log(host, pad) values (?, randomblob(200))", (host,)).lastrowid
    print("committed", n, time.time(), file=told)
    if turn % 8 == 7 and replicated():
        print("acknowledged", n, file=told)
    time.sleep(0.05)
"#;

/// What strikes the writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Blow {
    /// Its host dies.
    Kill,
    /// Its host stands still for three times to live, and goes on.
    Pause,
    /// It is cut off from the store.
    Cut,
    /// It is told to hand over.
    Handoff,
}

impl Blow {
    /// Each of them.
    pub const ALL: [Blow; 4] = [Blow::Kill, Blow::Pause, Blow::Cut, Blow::Handoff];

    /// The one of this name, in any case.
    pub fn named(name: &str) -> Option<Blow> {
        Blow::ALL.into_iter().find(|blow| format!("{blow:?}").eq_ignore_ascii_case(name))
    }
}

/// What came of a round.
#[derive(Clone, Copy, Debug)]
pub struct Took {
    /// From the blow, or from the last commit of a writer that hands over, to the first commit of the next.
    pub takeover: Duration,
}

/// A host.
struct Host {
    name: &'static str,
    directory: PathBuf,
    database: PathBuf,
    config: PathBuf,
    told: PathBuf,
    place: Remote,
    proxy: Proxy,
    daemon: Option<Daemon>,
}

impl Host {
    fn new(dir: &TempDir, name: &'static str, proxy: Proxy, place: Remote, others: usize) -> Host {
        let directory = dir.join(name);
        fs::create_dir_all(&directory).expect("the test's directory can be written");
        let database = directory.join("app.db");
        let (config, told) = (directory.join("driftless.yml"), directory.join("told"));
        let application = dir.join("application.py");
        fs::write(&application, APPLICATION).expect("the test's directory can be written");
        let control = directory.join(".app.db-driftless/socket");
        let exec = format!(
            "python3 -I '{}' '{}' '{}' '{}' {name}",
            application.display(),
            database.display(),
            told.display(),
            control.display()
        );
        let mut text =
            format!("exec: \"{exec}\"\nlease:\n  ttl: {}s\n  address: {name}\n", ttl(others).as_secs());
        if others > 0 {
            text.push_str(&format!("  url: '{}'\n", place.beside("lease")));
        }
        // What is covered goes while others may sleep.
        text.push_str("levels: [{interval: 2s}, {interval: 10s}]\nl0-retention: 3s\n");
        text.push_str(&format!(
            "dbs:\n  - path: {}\n    sync-interval: 250ms\n    replica:\n",
            database.display()
        ));
        let mut keys = place.litestream_keys();
        let write = |text: &mut String, keys: &[(&str, String)]| {
            keys.iter().for_each(|(key, value)| text.push_str(&format!("      {key}: {value}\n")));
        };
        write(&mut text, &keys);
        if others > 0 {
            let root = directory.join("others");
            fs::create_dir_all(&root).expect("the test's directory can be written");
            keys[0].1 = place.beside("others");
            text.push_str(&format!("  - dir: {}\n    pattern: '*.db'\n    replica:\n", root.display()));
            write(&mut text, &keys);
        }
        fs::write(&config, text).expect("the test's directory can be written");
        Host { name, directory, database, config, told, place, proxy, daemon: None }
    }

    fn command(&self, name: &str) -> Command {
        let mut command = driftless_command();
        self.place.equip(&mut command).arg(name).arg("-config").arg(&self.config);
        command
    }

    fn start(&mut self, name: &str) {
        let mut command = self.command(name);
        self.daemon = Some(Daemon::spawn(&mut command, &self.directory.join("log")));
    }

    fn daemon(&mut self) -> &mut Daemon {
        self.daemon.as_mut().expect("the host runs")
    }

    fn told(&self) -> Vec<Vec<String>> {
        let text = fs::read_to_string(&self.told).unwrap_or_default();
        text.lines().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
    }

    /// The last process that was begun as its application.
    fn application(&self) -> Option<Pid> {
        let told = self.told();
        let pid = told.iter().rev().find(|words| words[0] == "begun")?;
        Pid::from_raw(pid[1].parse().ok()?)
    }

    fn runs_application(&self) -> bool {
        self.application().is_some_and(|pid| {
            fs::read_to_string(format!("/proc/{}/cmdline", pid.as_raw_nonzero()))
                .is_ok_and(|line| line.contains("application.py"))
        })
    }

    /// When it first committed after, by its clock.
    fn first_commit_after(&self, time: f64) -> Option<f64> {
        let commits = self.told().into_iter().filter(|words| words[0] == "committed" && words.len() == 3);
        commits.filter_map(|words| words[2].parse().ok()).find(|at| *at > time)
    }

    fn last_commit(&self) -> f64 {
        let told = self.told();
        let commits = told.iter().rev().find(|words| words[0] == "committed" && words.len() == 3);
        commits.and_then(|words| words[2].parse().ok()).unwrap_or(0.0)
    }

    fn signal(&mut self, signal: Signal) {
        self.daemon().signal(signal);
        if let Some(pid) = self.application() {
            // It may have ended by itself.
            let _ = kill_process(pid, signal);
        }
    }
}

/// A way to a place for each host, with a proxy on it.
pub fn ways(server: SocketAddr, place: impl Fn(SocketAddr) -> Remote) -> [(Proxy, Remote); 2] {
    [(); 2].map(|()| {
        let proxy = Proxy::start(server);
        let place = place(proxy.address());
        (proxy, place)
    })
}

/// Two hosts on one place.
pub struct Pair {
    dir: TempDir,
    hosts: [Host; 2],
    /// The one that writes.
    writer: usize,
    rounds: u64,
    others: usize,
}

/// The time to live of the lease beside as many other databases.
fn ttl(others: usize) -> Duration {
    if others == 0 { TTL } else { TTL_OF_MANY }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs_f64()
}

impl Pair {
    /// Starts both, each with a way of its own. Beside the database that is written they have as many others
    /// in a directory.
    pub fn start(name: &str, ways: [(Proxy, Remote); 2], others: usize) -> Pair {
        let dir = TempDir::new(name);
        let [a, b] = ways;
        let hosts = [Host::new(&dir, "a", a.0, a.1, others), Host::new(&dir, "b", b.0, b.1, others)];
        let mut pair = Pair { dir, hosts, writer: 0, rounds: 0, others };
        for n in 0..others {
            let other = open_wal(&pair.hosts[0].directory.join(format!("others/{n}.db")));
            other.execute_batch("create table t(x); insert into t values (1)").expect("it is new");
        }
        pair.hosts[0].start("replicate");
        pair.wait("the first writer", |pair| {
            let begun = pair.hosts[0].daemon().log().matches("replicated txid=0000000000000001").count();
            pair.acknowledged().len() >= 2 && begun > pair.others
        });
        pair.stand_by(1);
        pair
    }

    #[track_caller]
    fn wait(&mut self, what: &str, mut holds: impl FnMut(&mut Pair) -> bool) {
        let patience = PATIENCE + PATIENCE_EACH * self.others as u32;
        let found = poll(patience, || holds(self).then_some(()));
        assert!(found.is_some(), "{what} did not come\n{}", self.logs());
    }

    fn logs(&self) -> String {
        let of = |host: &Host| {
            let log = host.daemon.as_ref().map_or(String::new(), Daemon::log);
            let lines: Vec<&str> = log
                .lines()
                .filter(|line| !line.contains("replicated txid") && !line.contains("followed txid"))
                .collect();
            let last = lines.len().saturating_sub(40);
            format!("--- {} ({})\n{}\n", host.name, host.directory.display(), lines[last..].join("\n"))
        };
        format!("round {}\n{}{}", self.rounds, of(&self.hosts[0]), of(&self.hosts[1]))
    }

    /// Rows that were acknowledged, with the host that wrote them.
    fn acknowledged(&self) -> BTreeMap<u64, &'static str> {
        let mut all = BTreeMap::new();
        for host in &self.hosts {
            let rows = host.told().into_iter().filter(|words| words[0] == "acknowledged" && words.len() == 2);
            all.extend(rows.filter_map(|words| Some((words[1].parse().ok()?, host.name))));
        }
        all
    }

    /// Starts a host as a standby and waits until its copy follows.
    fn stand_by(&mut self, host: usize) {
        self.hosts[host].start("standby");
        self.wait("a copy that follows", |pair| {
            let log = pair.hosts[host].daemon().log();
            log.contains("standing by") && log.matches("following the database").count() > pair.others
        });
        std::thread::sleep(ttl(self.others) / 3 + Duration::from_millis(300));
    }

    /// How long a takeover may take on a machine that has nothing else to do: the program that measures holds
    /// it to that, and the tests do not.
    pub fn allowed(&self, blow: Blow) -> Duration {
        if blow == Blow::Handoff { HANDOVER } else { ttl(self.others) + BEYOND }
    }

    /// Strikes the writer, waits for the other, and sees that nothing was lost.
    pub fn round(&mut self, blow: Blow) -> Took {
        self.rounds += 1;
        let (old, new) = (self.writer, 1 - self.writer);
        let before = self.acknowledged().len();
        self.wait("more that is acknowledged", |pair| pair.acknowledged().len() >= before + 3);
        let begun = Instant::now();
        let mut from = now();
        match blow {
            Blow::Kill => self.hosts[old].signal(Signal::KILL),
            Blow::Pause => self.hosts[old].signal(Signal::STOP),
            Blow::Cut => self.hosts[old].proxy.refuse(None),
            Blow::Handoff => {
                finish(&mut self.hosts[old].command("handoff")).expect_ok();
                from = self.hosts[old].last_commit();
            }
        }
        self.wait("the successor's first commit", |pair| pair.hosts[new].first_commit_after(from).is_some());
        let took = self.hosts[new].first_commit_after(from).expect("it was waited for") - from;
        if blow == Blow::Pause {
            std::thread::sleep((ttl(self.others) * 3).saturating_sub(begun.elapsed()));
            self.hosts[old].signal(Signal::CONT);
        }
        self.end_of(old, blow);
        self.writer = new;
        let took = Took { takeover: Duration::from_secs_f64(took.max(0.0)) };
        self.hosts[old].proxy.heal();
        self.stand_by(old);
        self.check();
        took
    }

    /// The predecessor has ended, and its application with it.
    fn end_of(&mut self, old: usize, blow: Blow) {
        let daemon = self.hosts[old].daemon.take().expect("the host runs");
        let code = match blow {
            Blow::Kill => daemon.kill9().code,
            _ => daemon.wait_end(PATIENCE).code,
        };
        let wanted = match blow {
            Blow::Kill => 137,
            Blow::Pause | Blow::Cut => 5,
            Blow::Handoff => 0,
        };
        assert_eq!(code, wanted, "after {blow:?}\n{}", self.logs());
        self.wait("the end of the application", |pair| !pair.hosts[old].runs_application());
    }

    /// What was acknowledged is in the one history that there is.
    fn check(&self) {
        let acknowledged = self.acknowledged();
        let reads = &self.hosts[self.writer];
        let copy = self.dir.join("restored.db");
        let _ = fs::remove_file(&copy);
        restore(&reads.place, &copy, None).expect_ok();
        integrity_check(&copy);
        let rows = open_to_read(&copy);
        for (n, host) in acknowledged {
            let found: Result<String, _> =
                rows.query_row("select host from log where n = ?", [n as i64], |row| row.get(0));
            assert_eq!(found.as_deref(), Ok(host), "row {n} was acknowledged to {host}\n{}", self.logs());
        }
        drop(rows);
        for n in 0..self.others {
            let other = open_to_read(&reads.directory.join(format!("others/{n}.db")));
            let rows: Result<i64, _> = other.query_row("select count(*) from t", [], |row| row.get(0));
            assert_eq!(rows, Ok(1), "database {n}");
        }
        reads.place.run(&["verify"]).expect_ok();
    }

    /// Ends both, and compares the writer's database with what is on the replica.
    pub fn end(mut self) {
        let new = 1 - self.writer;
        self.hosts[new].daemon.take().expect("the host runs").term().expect_code(0);
        let writer = self.writer;
        self.hosts[writer].daemon.take().expect("the host runs").term().expect_code(0);
        self.check();
        let copy = self.dir.join("restored.db");
        assert_eq!(dump_digest(&copy), dump_digest(&self.hosts[writer].database));
        self.check_level_0();
    }

    /// Of level 0 much was deleted, and of each epoch that has written the first segment is there.
    fn check_level_0(&self) {
        let objects = self.hosts[0].place.objects();
        let captures: BTreeMap<u64, String> = objects
            .list()
            .into_keys()
            .filter_map(|name| Some((ltx_range(name.rsplit('/').next()?)?.0, name)))
            .filter(|(txid, name)| *name == self.hosts[0].place.key(0, *txid, *txid))
            .collect();
        let last = *captures.keys().next_back().expect("something was replicated");
        let gone = last as usize - captures.len();
        assert!(gone > 5, "{gone} of {last} segments were deleted: {captures:?}");
        let epoch = |name: &String| {
            let header = objects.get(name).and_then(|body| LtxHeader::decode(body.first_chunk()?).ok());
            header.expect("a segment has a header").chain.incarnation.epoch()
        };
        let epochs: BTreeSet<u32> = captures.values().map(epoch).collect();
        assert!(epochs.len() as u64 > self.rounds, "epochs {epochs:?} after {} rounds", self.rounds);
    }
}
