//! Real servers for tests, each installed by this crate's own files.
//!
//! | store | server | from | conditional create |
//! |---|---|---|---|
//! | [`Moto`] | moto 5.2.5 | PyPI | exact |
//! | [`Azurite`] | azurite 3.37.0 on Node.js 24 | npm, PyPI | exact |
//! | [`Gcs`] | our own, and fake-gcs-server | this crate; PyPI, a wheel with the program in it | exact; in part |
//! | [`Webdav`] | WsgiDAV 4.4.0 | PyPI | none |
//! | [`Rclone`] | `rclone serve s3` 1.75.2 | PyPI, a wheel with the program in it | accepted and ignored |
//!
//! [`moto`], [`azurite`] and [`gcs`] are shared by all tests of a process, and each test takes a
//! bucket of its own; a test that fills a store, or wants its own settings, starts one for itself.
//! [`Tls`] stands before any of them, or before a proxy.
//! A server dies with the process of its tests, whatever ends that.

mod azurite;
mod gcs;
mod install;
mod moto;
mod process;
mod rclone;
mod tls;
mod webdav;

use std::sync::atomic::{AtomicU32, Ordering};

pub use azurite::{ACCOUNT, ACCOUNT_KEY, Azurite, Container, azurite};
pub use gcs::{Gcs, GcsBucket, gcs};
pub use moto::{Moto, moto};
pub use process::Process;
pub use rclone::Rclone;
pub use tls::Tls;
pub use webdav::Webdav;

/// A name that no other test of this process has: letters, digits and dashes, as stores want it.
fn fresh_name(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{number}")
}
