//! Which requests meet which fault.
//!
//! A [`Rule`] is conditions on a request, all of which must hold, and a [`Fault`]. The rules of a
//! proxy are asked in the order in which they were made. Faults that delay, slow down or change
//! something add up; of those that decide the outcome the first one counts.

use std::fmt;
use std::time::Duration;

use super::answer::Answer;
use crate::http::Request;
use crate::random;

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is forwarded later, even if its sender has given up by then: an effect that comes late.
    DelayRequest(Duration),
    /// The answer is passed on later; the effect has happened.
    DelayAnswer(Duration),
    /// Its body, and that of the answer, pass at this many bytes a second.
    Bandwidth(u64),
    /// A field of the query gets another value before it is forwarded, as `max-keys`, which makes
    /// the pages of a list tiny.
    Query(&'static str, String),
    /// The byte at this place of its body is another one when it is forwarded.
    CorruptRequest(u64),
    /// The byte at this place of the answer's body is another one.
    CorruptAnswer(u64),
    /// It is forwarded twice, one after the other; the second answer is passed on.
    Twice,

    /// The connection is reset after this many bytes of its body; it is not forwarded.
    CutWithin(u64),
    /// The connection is reset when it has been received; it is not forwarded.
    CutBefore,
    /// It is forwarded, and the connection is reset when the answer has come: an effect whose
    /// acknowledgement is lost.
    CutAfter,
    /// It is answered like this and not forwarded.
    Answer(Answer),
    /// It is answered like this before its body has been read, and the connection is closed: what
    /// real stores do to a large body that they will not have.
    AnswerEarly(Answer),
    /// It is forwarded, and answered like this when the real answer has come: an effect that is
    /// reported as a failure.
    AnswerAfter(Answer),
    /// The connection is closed after this many bytes of the answer's body, which tells its full
    /// length before.
    Truncate(u64),
    /// It is received and never answered, with the connection open; it is not forwarded.
    HangBefore,
    /// It is forwarded and never answered, with the connection open.
    HangAfter,
}

impl Fault {
    /// Whether it decides the outcome, so that no later one can.
    fn decides(&self) -> bool {
        !matches!(
            self,
            Fault::DelayRequest(_)
                | Fault::DelayAnswer(_)
                | Fault::Bandwidth(_)
                | Fault::Query(..)
                | Fault::CorruptRequest(_)
                | Fault::CorruptAnswer(_)
                | Fault::Twice
        )
    }

    /// Its name, for records.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::DelayRequest(_) => "delay-request",
            Fault::DelayAnswer(_) => "delay-answer",
            Fault::Bandwidth(_) => "bandwidth",
            Fault::Query(..) => "query",
            Fault::CorruptRequest(_) => "corrupt-request",
            Fault::CorruptAnswer(_) => "corrupt-answer",
            Fault::Twice => "twice",
            Fault::CutWithin(_) => "cut-within",
            Fault::CutBefore => "cut-before",
            Fault::CutAfter => "cut-after",
            Fault::Answer(_) => "answer",
            Fault::AnswerEarly(_) => "answer-early",
            Fault::AnswerAfter(_) => "answer-after",
            Fault::Truncate(_) => "truncate",
            Fault::HangBefore => "hang-before",
            Fault::HangAfter => "hang-after",
        }
    }
}

type Condition = Box<dyn Fn(&Request) -> bool + Send + Sync>;

/// A fault, and the requests that meet it.
pub struct Rule {
    fault: Fault,
    conditions: Vec<Condition>,
    skip: u64,
    times: u64,
    every: u64,
    probability: Option<(f64, u64)>,
    matched: u64,
    hits: u64,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} conditions, {} hits)", self.fault.name(), self.conditions.len(), self.hits)
    }
}

impl Rule {
    /// Every request meets the fault.
    pub fn new(fault: Fault) -> Rule {
        Rule {
            fault,
            conditions: Vec::new(),
            skip: 0,
            times: u64::MAX,
            every: 1,
            probability: None,
            matched: 0,
            hits: 0,
        }
    }

    /// Only requests of which this holds. It is asked while the proxy's state is locked, so that it
    /// must not ask the proxy in turn.
    pub fn when(mut self, condition: impl Fn(&Request) -> bool + Send + Sync + 'static) -> Rule {
        self.conditions.push(Box::new(condition));
        self
    }

    /// Only requests with this method.
    pub fn method(self, method: &'static str) -> Rule {
        self.when(move |request| request.method == method)
    }

    /// Only requests of this kind: see [`super::Record::operation`].
    pub fn operation(self, operation: &'static str) -> Rule {
        self.when(move |request| super::record::operation(request) == operation)
    }

    /// Only requests whose path contains this.
    pub fn path_contains(self, text: impl Into<String>) -> Rule {
        let text = text.into();
        self.when(move |request| request.path().contains(&text))
    }

    /// Only requests whose path ends like this.
    pub fn path_ends(self, text: impl Into<String>) -> Rule {
        let text = text.into();
        self.when(move |request| request.path().ends_with(&text))
    }

    /// Only requests whose query contains this.
    pub fn query_contains(self, text: impl Into<String>) -> Rule {
        let text = text.into();
        self.when(move |request| request.query().contains(&text))
    }

    /// Only requests with this header field.
    pub fn has_header(self, name: &'static str) -> Rule {
        self.when(move |request| request.headers.get(name).is_some())
    }

    /// The first so many that match pass unharmed.
    pub fn skip(mut self, count: u64) -> Rule {
        self.skip = count;
        self
    }

    /// At most so many meet the fault.
    pub fn times(mut self, count: u64) -> Rule {
        self.times = count;
        self
    }

    /// Of those that match, each n-th meets the fault, the first one included.
    pub fn every(mut self, n: u64) -> Rule {
        assert!(n > 0, "each 0th is none");
        self.every = n;
        self
    }

    /// Each that matches meets the fault with this probability; the seed, which is not 0, tells
    /// which ones.
    pub fn probability(mut self, probability: f64, seed: u64) -> Rule {
        assert!(seed != 0, "the sequence of 0 is all 0");
        self.probability = Some((probability, seed));
        self
    }

    /// How many requests have met the fault.
    pub(super) fn hits(&self) -> u64 {
        self.hits
    }

    /// Whether this request meets the fault, which is counted.
    fn strikes(&mut self, request: &Request) -> bool {
        if !self.conditions.iter().all(|condition| condition(request)) {
            return false;
        }
        self.matched += 1;
        let place = self.matched.checked_sub(self.skip + 1);
        if self.hits >= self.times || place.is_none_or(|place| place % self.every != 0) {
            return false;
        }
        if let Some((probability, seed)) = &mut self.probability {
            let drawn = random(seed) as f64 / u64::MAX as f64;
            if drawn >= *probability {
                return false;
            }
        }
        self.hits += 1;
        true
    }
}

/// What is to happen to one request.
#[derive(Clone, Default, Debug)]
pub(super) struct Plan {
    /// What adds up, in the order of the rules.
    pub changes: Vec<Fault>,
    /// What decides the outcome.
    pub outcome: Option<Fault>,
}

impl Plan {
    /// Asks all rules. One that comes after the outcome is decided is not counted as hit.
    pub fn make<'a>(rules: impl Iterator<Item = &'a mut Rule>, request: &Request) -> Plan {
        let mut plan = Plan::default();
        for rule in rules {
            let decides = rule.fault.decides();
            if (decides && plan.outcome.is_some()) || !rule.strikes(request) {
                continue;
            }
            match decides {
                true => plan.outcome = Some(rule.fault.clone()),
                false => plan.changes.push(rule.fault.clone()),
            }
        }
        plan
    }

    /// The names of all its faults.
    pub fn names(&self) -> Vec<&'static str> {
        self.changes.iter().chain(&self.outcome).map(Fault::name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(rule: Rule, requests: usize) -> Vec<usize> {
        let mut rule = rule;
        let request = Request::new("PUT", "/b/ltx/0/1.ltx?partNumber=1").header("If-None-Match", "*");
        (0..requests).filter(|_| rule.strikes(&request)).collect()
    }

    #[test]
    fn rules_strike_whom_they_should() {
        let rule = || Rule::new(Fault::CutAfter);
        assert_eq!(struck(rule(), 3), [0, 1, 2]);
        assert_eq!(struck(rule().skip(1).times(1), 4), [1]);
        assert_eq!(struck(rule().every(2).skip(1), 6), [1, 3, 5]);
        let half = struck(rule().probability(0.5, 7), 1000);
        assert!((400..600).contains(&half.len()), "{}", half.len());
        assert_eq!(half, struck(rule().probability(0.5, 7), 1000), "a seed repeats itself");
        let matching = rule().method("PUT").path_contains("ltx/").path_ends(".ltx");
        assert_eq!(struck(matching.query_contains("partNumber").has_header("if-none-match"), 1), [0]);
        for other in [
            rule().method("GET"),
            rule().path_contains("partNumber"),
            rule().path_ends(".lt"),
            rule().query_contains("uploadId"),
            rule().has_header("if-match"),
            rule().operation("PUT"),
            rule().when(|_| false),
        ] {
            assert_eq!(struck(other, 1), [0; 0]);
        }
    }

    #[test]
    fn changes_add_up_and_the_first_outcome_counts() {
        let mut rules = [
            Rule::new(Fault::Bandwidth(1)),
            Rule::new(Fault::CutAfter).times(1),
            Rule::new(Fault::CutBefore),
            Rule::new(Fault::Twice),
        ];
        let request = Request::new("GET", "/");
        let mut plan = || Plan::make(rules.iter_mut(), &request).names();
        assert_eq!(plan(), ["bandwidth", "twice", "cut-after"]);
        assert_eq!(plan(), ["bandwidth", "twice", "cut-before"]);
        assert_eq!(rules[2].hits(), 1, "the rule that was not asked is not counted");
    }
}
