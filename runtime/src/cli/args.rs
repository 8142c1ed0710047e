//! Reading a command line as Litestream's users write it.
//!
//! Flags take one dash or two (`-o`, `--o`), a value after a blank or an equals sign (`-txid 1f`,
//! `-txid=1f`), and stand before or after the paths; `--` ends them. A switch may be given a truth
//! value (`-once=false`), the last of several wins. That is Go's flag syntax with freedom of place,
//! which no parser of the Rust world reads without being rewritten to, and the tables in
//! [`commands`](super::commands) that drive this one also print the help, so that the two agree.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::commands::{Command, Flag, GLOBAL};
use super::error::CliError;
use super::suggest::nearest;

/// What stands after the command's name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Args {
    values: BTreeMap<&'static str, OsString>,
    /// What is not a flag, in order.
    pub positionals: Vec<OsString>,
    /// Whether help was asked for; nothing else counts then.
    pub help: bool,
}

impl Args {
    /// Reads `args` by the flags of `command`, adding to what stood before the command's name.
    pub fn parse(command: &Command, args: &[OsString], before: Args) -> Result<Args, CliError> {
        let flags: Vec<&Flag> = command.flags.iter().chain(GLOBAL).collect();
        let mut parsed = before;
        let mut rest = args.iter();
        while let Some(arg) = rest.next() {
            if arg == "--" {
                parsed.positionals.extend(rest.cloned());
                break;
            }
            match split_flag(arg) {
                None => parsed.positionals.push(arg.clone()),
                Some(flag) => parsed.take(&flag, &flags, &mut rest, Some(command.name))?,
            }
        }
        if !parsed.help {
            parsed.refuse_later(&flags)?;
            if parsed.positionals.len() > command.positionals_max {
                let extra = parsed.positionals[command.positionals_max].display().to_string();
                let hint = format!("usage: driftless {}", command.usage[0]);
                return Err(
                    CliError::usage(format!("too many arguments for {}: {extra:?}", command.name)).hint(hint)
                );
            }
        }
        Ok(parsed)
    }

    /// Reads the global flags that stand before the command's name, and returns what follows.
    pub fn parse_leading(args: &[OsString]) -> Result<(Args, &[OsString]), CliError> {
        let flags: Vec<&Flag> = GLOBAL.iter().collect();
        let mut parsed = Args::default();
        let mut rest = args.iter();
        loop {
            let here = rest.as_slice();
            match rest.next().and_then(|arg| split_flag(arg)) {
                None => return Ok((parsed, here)),
                Some(flag) => parsed.take(&flag, &flags, &mut rest, None)?,
            }
        }
    }

    /// Takes one flag, and its value from `rest` where it has one.
    fn take(
        &mut self,
        (name, inline): &(String, Option<OsString>),
        flags: &[&Flag],
        rest: &mut std::slice::Iter<'_, OsString>,
        command: Option<&str>,
    ) -> Result<(), CliError> {
        if name == "h" || name == "help" {
            self.help = true;
            return Ok(());
        }
        let Some(flag) = flags.iter().find(|flag| flag.name == name) else {
            return Err(unknown_flag(name, flags, command));
        };
        let value = match (flag.value, inline) {
            (None, None) => OsString::from("true"),
            (None, Some(value)) => match value.to_str() {
                Some("true" | "1" | "t") => OsString::from("true"),
                Some("false" | "0" | "f") => OsString::from("false"),
                _ => {
                    return Err(CliError::usage(format!("-{name} is a switch and takes true or false only")));
                }
            },
            (Some(_), Some(value)) => value.clone(),
            (Some(what), None) => match rest.next() {
                Some(value) => value.clone(),
                None => return Err(CliError::usage(format!("-{name} wants a value: -{name} {what}"))),
            },
        };
        self.values.insert(flag.name, value);
        Ok(())
    }

    /// Flags of Litestream that this release has no effect for are refused, never ignored.
    fn refuse_later(&self, flags: &[&Flag]) -> Result<(), CliError> {
        for flag in flags {
            if let Some(hint) = flag.later
                && self.values.get(flag.name).is_some_and(|value| value != "false")
            {
                return Err(CliError::usage(format!("-{} is not in this release", flag.name)).hint(hint));
            }
        }
        Ok(())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|value| value == "true")
    }

    /// The value of a flag, as bytes of the command line.
    pub fn os_value(&self, name: &str) -> Option<&OsStr> {
        self.values.get(name).map(OsString::as_os_str)
    }

    /// The value of a flag that is a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.os_value(name).map(PathBuf::from)
    }

    /// The value of a flag that is text.
    pub fn text(&self, name: &str) -> Result<Option<&str>, CliError> {
        match self.os_value(name).map(OsStr::to_str) {
            None => Ok(None),
            Some(Some(text)) => Ok(Some(text)),
            Some(None) => Err(CliError::usage(format!("the value of -{name} is not valid utf-8"))),
        }
    }
}

/// The name and inline value of an argument that is a flag. A lone dash is none.
fn split_flag(arg: &OsStr) -> Option<(String, Option<OsString>)> {
    let bytes = arg.as_bytes();
    let body =
        bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|body| !body.is_empty())?;
    let mut parts = body.splitn(2, |byte| *byte == b'=');
    let name = String::from_utf8_lossy(parts.next().expect("a split has a first part")).into_owned();
    Some((name, parts.next().map(|value| OsString::from_vec(value.to_vec()))))
}

fn unknown_flag(name: &str, flags: &[&Flag], command: Option<&str>) -> CliError {
    let names = flags.iter().map(|flag| flag.name).chain(["help"]);
    let hint = match (nearest(name, names), command) {
        (Some(near), _) => format!("did you mean -{near}?"),
        (None, Some(command)) => format!("driftless {command} -help lists the flags"),
        (None, None) => {
            "flags of a command stand after its name; driftless help lists the commands".to_owned()
        }
    };
    let place = command.map_or(String::new(), |command| format!(" for {command}"));
    CliError::usage(format!("unknown flag{place}: -{name}")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::commands;

    fn parse(command: &str, line: &str) -> Result<Args, CliError> {
        let args: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
        Args::parse(commands::find(command).unwrap(), &args, Args::default())
    }

    fn error(command: &str, line: &str) -> (u8, String) {
        let error = parse(command, line).unwrap_err();
        (error.code, format!("{error} / {}", error.hint.as_deref().unwrap_or_default()))
    }

    #[test]
    fn flags_take_one_dash_or_two_and_stand_anywhere() {
        let expected = parse("restore", "-txid 1f -o /tmp/x -force /db").unwrap();
        for line in [
            "--txid 1f --o /tmp/x --force /db",
            "-txid=1f -o=/tmp/x -force=true /db",
            "/db -txid 1f -force -o /tmp/x",
            "-o /tmp/y -txid 1f -force -o /tmp/x -- /db",
        ] {
            assert_eq!(parse("restore", line).unwrap(), expected, "{line}");
        }
        assert_eq!(expected.text("txid"), Ok(Some("1f")));
        assert_eq!(expected.path("o"), Some(PathBuf::from("/tmp/x")));
        assert!(expected.is_on("force") && !expected.is_on("json"));
        assert_eq!(expected.positionals, ["/db"]);
        assert!(!parse("restore", "-force=false /db").unwrap().is_on("force"));
        assert_eq!(parse("restore", "-- -odd").unwrap().positionals, ["-odd"]);
        assert_eq!(parse("restore", "-o a=b=c -").unwrap().positionals, ["-"]);
    }

    #[test]
    fn help_is_heard_everywhere() {
        for line in ["-h", "-help", "--help", "/db -h", "-h a b c"] {
            assert!(parse("ltx", line).unwrap().help, "{line}");
        }
    }

    #[test]
    fn wrong_flags_are_named_with_a_guess() {
        assert_eq!(
            error("restore", "-forec /db"),
            (2, "unknown flag for restore: -forec / did you mean -force?".to_owned())
        );
        assert_eq!(
            error("restore", "-integrity-chek=full /db").1,
            "unknown flag for restore: -integrity-chek / did you mean -integrity-check?"
        );
        assert_eq!(error("ltx", "-zz").1, "unknown flag for ltx: -zz / driftless ltx -help lists the flags");
        assert_eq!(error("ltx", "-level").1, "-level wants a value: -level LEVEL / ");
        assert_eq!(error("ltx", "-json=maybe").1, "-json is a switch and takes true or false only / ");
        assert_eq!(error("ltx", "a b").0, 2);
        assert!(
            error("replicate", "-force-snapshot").1.starts_with("-force-snapshot is not in this release")
        );
        assert!(parse("restore", "-f a").is_ok());
        assert!(parse("restore", "-f=false a").is_ok());
    }

    #[test]
    fn global_flags_may_stand_before_the_command() {
        let args: Vec<OsString> = ["-config", "a.yml", "status", "-json"].map(OsString::from).to_vec();
        let (before, rest) = Args::parse_leading(&args).unwrap();
        assert_eq!(rest, ["status", "-json"]);
        let args = Args::parse(commands::find("status").unwrap(), &rest[1..], before).unwrap();
        assert_eq!(args.path("config"), Some(PathBuf::from("a.yml")));
        assert!(args.is_on("json"));
        assert!(Args::parse_leading(&[OsString::from("-json")]).is_err());
    }
}
