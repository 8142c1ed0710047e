//! A process ends only when it was told to, or when it must.
//!
//! Somebody who stops a process for an upgrade relies on its exit code: 0 says that everything is on
//! the replica. A process that ends by itself leaves a database without a replica.

use driftless_core::machine::Exit;

use super::super::violation::Violation;

const ORACLE: &str = "exit";

/// What an end may be, by what befell the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Allowed {
    /// It was told to stop.
    pub stop: bool,
    /// It cannot know that the replica is its own.
    pub fenced: bool,
    /// It was shown a replica that is damaged.
    pub corrupt: bool,
}

/// A process may end like this.
///
/// # Errors
/// When it may not.
pub fn check(exit: &Exit, allowed: Allowed) -> Result<(), Violation> {
    let expected = match exit {
        Exit::Done | Exit::Unreplicated { .. } => allowed.stop,
        Exit::Fenced { .. } => allowed.fenced,
        Exit::Corrupt { .. } => allowed.corrupt,
        _ => false,
    };
    match expected {
        true => Ok(()),
        false => Err(Violation::new(ORACLE, format!("{exit:?}, told to stop: {}", allowed.stop))),
    }
}

/// An end that says that all is done leaves all on the replica that was committed before it was
/// told: `there` states from the first on are known to be, and `owed` were.
///
/// # Errors
/// When it does not.
pub fn check_done(exit: &Exit, there: usize, owed: usize) -> Result<(), Violation> {
    if *exit != Exit::Done || there >= owed {
        return Ok(());
    }
    let text = format!("{exit:?}: {there} states are on the replica, {owed} were committed before");
    Err(Violation::new(ORACLE, text))
}

#[cfg(test)]
mod tests {
    use driftless_core::ids::Txid;

    use super::*;

    #[test]
    fn an_end_that_nobody_asked_for_is_found() {
        let fenced = || Exit::Fenced { error: String::new(), hint: String::new() };
        let failed = Exit::Failed { error: String::new(), hint: String::new() };
        let all = Allowed { stop: true, fenced: true, corrupt: true };
        assert_eq!((check(&Exit::Done, all), check(&fenced(), all)), (Ok(()), Ok(())));
        let none = Allowed::default();
        for (exit, allowed) in [(Exit::Done, none), (fenced(), Allowed { stop: true, ..none }), (failed, all)]
        {
            assert_eq!(check(&exit, allowed).unwrap_err().oracle, ORACLE, "{exit:?}");
        }
    }

    #[test]
    fn a_false_done_is_found() {
        check_done(&Exit::Done, 5, 5).unwrap();
        assert_eq!(check_done(&Exit::Done, 4, 5).unwrap_err().oracle, ORACLE);
        let honest = Exit::Unreplicated { from: Txid::FIRST, frames: 1, error: String::new() };
        check_done(&honest, 4, 5).unwrap();
    }
}
