//! Serving connections, so many at a time.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use crate::host::Host;

/// Accepts and answers for as long as the process runs. Beyond `connections_max` others wait to be
/// accepted; `failed` is said when none can be.
pub(crate) async fn serve<S: 'static, F: Future<Output = io::Result<()>> + 'static>(
    host: Rc<Host>,
    connections_max: usize,
    failed: &str,
    accept: impl AsyncFn() -> io::Result<S>,
    answer: fn(S, Rc<Host>) -> F,
) {
    let busy = Rc::new(Cell::new(0));
    loop {
        let room = || (busy.get() < connections_max).then_some(());
        host.changes.until(room).await;
        match accept().await {
            Ok(stream) => {
                busy.set(busy.get() + 1);
                let (busy, served) = (busy.clone(), host.clone());
                host.spawn(async move {
                    // Whoever hangs up early has no use for the answer.
                    let _ = answer(stream, served.clone()).await;
                    busy.set(busy.get() - 1);
                    served.changes.tell();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "{failed}");
                async_io::Timer::after(Duration::from_secs(1)).await;
            }
        }
    }
}
