//! The commands, their flags and their help: one table, read by the parser and printed by `help`.

mod failover;

use self::failover::{HANDOFF, LEASE, STANDBY};

/// A flag.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Its name without dashes.
    pub name: &'static str,
    /// What stands for its value in the help; a switch has none.
    pub value: Option<&'static str>,
    /// What it does, in lines.
    pub help: &'static str,
    /// Set for a flag of Litestream that is refused for now: what to do instead.
    pub later: Option<&'static str>,
}

const fn switch(name: &'static str, help: &'static str) -> Flag {
    Flag { name, value: None, help, later: None }
}

const fn value(name: &'static str, value: &'static str, help: &'static str) -> Flag {
    Flag { name, value: Some(value), help, later: None }
}

const fn later(name: &'static str, value: Option<&'static str>, instead: &'static str) -> Flag {
    Flag { name, value, help: "", later: Some(instead) }
}

/// A command.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// Its name.
    pub name: &'static str,
    /// One line for the list of commands.
    pub summary: &'static str,
    /// What stands after `driftless`, one line a form.
    pub usage: &'static [&'static str],
    /// A few sentences.
    pub about: &'static str,
    /// Its own flags; [`GLOBAL`] ones are understood as well.
    pub flags: &'static [Flag],
    /// How many arguments without a dash it takes.
    pub positionals_max: usize,
    /// Comment and command line.
    pub examples: &'static [(&'static str, &'static str)],
    /// Which exit codes it uses, from [`EXIT_CODES`].
    pub exits: &'static [u8],
}

/// Flags that every command understands.
pub const GLOBAL: &[Flag] = &[
    value(
        "config",
        "PATH",
        "The configuration file. Without it: what DRIFTLESS_CONFIG or LITESTREAM_CONFIG\nnames, then /etc/driftless.yml, then /etc/litestream.yml, whichever is there.",
    ),
    switch("no-expand-env", "Leave $VAR and ${VAR} in the configuration file as they are."),
    value("log-level", "LEVEL", "debug, info, warn or error. Without it: the configuration's, else info."),
    value("log-format", "FORMAT", "text or json. Without it: the configuration's, else text."),
];

/// What each exit code means.
pub const EXIT_CODES: [(u8, &str); 7] = [
    (0, "done"),
    (1, "failed"),
    (2, "wrong usage or configuration"),
    (3, "nothing to restore"),
    (4, "a damaged object, or a hole in the history"),
    (5, "the replica belongs to another history"),
    (6, "stopped with transactions that are not on the replica"),
];

/// The command of a name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// All commands, in the order of the help.
pub const COMMANDS: &[Command] = &[
    REPLICATE, RESTORE, STATUS, LIST, INFO, SYNC, REGISTER, UNREGISTER, START, STOP, RESET, LTX, VERIFY,
    RETAIN, STANDBY, HANDOFF, LEASE, DATABASES, CHECK, DEMO, VERSION, HELP,
];

const REPLICATE: Command = Command {
    name: "replicate",
    summary: "keep databases replicated until told to stop",
    usage: &["replicate [flags] DB REPLICA", "replicate [flags] -config PATH"],
    about: "Follows one database, or all of the configuration, and keeps each replica up to\n\
            date while applications go on writing. Nothing is written into the databases.\n\
            \n\
            The first SIGTERM or SIGINT replicates what is committed and stops; the second\n\
            stops at once. A database that does not exist yet is waited for.",
    flags: &[
        switch("once", "Replicate what is committed now, then stop."),
        switch(
            "adopt",
            "Take over a replica that belongs to another history. A fresh base is\n\
             written at the next txid; what is there stays.",
        ),
        switch(
            "restore-if-db-not-exists",
            "First restore each database that does not exist and has something on its\n\
             replica. If that fails it is not followed, and -exec starts nothing.",
        ),
        value(
            "exec",
            "CMD",
            "Start the application once its databases are followed, pass signals on to it,\n\
             and when it ends, replicate what it committed and exit with its code.",
        ),
        value(
            "addr",
            "HOST:PORT",
            "Serve metrics for Prometheus at /metrics, and health at /healthz. Without HOST:\non all addresses.",
        ),
        value(
            "state-dir",
            "PATH",
            "Where local records are kept. Without it: beside the first database.\nAll of it can be lost.",
        ),
        later("force-snapshot", None, "leave it out: a base is written whenever one is needed"),
        later(
            "enforce-retention",
            None,
            "run driftless retain: a running process does it by itself where levels are made",
        ),
    ],
    positionals_max: 2,
    examples: &[
        ("Replicate a database to a directory.", "driftless replicate /srv/app.db file:///backup/app"),
        ("Replicate everything in the configuration.", "driftless replicate -config /etc/driftless.yml"),
        (
            "Run the application under it.",
            "driftless replicate -exec \"app --port 80\" /srv/app.db /backup/app",
        ),
        ("One last upload before maintenance.", "driftless replicate -once /srv/app.db /backup/app"),
    ],
    exits: &[0, 1, 2, 4, 5, 6],
};

const RESTORE: Command = Command {
    name: "restore",
    summary: "rebuild a database from its replica",
    usage: &["restore [flags] DB", "restore [flags] -o PATH REPLICA", "restore [flags] -all [-o DIRECTORY]"],
    about: "Rebuilds a database: the newest state, a transaction, or a moment. DB is looked up\n\
            in the configuration; REPLICA is a URL or a directory. The file is built beside\n\
            its target, checked, and put in place last, so that a restore that fails leaves\n\
            what was there.",
    flags: &[
        value("o", "PATH", "Where to put the database. Without it: where the configuration has it."),
        switch(
            "all",
            "Each database of the configuration, one after the other; with -o under its\n\
             name in that directory. One that fails does not keep the others from it.",
        ),
        value("txid", "TXID", "Up to and with this transaction, 1 to 16 hexadecimal digits."),
        value(
            "timestamp",
            "TIME",
            "Up to the last transaction at or before this time, in RFC 3339 with an\n\
             offset: 2026-01-31T12:00:00Z, 2026-01-31T14:00:00+02:00; or as \"10 minutes ago\".",
        ),
        value(
            "generation",
            "NAME",
            "Of a replica that litestream 0.3 wrote: this generation, 16 hexadecimal digits.\n\
             Without it: the one that was written last.",
        ),
        value("index", "INDEX", "Up to the end of the wal of this index, with -generation."),
        switch("if-db-not-exists", "Exit with 0 and change nothing if the target exists."),
        switch("if-replica-exists", "Exit with 0 if there is nothing to restore from."),
        switch(
            "force",
            "Replace an existing target with its -wal, -shm and -journal; not before\nthe replacement is complete and checked. Of an older copy only what has\nchanged since is fetched.",
        ),
        switch(
            "dry-run",
            "Say what would be read, and write nothing; with -force, what over the\ndatabase that is there.",
        ),
        value(
            "integrity-check",
            "MODE",
            "none, quick or full: what SQLite is asked about the result before it is\nput in place. Without it: none, the checksums of the chain suffice.",
        ),
        value("parallelism", "N", "Requests at a time, 1 to 256; of content 12 MiB at most. Without it: 16."),
        switch("json", "Print the outcome (with -dry-run, the plan) as JSON."),
        switch(
            "f",
            "Go on after the restore: the database follows the replica until the command is\n\
             told to end, and others may read it meanwhile.",
        ),
        value("follow-interval", "DURATION", "How often -f looks at the replica. Without it: 1s."),
    ],
    positionals_max: 1,
    examples: &[
        ("The newest state, to the place in the configuration.", "driftless restore /srv/app.db"),
        ("From a directory, to another place.", "driftless restore -o /tmp/app.db /backup/app"),
        (
            "The state before an accident.",
            "driftless restore -timestamp 2026-01-31T11:59:00Z -o /tmp/app.db file:///backup/app",
        ),
        (
            "What was there an hour ago, of everything.",
            "driftless restore -all -timestamp '1h ago' -o /srv/then",
        ),
        (
            "On a fresh host, before the application starts.",
            "driftless restore -if-db-not-exists -if-replica-exists /srv/app.db",
        ),
    ],
    exits: &[0, 1, 2, 3, 4],
};

const SOCKET: Flag = value(
    "socket",
    "PATH",
    "The control socket of the process to ask. Without it: where the configuration\n\
     has it, in the state directory, or Litestream's /var/run/litestream.sock.",
);
const STATE_DIR: Flag = value("state-dir", "PATH", "The -state-dir of the process to ask.");
const JSON: Flag = switch("json", "Print JSON, with Litestream's fields.");
const TIMEOUT: Flag =
    value("timeout", "SECONDS", "How long it may take, in seconds or as a duration. Without it: 30.");

const STATUS: Command = Command {
    name: "status",
    summary: "show how far each database is replicated",
    usage: &["status [flags] [DB [REPLICA]]"],
    about: "Asks the running process; where none runs, looks at the files and the replica.\n\
            Without DB, all databases of the configuration, and those that are registered.",
    flags: &[
        switch("json", "Print JSON: Litestream's fields and more."),
        switch(
            "watch",
            "Show it again and again, the worst first, until Ctrl-C: on a terminal in place,\n\
             elsewhere as tables, with -json a line each time. Only processes are asked.",
        ),
        value(
            "interval",
            "DURATION",
            "With -watch: from one look to the next, at least 100ms. Without it: 2s.",
        ),
        SOCKET,
        STATE_DIR,
    ],
    positionals_max: 2,
    examples: &[
        ("All databases of the configuration.", "driftless status"),
        ("One, for a script.", "driftless status -json /srv/app.db"),
        ("Live, while something goes on.", "driftless status -watch"),
        ("One without a configuration.", "driftless status /srv/app.db /backup/app"),
    ],
    exits: &[0, 1, 2],
};

const LIST: Command = Command {
    name: "list",
    summary: "list the databases of a running process",
    usage: &["list [flags]"],
    about: "Asks a running process which databases it has, and what each of them is doing:\n\
            replicating, stopping, stopped (on request), or ended (by itself).",
    flags: &[
        JSON,
        SOCKET,
        STATE_DIR,
        value("timeout", "SECONDS", "How long it may take, in seconds or as a duration. Without it: 10."),
    ],
    positionals_max: 0,
    examples: &[("What runs here.", "driftless list"), ("For a script.", "driftless list -json")],
    exits: &[0, 1, 2],
};

const INFO: Command = Command {
    name: "info",
    summary: "show what a running process is",
    usage: &["info [flags]"],
    about: "Asks a running process for its version, its process number, how long it has run,\n\
            how many databases it has, and where its state directory is.",
    flags: LIST.flags,
    positionals_max: 0,
    examples: &[("By its socket.", "driftless info -socket /run/driftless.sock")],
    exits: &[0, 1, 2],
};

const SYNC: Command = Command {
    name: "sync",
    summary: "replicate what is committed now",
    usage: &["sync [flags] DB"],
    about: "Has a running process replicate what is committed without waiting for the sync\n\
            interval. With -wait it ends when everything that was committed before is on the\n\
            replica, however much is committed meanwhile; if that takes longer than -timeout,\n\
            it fails and says why.",
    flags: &[switch("wait", "End when it is on the replica."), TIMEOUT, JSON, SOCKET, STATE_DIR],
    positionals_max: 1,
    examples: &[
        ("Before a risky step.", "driftless sync -wait /srv/app.db"),
        ("With more time.", "driftless sync -wait -timeout 5m /srv/app.db"),
    ],
    exits: &[0, 1, 2],
};

const REGISTER: Command = Command {
    name: "register",
    summary: "add a database to a running process",
    usage: &["register [flags] DB REPLICA", "register [flags] -replica URL DB"],
    about: "Has a running process replicate one more database. It is written down in the state\n\
            directory before this command ends, and is there again after a restart. Where the\n\
            configuration names the database or the replica too, the configuration wins.",
    flags: &[
        value("replica", "URL", "The replica, as Litestream wants it given."),
        TIMEOUT,
        JSON,
        SOCKET,
        STATE_DIR,
    ],
    positionals_max: 2,
    examples: &[("One more.", "driftless register /srv/new.db file:///backup/new")],
    exits: &[0, 1, 2],
};

const UNREGISTER: Command = Command {
    name: "unregister",
    summary: "take a database out of a running process",
    usage: &["unregister [flags] DB"],
    about: "Has a running process make a last sync of a database, let it go and forget it. The\n\
            replica stays, and registering the same pair again continues it. A last sync that\n\
            fails is told (exit code 6); the database is forgotten all the same. One that the\n\
            configuration names comes back when that is read again.",
    flags: &[
        value("timeout", "SECONDS", "How long the last sync may take. Without it: 30."),
        switch("dry-run", "Say what would be done, and do nothing."),
        JSON,
        SOCKET,
        STATE_DIR,
    ],
    positionals_max: 1,
    examples: &[("A customer has left.", "driftless unregister /srv/old.db")],
    exits: &[0, 1, 2, 6],
};

const START: Command = Command {
    name: "start",
    summary: "replicate a stopped database again",
    usage: &["start [flags] DB"],
    about: "Has a running process start a database that was stopped, or that has ended because\n\
            of an error.",
    flags: &[TIMEOUT, JSON, SOCKET, STATE_DIR],
    positionals_max: 1,
    examples: &[("After maintenance.", "driftless start /srv/app.db")],
    exits: &[0, 1, 2],
};

const STOP: Command = Command {
    name: "stop",
    summary: "let go of a database until it is started",
    usage: &["stop [flags] DB"],
    about: "Has a running process make a last sync of a database and let go of it. It rests\n\
            until driftless start, or until the process is started again. A last sync that\n\
            fails is told (exit code 6); the database is let go all the same.",
    flags: &[
        value("timeout", "SECONDS", "How long the last sync may take. Without it: 30."),
        JSON,
        SOCKET,
        STATE_DIR,
    ],
    positionals_max: 1,
    examples: &[("Before maintenance.", "driftless stop /srv/app.db")],
    exits: &[0, 1, 2, 4, 5, 6],
};

const RESET: Command = Command {
    name: "reset",
    summary: "forget the local state of a database",
    usage: &["reset [flags] DB"],
    about: "Forgets what is known of a database's replica, so that a whole base is written\n\
            next. Of use when the replica is damaged, or the local records are in doubt: from\n\
            then on the newest state restores from that base alone. Whose history it is stays\n\
            known, and nothing on the replica is removed. A running process makes a last sync,\n\
            resets, and goes on.",
    flags: &[
        value("timeout", "SECONDS", "How long the last sync may take. Without it: 30."),
        switch("dry-run", "Say what would be done, and do nothing."),
        switch("json", "Print JSON."),
        SOCKET,
        value("state-dir", "PATH", "The -state-dir of the process, running or not."),
    ],
    positionals_max: 1,
    examples: &[("After driftless verify found damage.", "driftless reset /srv/app.db")],
    exits: &[0, 1, 2],
};

const LTX: Command = Command {
    name: "ltx",
    summary: "list the segments of a replica",
    usage: &["ltx [flags] DB", "ltx [flags] REPLICA"],
    about: "Lists the files that a replica consists of. Level 0 holds captures, 1 to 8 hold\n\
            compactions, 9 holds snapshots.",
    flags: &[
        value("level", "LEVEL", "0 to 9, or all. Without it: 0."),
        switch("json", "Print JSON, with Litestream's fields."),
    ],
    positionals_max: 1,
    examples: &[
        ("What was captured lately.", "driftless ltx /srv/app.db"),
        ("Everything in a directory.", "driftless ltx -level all /backup/app"),
    ],
    exits: &[0, 1, 2],
};

const VERIFY: Command = Command {
    name: "verify",
    summary: "read a whole replica and check every object and link",
    usage: &["verify [flags] DB", "verify [flags] REPLICA"],
    about: "Reads every segment: its checksums, its pages, and its link to the one before it.\n\
            Each fault is named with its object. With -restore it then restores the newest state to\n\
            a scratch file in the directory for temporary files (TMPDIR), and removes it again.",
    flags: &[
        switch("json", "Print JSON."),
        switch("restore", "If all is sound, restore the newest state, prove it, and remove it again."),
        value("integrity-check", "MODE", "With -restore: none, quick (the default) or full."),
    ],
    positionals_max: 1,
    examples: &[
        ("Check a replica.", "driftless verify /backup/app"),
        ("A drill from a timer.", "driftless verify -restore -integrity-check full s3://backups/app"),
    ],
    exits: &[0, 1, 2, 3, 4],
};

const RETAIN: Command = Command {
    name: "retain",
    summary: "delete what a replica need not keep, or say what that is",
    usage: &["retain [flags] DB", "retain [flags] REPLICA"],
    about: "Makes one pass of the retention, as a running process makes by itself: files that a file of\n\
            a higher level holds, and what a snapshot holds that is older than all that must stay\n\
            restorable. What holds them is read whole before anything goes. With -dry-run nothing is\n\
            deleted. The times are those of the configuration, or Litestream's.",
    flags: &[
        switch("dry-run", "Say what would go, and why it may."),
        switch("json", "Print JSON."),
        value(
            "snapshot-retention",
            "DURATION",
            "How long every end of a level's file stays restorable: 24h.",
        ),
        value("l0-retention", "DURATION", "How long a file stays after another holds what it does: 5m."),
    ],
    positionals_max: 1,
    examples: &[
        ("What would go, and why.", "driftless retain -dry-run /srv/app.db"),
        ("A replica without its configuration.", "driftless retain -dry-run s3://backups/app"),
    ],
    exits: &[0, 1, 2],
};

const DATABASES: Command = Command {
    name: "databases",
    summary: "list the databases of the configuration",
    usage: &["databases [flags]"],
    about: "Lists the databases of the configuration and the kind of their replicas.",
    flags: &[switch("json", "Print JSON, with Litestream's fields.")],
    positionals_max: 0,
    examples: &[("What would be replicated.", "driftless databases -config ./driftless.yml")],
    exits: &[0, 2],
};

const CHECK: Command = Command {
    name: "check",
    summary: "say what a configuration would do, without doing it",
    usage: &["check [flags] [DB]", "check [flags] DB REPLICA"],
    about: "Reads the configuration and looks at each database: whether it would be replicated,\n\
            where to, with whose credentials and which options; what is ignored, and what\n\
            would not work. Opens and writes nothing, and asks no store. A process that\n\
            runs already is asked whether a validation has found a replica damaged.",
    flags: &[
        switch("connect", "Also list one object of each replica, which takes its credentials."),
        switch("json", "Print JSON."),
    ],
    positionals_max: 2,
    examples: &[
        ("Before the first start.", "driftless check -config ./litestream.yml"),
        ("Whether the bucket is to be reached.", "driftless check -connect"),
        ("A pair, without a configuration.", "driftless check /srv/app.db s3://bucket/app"),
    ],
    exits: &[0, 2, 4],
};

const DEMO: Command = Command {
    name: "demo",
    summary: "see it work, in about twenty seconds",
    usage: &["demo [flags]"],
    about: "Makes a database, writes to it at speed, replicates it to a directory, kills the\n\
            replicator without warning and starts it again, restores, and compares the result\n\
            with the source page for page. Everything happens in a temporary directory.",
    flags: &[
        value("seconds", "N", "How long to write, 2 to 3600. Without it: 14."),
        switch("keep", "Keep the directory."),
    ],
    positionals_max: 0,
    examples: &[
        ("The tour.", "driftless demo"),
        ("A short one whose files stay.", "driftless demo -seconds 4 -keep"),
    ],
    exits: &[0, 1],
};

const VERSION: Command = Command {
    name: "version",
    summary: "print the version",
    usage: &["version [flags]"],
    about: "Prints the version.",
    flags: &[switch("verbose", "Also print the versions of SQLite and of the formats, and the target.")],
    positionals_max: 0,
    examples: &[("For a bug report.", "driftless version -verbose")],
    exits: &[0],
};

const HELP: Command = Command {
    name: "help",
    summary: "explain a command",
    usage: &["help [COMMAND]"],
    about: "Explains a command, or lists them all.",
    flags: &[],
    positionals_max: 1,
    examples: &[("All about restoring.", "driftless help restore")],
    exits: &[0, 2],
};

/// The list of commands.
pub fn overview() -> String {
    let mut text = String::from(
        "driftless keeps SQLite databases replicated, and restores them to any transaction.\n\n\
         usage: driftless COMMAND [flags] [arguments]\n\ncommands:\n",
    );
    for command in COMMANDS {
        text.push_str(&format!("  {:<11} {}\n", command.name, command.summary));
    }
    text.push_str("\nflags take one dash or two. driftless help COMMAND tells more.\n");
    text
}

/// All about a command.
pub fn help(command: &Command) -> String {
    let mut text = format!("driftless {}: {}\n\nusage:\n", command.name, command.summary);
    for usage in command.usage {
        text.push_str(&format!("  driftless {usage}\n"));
    }
    text.push_str(&format!("\n{}\n", command.about));
    push_flags(&mut text, "flags", command.flags);
    push_flags(&mut text, "flags of every command", GLOBAL);
    text.push_str("\nexamples:\n");
    for (comment, line) in command.examples {
        text.push_str(&format!("  # {comment}\n  $ {line}\n"));
    }
    text.push_str("\nexit codes:\n");
    for (code, meaning) in EXIT_CODES.iter().filter(|(code, _)| command.exits.contains(code)) {
        text.push_str(&format!("  {code}  {meaning}\n"));
    }
    text
}

fn push_flags(text: &mut String, heading: &str, flags: &[Flag]) {
    let mut shown = flags.iter().filter(|flag| flag.later.is_none()).peekable();
    if shown.peek().is_none() {
        return;
    }
    text.push_str(&format!("\n{heading}:\n"));
    for flag in shown {
        let value = flag.value.map_or(String::new(), |value| format!(" {value}"));
        text.push_str(&format!("  -{}{value}\n", flag.name));
        for line in flag.help.lines() {
            text.push_str(&format!("      {line}\n"));
        }
    }
}

#[cfg(test)]
#[path = "commands_tests.rs"]
mod tests;
