//! How the parts of a plan are written that are not of this crate: times and settings.

use std::time::Duration;

use driftless_core::engine::{Compression, Config};
use serde::{Deserialize, Serialize};

/// Times as `250ms`: a whole number, and the largest unit that needs no fraction.
pub mod time {
    use super::Duration;
    use serde::de::{Deserializer, Error as _};
    use serde::{Deserialize as _, Serializer};

    const UNITS: [(&str, u64); 5] =
        [("min", 60_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1), ("s", 1_000_000_000)];

    /// The text of a time.
    pub fn text(time: Duration) -> String {
        let ns = time.as_nanos() as u64;
        let fits = |unit: &&str| {
            let (_, len) = UNITS.iter().find(|(name, _)| name == unit).expect("one of them");
            ns.is_multiple_of(*len).then_some(*len)
        };
        let unit = ["s", "ms", "us"].iter().find(|unit| fits(unit).is_some()).unwrap_or(&"ns");
        format!("{}{unit}", ns / fits(unit).expect("looked for above"))
    }

    /// The time that a text tells.
    pub fn parse(text: &str) -> Option<Duration> {
        let (number, len) =
            UNITS.iter().find_map(|(unit, len)| Some((text.strip_suffix(unit)?.trim_end(), *len)))?;
        Some(Duration::from_nanos(number.parse::<u64>().ok()?.checked_mul(len)?))
    }

    /// Writes a time.
    pub fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&text(*time))
    }

    /// Reads one.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        parse(&text).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is no time: a whole number and ns, us, ms, s or min is"))
        })
    }
}

/// Lists of things with their times, each a pair.
pub mod timed {
    use super::{Deserialize, Duration, Serialize, time};
    use serde::{Deserializer, Serializer};

    #[derive(Deserialize)]
    struct Read<T>(#[serde(with = "time")] Duration, T);

    #[derive(Serialize)]
    struct Write<'a, T>(#[serde(with = "time")] Duration, &'a T);

    /// Writes a list.
    pub fn serialize<T: Serialize, S: Serializer>(list: &[(Duration, T)], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(list.iter().map(|(time, thing)| Write(*time, thing)))
    }

    /// Reads one.
    pub fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<(Duration, T)>, D::Error> {
        let list = Vec::<Read<T>>::deserialize(from)?;
        Ok(list.into_iter().map(|Read(time, thing)| (time, thing)).collect())
    }
}

/// The settings of a replicator.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Config", deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is the setting of that name")]
pub struct ConfigText {
    #[serde(with = "time")]
    pub sync_interval: Duration,
    pub min_checkpoint_pages: u32,
    #[serde(with = "time")]
    pub quiet_after: Duration,
    pub pending_bytes_max: usize,
    #[serde(with = "time")]
    pub store_deadline: Duration,
    pub remote: bool,
    pub create_if_absent: bool,
    pub prove_tenure: bool,
    pub epoch: Option<u64>,
    pub succeeds: bool,
    #[serde(with = "time")]
    pub shutdown_sync_interval: Duration,
    pub adopt: bool,
    pub once: bool,
    #[serde(with = "compression")]
    pub compression: Compression,
    pub sample_pages_min: usize,
    pub dictionary_permille_max: u64,
    pub newest_only_from: u32,
    pub pending_byte: u64,
}

impl Default for ConfigText {
    fn default() -> ConfigText {
        let Config {
            sync_interval,
            min_checkpoint_pages,
            quiet_after,
            pending_bytes_max,
            store_deadline,
            remote,
            create_if_absent,
            prove_tenure,
            epoch,
            succeeds,
            shutdown_sync_interval,
            adopt,
            once,
            compression,
            sample_pages_min,
            dictionary_permille_max,
            newest_only_from,
            pending_byte,
        } = Config::default();
        ConfigText {
            sync_interval,
            min_checkpoint_pages,
            quiet_after,
            pending_bytes_max,
            store_deadline,
            remote,
            create_if_absent,
            prove_tenure,
            epoch,
            succeeds,
            shutdown_sync_interval,
            adopt,
            once,
            compression,
            sample_pages_min,
            dictionary_permille_max,
            newest_only_from,
            pending_byte,
        }
    }
}

/// The level of zstd; 0 is LZ4.
pub mod compression {
    use driftless_core::engine::Compression;
    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes it.
    pub fn serialize<S: Serializer>(compression: &Compression, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_i32(match compression {
            Compression::Lz4 => 0,
            Compression::Zstd { level } => *level,
        })
    }

    /// Reads it.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Compression, D::Error> {
        Ok(match i32::deserialize(from)? {
            0 => Compression::Lz4,
            level => Compression::Zstd { level },
        })
    }
}

/// The modes of a checkpoint, by their names in SQL.
pub fn checkpoint_mode<'de, D: serde::Deserializer<'de>>(from: D) -> Result<&'static str, D::Error> {
    use serde::de::Error as _;
    let modes = ["PASSIVE", "FULL", "RESTART", "TRUNCATE"];
    let text = String::deserialize(from)?;
    modes
        .into_iter()
        .find(|mode| *mode == text)
        .ok_or_else(|| D::Error::custom(format!("{text:?} is no mode of a checkpoint: {modes:?} are")))
}
