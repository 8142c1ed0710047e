//! Signals of this process.
//!
//! Ctrl-C reaches the whole foreground group of a terminal, so the application has had it too, and
//! one more would tell many programs to stop without care. So it is noted who sent a signal: the
//! kernel does for the terminal, and others are processes.

use std::io;

use driftless_core::application::Signal;
use futures_lite::StreamExt as _;
use rustix::process::Signal as System;
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::low_level::siginfo::Cause;
use signal_hook_async_std::SignalsInfo;

const KNOWN: [(Signal, System); 7] = [
    (Signal::Term, System::TERM),
    (Signal::Int, System::INT),
    (Signal::Hup, System::HUP),
    (Signal::Quit, System::QUIT),
    (Signal::Usr1, System::USR1),
    (Signal::Usr2, System::USR2),
    (Signal::Winch, System::WINCH),
];

/// Signals as they arrive. Those taken have no other effect on the process from then on.
pub struct Signals(SignalsInfo<WithOrigin>);

/// A signal that has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrived {
    /// Which.
    pub signal: Signal,
    /// Whether the terminal sent it.
    pub from_terminal: bool,
}

impl Signals {
    /// Takes SIGTERM and SIGINT; SIGHUP, if there is a configuration to read again; and with an
    /// application whatever is passed on to one. SIGHUP stays ignored where whoever started us
    /// ignores it, as nohup does: there it means the end of a terminal.
    ///
    /// # Errors
    /// When the system has no descriptors left.
    pub fn take(application: bool, configuration: bool) -> io::Result<Signals> {
        let taken = KNOWN.iter().filter(|(signal, _)| match signal {
            Signal::Term | Signal::Int => true,
            Signal::Hup => (application || configuration) && !is_ignored(System::HUP),
            _ => application,
        });
        // Where whoever started us ignores SIGCHLD, the kernel would forget the exit code.
        let child = application.then_some(System::CHILD);
        SignalsInfo::new(taken.map(|(_, system)| *system).chain(child).map(System::as_raw)).map(Signals)
    }

    /// The next one. Several of one kind that come at once may count as one.
    pub async fn next(&mut self) -> Arrived {
        loop {
            let origin = self.0.next().await.expect("nobody closes the stream");
            let known = KNOWN.iter().find(|(_, system)| system.as_raw() == origin.signal);
            if let Some((signal, _)) = known {
                return Arrived { signal: *signal, from_terminal: origin.cause == Cause::Kernel };
            }
        }
    }
}

/// Whether this process ignores a signal; where the kernel does not tell, it does not.
fn is_ignored(signal: System) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal.as_raw() - 1) & 1 == 1)
}

/// A signal that is passed on, as the system has it.
pub fn of_system(signal: Signal) -> System {
    let known = KNOWN.iter().find(|(known, _)| *known == signal);
    known.expect("every signal is in the table").1
}

/// The name of a signal by its number, for people.
pub fn name(number: i32) -> String {
    signal_hook::low_level::signal_name(number).map_or_else(|| format!("signal {number}"), str::to_owned)
}
