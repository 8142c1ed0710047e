//! What the object says: lines that people can read, with a checksum.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::{Active, Term};
use crate::checksum::FileDigest;
use crate::ids::Wall;

const TITLE: &str = "driftless lease 1";
/// The longest that is read: what is longer is not a lease.
const BYTES_MAX: usize = 8192;

/// How far a holder is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum State {
    /// It fences what was there before.
    Claiming,
    /// Its application runs.
    Active,
    /// The same, and it is about to give the lease up.
    Leaving,
    /// It has given the lease up, with everything replicated: whoever comes first may take it.
    Released,
}

impl State {
    const ALL: [State; 4] = [State::Claiming, State::Active, State::Leaving, State::Released];

    /// The word in the object and for people.
    pub const fn word(self) -> &'static str {
        match self {
            State::Claiming => "claiming",
            State::Active => "active",
            State::Leaving => "leaving",
            State::Released => "released",
        }
    }
}

/// The content of the object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// Counts holders; it only grows.
    pub epoch: u64,
    /// The host of the holder.
    pub holder: u64,
    /// The claim of the holder.
    pub term: Term,
    /// Fresh with each write.
    pub nonce: u64,
    /// How long the holder may go without a renewal.
    pub ttl: Duration,
    /// How far it is.
    pub state: State,
    /// Segments that the holder has put since its claim: those who wait look for news when it changes.
    pub progress: u64,
    /// Where they were put.
    pub active: Active,
    /// When the holder claimed it, by the holder's clock: for people only.
    pub since: Wall,
    /// Where the holder can be asked: for people and load balancers.
    pub address: String,
}

impl Body {
    /// The content.
    pub fn encode(&self) -> Vec<u8> {
        let Body { epoch, holder, term, nonce, ttl, state, progress, active, since, address } = self;
        let address: String = address.chars().filter(|letter| !letter.is_control()).take(500).collect();
        let mut text = format!(
            "{TITLE}\nepoch {epoch}\nholder {holder:016x}\nterm {:016x}\nnonce {nonce:016x}\nttl-ms {}\n\
             state {}\nprogress {progress}\nactive {}\nsince-ms {}\naddress {address}\n",
            term.0,
            ttl.as_millis(),
            state.word(),
            active.encode(),
            since.0,
        );
        let sum = sum(&text);
        text.push_str(&format!("sum {sum:016x}\n"));
        text.into_bytes()
    }

    /// Reads the content.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    pub fn decode(bytes: &[u8]) -> Result<Body, String> {
        let damaged = |what: &str| format!("the lease is damaged: {what}");
        if bytes.len() > BYTES_MAX {
            return Err(damaged("it is too long"));
        }
        let text = core::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let Some((body, last)) = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')) else {
            return Err(damaged("it has no lines"));
        };
        let title = body.lines().next().unwrap_or_default();
        if title != TITLE && title.starts_with("driftless lease ") {
            return Err(format!("the lease is of another version of driftless: {title}"));
        }
        let body = format!("{body}\n");
        if title != TITLE || last.strip_prefix("sum ") != Some(&*format!("{:016x}", sum(&body))) {
            return Err(damaged("its checksum is wrong"));
        }
        let field = |name: &str| {
            let line = body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.ok_or_else(|| damaged(&format!("it has no {name}")))
        };
        let wrong = |name: &str| damaged(&format!("its {name} makes no sense"));
        let number = |name| field(name)?.parse::<u64>().map_err(|_| wrong(name));
        let hex = |name| u64::from_str_radix(field(name)?, 16).map_err(|_| wrong(name));
        let state = field("state")?;
        Ok(Body {
            epoch: number("epoch")?,
            holder: hex("holder")?,
            term: Term(hex("term")?),
            nonce: hex("nonce")?,
            ttl: Duration::from_millis(number("ttl-ms")?),
            state: State::ALL.into_iter().find(|it| it.word() == state).ok_or_else(|| wrong("state"))?,
            progress: number("progress")?,
            // A lease from before it was said names none.
            active: Active::decode(field("active").unwrap_or_default()).ok_or_else(|| wrong("active"))?,
            since: Wall(field("since-ms")?.parse().map_err(|_| wrong("since-ms"))?),
            address: field("address")?.to_string(),
        })
    }
}

fn sum(text: &str) -> u64 {
    let mut digest = FileDigest::new();
    digest.update(text.as_bytes());
    digest.finish()
}
