//! Driftless as a service: beginning on a fresh host, its service manager, its heartbeat.

mod restore_first;
