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
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ::http::Request;
use smol::Executor;

use crate::store::{Store, StoreError};
use http::{Body, Http, Route};
use service::Place;
use settings::{Service, Settings, Transport};
use store::ObjectStore;

/// The longest answer that [`Net::request`] takes, in bytes.
const ANSWER_MAX: usize = 64 << 10;

/// What the object stores of a process share: the executor that their connections run on. Whoever
/// awaits an operation must run it beside.
#[derive(Clone)]
pub struct Net {
    executor: Arc<Executor<'static>>,
    http: Arc<Http>,
    /// The servers in use, so that what is found out about one, and its credentials, are shared.
    places: Arc<Mutex<Vec<KnownPlace>>>,
}

struct KnownPlace {
    service: Service,
    transport: Transport,
    place: Weak<Place>,
}

impl Net {
    /// Nothing is connected yet.
    pub fn new(executor: Arc<Executor<'static>>) -> Net {
        let http = Arc::new(Http::new(Arc::clone(&executor)));
        Net { executor, http, places: Arc::default() }
    }

    /// The executor to run.
    pub fn executor(&self) -> &Arc<Executor<'static>> {
        &self.executor
    }

    /// How many connections were opened so far.
    pub fn connections_opened(&self) -> u64 {
        self.http.opened()
    }

    fn place(&self, settings: &Settings) -> Result<Arc<Place>, StoreError> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|known| known.place.strong_count() > 0);
        let (service, transport) = (&settings.service, &settings.transport);
        let known = places.iter().find(|known| known.service == *service && known.transport == *transport);
        if let Some(place) = known.and_then(|known| known.place.upgrade()) {
            return Ok(place);
        }
        let place = Arc::new(service::open(settings, &self.http)?);
        let (service, transport) = (service.clone(), transport.clone());
        places.push(KnownPlace { service, transport, place: Arc::downgrade(&place) });
        Ok(place)
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
    let place = net.place(settings)?;
    Ok(Arc::new(ObjectStore::new(place, &settings.root, Arc::clone(&net.executor))))
}
