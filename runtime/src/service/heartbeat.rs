//! A heartbeat: a GET to a monitor that raises an alarm when it comes no more.
//!
//! As with Litestream it is sent only while every database is well, for the first time a quarter of
//! a minute after the start, so that a service that keeps dying has none. Between two beats
//! nothing wakes. The URL is often the monitor's only secret, and stays out of the log.

use std::rc::Rc;
use std::time::Duration;

use async_io::Timer;
use driftless_adapters::object::Net;

use crate::host::Host;
use crate::host::requests::within;

/// From the start to the first beat, and from one that failed to the next.
const SOON: Duration = Duration::from_secs(15);
/// How long the monitor may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Where a heartbeat goes and how often.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// An HTTP or HTTPS URL.
    pub url: String,
    /// From one beat to the next.
    pub interval: Duration,
}

/// Beats for as long as the process runs.
pub(crate) async fn beat(host: Rc<Host>, heartbeat: Heartbeat) {
    let mut failing = false;
    Timer::after(SOON).await;
    loop {
        host.changes.until(|| super::is_well(&host).then_some(())).await;
        let next = match ask(host.net(), &heartbeat.url).await {
            Ok(()) => {
                if failing {
                    tracing::info!("heartbeat: works again");
                }
                tracing::debug!("heartbeat");
                failing = false;
                heartbeat.interval
            }
            Err(error) => {
                failing = true;
                tracing::warn!(
                    to = shown(&heartbeat.url),
                    "no heartbeat, again in {} s: {error}",
                    SOON.as_secs()
                );
                SOON
            }
        };
        Timer::after(next).await;
    }
}

async fn ask(net: &Net, url: &str) -> Result<(), String> {
    let agent = concat!("driftless/", env!("CARGO_PKG_VERSION"));
    let headers = [("user-agent", agent)];
    match within(ANSWER_TIME, net.request("GET", url, &headers, Vec::new())).await {
        Some(Ok((status, _))) if status < 400 => Ok(()),
        Some(Ok((status, _))) => Err(format!("the answer is {status}")),
        Some(Err(error)) => Err(error.to_string().replace(url, shown(url))),
        None => Err(format!("no answer in {} s", ANSWER_TIME.as_secs())),
    }
}

/// A URL without what stands behind its host, and without a password before it.
fn shown(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    host.rsplit_once('@').map_or(host, |(_, host)| host)
}

#[cfg(test)]
mod tests {
    use super::shown;

    #[test]
    fn secrets_of_a_url_are_not_shown() {
        for url in ["https://u:secret@beat.example:8443/secret?secret#secret", "http://beat.example:8443"] {
            assert_eq!(shown(url), "beat.example:8443");
        }
    }
}
