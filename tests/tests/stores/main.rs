//! The object stores against real servers: the conformance battery, and what only a server shows.

mod battery;
mod support;
