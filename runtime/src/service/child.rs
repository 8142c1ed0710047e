//! The application as a child process.
//!
//! A thread of its own waits for its end, without reaping it: so its number stays its own until
//! the signal for it, if any, has been sent. That works on every kernel and under every seccomp
//! profile, which descriptors of processes do not, and nothing wakes meanwhile.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus};

use driftless_core::application::Signal;
use driftless_core::machine::Exit;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use smol::channel::{Receiver, bounded};

use super::signals;

/// How an application ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End(ExitStatus);

impl End {
    /// Its exit code as a shell has it: 128 and the number if a signal ended it.
    pub fn code(self) -> u8 {
        let code = self.0.code().or_else(|| self.0.signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }

    /// How it ended, in words.
    pub fn describe(self) -> String {
        match (self.0.code(), self.0.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by {}", signals::name(signal)),
            (None, None) => "ended in a way that the system does not tell".to_owned(),
        }
    }
}

/// A running application.
pub struct Application {
    child: Child,
    gone: Receiver<()>,
}

impl Application {
    /// Starts it with our environment, standard streams and working directory, but without what
    /// the service manager meant for us.
    ///
    /// # Errors
    /// What is wrong with the command, or with the system.
    pub fn start(words: &[String]) -> Result<Application, Exit> {
        let (program, arguments) = words.split_first().expect("a command has a first word");
        let mut command = Command::new(program);
        command.args(arguments);
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        let mut child = command.spawn().map_err(|error| cannot_start(program, &error))?;
        let pid = Pid::from_child(&child);
        let (tell, gone) = bounded(1);
        let waits = std::thread::Builder::new().name("application".to_owned()).spawn(move || {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let waited = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(pid), options));
            debug_assert!(waited.is_ok(), "a child that nobody has reaped can be waited for: {waited:?}");
            // Nobody listens if the process ends first.
            let _ = tell.try_send(());
        });
        match waits {
            Ok(_) => Ok(Application { child, gone }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(cannot_start(program, &error))
            }
        }
    }

    /// Its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, which can be asked for more than once until it has come.
    pub async fn ended(&mut self) -> End {
        // The thread sends once; an error means that it has sent before.
        let _ = self.gone.recv().await;
        End(self.child.wait().expect("a child is reaped by nobody else"))
    }

    /// Sends it a signal. One that has ended takes no notice.
    pub fn send(&self, signal: Signal) {
        let signal = signals::of_system(signal);
        if let Err(error) = kill_process(Pid::from_child(&self.child), signal) {
            let signal = signals::name(signal.as_raw());
            tracing::warn!(signal, %error, "the application was not sent a signal");
        }
    }

    /// Sends it SIGKILL.
    pub fn kill(&mut self) {
        if let Err(error) = self.child.kill() {
            tracing::warn!(%error, "the application was not killed");
        }
    }
}

/// A program that is not there is not there at the next start either; a system without room for one
/// more process may have it again.
fn cannot_start(program: &str, error: &io::Error) -> Exit {
    let text = format!("cannot start the application {program}: {error}");
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => {
            Exit::Failed { error: text, hint: "see the limits of processes and memory".into() }
        }
        _ => Exit::Misconfigured {
            error: text,
            hint: "name a program that this user may run; for a shell's syntax: -exec \"sh -c '…'\"".into(),
        },
    }
}
