//! A simulated network has nobody who listens in.

use std::path::PathBuf;
use std::sync::Arc;

use super::io::Duplex;
use super::{Failure, Http};

/// The connectors of a process that has none.
pub(super) struct Tls;

impl Tls {
    pub(super) fn new(_bundle: Option<PathBuf>) -> Tls {
        Tls
    }
}

impl Http {
    pub(super) async fn tls(
        self: &Arc<Self>,
        host: &str,
        _skip_verify: bool,
        _stream: impl Duplex + 'static,
    ) -> Result<Box<dyn Duplex>, Failure> {
        let Tls = self.tls;
        Err(Failure::setup(format!("{host}: TLS is not simulated")))
    }
}
