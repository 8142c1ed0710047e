//! HTTP/1.1 for stores: pooled connections, streamed bodies, TLS, proxies.
//!
//! Nothing is tried twice here, with one exception: a pooled connection that turns out to be
//! closed before the request was begun is replaced, since nothing of that request was sent. All
//! else is reported, with what may be known about its effect ([`Failure`]).
//!
//! Deadlines for whole calls are the caller's, who drops the future; that closes the connection.
//! Two deadlines are the transport's, so that nothing hangs for ever even so: connecting (10 s for
//! each step), and a connection on which nothing moves while an answer is awaited ([`STALL`]).

mod body;
mod connect;
mod io;
mod pool;
mod proxy;
mod socket;
#[cfg(test)]
mod tests;
#[cfg(not(madsim))]
mod tls;
#[cfg(madsim)]
#[path = "http/no_tls.rs"]
mod tls;

use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_lite::FutureExt as _;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use smol::Executor;

use crate::timer::Timer;
pub(crate) use body::{Answer, Body};
use io::Meter;
use pool::{Connection, Key, Pool};
use proxy::{Proxies, Proxy};

/// A connection on which nothing comes or goes for this long, while an answer is awaited, is given
/// up within twice the time. Servers that put large objects together are silent for a while.
const STALL: Duration = Duration::from_secs(60);
/// The most redirects that one request follows.
const REDIRECTS_MAX: usize = 5;
const USER_AGENT: &str = concat!("driftless/", env!("CARGO_PKG_VERSION"));

/// A request that got no answer, or not all of one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    pub(crate) stage: Stage,
    /// One line, lower-case, without secrets.
    pub(crate) cause: String,
}

/// How far a request came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Settings of the process or of the store that cannot work.
    Setup,
    /// The server's certificate is not trusted. Nothing was sent.
    Untrusted,
    /// The server cannot have the whole request, and so has done nothing.
    Unsent,
    /// The server may have done what was asked.
    Sent,
}

impl Failure {
    fn setup(cause: String) -> Failure {
        Failure { stage: Stage::Setup, cause }
    }

    #[cfg_attr(madsim, expect(dead_code, reason = "there is no TLS in a simulation"))]
    fn untrusted(cause: String) -> Failure {
        Failure { stage: Stage::Untrusted, cause }
    }

    fn unsent(cause: String) -> Failure {
        Failure { stage: Stage::Unsent, cause }
    }

    fn sent(cause: String) -> Failure {
        Failure { stage: Stage::Sent, cause }
    }

    fn at(self, place: &str) -> Failure {
        Failure { cause: format!("{place}: {}", self.cause), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.cause)
    }
}

impl Error for Failure {}

/// An error with all that lies under it, in one line.
fn cause(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let text = source.to_string();
        if !line.ends_with(&text) {
            line = format!("{line}: {text}");
        }
        next = source.source();
    }
    line
}

/// How to reach a server.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Route {
    pub(crate) skip_verify: bool,
    /// Without a proxy: metadata services are never behind one.
    pub(crate) direct: bool,
}

/// The HTTP client of a process.
pub(crate) struct Http {
    executor: Arc<Executor<'static>>,
    pool: Arc<Pool>,
    tls: tls::Tls,
    proxies: OnceLock<Result<Proxies, String>>,
    opened: AtomicU64,
    stall: Duration,
}

impl Http {
    pub(crate) fn new(executor: Arc<Executor<'static>>) -> Http {
        let tls = tls::Tls::new(std::env::var_os("AWS_CA_BUNDLE").map(Into::into));
        let (pool, proxies, opened) = Default::default();
        Http { executor, pool, tls, proxies, opened, stall: STALL }
    }

    /// How many connections were ever opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    fn proxy(&self, key: &Key) -> Result<Option<&Proxy>, Failure> {
        if key.direct {
            return Ok(None);
        }
        let proxies = self.proxies.get_or_init(|| Proxies::from_env(environment));
        let proxies = proxies.as_ref().map_err(|cause| Failure::setup(cause.clone()))?;
        Ok(proxies.of(key.secure, &key.host, key.port))
    }

    fn keep(&self, key: Key, connection: Connection) {
        self.pool.keep(key, connection, &self.executor);
    }

    /// Sends a request and awaits the head of its answer, whatever its status. Redirects are
    /// answers too; see [`Http::follow`].
    pub(crate) async fn send(
        self: &Arc<Self>,
        request: Request<Body>,
        route: Route,
    ) -> Result<Response<Answer>, Failure> {
        let key = key(request.uri(), route)?;
        let mut request = self.dress(request, &key)?;
        let (len, taken) = (request.body().len(), Arc::clone(request.body().taken()));
        loop {
            let (mut connection, pooled) = match self.pool.take(&key) {
                Some(connection) => (connection, true),
                None => (self.connect(&key).await?, false),
            };
            let meter = Arc::clone(connection.meter());
            let before = meter.written();
            let sent = async {
                match connection.sender().ready().await {
                    Ok(()) => connection
                        .sender()
                        .try_send_request(request)
                        .await
                        .map_err(|mut error| (error.take_message(), error.into_error())),
                    Err(error) => Err((Some(request), error)),
                }
            };
            let error = match unless_stalled(self.stall, &meter, sent).await {
                Ok(Ok(answer)) => {
                    let http = Arc::clone(self);
                    return Ok(answer.map(|incoming| Answer::new(incoming, http, key, connection, taken)));
                }
                Ok(Err((Some(unsent), _))) if pooled => {
                    request = unsent;
                    continue;
                }
                Ok(Err((Some(_), error))) => return Err(Failure::unsent(cause(&error))),
                Ok(Err((None, error))) => cause(&error),
                Err(Stalled) => body::stalled(self.stall),
            };
            // The head takes some bytes too, so as many as the body has are not the whole request.
            let written = meter.written() - before;
            let partial = if len == 0 { written == 0 } else { written <= len };
            return Err(if partial { Failure::unsent(error) } else { Failure::sent(error) });
        }
    }

    /// Adds what every request needs, and writes its target as this connection wants it.
    fn dress(&self, request: Request<Body>, key: &Key) -> Result<Request<Body>, Failure> {
        let (mut parts, body) = request.into_parts();
        let authority = parts.uri.authority().map_or("", |authority| authority.as_str());
        let authority = authority.rsplit('@').next().unwrap_or_default();
        let host = HeaderValue::from_str(authority)
            .map_err(|_| Failure::setup(format!("{authority} is no host")))?;
        parts.headers.insert(header::HOST, host);
        parts.headers.entry(header::USER_AGENT).or_insert(HeaderValue::from_static(USER_AGENT));
        let proxy = if key.secure { None } else { self.proxy(key)? };
        match proxy {
            Some(proxy) => {
                if let Some(authorization) = &proxy.authorization {
                    parts.headers.insert(header::PROXY_AUTHORIZATION, authorization.clone());
                }
            }
            None => {
                let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
                parts.uri = target.parse().expect("part of a URI");
            }
        }
        Ok(Request::from_parts(parts, body))
    }

    /// Sends a request without a body and follows redirects.
    pub(crate) async fn follow(
        self: &Arc<Self>,
        mut request: Request<()>,
        route: Route,
    ) -> Result<Response<Answer>, Failure> {
        for _ in 0..=REDIRECTS_MAX {
            let attempt = request.clone().map(|()| Body::memory(Vec::<u8>::new()));
            let answer = self.send(attempt, route).await?;
            match redirect(&request, answer.status(), answer.headers())? {
                Some(next) => request = next,
                None => return Ok(answer),
            }
        }
        Err(Failure::unsent(format!("more than {REDIRECTS_MAX} redirects")))
    }
}

/// A variable of the environment, of which a simulated process has none.
fn environment(name: &str) -> Option<String> {
    if cfg!(madsim) { None } else { std::env::var(name).ok() }
}

/// Whether a request may go on elsewhere: one that changes nothing.
pub(crate) fn may_follow(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// The request to send instead, if the answer is a redirect that may be followed.
fn redirect(
    request: &Request<()>,
    status: StatusCode,
    headers: &http::HeaderMap,
) -> Result<Option<Request<()>>, Failure> {
    let location = headers.get(header::LOCATION).and_then(|location| location.to_str().ok());
    let moved = matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308);
    let Some(location) = location.filter(|_| moved && may_follow(request.method())) else {
        return Ok(None);
    };
    let wrong = |what: &str| Failure::unsent(format!("a redirect {what}"));
    let from = request.uri();
    let (scheme, authority) = (from.scheme_str().unwrap_or_default(), from.authority());
    let authority = authority.map_or("", |authority| authority.as_str());
    let target = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else if location.contains("://") {
        location.to_string()
    } else {
        let path = from.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{path}/{location}")
    };
    let target = target.split('#').next().unwrap_or_default();
    let to: Uri = target.parse().map_err(|_| wrong("to nowhere"))?;
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        return Err(wrong("away from https"));
    }
    let mut next = request.clone();
    if from.authority() != to.authority() {
        next.headers_mut().remove(header::AUTHORIZATION);
        next.headers_mut().remove(header::COOKIE);
    }
    *next.uri_mut() = to;
    Ok(Some(next))
}

fn key(uri: &Uri, route: Route) -> Result<Key, Failure> {
    let secure = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        _ => return Err(Failure::setup("the URL begins neither with http:// nor with https://".into())),
    };
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_string();
    if host.is_empty() {
        return Err(Failure::setup("the URL has no host".into()));
    }
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    Ok(Key { secure, host, port, skip_verify: route.skip_verify && secure, direct: route.direct })
}

struct Stalled;

/// Does the work unless nothing moves on its connection.
async fn unless_stalled<T>(
    stall: Duration,
    meter: &Meter,
    work: impl Future<Output = T>,
) -> Result<T, Stalled> {
    let stalled = async {
        loop {
            let before = meter.moved();
            Timer::after(stall).await;
            if meter.moved() == before {
                return Err(Stalled);
            }
        }
    };
    async { Ok(work.await) }.or(stalled).await
}
