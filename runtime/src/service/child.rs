//! The application as a child process.
//!
//! A thread of its own waits for its end, which works on every kernel and under every seccomp
//! profile, as descriptors of processes do not; nothing wakes meanwhile. As the first process of a
//! container we are the parent of all whose own parent has died, and those the thread reaps as well.
//! It reaps under a lock that whoever sends a signal takes: a number that has been reaped may be
//! another's by then.

use std::io;
use std::process::Command;
use std::sync::{Arc, Mutex};

use driftless_adapters::children;
use driftless_core::application::Signal;
use driftless_core::machine::Exit;
use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, Signal as System, WaitId, WaitIdOptions, WaitOptions, WaitStatus, getpid, kill_process, waitid,
    waitpid,
};
use smol::channel::{Receiver, Sender, bounded};

use super::signals;

/// How an application ended.
#[derive(Clone, Copy, Debug)]
pub struct End(WaitStatus);

impl End {
    /// Its exit code as a shell has it: 128 and the number if a signal ended it.
    pub fn code(self) -> u8 {
        let code = self.0.exit_status().or_else(|| self.0.terminating_signal().map(|signal| 128 + signal));
        code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
    }

    /// How it ended, in words.
    pub fn describe(self) -> String {
        match (self.0.exit_status(), self.0.terminating_signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by {}", signals::name(signal)),
            (None, None) => "ended in a way that the system does not tell".to_owned(),
        }
    }
}

/// A running application.
pub struct Application {
    pid: Pid,
    /// How it ended, once it has been reaped.
    reaped: Arc<Mutex<Option<End>>>,
    gone: Receiver<End>,
}

impl Application {
    /// Starts it with our environment, standard streams and working directory, but without what
    /// the service manager meant for us.
    ///
    /// # Errors
    /// What is wrong with the command, or with the system.
    pub fn start(words: &[String]) -> Result<Application, Exit> {
        Application::start_with(words, &[])
    }

    /// The same, with these variables in its environment besides.
    ///
    /// # Errors
    /// As [`Application::start`].
    pub fn start_with(words: &[String], variables: &[(&str, String)]) -> Result<Application, Exit> {
        let (program, arguments) = words.split_first().expect("a command has a first word");
        let mut command = Command::new(program);
        command.args(arguments);
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
            command.env_remove(name);
        }
        // From here on the thread reaps it, and nobody by this handle.
        let mut child = command.spawn().map_err(|error| cannot_start(program, &error))?;
        let pid = Pid::from_child(&child);
        let (tell, gone) = bounded(1);
        let reaped = Arc::new(Mutex::new(None));
        let thread = std::thread::Builder::new().name("application".to_owned());
        let state = Arc::clone(&reaped);
        match thread.spawn(move || await_end(pid, &state, &tell)) {
            Ok(_) => Ok(Application { pid, reaped, gone }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(cannot_start(program, &error))
            }
        }
    }

    /// Its process number.
    pub fn id(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Waits for its end.
    pub async fn ended(&self) -> End {
        self.gone.recv().await.expect("the thread sends before it ends")
    }

    /// Sends it a signal. One that has ended takes no notice.
    pub fn send(&self, signal: Signal) {
        self.send_to_it(signals::of_system(signal));
    }

    /// Sends it SIGKILL.
    pub fn kill(&self) {
        self.send_to_it(System::KILL);
    }

    fn send_to_it(&self, signal: System) {
        let reaped = self.reaped.lock().expect("no holder panics");
        if reaped.is_none()
            && let Err(error) = kill_process(self.pid, signal)
        {
            let signal = signals::name(signal.as_raw());
            tracing::warn!(signal, %error, "the application was not sent a signal");
        }
    }
}

/// Reaps the application; and at the root of a container, to the end of that, whoever ends. How
/// commands end that give credentials is kept for whoever awaits them ([`children`]).
fn await_end(application: Pid, reaped: &Mutex<Option<End>>, tell: &Sender<End>) {
    let first = getpid().is_init();
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        let whom = || if first { WaitId::All } else { WaitId::Pid(application) };
        let waited = retry_on_intr(|| waitid(whom(), options));
        assert!(waited.is_ok(), "a child that nobody else reaps is there: {waited:?}");
        let mut reaped = reaped.lock().expect("no holder panics");
        let ended = match first {
            true => children::reap_any(),
            false => retry_on_intr(|| waitpid(Some(application), WaitOptions::NOHANG)).ok().flatten(),
        };
        if let Some((_, status)) = ended.filter(|(pid, _)| *pid == application) {
            *reaped = Some(End(status));
            // Nobody listens if the process ends first.
            let _ = tell.try_send(End(status));
            return;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_children_are_left_to_whoever_began_them() {
        let words = ["sleep", "2"].map(str::to_owned);
        let Ok(application) = Application::start(&words) else { panic!("there is a program sleep") };
        for _ in 0..100 {
            let output = Command::new("true").output();
            assert!(output.as_ref().is_ok_and(|output| output.status.success()), "{output:?}");
        }
        application.kill();
        assert_eq!(smol::block_on(application.ended()).code(), 137);
    }
}
