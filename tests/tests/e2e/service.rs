//! Driftless as a service: beginning on a fresh host, its service manager, its heartbeat.

mod final_sync;
mod heartbeat;
mod manager;
mod restore_first;
