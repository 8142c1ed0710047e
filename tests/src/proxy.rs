//! A proxy that stands between a client and a server of HTTP, counts, and does harm.
//!
//! A store fails in the network, in its answers, and in the order of both. None of that can be asked
//! of a real server or of an emulator, so it is done on the way: each request is received whole,
//! recorded, held against the [`Rule`]s that the test has set, and forwarded on a connection of its
//! own, its target, header fields and body as they were, `Host` included (a signature covers it).
//! So the effect of a request and the fate of its answer are two things, and a test has each of the
//! four cases in hand.
//!
//! ```no_run
//! use driftless_tests::proxy::{Answer, Fault, Proxy, Rule};
//! # let server = "127.0.0.1:9000".parse().unwrap();
//! let proxy = Proxy::start(server);
//! let lost = proxy.add(Rule::new(Fault::CutAfter).operation("PUT").path_ends(".ltx").times(2));
//! proxy.add(Rule::new(Fault::Answer(Answer::slow_down())).method("PUT").probability(0.3, 17));
//! // … a client works against `proxy.address()` …
//! assert_eq!(proxy.hits(lost), 2);
//! assert_eq!(proxy.counts().get("LIST"), None);
//! ```
//!
//! It knows nothing of S3 but the names of operations, the form of errors, and where an access key
//! stands. It can be the `HTTP_PROXY` of a client as well.

mod answer;
mod exchange;
mod keys;
mod record;
mod rule;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

pub use answer::Answer;
pub use record::{Record, counts, put_more_than_once};
pub use rule::{Fault, Rule};

use crate::poll;
use crate::port::Port;
use keys::Keys;

/// Names a rule of a proxy.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct RuleId(u64);

/// A point in what a proxy has seen; its default is the beginning.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct Mark(u64);

/// How the whole network behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Weather {
    Fair,
    /// Nothing passes; connections stay open and new ones are accepted.
    Silent,
    /// Connections are refused.
    Refusing,
}

/// A running proxy. When dropped, it refuses connections and cuts those that are open.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    port: Port,
    started: Instant,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    weather: Weather,
    /// When a weather that was set for a time is over.
    until: Option<Instant>,
    rules: BTreeMap<RuleId, Rule>,
    /// The hits of rules that were removed.
    removed: BTreeMap<RuleId, u64>,
    keys: Keys,
    records: BTreeMap<u64, Record>,
    connections: BTreeMap<u64, Arc<Connection>>,
    /// Counts up for rules, records and connections alike.
    next: u64,
    ended: bool,
}

/// A client's connection.
#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    number: u64,
    /// It was cut from outside: what still waits on it is not forwarded.
    cut: AtomicBool,
}

impl Proxy {
    /// Starts one that forwards to this server, with no rules.
    pub fn start(server: SocketAddr) -> Proxy {
        let state = State {
            weather: Weather::Fair,
            until: None,
            rules: BTreeMap::new(),
            removed: BTreeMap::new(),
            keys: Keys::default(),
            records: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            ended: false,
        };
        let shared = Arc::new(Shared {
            server,
            port: Port::reserve(),
            started: Instant::now(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let listener = shared.port.listen().expect("our own port");
        let accepting = shared.clone();
        thread::spawn(move || accept(&accepting, listener));
        Proxy { shared }
    }

    /// Where clients find it.
    pub fn address(&self) -> SocketAddr {
        self.shared.port.address()
    }

    /// The same as the beginning of a URL, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Sets a rule, which is asked after those that are there. It counts from the next request on.
    pub fn add(&self, rule: Rule) -> RuleId {
        let mut state = self.shared.lock();
        let id = RuleId(state.number());
        state.rules.insert(id, rule);
        id
    }

    /// Takes a rule away, and returns how many requests met its fault.
    pub fn remove(&self, id: RuleId) -> u64 {
        self.shared.lock().remove(id);
        self.hits(id)
    }

    /// Takes all rules away.
    pub fn clear(&self) {
        let mut state = self.shared.lock();
        let ids: Vec<RuleId> = state.rules.keys().copied().collect();
        ids.into_iter().for_each(|id| state.remove(id));
    }

    /// How many requests have met the fault of a rule, also of one that is gone.
    pub fn hits(&self, id: RuleId) -> u64 {
        let state = self.shared.lock();
        let hits = state.rules.get(&id).map(Rule::hits).or_else(|| state.removed.get(&id).copied());
        hits.expect("a rule of this proxy")
    }

    /// From now on nothing passes, in either direction: connections stay open, and new ones are
    /// accepted. At [`Proxy::heal`], or after this time, all goes on: what was on its way then
    /// arrives, late, like packets that are sent again.
    pub fn silence(&self, time: Option<Duration>) {
        self.shared.set_weather(Weather::Silent, time);
    }

    /// From now on connections are refused, until [`Proxy::heal`], or for this time; those that are
    /// open are cut.
    pub fn refuse(&self, time: Option<Duration>) {
        self.shared.set_weather(Weather::Refusing, time);
        self.shared.port.refuse();
        self.cut_all();
    }

    /// Ends a silence or a refusal. Rules stay.
    pub fn heal(&self) {
        self.shared.set_weather(Weather::Fair, None);
        self.shared.port.listen().expect("our own port");
    }

    /// Cuts all open connections. What waits on them is not forwarded any more.
    pub fn cut_all(&self) {
        let connections: Vec<_> = self.shared.lock().connections.values().cloned().collect();
        connections.iter().for_each(|connection| connection.cut());
        // With the lock once in hand nobody is between his look and his sleep.
        drop(self.shared.lock());
        self.shared.changed.notify_all();
    }

    /// From now on requests need an access key that was allowed: one that is not known is answered
    /// `InvalidAccessKeyId`.
    pub fn allow_key(&self, id: &str) {
        self.shared.lock().keys.allow(id, None);
    }

    /// The same for a key that comes with a session token.
    pub fn allow_key_with_token(&self, id: &str, token: &str) {
        self.shared.lock().keys.allow(id, Some(token));
    }

    /// A key that was allowed is from now on answered `ExpiredToken`.
    pub fn expire_key(&self, id: &str) {
        self.shared.lock().keys.expire(id);
    }

    /// Keys are not asked for any more.
    pub fn forget_keys(&self) {
        self.shared.lock().keys.clear();
    }

    /// All requests that have arrived, in their order.
    pub fn records(&self) -> Vec<Record> {
        self.shared.lock().records.values().cloned().collect()
    }

    /// The present point, for [`Proxy::since`].
    pub fn mark(&self) -> Mark {
        Mark(self.shared.lock().number())
    }

    /// The requests that have arrived since a point.
    pub fn since(&self, mark: Mark) -> Vec<Record> {
        self.shared.lock().records.range(mark.0..).map(|(_, record)| record.clone()).collect()
    }

    /// How many requests of each operation have arrived.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        counts(&self.records())
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.shared.lock().records.clear();
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }

    /// Waits for a request, arrived or yet to arrive, of which this holds; fails the test after
    /// `deadline`. A record changes while its request goes on, so that an answer can be waited for.
    #[track_caller]
    pub fn wait_for(&self, what: &str, deadline: Duration, holds: impl Fn(&Record) -> bool) -> Record {
        let look = || self.shared.lock().records.values().find(|record| holds(record)).cloned();
        let found = poll(deadline, look);
        found.unwrap_or_else(|| panic!("waited {deadline:?} in vain for {what}; came: {:?}", self.counts()))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.port.refuse();
        self.cut_all();
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn remove(&mut self, id: RuleId) {
        if let Some(rule) = self.rules.remove(&id) {
            self.removed.insert(id, rule.hits());
        }
    }

    fn weather(&self) -> Weather {
        match self.until {
            Some(until) if Instant::now() >= until => Weather::Fair,
            _ => self.weather,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A test that has panicked while it held the lock is over; others may look at the records.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set_weather(&self, weather: Weather, time: Option<Duration>) {
        let mut state = self.lock();
        state.weather = weather;
        state.until = time.map(|time| Instant::now() + time);
        self.changed.notify_all();
    }

    /// Waits while `held` says so, until the proxy ends, or until this moment. Returns whether the
    /// proxy goes on.
    fn wait_while(&self, until: Option<Instant>, held: impl Fn(&State) -> bool) -> bool {
        let mut state = self.lock();
        while !state.ended && held(&state) {
            let now = Instant::now();
            if until.is_some_and(|until| now >= until) {
                break;
            }
            let ends = [until, state.until].into_iter().flatten().filter(|end| *end > now).min();
            let wait = ends.map_or(Duration::from_secs(3600), |end| end - now);
            state = self
                .changed
                .wait_timeout(state, wait)
                .map_or_else(|error| error.into_inner().0, |(state, _)| state);
        }
        !state.ended
    }

    /// Changes a record, if it has not been forgotten.
    fn record(&self, number: u64, change: impl FnOnce(&mut Record)) {
        if let Some(record) = self.lock().records.get_mut(&number) {
            change(record);
        }
    }
}

impl Connection {
    fn cut(&self) {
        self.cut.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Relaxed)
    }

    /// Makes the end of this connection a reset, not an orderly close.
    fn reset_on_close(&self) {
        let _ = rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO));
    }

    /// Waits until the client is gone, or the proxy.
    fn await_close(&self, shared: &Shared) {
        let _ = self.stream.set_read_timeout(Some(Duration::from_millis(50)));
        let mut byte = [0];
        while shared.wait_while(Some(Instant::now()), |_| true) && !self.is_cut() {
            match (&self.stream).read(&mut byte) {
                Ok(0) => return,
                Err(error)
                    if !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) =>
                {
                    return;
                }
                _ => {}
            }
        }
    }
}

/// Accepts connections until the proxy ends, and waits while it refuses them.
fn accept(shared: &Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept() {
            Ok((stream, _)) => start(shared, stream),
            Err(_) => {
                if !shared.wait_while(None, |state| state.weather() == Weather::Refusing) {
                    return;
                }
                // Too few file descriptors are an error as well; do not spin until there are more.
                thread::sleep(Duration::from_millis(1));
                let _ = shared.port.listen();
            }
        }
    }
}

fn start(shared: &Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    let mut state = shared.lock();
    if state.ended {
        return;
    }
    let number = state.number();
    let connection = Arc::new(Connection { stream, number, cut: AtomicBool::new(false) });
    state.connections.insert(number, connection.clone());
    drop(state);
    let shared = shared.clone();
    thread::spawn(move || {
        // An error ends the connection, and the client sees that; there is nobody else to tell.
        let _ = exchange::serve(&shared, &connection);
        // The socket closes with the last who has it, which is this thread.
        shared.lock().connections.remove(&connection.number);
    });
}
