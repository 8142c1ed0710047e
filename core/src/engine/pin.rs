//! What a read transaction of ours protects.
//!
//! SQLite gives a reader a mark in the WAL. On a mark above zero the WAL cannot be restarted
//! while we read. On mark zero, which a reader gets when everything has been copied back, the
//! database file is frozen and the WAL may be restarted once: frames that were there may vanish,
//! frames that come cannot. Which one we got is not told; it is proven by what the wal-index
//! showed before and after (`WAL-RULES`, "The pin").

use crate::wal::WalIndex;

/// A read transaction that stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pin {
    /// Whether it may be on mark zero, so that one restart of the WAL may happen under it.
    pub restartable: bool,
    /// Whether everything up to its snapshot has been captured. Without that a restart under a
    /// pin on mark zero means frames that nobody saw.
    pub complete: bool,
}

/// What a BEGIN between these two looks took.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinClass {
    /// A mark above zero: nothing in the WAL can vanish.
    Mark,
    /// Everything was copied back and nothing changed around the BEGIN: the database file holds
    /// exactly the state of `after`, and stays so.
    Frozen,
    /// Not proven either way.
    Unproven,
}

/// Classifies a BEGIN by the wal-index before and after it.
pub fn classify(before: &WalIndex, after: &WalIndex) -> PinClass {
    let same_wal = before.salts == after.salts;
    if same_wal && after.n_backfill < before.mx_frame {
        PinClass::Mark
    } else if same_wal && before.mx_frame == after.mx_frame && after.n_backfill == after.mx_frame {
        PinClass::Frozen
    } else {
        PinClass::Unproven
    }
}
