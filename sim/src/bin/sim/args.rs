//! Reading a command line by a table of flags, which also makes the help.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use driftless::cli::suggest::nearest;
use driftless_sim::bad_input::BadInput;
use driftless_sim::ring0::Plan;
use driftless_sim::ring0::profile::Profile;
use driftless_sim::scenario::Scenario;
use driftless_sim::seed;

/// A flag, taken with one dash or two.
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// What stands for its value in the help; a switch has none.
    pub value: Option<&'static str>,
    /// What it does.
    pub help: &'static str,
}

/// A flag without a value.
pub const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, value: None, help }
}

/// A flag with one.
pub const fn value(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, value: Some(value), help }
}

/// What was given.
#[derive(Debug, Default)]
pub struct Args {
    values: BTreeMap<&'static str, String>,
    /// What is no flag, in order.
    pub positionals: Vec<String>,
}

/// What is to be run: the plan of a seed, or that of a file.
pub struct Subject {
    /// What it was called by.
    pub name: String,
    /// The plan and its dice.
    pub scenario: Scenario,
    /// Whether it comes from a file.
    pub is_file: bool,
}

impl Args {
    /// Reads words by a table.
    pub fn parse(words: &[String], flags: &'static [Flag], positionals_max: usize) -> Result<Args, BadInput> {
        let mut args = Args::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let Some(body) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
                args.positionals.push(word.clone());
                continue;
            };
            let (name, inline) = match body.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (body, None),
            };
            if name == "help" || name == "h" {
                args.values.insert("help", String::new());
                continue;
            }
            let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
                let hint = nearest(name, flags.iter().map(|flag| flag.name));
                let hint = hint.map_or(String::new(), |near| format!("did you mean --{near}?"));
                return Err(BadInput::new(format!("unknown flag: {word}")).hint(hint));
            };
            let given = match (flag.value, inline) {
                (None, None) => String::new(),
                (None, Some(_)) => return Err(BadInput::new(format!("--{name} takes no value"))),
                (Some(_), Some(given)) => given,
                (Some(what), None) => rest
                    .next()
                    .cloned()
                    .ok_or_else(|| BadInput::new(format!("--{name} wants a value: --{name} {what}")))?,
            };
            args.values.insert(flag.name, given);
        }
        match args.positionals.get(positionals_max) {
            Some(extra) if !args.is_on("help") => {
                Err(BadInput::new(format!("too many arguments: {extra:?}")))
            }
            _ => Ok(args),
        }
    }

    /// Whether a switch is on, or a flag was given.
    pub fn is_on(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// The value of a flag.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// The value of a flag that is a whole number.
    pub fn number(&self, name: &str) -> Result<Option<u64>, BadInput> {
        let Some(text) = self.text(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| BadInput::new(format!("--{name} {text:?}: not a whole number")))
    }

    /// The value of a flag that is a number of seconds.
    pub fn seconds(&self, name: &str) -> Result<Option<Duration>, BadInput> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let wrong = || BadInput::new(format!("--{name} {text:?}: not a number of seconds"));
        let seconds = text.parse().map_err(|_| wrong())?;
        Duration::try_from_secs_f64(seconds).map(Some).map_err(|_| wrong())
    }

    /// The profile that was asked for.
    pub fn profile(&self) -> Result<Profile, BadInput> {
        self.text("profile").map_or(Ok(Profile::Seed), Profile::parse)
    }

    /// Where failures are written.
    pub fn out(&self) -> PathBuf {
        self.text("out").map_or_else(|| PathBuf::from("target/sim"), PathBuf::from)
    }

    /// The seed or the file that was given.
    pub fn subject(&self) -> Result<Subject, BadInput> {
        let Some(name) = self.positionals.first() else {
            return Err(BadInput::new("no seed and no scenario was given"));
        };
        let path = Path::new(name);
        if path.is_file() {
            let text = read(path)?;
            return Ok(Subject { name: name.clone(), scenario: Scenario::read(&text)?, is_file: true });
        }
        if name.contains(['/', '.']) {
            return Err(
                BadInput::new(format!("there is no file {name}")).hint("cargo sim shrink SEED writes one")
            );
        }
        let seed = seed::parse(name)?;
        let plan: Plan = self.profile()?.plan(seed);
        Ok(Subject { name: name.clone(), scenario: Scenario::new(seed, plan), is_file: false })
    }
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, BadInput> {
    std::fs::read_to_string(path).map_err(|error| {
        BadInput::new(format!("cannot read {}: {error}", path.display())).hint("is it a text?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[switch("v", ""), value("seeds", "A..B", ""), value("until", "S", "")];

    fn parse(line: &str) -> Result<Args, BadInput> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        Args::parse(&words, FLAGS, 1)
    }

    #[test]
    fn flags_take_one_dash_or_two_and_stand_anywhere() {
        for line in ["--seeds 1..2 -v x", "x -seeds=1..2 --v", "-v x --seeds=1..2"] {
            let args = parse(line).unwrap();
            assert_eq!((args.text("seeds"), args.is_on("v")), (Some("1..2"), true), "{line}");
            assert_eq!(args.positionals, ["x"]);
        }
        assert_eq!(parse("--until 1.5").unwrap().seconds("until"), Ok(Some(Duration::from_millis(1500))));
    }

    #[test]
    fn a_wrong_line_is_refused() {
        for (line, says) in [
            ("--sedes 1..2", "unknown flag"),
            ("--seeds", "wants a value"),
            ("-v=1", "takes no value"),
            ("a b", "too many"),
        ] {
            assert!(parse(line).unwrap_err().text.contains(says), "{line}");
        }
        assert_eq!(parse("--sedes 1").unwrap_err().hint, "did you mean --seeds?");
        for line in ["--until x", "--until -1", "--until 1e300"] {
            assert!(parse(line).unwrap().seconds("until").is_err(), "{line}");
        }
        assert!(parse("--seeds x").unwrap().number("seeds").is_err());
    }
}
