//! What ring 1 takes of ring 0: its dice and its oracles, without SQLite.

pub mod dice;
pub mod image;
/// What must hold of each restored state.
pub mod oracles {
    pub mod exactness;
}
pub mod reading;
pub mod restore;
pub mod truth;
pub mod violation;
