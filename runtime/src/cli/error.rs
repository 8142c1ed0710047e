//! What goes wrong, as the person at the terminal reads it: what, why, and what to do now.
//!
//! ```text
//! error: cannot restore to /srv/app.db
//! caused by: the file exists
//!
//! hint: give another path with -o, or replace it with -force
//! ```
//!
//! Sentences are lower-case and do not repeat what a line above has said. The exit code tells a
//! script the kind of trouble; the table is in `docs/OPERATING.md`.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use driftless_core::machine::Exit;

/// An error with its exit code, its causes and a hint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CliError {
    /// The process exit code: 1 to 6, or that of the application.
    pub code: u8,
    /// What could not be done.
    pub error: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What a person can do now.
    pub hint: Option<String>,
}

impl CliError {
    fn new(code: u8, error: impl Into<String>) -> CliError {
        CliError { code, error: error.into(), causes: Vec::new(), hint: None }
    }

    /// It failed; exit code 1.
    pub fn failed(error: impl Into<String>) -> CliError {
        CliError::new(1, error)
    }

    /// A wrong command line or configuration; exit code 2.
    pub fn usage(error: impl Into<String>) -> CliError {
        CliError::new(2, error)
    }

    /// There is nothing to restore; exit code 3.
    pub fn nothing(error: impl Into<String>) -> CliError {
        CliError::new(3, error)
    }

    /// Damage; exit code 4.
    pub fn corrupt(error: impl Into<String>) -> CliError {
        CliError::new(4, error)
    }

    /// Adds the next cause.
    pub fn cause(mut self, cause: impl fmt::Display) -> CliError {
        self.causes.push(cause.to_string());
        self
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> CliError {
        let hint = hint.into();
        self.hint = (!hint.is_empty()).then_some(hint);
        self
    }

    /// How a machine ended, seen as a result.
    pub fn from_exit(exit: Exit) -> Result<(), CliError> {
        let code = exit.code();
        let (error, hint) = match exit {
            Exit::Done => return Ok(()),
            Exit::Overtaken { error } => (error, String::new()),
            Exit::Failed { error, hint }
            | Exit::Misconfigured { error, hint }
            | Exit::NothingToRestore { error, hint }
            | Exit::Corrupt { error, hint }
            | Exit::Fenced { error, hint } => (error, hint),
            Exit::Unreplicated { from, frames, error } => {
                let what = match frames {
                    0 => format!("stopped with transactions from txid {from} on not on the replica"),
                    1 => format!("stopped with one frame from txid {from} on not on the replica"),
                    _ => format!("stopped with {frames} frames from txid {from} on not on the replica"),
                };
                let hint =
                    "keep the database and its -wal file, and start again: replication goes on from there";
                return Err(CliError::new(code, what).cause(error).hint(hint));
            }
        };
        Err(CliError::new(code, error).hint(hint))
    }

    /// Writes it to standard error, in colour if that is a terminal that shows any.
    pub fn print(&self) {
        let stderr = io::stderr();
        let colour =
            stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        // Nobody is left to tell when standard error is closed.
        let _ = stderr.lock().write_all(self.render(colour).as_bytes());
    }

    fn render(&self, colour: bool) -> String {
        let paint = |code: &str, word: &str| match colour {
            true => format!("\x1b[{code}m{word}\x1b[0m"),
            false => word.to_owned(),
        };
        let mut text = format!("{} {}\n", paint("1;31", "error:"), self.error);
        for cause in &self.causes {
            text.push_str(&format!("{} {cause}\n", paint("31", "caused by:")));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("\n{} {hint}\n", paint("1;36", "hint:")));
        }
        text
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for CliError {}

#[cfg(test)]
mod tests {
    use super::*;
    use driftless_core::ids::Txid;

    #[test]
    fn errors_read_from_what_to_why_to_what_now() {
        let error = CliError::usage("cannot read the configuration /etc/driftless.yml")
            .cause("line 3: unknown key \"pth\"")
            .hint("did you mean \"path\"?");
        assert_eq!(
            error.render(false),
            "error: cannot read the configuration /etc/driftless.yml\n\
             caused by: line 3: unknown key \"pth\"\n\nhint: did you mean \"path\"?\n"
        );
        assert!(error.render(true).starts_with("\x1b[1;31merror:\x1b[0m cannot"));
        assert_eq!(CliError::failed("no").hint("").render(false), "error: no\n");
    }

    #[test]
    fn exits_keep_their_codes() {
        assert_eq!(CliError::from_exit(Exit::Done), Ok(()));
        let (error, hint) = (String::from("e"), String::from("h"));
        for (exit, code) in [
            (Exit::Failed { error: error.clone(), hint: hint.clone() }, 1),
            (Exit::Misconfigured { error: error.clone(), hint: hint.clone() }, 2),
            (Exit::NothingToRestore { error: error.clone(), hint: hint.clone() }, 3),
            (Exit::Corrupt { error: error.clone(), hint: hint.clone() }, 4),
            (Exit::Fenced { error: error.clone(), hint }, 5),
            (Exit::Unreplicated { from: Txid::FIRST, frames: 3, error }, 6),
        ] {
            assert_eq!(CliError::from_exit(exit).unwrap_err().code, code);
        }
    }
}
