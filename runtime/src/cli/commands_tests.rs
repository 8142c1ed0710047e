//! The table of commands says of each what it is.

use super::*;

#[test]
fn every_command_explains_itself() {
    for command in COMMANDS {
        let text = help(command);
        for line in text.lines() {
            assert!(line.chars().count() <= 110, "{}: {line}", command.name);
        }
        assert!(!command.examples.is_empty() && command.exits.contains(&0), "{}", command.name);
        assert!(overview().contains(command.summary));
        for flag in command.flags.iter().filter(|flag| flag.later.is_none()) {
            assert!(text.contains(&format!("\n  -{}", flag.name)), "{}", flag.name);
        }
    }
}

#[test]
fn litestreams_flags_are_known() {
    let known = |command: &str, flag: &str| {
        find(command).unwrap().flags.iter().chain(GLOBAL).any(|known| known.name == flag)
    };
    for (command, flags) in [
        (
            "replicate",
            "config exec once force-snapshot enforce-retention log-level no-expand-env restore-if-db-not-exists",
        ),
        (
            "restore",
            "config no-expand-env txid timestamp o if-db-not-exists if-replica-exists dry-run force json f \
             follow-interval parallelism integrity-check",
        ),
        ("ltx", "config no-expand-env level json"),
        ("databases", "config json no-expand-env"),
        ("status", "config json no-expand-env"),
        ("version", "verbose"),
        ("list", "json socket timeout"),
        ("info", "json socket timeout"),
        ("sync", "wait timeout socket json"),
        ("register", "replica timeout socket json"),
        ("unregister", "timeout socket dry-run json"),
        ("start", "timeout socket json"),
        ("stop", "timeout socket json"),
        ("reset", "config no-expand-env dry-run"),
    ] {
        for flag in flags.split_whitespace() {
            assert!(known(command, flag), "{command} -{flag}");
        }
    }
}

#[test]
fn exit_codes_are_those_of_the_core() {
    assert!(EXIT_CODES.iter().enumerate().all(|(i, (code, _))| usize::from(*code) == i));
}
