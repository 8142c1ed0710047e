//! Telling the service manager (sd_notify): datagrams to the socket that it names in the environment.
//!
//! Nothing is sent while nothing changes, but for the watchdog's, where one is set.

use std::fmt::Write as _;
use std::io;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::rc::Rc;
use std::time::Duration;

use driftless_core::application::Databases;
use rustix::time::{ClockId, clock_gettime};

use crate::host::databases::Life;
use crate::host::{Host, Moment};

/// The shortest time between two status lines.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// What the end of the process may take beyond the final sync.
const STOP_SLACK: Duration = Duration::from_secs(5);

/// A service manager that wants to know.
pub struct Notifier {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// As the environment says; `None` where no service manager started us.
    ///
    /// # Errors
    /// When its socket cannot be spoken to by any name.
    pub fn from_environment() -> io::Result<Option<Notifier>> {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Ok(None);
        };
        let address = address(name.as_encoded_bytes())?;
        let text = |name: &str| std::env::var(name).ok();
        let watchdog = watchdog(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), std::process::id());
        Ok(Some(Notifier { socket: UnixDatagram::unbound()?, address, watchdog }))
    }

    fn say(&self, text: &str) {
        // In the way of nothing: a manager that does not read must not stop us.
        let sent = self
            .socket
            .set_nonblocking(true)
            .and_then(|()| self.socket.send_to_addr(text.as_bytes(), &self.address));
        if let Err(error) = sent {
            tracing::debug!(%error, "the service manager was not told: {text}");
        }
    }

    /// Tells of a moment in the life of the process.
    pub fn moment(&self, moment: Moment, shutdown_sync_timeout: Duration) {
        match moment {
            // That each has been started says too little: see `serve`.
            Moment::Ready => {}
            Moment::Reloading => {
                let now = clock_gettime(ClockId::Monotonic);
                let micros = now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000;
                self.say(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
            }
            Moment::Reloaded => self.say("READY=1"),
            Moment::Stopping => {
                let time = shutdown_sync_timeout.saturating_add(STOP_SLACK).as_micros();
                self.say(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={time}\nSTATUS=finishing the last sync"));
            }
        }
    }
}

/// The address of a name: a path, or in the abstract namespace behind an `@`.
fn address(name: &[u8]) -> io::Result<SocketAddr> {
    match name.strip_prefix(b"@") {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        #[cfg(not(target_os = "linux"))]
        Some(_) => Err(io::ErrorKind::Unsupported.into()),
        None => {
            use std::os::unix::ffi::OsStrExt as _;
            SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))
        }
    }
}

/// How often a watchdog wants to hear of us: twice in its time, as its manual has it.
fn watchdog(micros: Option<String>, pid: Option<String>, own: u32) -> Option<Duration> {
    let ours = pid.is_none_or(|pid| pid.parse() == Ok(own));
    let micros: u64 = micros.filter(|_| ours)?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros) / 2)
}

/// Tells the service manager how the process is, for as long as it runs.
pub(crate) async fn serve(host: Rc<Host>, notifier: Rc<Notifier>) {
    let settled = || Some(super::standing(&host)).filter(|known| *known != Databases::Starting);
    if matches!(host.changes.until(settled).await, Databases::Lost | Databases::Ended) {
        return;
    }
    let mut told = summary(&host);
    notifier.say(&format!("READY=1\nSTATUS={told}"));
    loop {
        let now = summary(&host);
        if now == told || host.is_closing() {
            host.changes.next().await;
            continue;
        }
        notifier.say(&format!("STATUS={now}"));
        told = now;
        async_io::Timer::after(STATUS_EVERY).await;
    }
}

/// Feeds the watchdog, if there is one.
pub(crate) async fn feed(notifier: Rc<Notifier>) {
    let Some(every) = notifier.watchdog else { return };
    loop {
        notifier.say("WATCHDOG=1");
        async_io::Timer::after(every).await;
    }
}

/// The process in one line.
fn summary(host: &Host) -> String {
    let (mut count, mut phases, mut trouble) = (0, Vec::<(&str, usize)>::new(), None);
    host.for_each(|entry| {
        count += 1;
        let phase = crate::control::phase(entry);
        match phases.iter_mut().find(|(known, _)| *known == phase) {
            Some((_, count)) => *count += 1,
            None => phases.push((phase, 1)),
        }
        let said = match &entry.life {
            Life::Ended(exit) => exit.error().map(str::to_owned),
            _ => entry.status().and_then(|status| {
                let waiting = status.waiting.as_ref().map(|waiting| &waiting.why);
                waiting.or(status.last_error.as_ref()).cloned()
            }),
        };
        if let Some(said) = said.filter(|_| trouble.is_none()) {
            trouble = Some(format!("{}: {said}", entry.database.display()));
        }
    });
    let mut line = match count {
        1 => "1 database".to_owned(),
        count => format!("{count} databases"),
    };
    for (number, (phase, count)) in phases.iter().enumerate() {
        let divider = if number == 0 { ": " } else { ", " };
        let _ = write!(line, "{divider}{count} {phase}");
    }
    if let Some(trouble) = trouble {
        let _ = write!(line, "; {}", trouble.replace('\n', " "));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let half = |micros: &str, pid: Option<&str>| {
            watchdog(Some(micros.to_owned()), pid.map(str::to_owned), 7).map(|half| half.as_millis())
        };
        assert_eq!(half("30000000", None), Some(15_000));
        assert_eq!(half("30000000", Some("7")), Some(15_000));
        assert_eq!(half("30000000", Some("8")), None);
        assert_eq!((half("0", None), half("soon", None)), (None, None));
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn sockets_have_paths_or_abstract_names() {
        assert!(address(b"/run/systemd/notify").unwrap().as_pathname().is_some());
        let hidden = address(b"@here").unwrap();
        assert!(hidden.as_pathname().is_none() && !hidden.is_unnamed());
        assert!(address(&[b'/'; 200]).is_err());
    }
}
