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
            StoreRequest::Get { .. } | StoreRequest::GetDictionary { .. } => Kind::Get,
            StoreRequest::PutOpen { .. } | StoreRequest::PutDictionary { .. } => Kind::Open,
            StoreRequest::PutPart { .. } => Kind::Part,
            StoreRequest::PutCommit { .. } => Kind::Commit,
            _ => Kind::Other,
        }
    }

    fn is_put(self) -> bool {
        matches!(self, Kind::Open | Kind::Part | Kind::Commit)
    }
}

/// A fault that lasts.
#[derive(Clone, Copy, Debug)]
struct Spell {
    name: &'static str,
    from_ns: u64,
    to_ns: u64,
}

const OUTAGE: &str = "store: outage";
const PARTIAL: &str = "store: partial outage";
const STORM: &str = "store: 429 storm";
const EXPIRED: &str = "store: credentials expired";
const FULL: &str = "store: full";
const LEAP: &str = "store: clock leaps";
/// Bodies move slowly.
pub(super) const SLOW: &str = "store: slow bodies";

/// Faults that last.
const SPELLS: [&str; 6] = [OUTAGE, PARTIAL, EXPIRED, FULL, STORM, LEAP];

/// All that may become of one request.
pub(super) const FATES: [&str; 22] = [
    OUTAGE,
    PARTIAL,
    EXPIRED,
    FULL,
    STORM,
    "store: tiny list page",
    "store: latency tail",
    "store: no effect, no answer",
    "store: effect late, no answer",
    "store: answer lost after the effect",
    "store: reset before the effect",
    "store: refused",
    "store: reset within a body",
    "store: 412 of our own put",
    "store: conflict",
    "store: changing list page",
    "store: truncated list page",
    "store: stale list",
    "store: stale read",
    "store: put carried out twice",
    "store: corrupt body",
    "store: foreign body",
];

/// What a store that refuses nothing must not do: its word is all that there is.
const NEED_CONDITIONS: [&str; 4] =
    ["store: stale list", "store: stale read", "store: put carried out twice", "store: 412 of our own put"];

/// Whether a fault that strikes one request fits a kind of it.
fn fits(name: &str, kind: Kind) -> bool {
    match name {
        "store: latency tail"
        | "store: no effect, no answer"
        | "store: effect late, no answer"
        | "store: answer lost after the effect"
        | "store: reset before the effect"
        | "store: refused" => true,
        "store: reset within a body" => matches!(kind, Kind::Get | Kind::Part),
        "store: 412 of our own put" | "store: conflict" | "store: put carried out twice" => {
            kind == Kind::Commit
        }
        "store: changing list page" | "store: truncated list page" | "store: stale list" => {
            kind == Kind::List
        }
        "store: stale read" | "store: corrupt body" | "store: foreign body" => kind == Kind::Get,
        _ => false,
    }
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
    /// Whether the store refuses to replace.
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
        let rate = faults.has(SLOW).then(|| *dice.pick("bandwidth", "", 0, &[24 << 10, 80 << 10, 1 << 20]));
        Weather { dice, faults: faults.clone(), per_mille, spells, rate, refuses }
    }

    /// How far the store's clock is ahead.
    pub(super) fn clock_ahead(&self, now_ns: u64) -> Duration {
        let ahead = self.spells.iter().any(|spell| spell.name == LEAP && spell.from_ns <= now_ns);
        Duration::from_secs(if ahead { 25 * 60 * 60 } else { 0 })
    }

    /// How much longer so many bytes take.
    pub(super) fn slowness(&self, bytes: u64) -> Option<Duration> {
        self.rate.filter(|_| bytes > 0).map(|rate| Duration::from_micros(bytes * 1_000_000 / rate))
    }

    /// What the dice say of the `n`-th request, which is about `subject`.
    pub(super) fn drawn(
        &self,
        request: &StoreRequest,
        subject: &str,
        n: u64,
        now_ns: u64,
    ) -> Option<&'static str> {
        let kind = Kind::of(request);
        let spell = self.spell(kind, subject, n, now_ns).or_else(|| self.strike(kind, subject, n));
        let tiny = kind == Kind::List && self.faults.has("store: tiny list page");
        spell.or(tiny.then_some("store: tiny list page"))
    }

    fn spell(&self, kind: Kind, subject: &str, n: u64, now_ns: u64) -> Option<&'static str> {
        let dice = self.dice;
        let strikes = |name: &str| match name {
            PARTIAL => match dice.draw("partial outage", "kind", 0) % 3 {
                0 => kind == Kind::List,
                1 => kind == Kind::Get,
                _ => kind.is_put(),
            },
            FULL => kind.is_put(),
            STORM => dice.chance("429 storm", subject, n, 9, 10),
            LEAP => false,
            _ => true,
        };
        let on = |spell: &&Spell| (spell.from_ns..spell.to_ns).contains(&now_ns) && strikes(spell.name);
        self.spells.iter().find(on).map(|spell| spell.name)
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
        let promised = |name: &str| self.refuses || !NEED_CONDITIONS.contains(&name);
        let here = |name: &&'static str| self.faults.has(name) && fits(name, kind) && promised(name);
        let names: Vec<&'static str> = FATES.into_iter().filter(here).collect();
        (!names.is_empty()).then(|| *self.dice.pick("store fate", subject, n, &names))
    }

    /// What a fault makes of a request, and how much longer it takes for it.
    pub(super) fn effect(&self, name: &'static str, subject: &str, n: u64) -> (Fate, Duration) {
        let dice = self.dice;
        let hang = |high| dice.wait("hang", subject, n, 1_000, high);
        let cut = dice.draw("cut", subject, n);
        let fate = match name {
            OUTAGE => *dice.pick(
                "outage",
                subject,
                n,
                &[Fate::Refused, Fate::Refused, Fate::Swallowed, Fate::Unclear],
            ),
            PARTIAL => *dice.pick("partial outage", subject, n, &[Fate::Refused, Fate::Swallowed]),
            EXPIRED => Fate::Denied,
            FULL => Fate::Full,
            STORM => Fate::Throttled,
            "store: latency tail" => return (Fate::Works, hang(90_000_000)),
            "store: effect late, no answer" => return (Fate::Hangs, hang(90_000_000)),
            "store: no effect, no answer" => Fate::Swallowed,
            "store: answer lost after the effect" => Fate::Lost,
            "store: reset before the effect" => Fate::Unclear,
            "store: refused" => Fate::Refused,
            "store: reset within a body" => Fate::Reset,
            "store: 412 of our own put" => Fate::Taken,
            "store: conflict" => Fate::Conflict,
            "store: tiny list page" => Fate::Cut(1),
            "store: changing list page" => Fate::Cut(1 + (cut % 5) as u32),
            "store: truncated list page" => Fate::Cut((cut % 2) as u32),
            "store: stale list" | "store: stale read" => Fate::Stale(hang(20_000_000).as_millis() as u32),
            "store: put carried out twice" => Fate::Twice,
            "store: corrupt body" => Fate::Flipped(cut),
            "store: foreign body" => Fate::Foreign,
            _ => unreachable!("{name} is no fate of a request"),
        };
        (fate, Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(names: &[&str], request: &StoreRequest, expected: Option<&str>) {
        let faults = Faults::of_names(names.iter().copied());
        let weather = Weather::new(Dice::new(3), &faults, 10_000, Duration::from_secs(60), true);
        // Long after every spell.
        let drawn: Vec<_> = (0..20).map(|n| weather.drawn(request, "x", n, u64::MAX / 2)).collect();
        assert_eq!(drawn.iter().flatten().next().copied(), expected, "of {drawn:?}");
    }

    #[test]
    fn only_what_fits_a_request_and_is_in_the_plan_strikes_it() {
        use driftless_core::ids::Level;
        let list = StoreRequest::List { level: Level::CAPTURES, after: None, limit: 10 };
        check(&[], &list, None);
        check(&["store: 412 of our own put", "store: corrupt body", OUTAGE], &list, None);
        check(&["store: truncated list page"], &list, Some("store: truncated list page"));
        check(&[SLOW, "store: refused"], &list, Some("store: refused"));
        check(&["store: tiny list page"], &list, Some("store: tiny list page"));
    }

    #[test]
    fn each_fate_has_an_effect() {
        let weather = Weather::new(Dice::new(3), &Faults::all(), 0, Duration::from_secs(60), true);
        for name in FATES {
            let _ = weather.effect(name, "x", 1);
        }
    }
}
