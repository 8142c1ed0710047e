//! Every fault that can befall a run, by name: the catalogue of the simulator.
//!
//! A fault has a name and a class. A plan holds the names that may befall its run ([`Faults`]);
//! the dice decide when they do, each decision under the fault's own name, so that a fault can be
//! taken out of a run without a change to the others. Of the seeds from [`FULL_FROM`] on, one in
//! ten has no fault at all, one in twenty all classes, and the others each class with one chance in
//! two; within a class each fault may befall a run with one chance in two.
//!
//! What has befallen a run is counted under the same names ([`Summary::hits`]), and
//! [`Fault::ALL`] is the list of which a test asks that each was hit. [`NOT_HERE`] has what the
//! catalogue names and this ring does not do, each with the reason.
//!
//! [`Summary::hits`]: super::summary::Summary::hits

use std::collections::BTreeSet;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::dice::Dice;

/// Seeds from here on are of the full generation: every fault below may befall them. The plans of
/// those before stay as they were, for the stories they were kept for.
pub const FULL_FROM: u64 = 2_000_000;

/// What is at fault.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Class {
    /// The disk of the machine.
    Disk,
    /// The object store and the way to it.
    Store,
    /// Our process and its machine.
    Process,
    /// The clocks.
    Clock,
    /// What the application does with its database.
    Application,
    /// Others who write to the same replica.
    Topology,
}

impl Class {
    /// All of them.
    pub const ALL: [Class; 6] =
        [Class::Disk, Class::Store, Class::Process, Class::Clock, Class::Application, Class::Topology];
}

/// A fault of the catalogue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its class.
    pub class: Class,
    /// Its name, in the table of hits as well: where, and what.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
}

const fn fault(class: Class, name: &'static str, what: &'static str) -> Fault {
    Fault { class, name, what }
}

impl Fault {
    /// Every fault that can befall a run.
    pub const ALL: &'static [Fault] = &FAULTS;

    /// The fault of a name.
    pub fn named(name: &str) -> Option<&'static Fault> {
        FAULTS.iter().find(|fault| fault.name == name)
    }
}

const FAULTS: [Fault; 99] = [
    fault(Class::Store, "store: latency tail", "a request takes up to a minute and a half"),
    fault(Class::Store, "store: slow bodies", "bodies move slowly, some too slowly for a deadline"),
    fault(Class::Store, "store: no effect, no answer", "no answer, and no effect"),
    fault(Class::Store, "store: effect late, no answer", "the effect comes, late perhaps, and no answer"),
    fault(Class::Store, "store: answer lost after the effect", "the connection breaks after the effect"),
    fault(
        Class::Store,
        "store: reset before the effect",
        "the connection breaks before the effect, and nobody can tell",
    ),
    fault(Class::Store, "store: refused", "refused without effect"),
    fault(Class::Store, "store: reset within a body", "the connection breaks within a body, either way"),
    fault(Class::Store, "store: 429 storm", "nearly everything is refused for a while"),
    fault(Class::Store, "store: credentials expired", "everything is denied for a while (403)"),
    fault(Class::Store, "store: full", "no put succeeds for a while (507)"),
    fault(
        Class::Store,
        "store: 412 of our own put",
        "a put succeeds, is sent again below us, and answered as refused",
    ),
    fault(Class::Store, "store: conflict", "a concurrent operation is said to be in the way"),
    fault(Class::Store, "store: tiny list page", "one entry in each answer to a listing"),
    fault(Class::Store, "store: changing list page", "another number of entries each time"),
    fault(Class::Store, "store: truncated list page", "an answer cut short, even before its first entry"),
    fault(Class::Store, "store: stale list", "a listing as it was some seconds ago"),
    fault(Class::Store, "store: stale read", "an object that was just created is not found"),
    fault(Class::Store, "store: put carried out twice", "a put is carried out twice, the second time later"),
    fault(Class::Store, "store: answer twice", "an answer comes twice"),
    fault(Class::Store, "store: reordered", "a request has its effect after one that was sent later"),
    fault(Class::Store, "store: corrupt body", "a bit of an answer's body is another"),
    fault(Class::Store, "store: foreign body", "an answer's body is a page of somebody else's"),
    fault(
        Class::Store,
        "store: unfinished bodies",
        "bodies that were never finished stay behind, and are removed",
    ),
    fault(
        Class::Store,
        "store: objects vanish",
        "the newest objects are gone although they were acknowledged",
    ),
    fault(Class::Store, "store: outage", "the store cannot be reached for a while"),
    fault(Class::Store, "store: partial outage", "one kind of request fails for a while"),
    fault(Class::Store, "store: clock leaps", "the store's own clock leaps a day ahead"),
    fault(Class::Disk, "machine: power lost", "what was not synced survives sector by sector, by dice"),
    fault(Class::Disk, "disk: unsynced write lost", "by a power loss"),
    fault(Class::Disk, "disk: torn write", "by a power loss, between two sectors of one write"),
    fault(Class::Disk, "disk: writes out of order", "by a power loss: a later write survives an earlier one"),
    fault(Class::Disk, "disk: name lost", "by a power loss: a directory that was not synced"),
    fault(Class::Disk, "disk: EIO", "an operation on our own files fails"),
    fault(Class::Disk, "disk: ENOSPC", "no room, and room the next time"),
    fault(Class::Disk, "disk: EDQUOT", "the same, by quota"),
    fault(Class::Disk, "disk: no descriptors", "a file of ours cannot be opened"),
    fault(Class::Disk, "disk: short read", "half of what was asked for, of our files and of the WAL"),
    fault(Class::Disk, "disk: short write", "half of a write happens"),
    fault(Class::Disk, "disk: fsync lies", "success, and nothing is stored"),
    fault(Class::Disk, "disk: fsync fails, then clean", "EIO, and the next one has nothing to store"),
    fault(Class::Disk, "disk: stale read", "what was last synced, of our files and of the WAL"),
    fault(Class::Disk, "disk: misdirected write", "it lands elsewhere in the file"),
    fault(Class::Disk, "disk: bit rot", "one bit of an answer, of our files and of frames of the WAL"),
    fault(Class::Disk, "disk: bit rot at rest", "one bit of the journal, for good"),
    fault(Class::Disk, "disk: removed by hand", "the journal, while it is used or not"),
    fault(Class::Disk, "disk: truncated by hand", "the journal"),
    fault(Class::Disk, "disk: swapped by hand", "an older copy takes the journal's place"),
    fault(Class::Disk, "disk: stall", "an operation takes up to twenty seconds"),
    fault(Class::Disk, "state: records lost", "a run finds less than the one before had written"),
    fault(Class::Disk, "sqlite: I/O error", "an operation of SQLite in our process fails"),
    fault(Class::Disk, "sqlite: disk full", "the same, for lack of room"),
    fault(Class::Process, "process: killed within a write", "of its own journal or scratch file"),
    fault(Class::Process, "process: killed", "SIGKILL at any time; requests may outlive it"),
    fault(Class::Process, "process: crashed in recovery", "it dies again before it has found its way back"),
    fault(Class::Process, "process: paused", "it stands longer than deadlines, its requests land meanwhile"),
    fault(Class::Process, "process: settings changed", "another configuration after a start"),
    fault(Class::Process, "process: stopped with work undone", "the deadline of a stop passes first"),
    fault(Class::Process, "process: second signal", "a stop is asked for twice"),
    fault(Class::Process, "machine: rolled back", "disk and local state go back to a snapshot"),
    fault(Class::Process, "machine: empty disk", "another disk, without database or local state"),
    fault(Class::Clock, "clock: wall stepped", "the wall clock is set, by up to a day and a half"),
    fault(Class::Clock, "clock: far from now", "the wall clock begins in 1971 or 2101"),
    fault(Class::Clock, "clock: drift", "the wall clock runs fast or slow"),
    fault(Class::Clock, "clock: monotonic stands", "the monotonic clock stands for a while"),
    fault(Class::Clock, "clock: wall stands", "the wall clock stands for a while, file times with it"),
    fault(Class::Clock, "clock: equal timestamps", "two segments have the same stamp"),
    fault(Class::Application, "app: huge transaction", "more than the buffer holds"),
    fault(Class::Application, "app: rollback", "by the application"),
    fault(Class::Application, "app: vacuum", "by the application"),
    fault(Class::Application, "app: checkpoint PASSIVE", "by the application"),
    fault(Class::Application, "app: checkpoint FULL", "by the application"),
    fault(Class::Application, "app: checkpoint RESTART", "by the application"),
    fault(Class::Application, "app: checkpoint TRUNCATE", "by the application"),
    fault(Class::Application, "app: pinned reader", "a snapshot that is kept"),
    fault(Class::Application, "app: killed", "with a hot WAL"),
    fault(Class::Application, "app: died in a commit", "in its sync: a phantom"),
    fault(Class::Application, "app: commit failed", "in its sync: a phantom"),
    fault(Class::Application, "app: journal mode switched", "out of WAL mode and back"),
    fault(Class::Application, "app: page size changed", "by the application"),
    fault(Class::Application, "app: recreated", "by the application"),
    fault(Class::Application, "app: deleted", "and not there for a while"),
    fault(Class::Application, "app: replaced by rename", "by the application"),
    fault(Class::Application, "app: restored from a backup", "by the application"),
    fault(Class::Application, "app: savepoint", "by the application"),
    fault(Class::Application, "app: synchronous OFF", "by the application"),
    fault(Class::Application, "app: synchronous NORMAL", "by the application"),
    fault(Class::Application, "app: synchronous FULL", "by the application"),
    fault(Class::Application, "app: several connections", "a transaction of another process"),
    fault(Class::Application, "app: lock page crossed", "by the size of the database"),
    fault(Class::Application, "app: index emptied", "an old SQLite recovers the WAL while we look"),
    fault(Class::Topology, "topology: a rival", "another database replicates to the same place"),
    fault(
        Class::Topology,
        "topology: a rival adopts",
        "the same, and somebody said that it owns the replica",
    ),
    fault(Class::Topology, "topology: a clone", "a copy of the machine runs beside it, local state included"),
    fault(Class::Topology, "topology: three contenders", "two others at a time"),
    fault(Class::Topology, "topology: a rival fenced", "one of them ends fenced"),
    fault(Class::Topology, "topology: fenced by a rival", "the replicator ends fenced by one of them"),
    fault(
        Class::Store,
        "store: put of the dead lands just before ours",
        "a put whose sender has died lands just before one of the same name",
    ),
    fault(
        Class::Application,
        "application: acts between two steps",
        "the application replaces the file, commits or checkpoints between two steps of ours",
    ),
];

/// What the catalogue names and no run here can meet, with the reason.
pub const NOT_HERE: [(&str, &str); 7] = [
    ("delayed delete", "the replicator deletes nothing; retention will"),
    ("follower during retention", "there is no follower and no retention yet"),
    (
        "pause beyond the lease",
        "there is no lease yet; pauses here outlast every deadline, with requests landing meanwhile",
    ),
    (
        "access taken away from nodes one by one",
        "there is no lease to hand over yet; contenders share the store's outages and denials",
    ),
    (
        "bit rot of the database, or of a page of the WAL read by itself",
        "neither has a checksum, and it is the application's disk: what SQLite reads is what is committed",
    ),
    (
        "hands on the database under a running application",
        "it is the application's loss; files are replaced while it is closed",
    ),
    (
        "descriptors and quota of the application",
        "of our process they are here; SQLite reports both as what it meets otherwise",
    ),
];

/// The faults that may befall a run, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Faults(BTreeSet<&'static str>);

impl<'de> Deserialize<'de> for Faults {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Faults, D::Error> {
        let known = |name: &String| {
            let unknown = || D::Error::custom(format!("{name:?} is no fault of the catalogue"));
            Fault::named(name).map(|fault| fault.name).ok_or_else(unknown)
        };
        Vec::<String>::deserialize(from)?.iter().map(known).collect::<Result<_, _>>().map(Faults)
    }
}

impl Faults {
    /// None.
    pub fn none() -> Faults {
        Faults::default()
    }

    /// All of them.
    pub fn all() -> Faults {
        Faults(FAULTS.iter().map(|fault| fault.name).collect())
    }

    /// Those of the names, as far as there are such.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Faults {
        Faults(names.into_iter().filter_map(Fault::named).map(|fault| fault.name).collect())
    }

    /// Those of a seed of the full generation.
    pub fn of_dice(dice: &Dice) -> Faults {
        let amount = dice.draw("faults", "amount", 0) % 20;
        let on = |class: Class| match amount {
            0 | 1 => false,
            2 => true,
            _ => dice.chance("faults", &format!("{class:?}"), 0, 1, 2),
        };
        let here = |fault: &&Fault| dice.chance("fault here", fault.name, 0, 1, 2);
        Faults(FAULTS.iter().filter(|fault| on(fault.class)).filter(here).map(|fault| fault.name).collect())
    }

    /// Whether a fault may befall the run.
    pub fn has(&self, name: &'static str) -> bool {
        debug_assert!(Fault::named(name).is_some(), "{name} is no fault of the catalogue");
        self.0.contains(name)
    }

    /// Whether none may.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.0.iter().copied()
    }

    /// The same without those by which a store shows what is not so, or loses something.
    pub fn truthful(&self) -> Faults {
        let lies = ["store: stale list", "store: stale read", "store: corrupt body", "store: foreign body"];
        let state = |name: &str| name.starts_with("disk: ") && name != "disk: stall";
        let lies = |name: &str| lies.contains(&name) || name == "store: objects vanish" || state(name);
        Faults(self.0.iter().copied().filter(|name| !lies(name)).collect())
    }

    /// The same without one of them.
    pub fn without(&self, name: &str) -> Faults {
        Faults(self.0.iter().copied().filter(|known| *known != name).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> =
            FAULTS.iter().map(|fault| fault.name).chain(NOT_HERE.iter().map(|(name, _)| *name)).collect();
        assert_eq!(names.len(), FAULTS.len() + NOT_HERE.len());
    }

    #[test]
    fn one_seed_in_ten_has_none_and_one_in_twenty_every_class() {
        let (mut none, mut every) = (0, 0);
        for seed in FULL_FROM..FULL_FROM + 2_000 {
            let faults = Faults::of_dice(&Dice::new(seed));
            let classes: BTreeSet<Class> =
                faults.names().map(|name| Fault::named(name).unwrap().class).collect();
            let classes_there: BTreeSet<Class> = FAULTS.iter().map(|fault| fault.class).collect();
            none += u32::from(Dice::new(seed).draw("faults", "amount", 0) % 20 < 2);
            every += u32::from(classes == classes_there);
        }
        assert!((150..250).contains(&none), "{none} of 2,000 without faults");
        assert!(every >= 60, "{every} of 2,000 with every class");
    }
}
