//! The object stores against real servers: the conformance battery, and what only a server shows.

mod battery;
mod credentials;
mod faults;
mod refusals;
mod requests;
mod support;
mod unfinished;
