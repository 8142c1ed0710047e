//! Every fault that can befall a run, by name: the catalogue of the simulator.
//!
//! A fault has a name and a class. A plan holds the names that may befall its run ([`Faults`]);
//! the dice decide when they do, each decision under the fault's own name, so that a fault can be
//! taken out of a run without a change to the others. Of the seeds from [`FULL_FROM`] on, one in
//! ten has no fault at all, one in twenty all classes, and the others each class with one chance in
//! two; within a class each fault may befall a run with one chance in two.
//!
//! What has befallen a run is counted under the same names ([`Summary::hits`]), and
//! [`Site::ALL`] is the list of which a test asks that each was hit. [`NOT_HERE`] has what the
//! catalogue names and this ring does not do, each with the reason.
//!
//! [`Summary::hits`]: super::world::Summary::hits

use std::collections::BTreeSet;

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
pub struct Site {
    /// Its class.
    pub class: Class,
    /// Its name, in the table of hits as well.
    pub name: &'static str,
    /// What happens.
    pub what: &'static str,
}

const fn site(class: Class, name: &'static str, what: &'static str) -> Site {
    Site { class, name, what }
}

impl Site {
    /// Every fault that can befall a run.
    pub const ALL: &'static [Site] = &SITES;

    /// The fault of a name.
    pub fn named(name: &str) -> Option<&'static Site> {
        SITES.iter().find(|site| site.name == name)
    }
}

const SITES: [Site; 28] = [
    site(Class::Store, "latency tail", "a request takes up to a minute and a half"),
    site(Class::Store, "bandwidth", "bodies move slowly, some too slowly for a deadline"),
    site(Class::Store, "timeout before effect", "no answer, and no effect"),
    site(Class::Store, "timeout after effect", "the effect comes, late perhaps, and no answer"),
    site(Class::Store, "lost answer", "the connection breaks after the effect"),
    site(Class::Store, "unclear", "the connection breaks before the effect, and nobody can tell"),
    site(Class::Store, "5xx", "refused without effect"),
    site(Class::Store, "reset mid-body", "the connection breaks within a body, either way"),
    site(Class::Store, "429 storm", "nearly everything is refused for a while"),
    site(Class::Store, "expired credentials", "everything is denied for a while (403)"),
    site(Class::Store, "store full", "no put succeeds for a while (507)"),
    site(Class::Store, "412 self", "a put succeeds, is sent again below us, and answered as refused"),
    site(Class::Store, "409", "a concurrent operation is said to be in the way"),
    site(Class::Store, "tiny list page", "one entry in each answer to a listing"),
    site(Class::Store, "changing list page", "another number of entries each time"),
    site(Class::Store, "truncated list page", "an answer cut short, even before its first entry"),
    site(Class::Store, "stale list", "a listing as it was some seconds ago"),
    site(Class::Store, "stale read", "an object that was just created is not found"),
    site(Class::Store, "duplicate request", "a put is carried out twice, the second time later"),
    site(Class::Store, "duplicate answer", "an answer comes twice"),
    site(Class::Store, "reordering", "a request has its effect after one that was sent later"),
    site(Class::Store, "corrupt body", "a bit of an answer's body is another"),
    site(Class::Store, "foreign body", "an answer's body is a page of somebody else's"),
    site(Class::Store, "multipart limbo", "bodies that were never finished stay behind, and are removed"),
    site(Class::Store, "object vanishes", "the newest objects are gone although they were acknowledged"),
    site(Class::Store, "outage", "the store cannot be reached for a while"),
    site(Class::Store, "partial outage", "one kind of request fails for a while"),
    site(Class::Store, "store clock skew", "the store's own clock leaps a day ahead"),
];

/// What the catalogue names and no run here can meet, with the reason.
pub const NOT_HERE: [(&str, &str); 4] = [
    ("delayed delete", "the replicator deletes nothing; retention will"),
    ("follower during retention", "there is no follower and no retention yet"),
    (
        "pause beyond the lease",
        "there is no lease yet; pauses here outlast every deadline, with requests landing meanwhile",
    ),
    ("access given back in another order", "there is no lease to hand over yet"),
];

/// The faults that may befall a run, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Faults(BTreeSet<&'static str>);

impl Faults {
    /// None.
    pub fn none() -> Faults {
        Faults::default()
    }

    /// All of them.
    pub fn all() -> Faults {
        Faults(SITES.iter().map(|site| site.name).collect())
    }

    /// Those of the names, as far as there are such.
    pub fn of_names<'a>(names: impl IntoIterator<Item = &'a str>) -> Faults {
        Faults(names.into_iter().filter_map(Site::named).map(|site| site.name).collect())
    }

    /// Those of a seed of the full generation.
    pub fn of_dice(dice: &Dice) -> Faults {
        let amount = dice.draw("faults", "amount", 0) % 20;
        let on = |class: Class| match amount {
            0 | 1 => false,
            2 => true,
            _ => dice.chance("faults", &format!("{class:?}"), 0, 1, 2),
        };
        let here = |site: &&Site| dice.chance("fault here", site.name, 0, 1, 2);
        Faults(SITES.iter().filter(|site| on(site.class)).filter(here).map(|site| site.name).collect())
    }

    /// Whether a fault may befall the run.
    pub fn has(&self, name: &'static str) -> bool {
        debug_assert!(Site::named(name).is_some(), "{name} is no fault of the catalogue");
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
            SITES.iter().map(|site| site.name).chain(NOT_HERE.iter().map(|(name, _)| *name)).collect();
        assert_eq!(names.len(), SITES.len() + NOT_HERE.len());
    }

    #[test]
    fn one_seed_in_ten_has_none_and_one_in_twenty_every_class() {
        let (mut none, mut every) = (0, 0);
        for seed in FULL_FROM..FULL_FROM + 2_000 {
            let faults = Faults::of_dice(&Dice::new(seed));
            let classes: BTreeSet<Class> =
                faults.names().map(|name| Site::named(name).unwrap().class).collect();
            let classes_there: BTreeSet<Class> = SITES.iter().map(|site| site.class).collect();
            none += u32::from(Dice::new(seed).draw("faults", "amount", 0) % 20 < 2);
            every += u32::from(classes == classes_there);
        }
        assert!((150..250).contains(&none), "{none} of 2,000 without faults");
        assert!(every >= 60, "{every} of 2,000 with every class");
    }
}
