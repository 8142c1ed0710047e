//! Whether a database is well: what whoever is alarmed when it is not wants to know.

use core::time::Duration;

use crate::engine::{Phase, Status};
use crate::ids::Mono;
use crate::validate::ValidateStatus;

/// How long a commit may wait for the replica in a database that is well. Failures that are over
/// sooner alarm nobody.
pub const LAG_MAX: Duration = Duration::from_secs(60);

/// What is the matter with a database.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Ailment {
    /// It is not known yet what is on the replica.
    Starting,
    /// It cannot be followed now.
    Waiting,
    /// Something has been waiting for the replica for longer than [`LAG_MAX`].
    Behind,
    /// The last validation of its replica found a fault.
    Damaged,
}

impl Ailment {
    /// The word for people.
    pub const fn word(self) -> &'static str {
        match self {
            Ailment::Starting => "starting",
            Ailment::Waiting => "waiting",
            Ailment::Behind => "behind",
            Ailment::Damaged => "damaged",
        }
    }
}

/// What is the matter with a database whose engine runs; `None` if it is well: all that was committed
/// a minute ago and before is on the replica, and no validation has found a fault there.
///
/// A quiet database is well however long ago its store was last asked: nothing is missing there.
pub fn ailment(status: Option<&Status>, validation: Option<&ValidateStatus>, now: Mono) -> Option<Ailment> {
    let Some(status) = status else { return Some(Ailment::Starting) };
    if status.waiting.is_some() {
        return Some(Ailment::Waiting);
    }
    if status.behind_since.is_some_and(|since| now.since(since) > LAG_MAX) {
        return Some(Ailment::Behind);
    }
    // A call to the disk that does not come back: what is committed meanwhile cannot be seen.
    if status.source_asked.is_some_and(|since| now.since(since) > LAG_MAX) {
        return Some(Ailment::Behind);
    }
    let known = status.replicated.is_some() && status.phase != Phase::Starting;
    if !known {
        return Some(Ailment::Starting);
    }
    validation.is_some_and(ValidateStatus::is_faulty).then_some(Ailment::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Config, Replicator, Waiting};
    use crate::ids::{Txid, Wall};
    use crate::machine::{Machine as _, ReplicaId};
    use crate::validate::Validated;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn well_is_what_has_nothing_old_to_send() {
        let now = Mono::from_duration(Duration::from_secs(1000));
        let ago = |seconds: u64| Some(Mono::from_duration(Duration::from_secs(1000 - seconds)));
        let fresh = Replicator::new(ReplicaId(0), 1, Config::default()).status();
        let check =
            |status: &Status, expected| assert_eq!(ailment(Some(status), None, now), expected, "{status:?}");
        assert_eq!(ailment(None, None, now), Some(Ailment::Starting));
        check(&fresh, Some(Ailment::Starting));
        let well = Status { phase: Phase::Quiet, replicated: Some(Txid::FIRST), ..fresh.clone() };
        check(&well, None);
        check(&Status { behind_since: ago(60), last_error: Some(String::from("x")), ..well.clone() }, None);
        check(&Status { behind_since: ago(61), ..well.clone() }, Some(Ailment::Behind));
        // A first base that takes long leaves everything unprotected.
        check(&Status { behind_since: ago(61), replicated: None, ..well.clone() }, Some(Ailment::Behind));
        check(&Status { replicated: None, ..well.clone() }, Some(Ailment::Starting));
        check(&Status { source_asked: ago(60), ..well.clone() }, None);
        check(&Status { source_asked: ago(61), ..well.clone() }, Some(Ailment::Behind));
        let waiting = Waiting { why: String::new(), hint: String::new(), unseen: false };
        check(&Status { waiting: Some(waiting), ..well.clone() }, Some(Ailment::Waiting));

        let last =
            |faults_count| Validated { at: Wall(0), objects: 1, bytes: 1, faults: Vec::new(), faults_count };
        let validation =
            |last| ValidateStatus { validating: false, last, trouble: Some(String::from("503")) };
        let with = |status: &Status, last| ailment(Some(status), Some(&validation(last)), now);
        assert_eq!(with(&well, None), None, "that nothing was found out is no fault");
        assert_eq!(with(&well, Some(last(0))), None);
        assert_eq!(with(&well, Some(last(1))), Some(Ailment::Damaged));
        assert_eq!(with(&Status { behind_since: ago(61), ..well }, Some(last(1))), Some(Ailment::Behind));
    }
}
