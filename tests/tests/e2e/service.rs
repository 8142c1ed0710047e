//! Driftless as a service: beginning on a fresh host, its service manager, its heartbeat.

mod heartbeat;
mod manager;
mod restore_first;
