//! Reading a replica, as the restorer and the verifier both do it.
//!
//! [`Flight`] keeps the reads under way, each with its deadline and its retries; [`Listings`] turn
//! pages of names into one listing, and into another one where objects have gone since.

mod flight;
mod listing;

pub(crate) use flight::{Flight, Landed, exit_of};
pub(crate) use listing::Listings;
