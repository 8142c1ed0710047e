//! What befalls the requests to the store in a run of the full generation.
//!
//! Some faults last for a while and strike whatever is asked then; the others strike one request
//! each. Which may befall the run at all says the plan; which requests they fit is said here.

use std::time::Duration;

use driftless_core::machine::StoreRequest;

use super::dice::Dice;
use super::faults::Faults;
use super::store::Fate;

/// A request, as far as its fate depends on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    List,
    Get,
    Open,
    Part,
    Commit,
    Other,
}

impl Kind {
    fn of(request: &StoreRequest) -> Kind {
        match request {
            StoreRequest::List { .. } => Kind::List,
            StoreRequest::Get { .. } => Kind::Get,
            StoreRequest::PutOpen { .. } => Kind::Open,
            StoreRequest::PutPart { .. } => Kind::Part,
            StoreRequest::PutCommit { .. } => Kind::Commit,
            _ => Kind::Other,
        }
    }
}

/// A fault that lasts.
#[derive(Clone, Copy, Debug)]
struct Spell {
    name: &'static str,
    from_ns: u64,
    to_ns: u64,
}

const SPELLS: [&str; 6] =
    ["outage", "partial outage", "429 storm", "expired credentials", "store full", "store clock skew"];

/// Faults that strike one request, and which they fit.
const STRIKES: [(&str, &[Kind]); 16] = {
    use Kind::{Commit, Get, List, Open, Other, Part};
    const ANY: &[Kind] = &[List, Get, Open, Part, Commit, Other];
    [
        ("latency tail", ANY),
        ("timeout before effect", ANY),
        ("timeout after effect", ANY),
        ("lost answer", ANY),
        ("unclear", ANY),
        ("5xx", ANY),
        ("reset mid-body", &[Get, Part]),
        ("412 self", &[Commit]),
        ("409", &[Commit]),
        ("changing list page", &[List]),
        ("truncated list page", &[List]),
        ("stale list", &[List]),
        ("stale read", &[Get]),
        ("duplicate request", &[Commit]),
        ("corrupt body", &[Get]),
        ("foreign body", &[Get]),
    ]
};

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Decision {
    pub(super) fate: Fate,
    /// How long it takes beyond the usual latency.
    pub(super) extra: Duration,
    /// What befell it.
    pub(super) names: [Option<&'static str>; 2],
}

/// The faults of the store, and when they last.
#[derive(Clone, Debug)]
pub(super) struct Weather {
    dice: Dice,
    faults: Faults,
    per_mille: u64,
    spells: Vec<Spell>,
    /// Bytes a second, where that is little.
    rate: Option<u64>,
    /// Whether a store refuses to replace. Where it does not, what it promises does not cover reads
    /// that miss an object, nor puts that come again.
    refuses: bool,
}

impl Weather {
    /// The faults of a run of about this length.
    pub(super) fn new(
        dice: Dice,
        faults: &Faults,
        per_mille: u64,
        length: Duration,
        refuses: bool,
    ) -> Weather {
        let mut spells = Vec::new();
        for name in SPELLS.into_iter().filter(|name| faults.has(name)) {
            for n in 0..dice.range("spell", name, 0, 1, 2) {
                let within = (length.as_nanos() as u64).max(1);
                let from_ns = dice.draw("spell from", name, n) % within;
                let lasts = dice.wait("spell lasts", name, n, 500_000, 100_000_000);
                spells.push(Spell { name, from_ns, to_ns: from_ns + lasts.as_nanos() as u64 });
            }
        }
        let rate =
            faults.has("bandwidth").then(|| *dice.pick("bandwidth", "", 0, &[24 << 10, 80 << 10, 1 << 20]));
        Weather { dice, faults: faults.clone(), per_mille, spells, rate, refuses }
    }

    fn is_on(&self, name: &str, now_ns: u64) -> bool {
        self.spells.iter().any(|spell| spell.name == name && (spell.from_ns..spell.to_ns).contains(&now_ns))
    }

    /// How far the store's clock is ahead.
    pub(super) fn clock_ahead(&self, now_ns: u64) -> Duration {
        let ahead =
            self.spells.iter().any(|spell| spell.name == "store clock skew" && spell.from_ns <= now_ns);
        Duration::from_secs(if ahead { 25 * 60 * 60 } else { 0 })
    }

    /// What becomes of the `n`-th request, which is about `subject` and moves so many bytes.
    pub(super) fn decide(
        &self,
        request: &StoreRequest,
        subject: &str,
        n: u64,
        now_ns: u64,
        bytes: u64,
    ) -> Decision {
        let kind = Kind::of(request);
        let mut decision = Decision { fate: Fate::Works, extra: Duration::ZERO, names: [None, None] };
        if let Some(rate) = self.rate.filter(|_| bytes > 0) {
            decision.extra = Duration::from_micros(bytes * 1_000_000 / rate);
            decision.names[1] = Some("bandwidth");
        }
        if let Some((name, fate)) = self.spell(kind, subject, n, now_ns) {
            decision.names[0] = Some(name);
            return Decision { fate, ..decision };
        }
        if let Some(name) = self.strike(kind, subject, n) {
            decision.names[0] = Some(name);
            (decision.fate, decision.extra) = self.effect(name, kind, subject, n, decision.extra);
        } else if kind == Kind::List && self.faults.has("tiny list page") {
            decision = Decision { fate: Fate::Cut(1), names: [Some("tiny list page"), None], ..decision };
        }
        decision
    }

    fn spell(&self, kind: Kind, subject: &str, n: u64, now_ns: u64) -> Option<(&'static str, Fate)> {
        let dice = self.dice;
        let on = |name: &'static str| self.is_on(name, now_ns).then_some(name);
        let puts = matches!(kind, Kind::Open | Kind::Part | Kind::Commit);
        if let Some(name) = on("outage") {
            let fates = [Fate::Refused, Fate::Refused, Fate::Swallowed, Fate::Unclear];
            return Some((name, *dice.pick("outage", subject, n, &fates)));
        }
        if let Some(name) = on("partial outage") {
            let struck = match dice.draw("partial outage", "kind", 0) % 3 {
                0 => kind == Kind::List,
                1 => kind == Kind::Get,
                _ => puts,
            };
            if struck {
                return Some((
                    name,
                    *dice.pick("partial outage", subject, n, &[Fate::Refused, Fate::Swallowed]),
                ));
            }
        }
        if let Some(name) = on("expired credentials") {
            return Some((name, Fate::Denied));
        }
        if let Some(name) = on("store full").filter(|_| puts) {
            return Some((name, Fate::Full));
        }
        let storm = on("429 storm").filter(|_| dice.chance("429 storm", subject, n, 9, 10));
        storm.map(|name| (name, Fate::Throttled))
    }

    fn strike(&self, kind: Kind, subject: &str, n: u64) -> Option<&'static str> {
        // Most is decided where a put ends, and there are few listings and reads.
        let rare = match kind {
            Kind::Get => 8,
            Kind::List | Kind::Commit => 3,
            _ => 1,
        };
        if !self.dice.chance("store fault", subject, n, (self.per_mille * rare).min(600), 1_000) {
            return None;
        }
        let promised = |name: &str| self.refuses || !matches!(name, "stale read" | "duplicate request");
        let fits: Vec<&'static str> = STRIKES
            .iter()
            .filter(|(name, kinds)| kinds.contains(&kind) && self.faults.has(name) && promised(name))
            .map(|(name, _)| *name)
            .collect();
        (!fits.is_empty()).then(|| *self.dice.pick("store fate", subject, n, &fits))
    }

    fn effect(
        &self,
        name: &'static str,
        kind: Kind,
        subject: &str,
        n: u64,
        extra: Duration,
    ) -> (Fate, Duration) {
        let dice = self.dice;
        let hang = |high| dice.wait("hang", subject, n, 1_000, high);
        let cut = dice.draw("cut", subject, n);
        match name {
            "latency tail" => (Fate::Works, extra + hang(90_000_000)),
            "timeout before effect" => (Fate::Swallowed, extra),
            "timeout after effect" => (Fate::Hangs, hang(90_000_000)),
            "lost answer" => (Fate::Lost, extra),
            "unclear" => (Fate::Unclear, extra),
            "5xx" => (Fate::Refused, extra),
            "reset mid-body" => (Fate::Reset, extra),
            "412 self" => (Fate::Taken, extra),
            "409" => (Fate::Conflict, extra),
            "changing list page" => (Fate::Cut(1 + (cut % 5) as u32), extra),
            "truncated list page" => (Fate::Cut((cut % 2) as u32), extra),
            "stale list" | "stale read" => (Fate::Stale(hang(20_000_000).as_millis() as u32), extra),
            "duplicate request" => (Fate::Twice, extra),
            "corrupt body" => (Fate::Flipped(cut), extra),
            "foreign body" => (Fate::Foreign, extra),
            _ => unreachable!("{name} strikes no {kind:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], request: &StoreRequest, expected: &str) {
        let weather = Weather::new(
            Dice::new(3),
            &Faults::of_names(names.iter().copied()),
            1_000,
            Duration::from_secs(60),
            true,
        );
        let decision = weather.decide(request, "x", 1, 61 * 60 * 1_000_000_000, 100);
        assert_eq!(format!("{:?}", decision.names), expected);
    }

    #[test]
    fn only_what_fits_a_request_and_is_in_the_plan_strikes_it() {
        use driftless_core::ids::Level;
        let list = StoreRequest::List { level: Level::CAPTURES, after: None, limit: 10 };
        check(&[], &list, "[None, None]");
        check(&["412 self", "corrupt body"], &list, "[None, None]");
        check(&["truncated list page"], &list, r#"[Some("truncated list page"), None]"#);
        check(&["bandwidth", "5xx"], &list, r#"[Some("5xx"), Some("bandwidth")]"#);
        check(&["tiny list page"], &list, r#"[Some("tiny list page"), None]"#);
    }
}
