//! The store's node: HTTP/1.1 over simulated TCP, in front of a [`Bucket`].
//!
//! A request is carried out at one moment; what is around it, the line and the server's moods
//! ([`Weather`]), decides whether whoever asked hears of it, and when.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driftless_sim::ring0::dice::Dice;
use jiff::Timestamp;
use madsim::net::{TcpListener, TcpStream};
use madsim::time::{TimeHandle, sleep};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::bucket::{Answer, Bucket, Request};
use super::fates::{Fate, Weather};

/// Where the store is.
pub const ADDRESS: &str = "10.0.0.9:80";
/// Its bucket's name.
pub const BUCKET: &str = "simulated";

/// The store, which outlives its process.
#[derive(Debug)]
pub struct Store {
    pub bucket: Bucket,
    pub weather: Weather,
    dice: Dice,
    /// Requests so far.
    pub requests: u64,
    /// Requests that did not simply work.
    pub faults: u64,
    /// A digest of all requests, their times and fates.
    digest: DefaultHasher,
    verbose: bool,
}

/// The store, shared by its connections and its judges.
pub type Shared = Arc<Mutex<Store>>;

impl Store {
    /// An empty one.
    pub fn new(dice: Dice, page_max: usize, verbose: bool) -> Shared {
        let bucket = Bucket::new(page_max);
        let (weather, digest) = (Weather::default(), DefaultHasher::new());
        Arc::new(Mutex::new(Store { bucket, weather, dice, requests: 0, faults: 0, digest, verbose }))
    }

    /// A number that stands for all that was asked so far, and when.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    fn fate(&mut self, request: &Request) -> Fate {
        self.requests += 1;
        let fate = self.weather.fate(&self.dice, self.requests, request);
        self.faults += u64::from(fate != Fate::Works);
        fate
    }

    /// Carries a request out, and notes it.
    fn carry_out(&mut self, request: &Request, fate: Fate) -> Answer {
        let answer = match fate {
            Fate::Refused(status, code) => Answer::error(status, code),
            _ => self.bucket.answer(request, &Timestamp::now().to_string()),
        };
        self.note(request, fate, Some(answer.status));
        answer
    }

    fn note(&mut self, request: &Request, fate: Fate, status: Option<u16>) {
        let at = TimeHandle::current().elapsed();
        let text = format!("{} {} {:?} {fate:?} {status:?}", request.method, request.key, request.query);
        (at, &text, &request.body).hash(&mut self.digest);
        if self.verbose {
            eprintln!("{:>12.6} store: {text}", at.as_secs_f64());
        }
    }
}

/// No holder of the lock awaits.
pub fn locked(store: &Shared) -> MutexGuard<'_, Store> {
    store.lock().expect("no holder panics")
}

/// Serves until the node is killed.
pub async fn serve(store: Shared) {
    let listener = TcpListener::bind(ADDRESS).await.expect("nobody else has the address");
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            madsim::task::spawn(connection(Arc::clone(&store), stream));
        }
    }
}

async fn connection(store: Shared, mut stream: TcpStream) {
    let mut bytes = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut bytes).await {
        let fate = locked(&store).fate(&request);
        if !answer(&store, &mut stream, request, fate).await {
            return;
        }
    }
}

/// Whether the connection stays open.
async fn answer(store: &Shared, stream: &mut TcpStream, request: Request, fate: Fate) -> bool {
    match fate {
        Fate::Slow(wait) => sleep(wait).await,
        Fate::CutBefore => {
            locked(store).note(&request, fate, None);
            return false;
        }
        Fate::Silent => {
            locked(store).note(&request, fate, None);
            std::future::pending::<()>().await;
        }
        Fate::Late(wait) => {
            let store = Arc::clone(store);
            madsim::task::spawn(async move {
                sleep(wait).await;
                locked(&store).carry_out(&request, fate);
            });
            return false;
        }
        _ => {}
    }
    let work = locked(store).dice.wait("store", "work", request.body.len() as u64, 200, 30_000);
    sleep(work).await;
    let answer = locked(store).carry_out(&request, fate);
    let (answer, cut) = match fate {
        Fate::CutAfter => return false,
        Fate::ErrorAfter => (Answer::error(500, "InternalError"), false),
        fate => (answer, fate == Fate::Truncated),
    };
    let head = request.method == "HEAD";
    let mut sent = encode(&answer, head);
    if cut {
        sent.truncate(sent.len() - answer.body.len() / 2 - usize::from(!answer.body.is_empty()));
    }
    let written = stream.write_all(&sent).await.is_ok() && stream.flush().await.is_ok();
    if cut {
        // What was written is on the line when it breaks.
        sleep(Duration::from_millis(50)).await;
    }
    written && !cut
}

fn encode(answer: &Answer, head: bool) -> Vec<u8> {
    let date = jiff::fmt::rfc2822::to_string(&Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC));
    let mut bytes = format!(
        "HTTP/1.1 {} Simulated\r\nContent-Length: {}\r\nDate: {}\r\n",
        answer.status,
        answer.body.len(),
        date.expect("a date of this century")
    )
    .into_bytes();
    for (name, value) in &answer.headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    if !head {
        bytes.extend_from_slice(&answer.body);
    }
    bytes
}

/// The next request on a connection; `None` at its end, and where a request breaks off: what did
/// not come whole has no effect.
async fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<Request> {
    let (mut request, head, len) = loop {
        if let Some(parsed) = parse_head(bytes) {
            break parsed;
        }
        more(stream, bytes).await?;
    };
    while bytes.len() < head + len {
        more(stream, bytes).await?;
    }
    request.body = bytes[head..head + len].to_vec();
    bytes.drain(..head + len);
    Some(request)
}

async fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 16 << 10];
    match stream.read(&mut chunk).await {
        Ok(read) if read > 0 => {
            bytes.extend_from_slice(&chunk[..read]);
            Some(())
        }
        _ => None,
    }
}

/// A head that is whole: the request without its body, the head's length, the body's.
fn parse_head(bytes: &[u8]) -> Option<(Request, usize, usize)> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(bytes).expect("hyper writes HTTP") else {
        return None;
    };
    let (path, query) = {
        let target = parsed.path.expect("a parsed head has one");
        target.split_once('?').unwrap_or((target, ""))
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let key = path.trim_start_matches('/');
    let key = key.strip_prefix(BUCKET).expect("there is one bucket").trim_start_matches('/');
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let headers: BTreeMap<String, String> = parsed
        .headers
        .iter()
        .map(|header| (header.name.to_lowercase(), String::from_utf8_lossy(header.value).into_owned()))
        .collect();
    let len = headers.get("content-length").map_or(0, |len| len.parse().expect("hyper writes numbers"));
    let request = Request {
        method: parsed.method.expect("a parsed head has one").to_owned(),
        key: decoded(key),
        query: pairs.map(|(name, value)| (decoded(name), decoded(value))).collect(),
        headers,
        body: Vec::new(),
    };
    Some((request, head, len))
}
