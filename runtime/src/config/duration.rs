//! Durations as Go writes them: `1s`, `500ms`, `1h30m`, `1.5s`.

use std::time::Duration;

/// Reads a duration. An error is a sentence for people.
pub fn parse(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let wrong = || format!("{text:?} is not a duration; write 1s, 500ms, 5m or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        if letters == 0 {
            return Err(format!("{text:?} has no unit; write {text}s for seconds"));
        }
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..letters]).ok_or_else(wrong)?;
        seconds += number * unit;
        rest = &rest[letters..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Writes a duration the same way, to the millisecond: `1h30m`, `1.5s`, `250ms`.
pub fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
    let mut text = String::new();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    match rest {
        0 if text.is_empty() => text.push_str("0s"),
        0 => {}
        rest if rest < 1000 && text.is_empty() => text.push_str(&format!("{rest}ms")),
        rest => text.push_str(&format!("{}s", rest as f64 / 1000.0)),
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in [
            ("1s", 1000),
            ("500ms", 500),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("0", 0),
            ("24h", 86_400_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "5 s", "s", "-1s", "1d", "1s2", "1..2s"] {
            assert!(parse(text).is_err(), "{text}");
        }
        for text in ["0s", "1s", "500ms", "5m", "1h30m", "1.5s", "24h", "1m0.25s"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
        assert_eq!(parse("5").unwrap_err(), "\"5\" has no unit; write 5s for seconds");
    }
}
