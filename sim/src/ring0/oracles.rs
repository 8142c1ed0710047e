//! What must hold, one promise to a file.
//!
//! An oracle knows the truth, which was recorded outside of the engine, and looks at what the
//! engine has done. Each is tried on a synthetic record that breaks its promise. What it says begins
//! with its name, which is that of its file with blanks, and stays the same while a run is made small.
//!
//! | oracle | promise | asked |
//! |---|---|---|
//! | [`exactness`] | each transaction restores to a committed state, page for page, none older than the one before | as segments come |
//! | [`acknowledged`] | what is reported as replicated, or claimed by an orderly end, is there | at each report |
//! | [`fork`] | nothing replaces a segment, and no history goes on behind another one | as segments come |
//! | [`contiguous`] | each level is without gaps, and level 0 without overlaps | at the end |
//! | [`levels`] | a file of a higher level holds what its transactions make | as it is reported |
//! | [`validation`] | a validation tells of a fault only where there is one | at each verdict |
//! | [`unharmed`] | the application waits no longer than stated, loses nothing, finds nothing of ours | at each operation, at the end |
//! | [`crash_equals`] | a death changes nothing of what is there in the end | in exhaustive runs |
//! | [`wrong_bytes`] | what was altered on its way is not believed | at each adoption |
//! | [`limits`] | requests under way, actions at once, requests in all | at each step, at the end |
//! | [`purity`] | a machine is a function of its events | at each end of a process |
//! | [`transitions`] | what a machine says of itself follows from what it said before | at each fact |
//! | [`exit`] | a process ends only as it was told to, or as it must | at each end |
//! | [`convergence`] | once faults end, all is on the replica within a bound | after the script |
//! | [`idle`] | a quiet database costs nothing; nobody wakes for nothing | after that, at each tick |
//!
//! Not yet here, since what they judge is not yet simulated: *retention* (a delete takes nothing that
//! a restore may need) with the compactor, and *epochs* (a successor's never regress) with failover.

pub mod acknowledged;
pub mod contiguous;
pub mod convergence;
pub mod crash_equals;
pub mod exactness;
pub mod exit;
pub mod fork;
pub mod idle;
pub mod levels;
pub mod limits;
pub mod purity;
pub mod retention;
pub mod transitions;
pub mod unharmed;
pub mod validation;
pub mod wrong_bytes;
