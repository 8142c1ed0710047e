//! Object stores, reached through opendal over a transport of our own.

mod credentials;
mod http;
mod problem;
mod service;
pub mod settings;
mod store;
mod uploads;
mod webdav;
mod wire;

use std::io;
use std::sync::Arc;

use ::http::Request;
use smol::Executor;

use crate::store::{Store, StoreError};
use http::{Body, Http, Route};
use settings::Settings;
use store::ObjectStore;

/// The longest answer that [`Net::request`] takes, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// What the object stores of a process share: the executor that their connections run on. Whoever
/// awaits an operation must run it beside.
#[derive(Clone)]
pub struct Net {
    executor: Arc<Executor<'static>>,
    http: Arc<Http>,
}

impl Net {
    /// Nothing is connected yet.
    pub fn new(executor: Arc<Executor<'static>>) -> Net {
        Net { http: Arc::new(Http::new(Arc::clone(&executor))), executor }
    }

    /// The executor to run.
    pub fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }

    /// How many connections were opened so far.
    pub fn connections_opened(&self) -> u64 {
        self.http.opened()
    }

    /// One request to anyone: its answer's status and body. GET and HEAD follow redirects.
    ///
    /// # Errors
    /// One line about what failed: the URL, the connection, or an answer longer than 64 KiB.
    pub async fn request(
        &self,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: Vec<u8>,
    ) -> io::Result<(u16, Vec<u8>)> {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(io::Error::other)?;
        let route = Route::default();
        let answer = if http::may_follow(request.method()) && body.is_empty() {
            self.http.follow(request, route).await
        } else {
            self.http.send(request.map(|()| Body::memory(body)), route).await
        };
        let answer = answer.map_err(io::Error::other)?;
        let status = answer.status().as_u16();
        let body = answer.into_body().whole(ANSWER_MAX).await.map_err(io::Error::other)?;
        Ok((status, body))
    }
}

/// The store that `settings` name. Nothing is connected yet.
///
/// # Errors
/// `Misconfigured` for settings that cannot work.
pub fn open(settings: &Settings, net: &Net) -> Result<Arc<dyn Store>, StoreError> {
    let place = service::open(settings, &net.http)?;
    Ok(Arc::new(ObjectStore::new(place, Arc::clone(&net.executor))))
}
