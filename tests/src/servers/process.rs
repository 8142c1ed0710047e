//! A server's process: it has a port, it is waited for, and it dies with the test.

use std::fs::{File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use crate::http::{self, Request};
use crate::poll;
use crate::port::Port;

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(60);

/// Asks the kernel to kill this process with its parent, and becomes the server. A test process has
/// no chance to stop a server that all its tests share, and none at all when it is killed.
const LAUNCHER: &str = "
import ctypes, os, sys
PR_SET_PDEATHSIG, SIGKILL = 1, 9
if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0:
    sys.exit('prctl failed')
if os.getppid() != int(sys.argv[1]):
    sys.exit('the test has ended')
os.execvp(sys.argv[2], sys.argv[2:])
";

/// A running server.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    port: Port,
    log: File,
}

impl Process {
    /// Starts the server that `command` makes for a port, and waits until it answers a request for
    /// `/`, with whatever status. Fails the test, with the server's log, if it does not.
    pub fn start(name: &'static str, command: impl FnOnce(SocketAddr) -> Command) -> Process {
        let answers = |address| http::try_send(address, &Request::new("GET", "/")).is_ok();
        Process::start_until(name, command, answers)
    }

    /// The same for a server that shows in another way that it is ready.
    pub fn start_until(
        name: &'static str,
        command: impl FnOnce(SocketAddr) -> Command,
        is_ready: impl Fn(SocketAddr) -> bool,
    ) -> Process {
        let port = Port::reserve();
        let log = unnamed_file();
        let command = command(port.address());
        let out = || Stdio::from(log.try_clone().expect("a file descriptor"));
        let mut launcher = Command::new("python3");
        launcher.args(["-I", "-S", "-c", LAUNCHER]).arg(std::process::id().to_string());
        launcher.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => launcher.env(name, value),
                None => launcher.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            launcher.current_dir(directory);
        }
        launcher.stdin(Stdio::null()).stdout(out()).stderr(out());
        let child = spawn(launcher).unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let mut process = Process { name, child, port, log };
        process.await_ready(is_ready);
        process
    }

    fn await_ready(&mut self, is_ready: impl Fn(SocketAddr) -> bool) {
        let ready = poll(START, || {
            let ended = self.child.try_wait().expect("our own child");
            assert!(ended.is_none(), "{} has ended: {ended:?}\n{}", self.name, self.log());
            is_ready(self.address()).then_some(())
        });
        assert!(ready.is_some(), "{} is not ready within {START:?}:\n{}", self.name, self.log());
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        let mut bytes = vec![0; self.log.metadata().map_or(0, |meta| meta.len() as usize)];
        let read = self.log.read_exact_at(&mut bytes, 0);
        read.map_or_else(|error| error.to_string(), |()| String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.name, self.log());
        }
    }
}

/// Starts a process from a thread that never ends. The kernel's "parent" is the thread that forked:
/// a server started by the thread of one test would die when that test is done.
fn spawn(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, answer) = mpsc::channel();
    spawner.send((command, reply)).expect("the thread never ends");
    answer.recv().expect("the thread never ends")
}

/// A file that has no name any more, so that nothing is left of it, however the test ends.
fn unnamed_file() -> File {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("driftless-server-{}-{number}.log", std::process::id()));
    let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
    let file = file.unwrap_or_else(|error| panic!("cannot create {}: {error}", path.display()));
    std::fs::remove_file(&path).expect("made above");
    file
}
