//! The application is not harmed: it waits for us no longer than is stated.
//!
//! That no commit of its own goes missing the application finds itself, and that nothing of ours
//! stands in its database it is asked at the end (`sim/src/ring0/app.rs`).

use std::time::Duration;

use super::super::violation::Violation;

/// The name of the oracle.
pub const ORACLE: &str = "source unharmed";

/// What a commit may wait for us, beside the requests that are made under the lock.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Requests that are made under the lock, at the most.
const REQUESTS: u32 = 24;

/// Nobody but us stands in the way of the application's writes, and we may for so long.
///
/// # Errors
/// When it was longer. `latency` is the longest of a request to the source.
pub fn waits(blocked: Duration, latency: Duration) -> Result<(), Violation> {
    let bound = WAIT_MAX + REQUESTS * latency;
    match blocked > bound {
        true => Err(Violation::new(ORACLE, format!("no write for {blocked:?}, {bound:?} is allowed"))),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_wait_is_found() {
        let ms = Duration::from_millis;
        waits(ms(124), ms(1)).unwrap();
        assert_eq!(waits(ms(125), ms(1)).unwrap_err().oracle, ORACLE);
    }
}
