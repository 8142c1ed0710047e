//! What becomes of a request at the store.

use std::time::Duration;

use driftless_sim::ring0::dice::Dice;

use super::bucket::Request;

/// How the store treats requests, in thousandths.
#[derive(Clone, Copy, Default, Debug)]
pub struct Weather {
    /// Refused before anything was done: 503, 429, 500, 409.
    pub refused: u64,
    /// The connection is cut before the request took effect.
    pub cut_before: u64,
    /// It took effect, and the answer is lost.
    pub cut_after: u64,
    /// It took effect, and the answer is 500.
    pub error_after: u64,
    /// The connection is cut, and the request takes effect some time later.
    pub late: u64,
    /// Nothing is ever answered; nothing takes effect.
    pub silent: u64,
    /// The answer's body breaks off.
    pub truncated: u64,
    /// The answer takes seconds.
    pub slow: u64,
}

/// What becomes of one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    Works,
    Refused(u16, &'static str),
    CutBefore,
    CutAfter,
    ErrorAfter,
    Late(Duration),
    Silent,
    Truncated,
    Slow(Duration),
}

impl Weather {
    /// Everything, at a rate.
    pub fn storm(per_mille: u64) -> Weather {
        Weather {
            refused: per_mille,
            cut_before: per_mille,
            cut_after: per_mille,
            error_after: per_mille / 2,
            late: per_mille / 2,
            silent: per_mille / 8,
            truncated: per_mille,
            slow: per_mille,
        }
    }

    /// The fate of the `n`-th request.
    pub fn fate(&self, dice: &Dice, n: u64, request: &Request) -> Fate {
        let draw = dice.draw("store", "fate", n) % 1_000;
        let wait = |name: &str, most: u64| dice.wait("store", name, n, 1_000, most);
        let refusals = [
            (503, "SlowDown"),
            (500, "InternalError"),
            (429, "TooManyRequests"),
            (503, "ServiceUnavailable"),
        ];
        let fates = [
            (self.refused, Fate::Refused(409, "ConditionalRequestConflict")),
            (self.cut_before, Fate::CutBefore),
            (self.cut_after, Fate::CutAfter),
            (self.error_after, Fate::ErrorAfter),
            (self.late, Fate::Late(wait("late", 90_000_000))),
            (self.silent, Fate::Silent),
            (self.truncated, Fate::Truncated),
            (self.slow, Fate::Slow(wait("slow", 20_000_000))),
        ];
        let mut reach = 0;
        for (share, fate) in fates {
            reach += share;
            if draw >= reach {
                continue;
            }
            return match fate {
                // S3 answers so to conditional writes alone.
                Fate::Refused(..) if !request.commits() || dice.chance("store", "refusal", n, 3, 4) => {
                    let (status, code) = *dice.pick("store", "code", n, &refusals);
                    Fate::Refused(status, code)
                }
                Fate::Truncated if request.method != "GET" => Fate::Works,
                fate => fate,
            };
        }
        Fate::Works
    }
}
