//! A death changes nothing of what is there in the end.
//!
//! The same script is run without a death and with one after each action. In the end the application
//! has made the same commits and finds the same rows, whatever befell us beside it. Scripts in which
//! the application itself loses commits are left out: whether such a commit counts depends on who has
//! the wal-index mapped, which is for SQLite to say and not for us.

use super::super::app::AppOp;
use super::super::plan::Plan;
use super::super::summary::Contents;
use super::super::violation::Violation;

/// Whether what the application does ends the same whoever is beside it.
pub fn is_certain(plan: &Plan) -> bool {
    plan.script.iter().all(|(_, op)| {
        matches!(
            op,
            AppOp::Rest
                | AppOp::Open { .. }
                | AppOp::Close
                | AppOp::Write(_)
                | AppOp::Vacuum
                | AppOp::Checkpoint(_)
        )
    })
}

/// What is there after a run with a death is what is there after one without.
///
/// # Errors
/// When it is not.
pub fn check(without: &Contents, with: &Contents) -> Result<(), Violation> {
    match without == with {
        true => Ok(()),
        false => Err(Violation::new(
            "crash equals no crash",
            format!("{with:?} is there, without a death {without:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::scripts;
    use super::*;

    #[test]
    fn other_contents_are_found() {
        let contents = Contents { commits: 3, size: 70 };
        check(&contents, &contents).unwrap();
        let less = Contents { size: 60, ..contents };
        assert_eq!(check(&contents, &less).unwrap_err().oracle, "crash equals no crash");
    }

    #[test]
    fn scripts_that_lose_commits_are_left_out() {
        assert!(
            is_certain(&scripts::daily()) && is_certain(&scripts::tiny()) && !is_certain(&scripts::rough())
        );
    }
}
