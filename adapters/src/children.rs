//! Commands that are run for their answer, such as those that give credentials.
//!
//! One that hangs is killed after its time, with all that it has begun, so that it holds no thread.
//! Its answer is what was written before it ended: what it leaves running may keep the pipes open.
//!
//! The first process of a container reaps whoever has lost its parent, and cannot choose whom. So
//! commands are known from before they can end, and how one has ended is kept for whoever awaits it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process_group, wait};

/// The longest time between two looks whether a command has ended.
const LOOK: Duration = Duration::from_millis(10);

/// The commands that are awaited, and how those have ended that another has reaped.
static AWAITED: Mutex<BTreeMap<i32, Option<WaitStatus>>> = Mutex::new(BTreeMap::new());

fn awaited() -> MutexGuard<'static, BTreeMap<i32, Option<WaitStatus>>> {
    // Every change is a single step, so a panic elsewhere leaves it usable.
    AWAITED.lock().unwrap_or_else(PoisonError::into_inner)
}

fn number(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

/// Reaps any child of this process that has ended.
pub fn reap_any() -> Option<(Pid, WaitStatus)> {
    let mut awaited = awaited();
    let (pid, status) = retry_on_intr(|| wait(WaitOptions::NOHANG)).ok().flatten()?;
    if let Some(kept) = awaited.get_mut(&number(pid)) {
        *kept = Some(status);
    }
    Some((pid, status))
}

/// Runs a command without input. Blocks.
///
/// # Errors
/// As the system says; `TimedOut` if it has not ended after `limit`, and `FileTooLarge` if it says
/// more than `len_max` bytes. It is killed then.
pub fn run(command: &mut Command, limit: Duration, len_max: usize) -> io::Result<Output> {
    let deadline = Instant::now() + limit;
    let mut running = Running::begin(command)?;
    let pipes = (running.child.stdout.take(), running.child.stderr.take());
    let mut stdout = Pipe::new(pipes.0.expect("it was asked for").into())?;
    let mut stderr = Pipe::new(pipes.1.expect("it was asked for").into())?;
    loop {
        // First this: what it has written is there once it has ended.
        let ended = running.ended()?;
        stdout.read(len_max)?;
        stderr.read(len_max)?;
        if let Some(status) = ended {
            return Ok(Output { status, stdout: stdout.bytes, stderr: stderr.bytes });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let cause = format!("not done within {} s", limit.as_secs_f32());
            return Err(io::Error::new(io::ErrorKind::TimedOut, cause));
        }
        wait_for_any(&[&stdout, &stderr], left.min(LOOK))?;
    }
}

/// A command that is awaited.
struct Running {
    child: Child,
    pid: Pid,
    /// Whether its number may be another's by now.
    reaped: bool,
}

impl Running {
    fn begin(command: &mut Command) -> io::Result<Running> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut awaited = awaited();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        awaited.insert(number(pid), None);
        Ok(Running { child, pid, reaped: false })
    }

    fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let awaited = awaited();
        let status = match awaited.get(&number(self.pid)) {
            Some(Some(status)) => Ok(Some(ExitStatus::from_raw(status.as_raw()))),
            _ => self.child.try_wait(),
        };
        self.reaped = !matches!(status, Ok(None));
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut known = awaited();
        if !self.reaped && known.get(&number(self.pid)).is_some_and(Option::is_none) {
            // The number of its group is its own.
            let _ = kill_process_group(self.pid, Signal::KILL);
            drop(known);
            // An error means that another has reaped it.
            let _ = self.child.wait();
            known = awaited();
        }
        known.remove(&number(self.pid));
    }
}

/// What a command says.
struct Pipe {
    file: Option<File>,
    bytes: Vec<u8>,
}

impl Pipe {
    fn new(end: OwnedFd) -> io::Result<Pipe> {
        rustix::io::ioctl_fionbio(&end, true)?;
        Ok(Pipe { file: Some(end.into()), bytes: Vec::new() })
    }

    /// Reads what is there.
    fn read(&mut self, len_max: usize) -> io::Result<()> {
        let mut chunk = [0; 4096];
        while let Some(file) = &mut self.file {
            match file.read(&mut chunk) {
                Ok(0) => self.file = None,
                Ok(n) => self.bytes.extend_from_slice(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.bytes.len() > len_max {
                let cause = format!("it says more than {len_max} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, cause));
            }
        }
        Ok(())
    }
}

fn wait_for_any(pipes: &[&Pipe], limit: Duration) -> io::Result<()> {
    let open = pipes.iter().filter_map(|pipe| pipe.file.as_ref());
    let mut open: Vec<PollFd<'_>> = open.map(|file| PollFd::new(file, PollFlags::IN)).collect();
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut open, Some(&limit)) {
        Err(rustix::io::Errno::INTR) => Ok(()),
        polled => polled.map(|_| ()).map_err(io::Error::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, limit: Duration) -> io::Result<Output> {
        run(Command::new("sh").args(["-c", script]), limit, 1 << 20)
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_command_says_comes_back() {
        let output = sh("head -c 300000 /dev/zero; echo no >&2; exit 3", LONG).unwrap();
        assert_eq!((output.stdout.len(), &output.stderr[..]), (300_000, &b"no\n"[..]));
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(sh("yes", LONG).map_err(|error| error.kind()).err(), Some(io::ErrorKind::FileTooLarge));
    }

    #[test]
    fn one_that_hangs_is_killed_with_all_that_it_began() {
        let file = std::env::temp_dir().join(format!("driftless-children-{}", std::process::id()));
        let script = format!("sleep 1000 & echo $! > {}; wait", file.display());
        let error = sh(&script, Duration::from_secs(2)).err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let pid: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
        std::fs::remove_file(file).unwrap();
        // What is left of it is nobody's to reap but the first process's.
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let begun = Instant::now();
        while !gone() {
            assert!(begun.elapsed() < LONG, "{pid} is still there");
            std::thread::sleep(LOOK);
        }
    }

    #[test]
    fn whoever_reaps_all_takes_no_commands_end() {
        use std::sync::atomic::{AtomicBool, Ordering};
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _ = reap_any();
                }
            });
            let codes: Vec<_> =
                (0..50).map(|_| sh("exit 3", LONG).map(|output| output.status.code())).collect();
            over.store(true, Ordering::Relaxed);
            for code in codes {
                assert_eq!(code.unwrap(), Some(3));
            }
        });
        assert!(awaited().values().all(Option::is_none), "nothing is kept of what has been told");
    }

    #[test]
    fn what_it_leaves_behind_is_not_waited_for() {
        let begun = Instant::now();
        let output = sh("sleep 5 & echo said", LONG).unwrap();
        assert_eq!(output.stdout, b"said\n");
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    }
}
