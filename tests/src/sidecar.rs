//! The replicator as a process beside an application, and its replica as files.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::app::{Seen, check_copy};
use crate::command::finish;
use crate::place::Place;
use crate::{PATIENCE, driftless};

/// Called with the transaction as soon as a log line says that it is replicated.
pub type OnReplicated = Box<dyn FnMut(u64) + Send>;

/// How a replicator is started.
pub struct Setup {
    database: PathBuf,
    replica: Box<dyn Place>,
    arguments: Vec<String>,
    environment: Vec<(String, PathBuf)>,
    state: Option<PathBuf>,
    user: Option<u32>,
    world: World,
    settings: Option<String>,
    log: Option<PathBuf>,
    on_replicated: Option<OnReplicated>,
}

impl Setup {
    /// Of `database` to `replica`.
    pub fn new(database: &Path, replica: &(impl Place + ?Sized)) -> Setup {
        Setup {
            database: database.into(),
            replica: replica.to_box(),
            arguments: Vec::new(),
            environment: Vec::new(),
            state: None,
            user: None,
            world: World::Ours,
            settings: None,
            log: None,
            on_replicated: None,
        }
    }

    /// With further arguments.
    pub fn arguments(mut self, arguments: &[&str]) -> Setup {
        self.arguments.extend(arguments.iter().map(|text| (*text).to_string()));
        self
    }

    /// With variables in its environment.
    pub fn environment(mut self, variables: &[(&str, PathBuf)]) -> Setup {
        self.environment.extend(variables.iter().map(|(name, value)| ((*name).to_string(), value.clone())));
        self
    }

    /// With its local state elsewhere.
    pub fn state_dir(mut self, directory: &Path) -> Setup {
        self.state = Some(directory.into());
        self
    }

    /// As another user.
    pub fn user(mut self, id: u32) -> Setup {
        self.user = Some(id);
        self
    }

    /// As if the machine had started anew: the kernel's name of its run is what `file` says.
    pub fn boot_id(mut self, file: &Path) -> Setup {
        self.world = World::Rebooted(file.into());
        self
    }

    /// As if other programs had used up the watches that the kernel gives to a user.
    pub fn without_watches(mut self) -> Setup {
        self.world = World::WithoutWatches;
        self
    }

    /// By a configuration file that begins with these lines.
    pub fn settings(mut self, lines: &str) -> Setup {
        self.settings = Some(lines.into());
        self
    }

    /// With its log elsewhere than beside the database.
    pub fn log(mut self, path: &Path) -> Setup {
        self.log = Some(path.into());
        self
    }

    /// Calls `hook` when a transaction is reported, before the next line is read.
    pub fn on_replicated(mut self, hook: OnReplicated) -> Setup {
        self.on_replicated = Some(hook);
        self
    }

    /// Starts it.
    pub fn start(self) -> Sidecar {
        Sidecar::start(self)
    }
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grown: Condvar,
}

/// A running replicator, killed when it is dropped.
pub struct Sidecar {
    child: Child,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
    state: PathBuf,
    /// When it was started.
    pub started: Instant,
}

impl Sidecar {
    /// Without anything special.
    pub fn of(database: &Path, replica: &(impl Place + ?Sized)) -> Sidecar {
        Setup::new(database, replica).start()
    }

    fn start(mut setup: Setup) -> Sidecar {
        let name = setup.database.file_name().expect("a file").to_string_lossy().into_owned();
        let state = setup
            .state
            .clone()
            .unwrap_or_else(|| setup.database.with_file_name(format!(".{name}-driftless")));
        let mut command = program(&setup.world);
        if let Some(id) = setup.user {
            command.uid(id).gid(id);
        }
        command.args(["replicate", "-log-level", "debug"]).args(&setup.arguments);
        match &setup.settings {
            None => command.arg(&setup.database).arg(setup.replica.argument()),
            Some(lines) => {
                let path = setup.database.with_extension("driftless.yml");
                let (database, replica) = (setup.database.display(), setup.replica.argument());
                let replica = replica.display();
                let text = format!("{lines}\ndbs:\n  - path: {database}\n    replica: {replica}\n");
                fs::write(&path, text).expect("the test's directory can be written");
                command.arg("-config").arg(path)
            }
        };
        if let Some(directory) = &setup.state {
            command.arg("-state-dir").arg(directory);
        }
        setup.replica.equip(command.env("NO_COLOR", "1"));
        command.envs(setup.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let mut child = command.spawn().expect("the binary starts");
        let lines = BufReader::new(child.stderr.take().expect("piped"));
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        let mut hook = setup.on_replicated.take();
        let log_path = setup.log.unwrap_or_else(|| setup.database.with_extension("driftless.log"));
        let mut kept =
            fs::File::options().create(true).append(true).open(log_path).expect("the test's directory");
        let reader = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                if let (Some(hook), Some(txid)) = (&mut hook, reported(&line)) {
                    hook(txid);
                }
                writeln!(kept, "{line}").expect("the test's directory can be written");
                shared.lines.lock().expect("no holder panics").push(line);
                shared.grown.notify_all();
            }
        });
        Sidecar { child, log, reader: Some(reader), state, started }
    }

    /// The process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has logged.
    pub fn lines(&self) -> Vec<String> {
        self.log.lines.lock().expect("no holder panics").clone()
    }

    /// How many lines hold `text`.
    pub fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }

    /// Waits for a line that holds `text`.
    pub fn wait_line(&mut self, text: &str) -> String {
        self.wait_nth_line(text, 1)
    }

    /// Waits for the `n`th line that holds `text`.
    pub fn wait_nth_line(&mut self, text: &str, n: usize) -> String {
        let deadline = Instant::now() + PATIENCE * 3;
        let mut lines = self.log.lines.lock().expect("no holder panics");
        loop {
            if let Some(line) = lines.iter().filter(|line| line.contains(text)).nth(n - 1) {
                return line.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let tail = &lines[lines.len().saturating_sub(20)..];
            assert!(!left.is_zero(), "no line says {text:?} ({n} times):\n{}", tail.join("\n"));
            lines = self.log.grown.wait_timeout(lines, left).expect("no holder panics").0;
        }
    }

    /// The highest transaction that was reported as replicated.
    pub fn replicated(&self) -> Option<u64> {
        self.lines().iter().filter_map(|line| reported(line)).max()
    }

    /// The answer on the control socket about its only database.
    pub fn status(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.state.join("socket")).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        stream.write_all(b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n").ok()?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).ok()?;
        let mut value: Value = serde_json::from_str(reply.split_once("\r\n\r\n")?.1).ok()?;
        Some(value["databases"][0].take())
    }

    /// Waits until it says that everything committed is on the replica. The application must have
    /// stopped writing.
    pub fn caught_up(&self) -> Value {
        let begun = Instant::now();
        let mut last = Value::Null;
        while begun.elapsed() < PATIENCE * 3 && self.count("stopped: ") == 0 {
            if let Some(status) = self.status() {
                if is_caught_up(&status) {
                    return status;
                }
                last = status;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let lines = self.lines();
        panic!("never caught up: {last}\n{}", lines[lines.len().saturating_sub(30)..].join("\n"));
    }

    /// Sends SIGTERM.
    pub fn ask_to_stop(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status();
        assert!(status.expect("kill starts").success(), "it has died");
    }

    /// Waits for its end; all that it logged is then in [`Sidecar::lines`].
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is ours") {
                if let Some(reader) = self.reader.take() {
                    reader.join().expect("the reader's hook does not panic");
                }
                return status;
            }
            let lines = self.lines();
            let tail = &lines[lines.len().saturating_sub(20)..];
            assert!(begun.elapsed() < limit, "does not end within {limit:?}:\n{}", tail.join("\n"));
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Stops it and expects that everything is replicated.
    pub fn stop(mut self) {
        self.ask_to_stop();
        let status = self.wait(PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", self.lines().join("\n"));
    }

    /// Kills it and returns what it had logged.
    pub fn kill(mut self) -> Vec<String> {
        self.child.kill().expect("it is ours");
        let status = self.wait(PATIENCE);
        assert_eq!(status.signal(), Some(9), "ended by itself before the kill: {}", self.lines().join("\n"));
        self.lines()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let lines = self.lines();
            eprintln!("the replicator's last lines:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
    }
}

/// What a replicator finds around it.
enum World {
    /// The same as the test.
    Ours,
    /// This file in the place of the kernel's boot id.
    Rebooted(PathBuf),
    /// No watch of inotify is left.
    WithoutWatches,
}

/// Our binary, in namespaces of its own where its world is another. All wrappers become the binary:
/// its process number is the child's.
fn program(world: &World) -> Command {
    let (kind, script, argument) = match world {
        World::Ours => return Command::new(driftless()),
        World::Rebooted(file) => {
            ("-m", "mount --bind \"$1\" /proc/sys/kernel/random/boot_id", file.as_path())
        }
        World::WithoutWatches => ("-Ur", "echo 0 > \"$1\"", Path::new("/proc/sys/user/max_inotify_watches")),
    };
    let script = format!("{script} && shift && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args([kind, "sh", "-c", &script, "sh"]).arg(argument).arg(driftless());
    command
}

/// Whether a status says that nothing is outstanding.
pub fn is_caught_up(status: &Value) -> bool {
    let following = matches!(status["phase"].as_str(), Some("following" | "quiet"));
    following
        && status["lag_frames"] == 0
        && status["pages_waiting"] == 0
        && status["uploading"] == false
        && status["replicated_txid"].is_string()
}

/// The transaction that a log line reports as replicated.
pub fn reported(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("replicated txid=")?;
    u64::from_str_radix(rest.get(..16)?, 16).ok()
}

/// Restores a replica to a new file: the latest transaction, or one.
///
/// # Errors
/// What the command said.
pub fn restore(replica: &(impl Place + ?Sized), txid: Option<u64>, output: &Path) -> Result<(), String> {
    let mut command = Command::new(driftless());
    command.args(["restore", "-o"]).arg(output);
    if let Some(txid) = txid {
        command.arg("-txid").arg(format!("{txid:016x}"));
    }
    let done = finish(replica.equip(&mut command).arg(replica.argument()));
    match done.code {
        0 => Ok(()),
        code => Err(format!("{}: exit {code}: {}", done.line, done.err)),
    }
}

/// Restores and checks that the copy is a committed state.
///
/// # Errors
/// What failed, or what no committed state shows.
pub fn restore_checked(
    replica: &(impl Place + ?Sized),
    txid: Option<u64>,
    output: &Path,
    keep: u64,
) -> Result<Seen, String> {
    let _ = fs::remove_file(output);
    restore(replica, txid, output)?;
    check_copy(output, keep)
        .map_err(|error| format!("{}: txid {txid:?}: {error}", replica.argument().display()))
}

/// Compares the latest restore with the source, byte for byte. The application must have ended
/// or closed; what stands in its WAL is copied back first.
pub fn assert_equal_to_source(database: &Path, replica: &(impl Place + ?Sized)) {
    let connection = rusqlite::Connection::open(database).expect("the source opens");
    let busy: i64 = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .expect("a checkpoint runs");
    assert_eq!(busy, 0, "someone still reads the source");
    drop(connection);
    let copy = database.with_extension("restored");
    let _ = fs::remove_file(&copy);
    restore(replica, None, &copy).expect("the replica restores");
    assert_same_bytes(database, &copy);
    fs::remove_file(&copy).expect("just written");
}

/// Compares two files and names the first page of 512 bytes that differs.
pub fn assert_same_bytes(one: &Path, two: &Path) {
    let (a, b) = (fs::read(one).expect("it is there"), fs::read(two).expect("it is there"));
    assert_eq!(a.len(), b.len(), "{} and {} differ in length", one.display(), two.display());
    let differs = a.chunks(512).zip(b.chunks(512)).position(|(a, b)| a != b);
    assert_eq!(differs, None, "{} and {} differ at this sector", one.display(), two.display());
}
