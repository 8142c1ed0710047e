//! Metrics for Prometheus, on the address of the key `addr`.
//!
//! Nothing is computed but when somebody asks: the counters that are kept meanwhile are a few additions
//! for each segment and request. Names are Litestream's where they mean the same. The text is written
//! here and not by a client library: those follow OpenMetrics, which makes every counter's name end
//! with `_total`, and Litestream's do not.
//!
//! With more databases than [`PER_DATABASE_MAX`] only the worst of them have series of their own; the
//! totals are always of all.

#[cfg(not(madsim))]
pub(crate) mod collect;
pub mod requests;
#[cfg(not(madsim))]
pub mod server;
#[cfg(not(madsim))]
pub mod tally;
#[cfg(not(madsim))]
pub mod text;

/// How many databases have series of their own.
pub const PER_DATABASE_MAX: usize = 1_000;
